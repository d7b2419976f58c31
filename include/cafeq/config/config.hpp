/// Detection macros and the two hooks a host may replace, each with its default.
#pragma once

#include <cassert>

#include "cafeq/config/version.hpp"

#if defined(__FAST_MATH__) || (defined(__FINITE_MATH_ONLY__) && __FINITE_MATH_ONLY__) || \
    defined(__ASSOCIATIVE_MATH__)
#error "cafeq: -ffast-math changes codes and hides NaN; compile this translation unit without it"
#endif

/// Whether errors are thrown (1) or reach the handler of set_error_handler().
#if !defined(CAFEQ_EXCEPTIONS)
#if defined(__cpp_exceptions)
#define CAFEQ_EXCEPTIONS 1
#else
#define CAFEQ_EXCEPTIONS 0
#endif
#endif

/// What the kernels check, which are noexcept and trust their callers otherwise. Default: assert.
#if !defined(CAFEQ_ASSERT)
#define CAFEQ_ASSERT(condition) assert(condition)
#endif

/// Whether the program links cafeq::compiled, which contains what most programs would compile
/// themselves (compiled/instances.hpp). Set by that target.
#if !defined(CAFEQ_COMPILED)
#define CAFEQ_COMPILED 0
#endif

/// g++ keeps local arrays of vectors in memory unless every loop over them is fully unrolled.
#if defined(__clang__)
#define CAFEQ_UNROLL _Pragma("unroll")
#elif defined(__GNUC__)
#define CAFEQ_UNROLL _Pragma("GCC unroll 32")
#else
#define CAFEQ_UNROLL
#endif
