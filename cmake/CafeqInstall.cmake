# Headers, the CMake package `cafeq` and pkg-config's `cafeq` and `cafeq-io`. Nothing depends on the
# architecture.
include(CMakePackageConfigHelpers)
include(GNUInstallDirs)

set(package_dir ${CMAKE_INSTALL_DATADIR}/cmake/cafeq)

install(DIRECTORY include/cafeq DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(TARGETS cafeq EXPORT cafeq)
if(TARGET cafeq_io)
  install(TARGETS cafeq_io EXPORT cafeq_io)
  install(EXPORT cafeq_io NAMESPACE cafeq:: FILE cafeq-io-targets.cmake DESTINATION ${package_dir})
endif()
install(EXPORT cafeq NAMESPACE cafeq:: FILE cafeq-targets.cmake DESTINATION ${package_dir})

configure_package_config_file(cmake/cafeq-config.cmake.in cafeq-config.cmake
                              INSTALL_DESTINATION ${package_dir}
                              NO_SET_AND_CHECK_MACRO)
write_basic_package_version_file(cafeq-config-version.cmake
                                 COMPATIBILITY SameMinorVersion ARCH_INDEPENDENT)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/cafeq-config.cmake
              ${CMAKE_CURRENT_BINARY_DIR}/cafeq-config-version.cmake
              cmake/CafeqDependencies.cmake cmake/CafeqCompiled.cmake cmake/CafeqDispatch.cmake
              cmake/CafeqIsolate.cmake
        DESTINATION ${package_dir})

foreach(name cafeq cafeq-io)
  configure_file(cmake/${name}.pc.in ${name}.pc @ONLY)
  install(FILES ${CMAKE_CURRENT_BINARY_DIR}/${name}.pc
          DESTINATION ${CMAKE_INSTALL_DATADIR}/pkgconfig)
endforeach()
install(FILES LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR})
