/// The door to xsimd: every other header reaches batches through this one.
#pragma once

#include <xsimd/xsimd.hpp>

namespace cafeq {

/// The architecture that a kernel is compiled for where the caller names none: the best that the
/// compiler flags allow.
using DefaultArch = xsimd::default_arch;

template <class T, class Arch = DefaultArch>
using Batch = xsimd::batch<T, Arch>;

}  // namespace cafeq
