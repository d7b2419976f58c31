# Eigen, xsimd and threads, and nlohmann_json where there is one. Any version that the sources
# compile with will do, so none is asked for. Used by the build and by the installed package;
# targets that a parent project has already defined are taken as they are.

if(NOT TARGET Eigen3::Eigen)
  find_package(Eigen3 CONFIG REQUIRED)
endif()
if(NOT TARGET xsimd AND NOT TARGET xsimd::xsimd)
  find_package(xsimd CONFIG REQUIRED)
endif()
if(NOT TARGET xsimd)  # some package managers export it under a namespace
  add_library(xsimd INTERFACE IMPORTED)
  target_link_libraries(xsimd INTERFACE xsimd::xsimd)
endif()
# Debian's xsimd target links xtl, which xsimd needs for std::complex only and its package does not
# bring: the linker would look for -lxtl.
get_target_property(xsimd_libraries xsimd INTERFACE_LINK_LIBRARIES)
if(xsimd_libraries AND "xtl" IN_LIST xsimd_libraries AND NOT TARGET xtl)
  find_package(xtl CONFIG QUIET)
  if(NOT TARGET xtl)
    list(REMOVE_ITEM xsimd_libraries xtl)
    set_target_properties(xsimd PROPERTIES INTERFACE_LINK_LIBRARIES "${xsimd_libraries}")
  endif()
endif()
if(NOT TARGET Threads::Threads)
  find_package(Threads REQUIRED)
endif()
if(NOT TARGET nlohmann_json::nlohmann_json)
  find_package(nlohmann_json CONFIG QUIET)
endif()
