/// All that kernels do with batches of floats, in one include: operations on each lane, fused
/// multiply-adds, reductions, transposes, loads that widen and stores that narrow.
///
/// These are the operations that xsimd 8.1 lacks, does slowly, or has under names of its own. Each
/// has a branch by native registers, where that gains something, and a generic one; both give the
/// same bits (NaN payloads aside). `Arch` is an architecture of xsimd; a batch of it has
/// `Batch<float, Arch>::size` lanes.
#pragma once

#include "cafeq/simd/bit_order.hpp"
#include "cafeq/simd/convert.hpp"
#include "cafeq/simd/fma.hpp"
#include "cafeq/simd/lanes.hpp"
#include "cafeq/simd/lanewise.hpp"
#include "cafeq/simd/look_up.hpp"
#include "cafeq/simd/prefetch.hpp"
#include "cafeq/simd/shuffle.hpp"
