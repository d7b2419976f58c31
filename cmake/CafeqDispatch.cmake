# cafeq_add_dispatch(<target> [ARCHS generic avx2 avx512 neon])
#
# Compiles the table of kernels (cafeq/kernel/dispatch.hpp) once for each of the named architectures
# that the target processor's kind has, and links the tables to <target>. Without ARCHS all of them:
# generic (SSE2), avx2 (x86-64-v3) and avx512 (x86-64-v4) for x86-64; neon for aarch64; generic
# elsewhere. Every target of a build shares one set of tables, so all calls must name the same
# architectures.
#
# Each unit is linked with itself and stripped of its global symbols except for the table. Otherwise
# the linker could take the copy of an inline function that was compiled for AVX2 for the whole
# program. Needs GNU ld (CAFEQ_LD), whichever linker links the program, and objcopy and nm of any
# kind.

function(cafeq_add_dispatch target)
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "" "ARCHS")
  if(arg_UNPARSED_ARGUMENTS)
    message(FATAL_ERROR "cafeq_add_dispatch: unknown arguments ${arg_UNPARSED_ARGUMENTS}")
  endif()

  set(flags_of_generic "")
  set(flags_of_neon "")
  set(flags_of_avx2 -march=x86-64-v3)
  set(flags_of_avx512 -march=x86-64-v4)
  if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64|amd64)$")
    set(here generic avx2 avx512)
    set(flags_of_generic -march=x86-64)
  elseif(CMAKE_SYSTEM_PROCESSOR MATCHES "^(aarch64|arm64|ARM64)$")
    set(here neon)
  else()
    set(here generic)
  endif()

  set(archs "")
  foreach(arch ${arg_ARCHS})
    if(NOT arch MATCHES "^(generic|avx2|avx512|neon)$")
      message(FATAL_ERROR "cafeq_add_dispatch: ${arch} is none of generic, avx2, avx512, neon")
    endif()
  endforeach()
  foreach(arch ${here})
    if(NOT arg_ARCHS OR arch IN_LIST arg_ARCHS)
      list(APPEND archs ${arch})
    endif()
  endforeach()
  if(NOT archs)
    message(FATAL_ERROR
            "cafeq_add_dispatch: for ${CMAKE_SYSTEM_PROCESSOR} there is ${here}, not ${arg_ARCHS}")
  endif()

  get_property(compiled GLOBAL PROPERTY CAFEQ_DISPATCH_ARCHS)
  if(compiled AND NOT compiled STREQUAL "${archs}")
    message(FATAL_ERROR
            "cafeq_add_dispatch: ${target} asks for ${archs}, an earlier target for ${compiled}")
  endif()
  target_link_libraries(${target} PRIVATE cafeq_kernels)
  if(compiled)
    return()
  endif()
  set_property(GLOBAL PROPERTY CAFEQ_DISPATCH_ARCHS "${archs}")

  find_program(CAFEQ_LD NAMES ${_CMAKE_TOOLCHAIN_PREFIX}ld.bfd ${CMAKE_CXX_COMPILER_TARGET}-ld.bfd
               ld.bfd DOC "GNU ld, for cafeq_add_dispatch()")
  foreach(tool CAFEQ_LD CMAKE_OBJCOPY CMAKE_NM)
    if(NOT ${tool})
      message(FATAL_ERROR
              "cafeq_add_dispatch: GNU ld, objcopy and nm are needed to keep the architectures "
              "apart; there is no ${tool}")
    endif()
  endforeach()

  set(dir ${CMAKE_CURRENT_BINARY_DIR}/cafeq_kernels)
  set(declarations "")
  set(entries "")
  set(units "")
  foreach(arch ${archs})
    set(symbol cafeq_kernels_${arch})
    file(CONFIGURE OUTPUT ${dir}/${arch}.cpp CONTENT
"#include \"cafeq/kernel/dispatch.hpp\"
extern \"C\" {
extern const cafeq::kernel::Table ${symbol};
constexpr cafeq::kernel::Table ${symbol} =
    cafeq::kernel::make_table<>(cafeq::cpu::Architecture::${arch});
}
")
    string(APPEND declarations "extern const cafeq::kernel::Table ${symbol};\n")
    string(APPEND entries "    {cafeq::cpu::Architecture::${arch}, &${symbol}},\n")

    add_library(cafeq_kernels_${arch} OBJECT ${dir}/${arch}.cpp)
    target_link_libraries(cafeq_kernels_${arch} PRIVATE cafeq::cafeq)
    target_compile_options(cafeq_kernels_${arch}
                           PRIVATE ${flags_of_${arch}} -fno-lto
                           $<$<CXX_COMPILER_ID:GNU>:-fno-gnu-unique>)
    set_target_properties(cafeq_kernels_${arch} PROPERTIES POSITION_INDEPENDENT_CODE ON
                          INTERPROCEDURAL_OPTIMIZATION OFF)
    if(arch STREQUAL avx512 AND CMAKE_CXX_COMPILER_ID STREQUAL GNU)
      # The intrinsics of g++ 12 start from registers that it then calls uninitialized.
      target_compile_options(cafeq_kernels_${arch}
                             PRIVATE -Wno-uninitialized -Wno-maybe-uninitialized)
    endif()

    add_custom_command(
      OUTPUT ${dir}/${arch}.o
      COMMAND ${CMAKE_COMMAND} "-DUNIT=$<TARGET_OBJECTS:cafeq_kernels_${arch}>"
              -DRESULT=${dir}/${arch}.o -DSYMBOL=${symbol} -DSECTION=cafeq_${arch}
              -DLINKER=${CAFEQ_LD} -DOBJCOPY=${CMAKE_OBJCOPY} -DNM=${CMAKE_NM}
              -P ${CMAKE_CURRENT_FUNCTION_LIST_DIR}/CafeqIsolate.cmake
      DEPENDS cafeq_kernels_${arch} $<TARGET_OBJECTS:cafeq_kernels_${arch}>
              ${CMAKE_CURRENT_FUNCTION_LIST_DIR}/CafeqIsolate.cmake
      COMMENT "Isolating the kernels for ${arch}"
      VERBATIM)
    list(APPEND units ${dir}/${arch}.o)
  endforeach()

  file(CONFIGURE OUTPUT ${dir}/tables.cpp CONTENT
"#include \"cafeq/kernel/dispatch.hpp\"
extern \"C\" {
${declarations}}
std::span<const cafeq::simd::Variant<cafeq::kernel::Table>>
cafeq::kernel::compiled_tables() noexcept {
  static constexpr cafeq::simd::Variant<Table> tables[] = {
${entries}  };
  return tables;
}
")
  add_library(cafeq_kernels STATIC ${dir}/tables.cpp ${units})
  set_source_files_properties(${units} PROPERTIES EXTERNAL_OBJECT TRUE GENERATED TRUE)
  target_link_libraries(cafeq_kernels PRIVATE cafeq::cafeq)
  set_target_properties(cafeq_kernels PROPERTIES POSITION_INDEPENDENT_CODE ON)
endfunction()
