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

add_library(cafeq_development INTERFACE)
target_link_libraries(cafeq_development INTERFACE cafeq::io)
# The warnings that g++ 12 takes from its optimizer are wrong about std::string and std::vector.
target_compile_options(
  cafeq_development
  INTERFACE -Wall -Wextra -Wpedantic -Wshadow -Wconversion
            $<$<CXX_COMPILER_ID:GNU>:-Wno-array-bounds;-Wno-restrict>
            $<$<CXX_COMPILER_ID:GNU>:-Wno-stringop-overflow;-Wno-stringop-overread>
            $<$<BOOL:${CAFEQ_WARNINGS_AS_ERRORS}>:-Werror>
            $<$<BOOL:${CAFEQ_ARCH}>:-march=${CAFEQ_ARCH}>)
if(TARGET cafeq_compiled)
  target_link_libraries(cafeq_compiled PRIVATE cafeq_development)
endif()
set(CMAKE_CXX_EXTENSIONS OFF)
