# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
#
# Two installations. In a wheel (SKBUILD) the shared libraries go into the Python package, each finding
# the other beside it. Otherwise: library, headers and `find_package(nearfield)`.
if(SKBUILD)
  set(libraries nearfield)
  if(TARGET nearfield_torch)
    list(APPEND libraries nearfield_torch)
  endif()
  set_target_properties(${libraries} PROPERTIES BUILD_WITH_INSTALL_RPATH ON INSTALL_RPATH "$ORIGIN")
  install(TARGETS ${libraries} COMPONENT python
          LIBRARY DESTINATION . RUNTIME DESTINATION .)
  return()
endif()

# Not in a wheel, which holds no symbolic links. Before 1.0 every minor version may change the ABI.
set_target_properties(nearfield PROPERTIES
  VERSION ${PROJECT_VERSION} SOVERSION ${PROJECT_VERSION_MAJOR}.${PROJECT_VERSION_MINOR})

set(NEARFIELD_CMAKE_DIR "${CMAKE_INSTALL_LIBDIR}/cmake/nearfield")
install(TARGETS nearfield EXPORT nearfieldTargets INCLUDES DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}")
install(DIRECTORY "${PROJECT_SOURCE_DIR}/include/nearfield" DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}")
install(EXPORT nearfieldTargets NAMESPACE nearfield:: DESTINATION "${NEARFIELD_CMAKE_DIR}")

# What a static nearfield hands on to its users' link line, and the package that provides it.
set(NEARFIELD_DEPENDENCIES "")
get_target_property(links nearfield LINK_LIBRARIES)
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
        DESTINATION "${NEARFIELD_CMAKE_DIR}")
