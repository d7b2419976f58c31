/// The fast Walsh–Hadamard transform: x ← scale · x H_n in place, n a power of two, H_n of ±1 in
/// Sylvester order (symmetric).
///
/// n log2 n additions. The levels h = 1, 2, 4, … run in ascending order whatever the vector width,
/// differences are exact mirror images of sums and the scale comes last, so every architecture and
/// every memory order gives the bits of fwht_reference().
#pragma once

#include <algorithm>
#include <cstddef>
#include <type_traits>
#include <utility>

#include "cafeq/core/view.hpp"
#include "cafeq/simd/batch.hpp"

namespace cafeq::kernel {

/// Diagonal matrices of ±1 around a transform, one entry an element of what is transformed: (x ∘
/// before) H ∘ after. Null stands for none.
template <class T>
struct SignFlips {
  const T* before = nullptr;
  const T* after = nullptr;

  SignFlips from(Index offset) const noexcept {
    return {before ? before + offset : nullptr, after ? after + offset : nullptr};
  }
};

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

/// What the first and the last pass of a transform do besides.
template <class T>
struct Ends {
  T scale = T(1);
  SignFlips<T> flips;
  bool streams = false;

  Ends from(Index offset) const noexcept { return {scale, flips.from(offset), streams}; }
};

template <class T>
inline constexpr Index cache_line = 64 / Index(sizeof(T));  // elements
inline constexpr Index next_in_memory = 16384;  // bytes ahead that are asked for: a third of L1

/// One level inside a vector: lanes l and l ^ H become their sum and difference. The products with
/// ±1 are exact.
template <std::size_t H, class T, class Arch, std::size_t... Lane>
inline Batch<T, Arch> lane_level(Batch<T, Arch> v, std::index_sequence<Lane...>) noexcept {
  alignas(64) static constexpr T sign[] = {(Lane & H ? T(-1) : T(1))...};
  return simd::fma(v, Batch<T, Arch>::load_aligned(sign), simd::exchange_lanes<H>(v));
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

/// Ones that the compiler does not see through.
template <class V>
inline V opaque_one() noexcept {
  return simd::in_register(V(typename V::value_type(1)));
}

/// a − b; Fused as a − 1·b, of the same bits, which goes to the ports of multiplication.
template <bool Fused, class V>
inline V difference(V a, V b, [[maybe_unused]] V one) noexcept {
  if constexpr (Fused && !std::is_scalar_v<V>) return simd::fnma(b, one, a);
  else return a - b;
}

/// The levels H, 2H, … below Radix across an array of vectors. Most differences are fused, so that
/// all ports share the additions.
template <int Radix, int H, class V>
inline void vector_levels(V (&v)[Radix], V one) noexcept {
  if constexpr (H < Radix) {
    CAFEQ_UNROLL
    for (int i = 0; i < Radix; ++i)
      if ((i & H) == 0) {
        const V a = v[i];
        const V b = v[i + H];
        v[i] = a + b;
        v[i + H] = difference<(H > 1)>(a, b, one);
      }
    vector_levels<Radix, 2 * H>(v, one);
  }
}

/// What ends a transform: the scale, and signs where there are any. Vector i holds the elements
/// from `first + i · stride` on.
template <int Radix, class V, class T>
[[gnu::always_inline]] inline void finish(V (&v)[Radix], const V& scale, const T* signs,
                                          Index first, Index stride) noexcept {
  CAFEQ_UNROLL
  for (int i = 0; i < Radix; ++i) v[i] = v[i] * scale;
  if (!signs) return;
  CAFEQ_UNROLL
  for (int i = 0; i < Radix; ++i) v[i] = v[i] * V::load_unaligned(signs + first + i * stride);
}

/// All levels of `count` consecutive transforms of Radix vectors (or of Lanes elements, where Radix
/// is 1).
template <int Radix, std::size_t Lanes, bool Last, class T, class Arch>
inline void first_pass(T* x, Index count, Ends<T> ends) noexcept {
  using V = Batch<T, Arch>;
  constexpr Index w = Index(V::size);
  const V s(ends.scale);
  const V one = opaque_one<V>();
  for (Index c = 0; c < count * Radix * w; c += Radix * w) {
    V v[Radix];
    CAFEQ_UNROLL
    for (int i = 0; i < Radix; ++i) v[i] = V::load_unaligned(x + c + i * w);
    if (ends.streams) {
      CAFEQ_UNROLL
      for (Index i = 0; i < Radix * w; i += cache_line<T>)
        simd::prefetch(x + c + i, next_in_memory);
    }
    if (ends.flips.before) {
      CAFEQ_UNROLL
      for (int i = 0; i < Radix; ++i)
        v[i] = v[i] * V::load_unaligned(ends.flips.before + c + i * w);
    }
    CAFEQ_UNROLL
    for (int i = 0; i < Radix; ++i) v[i] = lane_levels<Lanes, 1, T, Arch>(v[i]);
    vector_levels<Radix, 1>(v, one);
    if constexpr (Last) finish(v, s, ends.flips.after, c, w);
    CAFEQ_UNROLL
    for (int i = 0; i < Radix; ++i) v[i].store_unaligned(x + c + i * w);
  }
}

/// The levels stride, 2 stride, … below Radix · stride of n elements.
template <int Radix, bool Last, class T, class Arch>
inline void strided_pass(T* x, Index n, Index stride, Ends<T> ends) noexcept {
  using V = Batch<T, Arch>;
  constexpr Index w = Index(V::size);
  const V s(ends.scale);
  const V one = opaque_one<V>();
  for (Index base = 0; base < n; base += Radix * stride)
    for (Index j = base; j < base + stride; j += w) {
      V v[Radix];
      CAFEQ_UNROLL
      for (int i = 0; i < Radix; ++i) v[i] = V::load_unaligned(x + j + i * stride);
      vector_levels<Radix, 1>(v, one);
      if constexpr (Last) finish(v, s, ends.flips.after, j, stride);
      CAFEQ_UNROLL
      for (int i = 0; i < Radix; ++i) v[i].store_unaligned(x + j + i * stride);
    }
}

/// The levels from `stride` to n. Radix 8 asks for eight streams: at strides of 16 KB they share a
/// cache set, so radix 4 there.
template <bool Last, class T, class Arch>
inline void strided_levels(T* x, Index n, Index stride, Ends<T> ends) noexcept {
  while (stride < n) {
    const Index left = n / stride;
    const bool wide = left == 8 || (left > 16 && stride * Index(sizeof(T)) < 16384);
    const Index radix = wide ? 8 : (left >= 4 ? 4 : 2);
    if (radix < left || !Last) {
      if (radix == 8) strided_pass<8, false, T, Arch>(x, n, stride, ends);
      else if (radix == 4) strided_pass<4, false, T, Arch>(x, n, stride, ends);
      else strided_pass<2, false, T, Arch>(x, n, stride, ends);
    } else if (radix == 8) {
      strided_pass<8, true, T, Arch>(x, n, stride, ends);
    } else if (radix == 4) {
      strided_pass<4, true, T, Arch>(x, n, stride, ends);
    } else {
      strided_pass<2, true, T, Arch>(x, n, stride, ends);
    }
    stride *= radix;
  }
}

/// `count` consecutive transforms of n < one vector: whole vectors, then the rest element by
/// element.
template <std::size_t Lanes, class T, class Arch>
inline void narrow_blocks(T* x, Index n, Index count, Ends<T> ends) noexcept {
  constexpr std::size_t w = Batch<T, Arch>::size;
  if constexpr (Lanes < w) {
    if (std::size_t(n) > Lanes) return narrow_blocks<2 * Lanes, T, Arch>(x, n, count, ends);
    const Index vectors = n * count / Index(w);
    first_pass<1, Lanes, true, T, Arch>(x, vectors, ends);
    const auto [before, after] = ends.flips;
    for (Index i = vectors * Index(w); i < n * count; i += n) {
      if (before)
        for (Index l = i; l < i + n; ++l) x[l] *= before[l];
      fwht_reference(x + i, n, ends.scale);
      if (after)
        for (Index l = i; l < i + n; ++l) x[l] *= after[l];
    }
  }
}

}  // namespace detail

/// x holds `count` vectors of n elements one after another; each becomes scale · x H_n, n a power
/// of two. The signs are one an element of x. `streams`: what lies behind x in memory is
/// transformed next, so the cache is asked for it ahead of time.
template <class T, class Arch = DefaultArch>
void fwht_blocks(T* x, Index n, Index count, T scale = T(1), SignFlips<T> flips = {},
                 bool streams = false) noexcept {
  CAFEQ_ASSERT(is_power_of_two(n));
  constexpr Index w = Index(Batch<T, Arch>::size);
  constexpr Index cached = 16384 / Index(sizeof(T));  // half of L1
  detail::Ends<T> ends{scale, flips, streams};
  if (n < w) return detail::narrow_blocks<1, T, Arch>(x, n, count, ends);
  switch (n / w) {
    case 1: return detail::first_pass<1, std::size_t(w), true, T, Arch>(x, count, ends);
    case 2: return detail::first_pass<2, std::size_t(w), true, T, Arch>(x, count, ends);
    case 4: return detail::first_pass<4, std::size_t(w), true, T, Arch>(x, count, ends);
    case 8: return detail::first_pass<8, std::size_t(w), true, T, Arch>(x, count, ends);
    default: break;
  }
  for (Index c = 0; c < count; ++c, x += n, ends = ends.from(n)) {
    // What fits in L1 is finished there before the levels that cross it.
    const Index inner = std::min(n, cached);
    for (Index i = 0; i < n; i += inner) {
      detail::first_pass<8, std::size_t(w), false, T, Arch>(x + i, inner / (8 * w), ends.from(i));
      if (inner == n) detail::strided_levels<true, T, Arch>(x + i, inner, 8 * w, ends.from(i));
      else detail::strided_levels<false, T, Arch>(x + i, inner, 8 * w, ends.from(i));
    }
    if (inner < n) detail::strided_levels<true, T, Arch>(x, n, inner, ends);
  }
}

/// One vector: x ← scale · x H_n.
template <class T, class Arch = DefaultArch>
void fwht(T* x, Index n, T scale = T(1)) noexcept {
  fwht_blocks<T, Arch>(x, n, 1, scale);
}

/// Every n consecutive elements of each row of X, whose rows are contiguous and a multiple of n
/// long; the signs are one a column.
template <class T, class Arch = DefaultArch>
void fwht_rows(View<T> X, Index n, T scale = T(1), SignFlips<T> flips = {}) noexcept {
  CAFEQ_ASSERT(X.rows_contiguous() && X.cols % n == 0);
  // A small matrix is in the cache already.
  const bool streams = X.size() * Index(sizeof(T)) > 4 * detail::next_in_memory;
  for (Index i = 0; i < X.rows; ++i)
    fwht_blocks<T, Arch>(X.data + i * X.row_stride, n, X.cols / n, scale, flips, streams);
}

}  // namespace cafeq::kernel
