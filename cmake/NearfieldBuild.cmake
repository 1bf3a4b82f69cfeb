# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
#
# How everything here is compiled. Variables are set in our own scope only: a project that takes
# nearfield in by add_subdirectory() keeps its own settings.
set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_CXX_VISIBILITY_PRESET hidden)
set(CMAKE_VISIBILITY_INLINES_HIDDEN ON)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)  # the static library may end up in someone's shared one

if(NEARFIELD_DEVELOPER)
  add_compile_options("$<$<COMPILE_LANGUAGE:CXX>:-Wall;-Wextra>")
  if(CMAKE_CXX_COMPILER_ID STREQUAL GNU AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 13)
    add_compile_options($<$<COMPILE_LANGUAGE:CXX>:-Wno-restrict>)  # false on std::string (GCC bug 105651)
  endif()
endif()

if(NEARFIELD_SANITIZE)
  add_compile_options(-fsanitize=${NEARFIELD_SANITIZE} -fno-omit-frame-pointer)
  add_link_options(-fsanitize=${NEARFIELD_SANITIZE})
  if(NEARFIELD_SANITIZE MATCHES undefined)
    add_compile_options(-fno-sanitize-recover=all)  # a finding ends the test
  endif()
  if(CMAKE_CXX_COMPILER_ID STREQUAL GNU)
    add_compile_options(-Wno-maybe-uninitialized -Wno-stringop-overflow)  # false under instrumentation
  endif()
endif()

# The caller's choice of launcher stands.
if(PROJECT_IS_TOP_LEVEL AND NOT DEFINED CMAKE_CXX_COMPILER_LAUNCHER)
  find_program(NEARFIELD_CCACHE ccache)
  mark_as_advanced(NEARFIELD_CCACHE)
  if(NEARFIELD_CCACHE)
    set(CMAKE_CXX_COMPILER_LAUNCHER "${NEARFIELD_CCACHE}")
    set(CMAKE_CUDA_COMPILER_LAUNCHER "${NEARFIELD_CCACHE}")
  endif()
endif()
