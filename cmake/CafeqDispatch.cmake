# cafeq_add_dispatch(<target> SOURCES <source>... [ARCHS generic avx2 avx512 neon]
#                    [LIBRARIES <library>...])
#
# Compiles the sources, which define tables of functions (cafeq/simd/dispatch.hpp), once for each of
# the named architectures that the target processor's kind has, and links them to <target>. Without
# ARCHS all of them: generic (SSE2), avx2 (x86-64-v3) and avx512 (x86-64-v4) for x86-64; neon for
# aarch64; generic elsewhere. The sources have <target>'s include directories, definitions and
# options, and the LIBRARIES besides; cafeq::compiled among these is the one for the architecture.
#
# What is compiled for one architecture is linked with itself and stripped of its global symbols but
# for the tables. Otherwise the linker could take the copy of an inline function that was compiled
# for AVX2 for the whole program. Needs GNU ld (CAFEQ_LD), whichever linker links the program, and
# objcopy and nm of any kind.

# cafeq_architectures(<variable> [<name> ...]): those of the names, or of all, that the target
# processor's kind has.
function(cafeq_architectures variable)
  if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64|amd64)$")
    set(here generic avx2 avx512)
  elseif(CMAKE_SYSTEM_PROCESSOR MATCHES "^(aarch64|arm64|ARM64)$")
    set(here neon)
  else()
    set(here generic)
  endif()
  set(found "")
  foreach(arch ${ARGN})
    if(NOT arch MATCHES "^(generic|avx2|avx512|neon)$")
      message(FATAL_ERROR "cafeq_add_dispatch: ${arch} is none of generic, avx2, avx512, neon")
    endif()
  endforeach()
  foreach(arch ${here})
    if(NOT ARGN OR arch IN_LIST ARGN)
      list(APPEND found ${arch})
    endif()
  endforeach()
  if(NOT found)
    message(FATAL_ERROR
            "cafeq_add_dispatch: for ${CMAKE_SYSTEM_PROCESSOR} there is ${here}, not ${ARGN}")
  endif()
  set(${variable} ${found} PARENT_SCOPE)
endfunction()

# What the objects of a target are compiled with; its property CAFEQ_ARCH says so.
function(cafeq_compile_for target arch)
  set(flags "")
  if(arch STREQUAL avx2)
    set(flags -march=x86-64-v3)
  elseif(arch STREQUAL avx512)
    set(flags -march=x86-64-v4)
    if(CMAKE_CXX_COMPILER_ID STREQUAL GNU)
      # The intrinsics of g++ 12 start from registers that it then calls uninitialized.
      list(APPEND flags -Wno-uninitialized -Wno-maybe-uninitialized)
    endif()
  elseif(arch STREQUAL generic AND CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64|amd64)$")
    set(flags -march=x86-64)
  endif()
  # Without any optimization Eigen has objects with constructors (CafeqIsolate.cmake). And wherever
  # code for AVX returns to the baseline's, the upper halves of registers must be zero, or all
  # that runs there later waits for them: g++ sees to it from -O2 on or when told.
  target_compile_options(
    ${target}
    PRIVATE ${flags} -fno-lto $<$<CONFIG:Debug>:-O1> $<$<CONFIG:>:-O1>
            $<$<CXX_COMPILER_ID:GNU>:-fno-gnu-unique;-fexpensive-optimizations>)
  set_target_properties(${target} PROPERTIES POSITION_INDEPENDENT_CODE ON
                        INTERPROCEDURAL_OPTIMIZATION OFF UNITY_BUILD OFF CAFEQ_ARCH ${arch})
endfunction()

function(cafeq_add_dispatch target)
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "" "SOURCES;ARCHS;LIBRARIES")
  if(arg_UNPARSED_ARGUMENTS)
    message(FATAL_ERROR "cafeq_add_dispatch: unknown arguments ${arg_UNPARSED_ARGUMENTS}")
  endif()
  if(NOT arg_SOURCES)
    message(FATAL_ERROR "cafeq_add_dispatch: SOURCES to compile for each architecture are missing")
  endif()
  if(NOT TARGET ${target})
    message(FATAL_ERROR "cafeq_add_dispatch: there is no target ${target}")
  endif()
  get_target_property(before ${target} CAFEQ_DISPATCH_ARCHS)
  if(before)
    message(FATAL_ERROR "cafeq_add_dispatch: called twice for ${target}; name all SOURCES at once")
  endif()
  cafeq_architectures(archs ${arg_ARCHS})

  find_program(CAFEQ_LD NAMES ${_CMAKE_TOOLCHAIN_PREFIX}ld.bfd ${CMAKE_CXX_COMPILER_TARGET}-ld.bfd
               ld.bfd DOC "GNU ld, for cafeq_add_dispatch()")
  foreach(tool CAFEQ_LD CMAKE_OBJCOPY CMAKE_NM)
    if(NOT ${tool})
      message(FATAL_ERROR
              "cafeq_add_dispatch: GNU ld, objcopy and nm are needed to keep the architectures "
              "apart; there is no ${tool}")
    endif()
  endforeach()

  set(with_compiled FALSE)
  if(cafeq::compiled IN_LIST arg_LIBRARIES)
    set(with_compiled TRUE)
    list(REMOVE_ITEM arg_LIBRARIES cafeq::compiled)
  endif()

  set(isolate ${CMAKE_CURRENT_FUNCTION_LIST_DIR}/CafeqIsolate.cmake)
  foreach(arch ${archs})
    set(unit ${target}_${arch})
    add_library(${unit} OBJECT ${arg_SOURCES})
    target_link_libraries(${unit} PRIVATE cafeq::cafeq ${arg_LIBRARIES})
    set(inherit TARGET_PROPERTY:${target})
    target_include_directories(${unit} PRIVATE $<${inherit},INCLUDE_DIRECTORIES>)
    target_compile_definitions(${unit} PRIVATE $<${inherit},COMPILE_DEFINITIONS>)
    target_compile_options(${unit} PRIVATE $<${inherit},COMPILE_OPTIONS>)
    cafeq_compile_for(${unit} ${arch})

    set(archive "")
    if(with_compiled)
      cafeq_compiled_for(compiled ${arch})
      target_link_libraries(${unit} PRIVATE ${compiled})
      set(archive $<TARGET_FILE:${compiled}>)
    endif()

    set(isolated ${CMAKE_CURRENT_BINARY_DIR}/${unit}.o)
    add_custom_command(
      OUTPUT ${isolated}
      COMMAND ${CMAKE_COMMAND} "-DUNIT=$<TARGET_OBJECTS:${unit}>;${archive}" -DRESULT=${isolated}
              -DSECTION=cafeq_${arch} -DLINKER=${CAFEQ_LD} -DOBJCOPY=${CMAKE_OBJCOPY}
              -DNM=${CMAKE_NM} -P ${isolate}
      DEPENDS ${unit} $<TARGET_OBJECTS:${unit}> ${archive} ${isolate}
      COMMENT "Isolating what ${target} has for ${arch}"
      VERBATIM)
    set_source_files_properties(${isolated} PROPERTIES EXTERNAL_OBJECT TRUE GENERATED TRUE)
    target_sources(${target} PRIVATE ${isolated})
  endforeach()

  target_link_libraries(${target} PRIVATE cafeq::cafeq ${arg_LIBRARIES})
  list(JOIN archs "," enumerators)
  target_compile_definitions(${target} PRIVATE "CAFEQ_DISPATCH_ARCHS=${enumerators}")
  set_target_properties(${target} PROPERTIES CAFEQ_DISPATCH_ARCHS "${archs}")
endfunction()
