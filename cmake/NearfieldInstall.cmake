# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
#
# Libraries, headers and `find_package(nearfield)`: into a prefix, or, in a wheel (SKBUILD), into the
# Python package's own folder, where each shared library finds the other beside it.
set(torch "")
if(TARGET nearfield_torch)
  set(torch nearfield_torch)
endif()

if(SKBUILD)
  set(NEARFIELD_LIB_DIR .)
  set(NEARFIELD_CMAKE_DIR share/cmake/nearfield)
  set(component COMPONENT python)
  # The package `torch` lies beside ours.
  set(NEARFIELD_TORCH_HINT "HINTS \"\${PACKAGE_PREFIX_DIR}/../torch/share/cmake/Torch\"")
  set_target_properties(nearfield ${torch} PROPERTIES BUILD_WITH_INSTALL_RPATH ON INSTALL_RPATH "$ORIGIN")
else()
  set(NEARFIELD_LIB_DIR "${CMAKE_INSTALL_LIBDIR}")
  set(NEARFIELD_CMAKE_DIR "${CMAKE_INSTALL_LIBDIR}/cmake/nearfield")
  set(component "")
  set(NEARFIELD_TORCH_HINT "")
  # Not in a wheel, which holds no symbolic links. Before 1.0 every minor version may change the ABI.
  set_target_properties(nearfield ${torch} PROPERTIES
    VERSION ${PROJECT_VERSION} SOVERSION ${PROJECT_VERSION_MAJOR}.${PROJECT_VERSION_MINOR})
endif()

set(destinations
  LIBRARY DESTINATION "${NEARFIELD_LIB_DIR}" ${component}
  ARCHIVE DESTINATION "${NEARFIELD_LIB_DIR}" ${component}
  RUNTIME DESTINATION "${NEARFIELD_LIB_DIR}" ${component})
install(TARGETS nearfield EXPORT nearfieldTargets ${destinations})
install(EXPORT nearfieldTargets NAMESPACE nearfield:: DESTINATION "${NEARFIELD_CMAKE_DIR}" ${component})
if(torch)  # a set of its own, which is read only where PyTorch is asked for
  install(TARGETS nearfield_torch EXPORT nearfieldTorchTargets ${destinations})
  install(EXPORT nearfieldTorchTargets NAMESPACE nearfield:: DESTINATION "${NEARFIELD_CMAKE_DIR}" ${component})
endif()
install(DIRECTORY "${PROJECT_SOURCE_DIR}/include/nearfield" DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}" ${component})

# What a static nearfield hands on to its users' link line, and the package that provides it.
set(NEARFIELD_DEPENDENCIES "")
get_target_property(links nearfield LINK_LIBRARIES)
get_target_property(type nearfield TYPE)
if("${links}" MATCHES "CUDA::" AND type STREQUAL STATIC_LIBRARY)  # a shared one has the runtime in it
  string(APPEND NEARFIELD_DEPENDENCIES "find_dependency(CUDAToolkit)\n")
endif()
foreach(package IN ITEMS Threads OpenMP hwy)
  if("${links}" MATCHES "${package}::")
    string(APPEND NEARFIELD_DEPENDENCIES "find_dependency(${package})\n")
  endif()
endforeach()

include(CMakePackageConfigHelpers)
configure_package_config_file(
  "${PROJECT_SOURCE_DIR}/cmake/nearfieldConfig.cmake.in" "${PROJECT_BINARY_DIR}/nearfieldConfig.cmake"
  INSTALL_DESTINATION "${NEARFIELD_CMAKE_DIR}" NO_SET_AND_CHECK_MACRO)
write_basic_package_version_file("${PROJECT_BINARY_DIR}/nearfieldConfigVersion.cmake"
                                 COMPATIBILITY SameMinorVersion)
install(FILES "${PROJECT_BINARY_DIR}/nearfieldConfig.cmake" "${PROJECT_BINARY_DIR}/nearfieldConfigVersion.cmake"
        DESTINATION "${NEARFIELD_CMAKE_DIR}" ${component})
