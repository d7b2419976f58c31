/// The fast Walsh–Hadamard transform: x ← scale · x H_n in place, n a power of two, H_n of ±1 in Sylvester order (symmetric).
///
/// n log2 n additions. The levels h = 1, 2, 4, … run in ascending order whatever the vector width, differences are exact mirror images of sums
/// and the scale comes last, so every architecture gives the bits of fwht_reference().
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <utility>

#include "cafeq/core/view.hpp"
#include "cafeq/simd/arch.hpp"

namespace cafeq::kernel {

/// The meaning of fwht().
template <class T>
void fwht_reference(T* x, Index n, T scale = T(1)) noexcept {
  for (Index h = 1; h < n; h *= 2)
    for (Index i = 0; i < n; ++i)
      if ((i & h) == 0) {
        const T a = x[i];
        const T b = x[i + h];
        x[i] = a + b;
        x[i + h] = a - b;
      }
  for (Index i = 0; i < n; ++i) x[i] *= scale;
}

namespace detail {

/// Lane l of the result is lane l ^ H of v.
template <std::size_t H, class T, class Arch, std::size_t... Lane>
inline Batch<T, Arch> exchange_lanes(Batch<T, Arch> v, std::index_sequence<Lane...>) noexcept {
  using Word = std::conditional_t<sizeof(T) == 4, std::uint32_t, std::uint64_t>;
#if XSIMD_VERSION_MAJOR >= 13
  return xsimd::swizzle(v, xsimd::batch_constant<Word, Arch, (Lane ^ H)...>());
#else
  return xsimd::swizzle(v, xsimd::batch_constant<xsimd::batch<Word, Arch>, (Lane ^ H)...>());
#endif
}

/// One level inside a vector: lanes l and l ^ H become their sum and difference. The products with ±1 are exact.
template <std::size_t H, class T, class Arch, std::size_t... Lane>
inline Batch<T, Arch> lane_level(Batch<T, Arch> v, std::index_sequence<Lane...> indices) noexcept {
  alignas(64) static constexpr T sign[] = {(Lane & H ? T(-1) : T(1))...};
  return xsimd::fma(v, Batch<T, Arch>::load_aligned(sign), exchange_lanes<H, T, Arch>(v, indices));
}

/// The levels H, 2H, … below Lanes.
template <std::size_t Lanes, std::size_t H, class T, class Arch>
inline Batch<T, Arch> lane_levels(Batch<T, Arch> v) noexcept {
  if constexpr (H < Lanes) {
    using All = std::make_index_sequence<Batch<T, Arch>::size>;
    return lane_levels<Lanes, 2 * H, T, Arch>(lane_level<H, T, Arch>(v, All{}));
  } else {
    return v;
  }
}

/// The levels H, 2H, … below Radix across an array of vectors.
template <int Radix, int H, class V>
inline void vector_levels(V (&v)[Radix]) noexcept {
  if constexpr (H < Radix) {
    CAFEQ_UNROLL
    for (int i = 0; i < Radix; ++i)
      if ((i & H) == 0) {
        const V a = v[i];
        const V b = v[i + H];
        v[i] = a + b;
        v[i + H] = a - b;
      }
    vector_levels<Radix, 2 * H>(v);
  }
}

/// All levels of `count` consecutive transforms of Radix vectors (or of Lanes elements, where Radix is 1).
template <int Radix, std::size_t Lanes, bool Scaled, class T, class Arch>
inline void first_pass(T* x, Index count, T scale) noexcept {
  using V = Batch<T, Arch>;
  constexpr Index w = Index(V::size);
  const V s(scale);
  for (Index c = 0; c < count; ++c, x += Radix * w) {
    V v[Radix];
    CAFEQ_UNROLL
    for (int i = 0; i < Radix; ++i) v[i] = lane_levels<Lanes, 1, T, Arch>(V::load_unaligned(x + i * w));
    vector_levels<Radix, 1>(v);
    CAFEQ_UNROLL
    for (int i = 0; i < Radix; ++i) (Scaled ? v[i] * s : v[i]).store_unaligned(x + i * w);
  }
}

/// The levels stride, 2 stride, … below Radix · stride of n elements.
template <int Radix, bool Scaled, class T, class Arch>
inline void strided_pass(T* x, Index n, Index stride, T scale) noexcept {
  using V = Batch<T, Arch>;
  constexpr Index w = Index(V::size);
  const V s(scale);
  for (Index base = 0; base < n; base += Radix * stride)
    for (Index j = base; j < base + stride; j += w) {
      V v[Radix];
      CAFEQ_UNROLL
      for (int i = 0; i < Radix; ++i) v[i] = V::load_unaligned(x + j + i * stride);
      vector_levels<Radix, 1>(v);
      CAFEQ_UNROLL
      for (int i = 0; i < Radix; ++i) (Scaled ? v[i] * s : v[i]).store_unaligned(x + j + i * stride);
    }
}

/// The levels from `stride` to n. Radix 8 asks for eight streams: at strides of 16 KB they share a cache set, so radix 4 there.
template <class T, class Arch>
inline void strided_levels(T* x, Index n, Index stride, T scale) noexcept {
  while (stride < n) {
    const Index left = n / stride;
    const bool wide = left == 8 || (left > 16 && stride * Index(sizeof(T)) < 16384);
    const Index radix = wide ? 8 : (left >= 4 ? 4 : 2);
    if (radix < left) {
      if (wide) strided_pass<8, false, T, Arch>(x, n, stride, scale);
      else strided_pass<4, false, T, Arch>(x, n, stride, scale);
    } else if (radix == 8) {
      strided_pass<8, true, T, Arch>(x, n, stride, scale);
    } else if (radix == 4) {
      strided_pass<4, true, T, Arch>(x, n, stride, scale);
    } else {
      strided_pass<2, true, T, Arch>(x, n, stride, scale);
    }
    stride *= radix;
  }
}

/// `count` consecutive transforms of n < one vector: whole vectors, then the rest element by element.
template <std::size_t Lanes, class T, class Arch>
inline void narrow_blocks(T* x, Index n, Index count, T scale) noexcept {
  constexpr std::size_t w = Batch<T, Arch>::size;
  if constexpr (Lanes < w) {
    if (std::size_t(n) > Lanes) return narrow_blocks<2 * Lanes, T, Arch>(x, n, count, scale);
    const Index vectors = n * count / Index(w);
    first_pass<1, Lanes, true, T, Arch>(x, vectors, scale);
    for (Index i = vectors * Index(w); i < n * count; i += n) fwht_reference(x + i, n, scale);
  }
}

}  // namespace detail

/// x holds `count` vectors of n elements one after another; each becomes scale · x H_n. n must be a power of two.
template <class T, class Arch = DefaultArch>
void fwht_blocks(T* x, Index n, Index count, T scale = T(1)) noexcept {
  CAFEQ_ASSERT(is_power_of_two(n));
  constexpr Index w = Index(Batch<T, Arch>::size);
  constexpr Index cached = 16384 / Index(sizeof(T));  // half of L1
  if (n < w) return detail::narrow_blocks<1, T, Arch>(x, n, count, scale);
  switch (n / w) {
    case 1: return detail::first_pass<1, std::size_t(w), true, T, Arch>(x, count, scale);
    case 2: return detail::first_pass<2, std::size_t(w), true, T, Arch>(x, count, scale);
    case 4: return detail::first_pass<4, std::size_t(w), true, T, Arch>(x, count, scale);
    case 8: return detail::first_pass<8, std::size_t(w), true, T, Arch>(x, count, scale);
    default: break;
  }
  for (Index c = 0; c < count; ++c, x += n) {
    // What fits in L1 is finished there before the levels that cross it.
    const Index inner = std::min(n, cached);
    for (Index i = 0; i < n; i += inner) {
      detail::first_pass<8, std::size_t(w), false, T, Arch>(x + i, inner / (8 * w), scale);
      detail::strided_levels<T, Arch>(x + i, inner, 8 * w, inner == n ? scale : T(1));
    }
    if (inner < n) detail::strided_levels<T, Arch>(x, n, inner, scale);
  }
}

/// One vector: x ← scale · x H_n.
template <class T, class Arch = DefaultArch>
void fwht(T* x, Index n, T scale = T(1)) noexcept {
  fwht_blocks<T, Arch>(x, n, 1, scale);
}

/// Every n consecutive elements of each row of X, whose rows are contiguous and a multiple of n long.
template <class T, class Arch = DefaultArch>
void fwht_rows(View<T> X, Index n, T scale = T(1)) noexcept {
  CAFEQ_ASSERT(X.rows_contiguous() && X.cols % n == 0);
  for (Index i = 0; i < X.rows; ++i) fwht_blocks<T, Arch>(X.data + i * X.row_stride, n, X.cols / n, scale);
}

}  // namespace cafeq::kernel
