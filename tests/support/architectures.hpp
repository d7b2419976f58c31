/// Architectures that tests ask for besides the default one.
#pragma once

#include "cafeq/simd/arch.hpp"

namespace cafeq::test {

/// The one with the narrowest vectors, which has the generic branch of most functions.
#if defined(__SSE2__)
using NarrowArch = xsimd::sse2;
#else
using NarrowArch = DefaultArch;
#endif

}  // namespace cafeq::test
