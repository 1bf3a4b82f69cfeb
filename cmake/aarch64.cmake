# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
#
# Cross-compiles for 64-bit Arm Linux with Debian's compiler; tests run under qemu-user:
#
#   apt-get install g++-aarch64-linux-gnu qemu-user googletest libhwy-dev
#   cmake --preset aarch64 && cmake --build --preset aarch64 && ctest --preset aarch64
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_CXX_COMPILER aarch64-linux-gnu-g++)
set(CMAKE_C_COMPILER aarch64-linux-gnu-gcc)  # GoogleTest's sources ask for one
set(CMAKE_CROSSCOMPILING_EMULATOR qemu-aarch64 -L /usr/aarch64-linux-gnu)

# Programs are the host's, libraries and headers the target's. Highway is headers only and the same for
# both, so the host's serve; they are reached through a folder of their own, since the rest of the host's
# include directory is not the target's.
set(CMAKE_FIND_ROOT_PATH /usr/aarch64-linux-gnu)
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_PACKAGE ONLY)
if(NOT DEFINED NEARFIELD_HIGHWAY_INCLUDE AND EXISTS /usr/include/hwy/highway.h)
  file(MAKE_DIRECTORY "${CMAKE_BINARY_DIR}/host-headers")
  file(CREATE_LINK /usr/include/hwy "${CMAKE_BINARY_DIR}/host-headers/hwy" SYMBOLIC)
  set(NEARFIELD_HIGHWAY_INCLUDE "${CMAKE_BINARY_DIR}/host-headers" CACHE PATH "The folder of hwy/highway.h")
endif()

# Debian has GoogleTest for the host only, and its sources.
set(NEARFIELD_GTEST_SOURCE /usr/src/googletest CACHE PATH "Sources of GoogleTest, built along with the tests")
