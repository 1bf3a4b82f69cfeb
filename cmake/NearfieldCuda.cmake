# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
#
# Sets NEARFIELD_HAS_CUDA: whether the CUDA backends are built.
set(NEARFIELD_HAS_CUDA FALSE)
if(NEARFIELD_CUDA STREQUAL AUTO)
  include(CheckLanguage)
  check_language(CUDA)
  if(CMAKE_CUDA_COMPILER)
    set(NEARFIELD_HAS_CUDA TRUE)
  endif()
elseif(NEARFIELD_CUDA STREQUAL ON)
  set(NEARFIELD_HAS_CUDA TRUE)
endif()

if(NEARFIELD_HAS_CUDA)
  # Machine code for 8.0 and 9.0, and PTX of 8.0, which drivers compile for everything newer. Both are made from that
  # PTX: the kernels use nothing that came later, and it is made once.
  set(NEARFIELD_CUDA_ALSO "" CACHE STRING "More GPUs that get machine code: 100;120")
  if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES)
    set(CMAKE_CUDA_ARCHITECTURES 80)
    list(PREPEND NEARFIELD_CUDA_ALSO 90)
  endif()
  enable_language(CUDA)
  if(CMAKE_CUDA_COMPILER_VERSION VERSION_LESS 12.0)
    message(FATAL_ERROR "NEARFIELD_CUDA: got nvcc ${CMAKE_CUDA_COMPILER_VERSION} (${CMAKE_CUDA_COMPILER}), expected "
      "12.0 or newer, which know C++20; another one with -DCMAKE_CUDA_COMPILER=, or none with -DNEARFIELD_CUDA=OFF")
  endif()
  if(NOT CMAKE_CUDA20_STANDARD_COMPILE_OPTION)  # CMake 3.25 does not know that nvcc 13 has C++20
    set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION "-std=c++20")
    set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION "-std=c++20")
  endif()
  find_package(CUDAToolkit REQUIRED)
endif()
