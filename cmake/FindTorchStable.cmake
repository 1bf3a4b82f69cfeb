# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
#
# Finds the headers and the one library that operators on PyTorch's stable ABI need, in the Python
# environment that is being installed into:
#
#   TorchStable           imported target: system include directories and libtorch_cpu
#   TorchStable_VERSION   of the headers; the ABI floor is set where the operators are built
#
# find_package(Torch) is not used: it drags in the C++ ABI, the CUDA toolkit and compiler flags. pip's
# build isolation hides the environment's packages from `import`, but not from sysconfig, so both are
# asked. Set TorchStable_ROOT to a `torch` package folder to skip the search.
if(NOT TorchStable_ROOT)
  find_package(Python 3.10 QUIET COMPONENTS Interpreter)
  if(Python_Interpreter_FOUND)
    execute_process(
      COMMAND "${Python_EXECUTABLE}" "${CMAKE_CURRENT_LIST_DIR}/find_torch.py"
      OUTPUT_VARIABLE TorchStable_ROOT OUTPUT_STRIP_TRAILING_WHITESPACE)
  endif()
endif()

if(TorchStable_ROOT)
  find_path(TorchStable_INCLUDE_DIR torch/csrc/stable/library.h
            PATHS "${TorchStable_ROOT}/include" NO_DEFAULT_PATH NO_CACHE)
  find_library(TorchStable_LIBRARY torch_cpu PATHS "${TorchStable_ROOT}/lib" NO_DEFAULT_PATH NO_CACHE)
  if(EXISTS "${TorchStable_ROOT}/version.py")
    file(STRINGS "${TorchStable_ROOT}/version.py" TorchStable_VERSION REGEX "^__version__ *= *")
    string(REGEX MATCH "[0-9]+\\.[0-9]+(\\.[0-9]+)?" TorchStable_VERSION "${TorchStable_VERSION}")
  endif()
  if(TorchStable_VERSION AND TorchStable_VERSION VERSION_LESS 2.10)
    message(FATAL_ERROR "nearfield: got PyTorch ${TorchStable_VERSION} in ${TorchStable_ROOT}, "
                        "expected 2.10 or newer; upgrade it, or build the C++ library alone with "
                        "-DNEARFIELD_TORCH=OFF.")
  endif()
endif()

if(TorchStable_LIBRARY AND TorchStable_INCLUDE_DIR)
  set(TorchStable_FOUND TRUE)
  if(NOT TorchStable_FIND_QUIETLY)
    message(STATUS "Found PyTorch ${TorchStable_VERSION} (stable ABI): ${TorchStable_ROOT}")
  endif()
elseif(TorchStable_FIND_REQUIRED)
  message(FATAL_ERROR "nearfield: no PyTorch (2.10 or newer) in the environment of "
                      "'${Python_EXECUTABLE}'. Install it first (pip install torch), then nearfield; "
                      "or build the C++ library alone with -DNEARFIELD_TORCH=OFF.")
endif()

if(TorchStable_FOUND AND NOT TARGET TorchStable)
  add_library(TorchStable UNKNOWN IMPORTED)  # imported, so its includes are SYSTEM ones
  set_target_properties(TorchStable PROPERTIES
    IMPORTED_LOCATION "${TorchStable_LIBRARY}"
    INTERFACE_INCLUDE_DIRECTORIES "${TorchStable_INCLUDE_DIR}")
endif()
