# What this project's own tests and examples are compiled with. None of it reaches a consumer.

option(CAFEQ_WARNINGS_AS_ERRORS "Treat warnings in the headers, tests and examples as errors" OFF)

# x86-64-v3 rather than native: g++ 12 emits slower matrix products for -march=native on CPUs with
# AVX-512.
set(default_arch "")
if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64" AND NOT CMAKE_CROSSCOMPILING
   AND EXISTS /proc/cpuinfo)
  file(STRINGS /proc/cpuinfo cpu_flags LIMIT_COUNT 1 REGEX "^flags")
  set(default_arch "x86-64-v3")
  foreach(flag avx2 bmi1 bmi2 f16c fma abm movbe)
    if(NOT cpu_flags MATCHES " ${flag}( |$)")
      set(default_arch "")
    endif()
  endforeach()
endif()
set(CAFEQ_ARCH "${default_arch}" CACHE STRING
    "-march of the tests and examples; empty for the compiler's default")

# Their warnings. Those that g++ 12 takes from its optimizer are wrong about std::string and
# std::vector.
add_library(cafeq_warnings INTERFACE)
target_compile_options(
  cafeq_warnings
  INTERFACE -Wall -Wextra -Wpedantic -Wshadow -Wconversion
            $<$<CXX_COMPILER_ID:GNU>:-Wno-array-bounds;-Wno-restrict>
            $<$<CXX_COMPILER_ID:GNU>:-Wno-stringop-overflow;-Wno-stringop-overread>
            $<$<BOOL:${CAFEQ_WARNINGS_AS_ERRORS}>:-Werror>)

# With the architecture besides, for what is compiled once.
add_library(cafeq_development INTERFACE)
target_link_libraries(cafeq_development INTERFACE cafeq::io cafeq_warnings)
target_compile_options(cafeq_development INTERFACE $<$<BOOL:${CAFEQ_ARCH}>:-march=${CAFEQ_ARCH}>)

# The tool and the engine choose when they run. Here, where they run on this machine only, they have
# one architecture, whose cafeq::compiled is that of the tests.
set(CAFEQ_DISPATCH_ARCHS "" CACHE STRING
    "Architectures of the tool and the engine: empty for all, names, or native for that of the tests")
set(native_arch generic)
if(CAFEQ_ARCH STREQUAL "x86-64-v3")
  set(native_arch avx2)
elseif(CMAKE_SYSTEM_PROCESSOR MATCHES "^(aarch64|arm64|ARM64)$")
  set(native_arch neon)
endif()
set(example_archs ${CAFEQ_DISPATCH_ARCHS})
if(CAFEQ_DISPATCH_ARCHS STREQUAL native)
  set(example_archs ${native_arch})
endif()

target_link_libraries(cafeq_compiled PRIVATE cafeq_warnings)
if(CAFEQ_ARCH STREQUAL "" OR CAFEQ_ARCH STREQUAL "x86-64-v3")
  cafeq_compile_for(cafeq_compiled ${native_arch})
else()
  target_compile_options(cafeq_compiled PRIVATE -march=${CAFEQ_ARCH})
endif()
set(CMAKE_CXX_EXTENSIONS OFF)
