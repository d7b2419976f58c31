/// The Walsh–Hadamard transform from the left: X ← scale · H_n X in place, rows of X contiguous,
/// with the bits of fwht_reference() on every column.
///
/// A sweep takes 64 rows through 6 levels: radix 8 from X to a panel in L1, radix 8 from there back
/// to X. More than 64 rows take several sweeps, a slab of columns that stays in L3 at a time.
#pragma once

#include <algorithm>

#include "cafeq/kernel/fwht.hpp"

namespace cafeq::kernel {

namespace detail {

inline constexpr Index sweep_rows = 64;
template <class T>
inline constexpr Index sweep_columns = 512 / Index(sizeof(T));  // of a panel in L1
template <class T>
inline constexpr Index slab_size = Index(1 << 23) / Index(sizeof(T));

/// Row i is at data + i * stride.
template <class T>
struct PanelRows {
  T* data;
  Index stride;

  T* row(Index i) const noexcept { return data + i * stride; }
  PanelRows every(Index step, Index first) const noexcept { return {row(first), step * stride}; }
};

/// What the rows are multiplied by: ±1 each where there are signs, and a common scale.
template <class T>
struct RowFactors {
  const T* signs = nullptr;
  bool scaled = false;
  T scale = T(1);
  Index stride = 1;

  bool all_one() const noexcept { return signs == nullptr && !scaled; }
  T operator[](Index i) const noexcept { return signs ? signs[i * stride] * scale : scale; }
  RowFactors every(Index step, Index first) const noexcept {
    return {signs ? signs + first * stride : nullptr, scaled, scale, step * stride};
  }
};

/// One vector, or one element, of each of Radix rows.
template <int Radix, class V, class T>
inline void column_butterfly(PanelRows<T> from, PanelRows<T> to, const T* before, const T* after,
                             V one) noexcept {
  const auto load = [](const T* p) -> V {
    if constexpr (std::is_same_v<V, T>) return *p;
    else return V::load_unaligned(p);
  };
  V v[Radix];
  CAFEQ_UNROLL
  for (int i = 0; i < Radix; ++i) v[i] = load(from.row(i));
  if (before) {
    CAFEQ_UNROLL
    for (int i = 0; i < Radix; ++i) v[i] = v[i] * V(before[i]);
  }
  vector_levels<Radix, 1>(v, one);
  if (after) {
    CAFEQ_UNROLL
    for (int i = 0; i < Radix; ++i) v[i] = v[i] * V(after[i]);
  }
  CAFEQ_UNROLL
  for (int i = 0; i < Radix; ++i) {
    if constexpr (std::is_same_v<V, T>) *to.row(i) = v[i];
    else v[i].store_unaligned(to.row(i));
  }
}

/// H_Radix from the left. The cache is asked for what lies `next` elements behind the result,
/// unless that is 0.
template <int Radix, class T, class Arch>
inline void column_pass(PanelRows<T> from, PanelRows<T> to, Index columns, RowFactors<T> before,
                        RowFactors<T> after, Index next) noexcept {
  using V = Batch<T, Arch>;
  constexpr Index w = Index(V::size);
  T before_rows[Radix];
  T after_rows[Radix];
  for (int i = 0; i < Radix; ++i) before_rows[i] = before[i];
  for (int i = 0; i < Radix; ++i) after_rows[i] = after[i];
  const T* b = before.all_one() ? nullptr : before_rows;
  const T* a = after.all_one() ? nullptr : after_rows;
  const V one = opaque_one<V>();
  Index c = 0;
  for (; c + w <= columns; c += w) {
    if (next != 0 && c % cache_line<T> == 0) {
      CAFEQ_UNROLL
      for (int i = 0; i < Radix; ++i) simd::prefetch(to.row(i) + c, next * Index(sizeof(T)));
    }
    column_butterfly<Radix>(PanelRows<T>{from.data + c, from.stride},
                            PanelRows<T>{to.data + c, to.stride}, b, a, one);
  }
  for (; c < columns; ++c)
    column_butterfly<Radix>(PanelRows<T>{from.data + c, from.stride},
                            PanelRows<T>{to.data + c, to.stride}, b, a, T(1));
}

/// H_rows from the left on up to 8 rows.
template <class T, class Arch>
inline void column_levels(Index rows, PanelRows<T> from, PanelRows<T> to, Index columns,
                          RowFactors<T> before, RowFactors<T> after, Index next) noexcept {
  switch (rows) {
    case 1: return column_pass<1, T, Arch>(from, to, columns, before, after, next);
    case 2: return column_pass<2, T, Arch>(from, to, columns, before, after, next);
    case 4: return column_pass<4, T, Arch>(from, to, columns, before, after, next);
    default: return column_pass<8, T, Arch>(from, to, columns, before, after, next);
  }
}

/// H_rows from the left on up to 64 rows of any number of columns, in place. The next sweep starts
/// `ahead` elements behind this one.
template <class T, class Arch>
inline void column_sweep(Index rows, PanelRows<T> X, Index columns, RowFactors<T> before,
                         RowFactors<T> after, Index ahead) noexcept {
  constexpr Index width = sweep_columns<T>;
  constexpr Index padded = width + cache_line<T>;  // else rows 8 apart share a cache set
  alignas(64) T scratch[sweep_rows * padded];
  const PanelRows<T> panel{scratch, padded};
  for (Index c = 0; c < columns; c += width) {
    const PanelRows<T> x{X.data + c, X.stride};
    const Index n = std::min(width, columns - c);
    const Index next = c + width < columns ? width : ahead - c;
    if (rows <= 8) {
      column_levels<T, Arch>(rows, x, x, n, before, after, next);
      continue;
    }
    for (Index i = 0; i < rows; i += 8)
      column_pass<8, T, Arch>(x.every(1, i), panel.every(1, i), n, before.every(1, i), {}, 0);
    for (Index i = 0; i < 8; ++i)
      column_levels<T, Arch>(rows / 8, panel.every(8, i), x.every(8, i), n, {}, after.every(8, i),
                             next);
  }
}

}  // namespace detail

/// Every n consecutive rows of X become scale · H_n times them; the rows of X [rows, cols] are
/// contiguous and a multiple of n many, n is a power of two, and the signs are one a row. Takes 36
/// KB of the stack.
template <class T, class Arch = DefaultArch>
void fwht_columns(View<T> X, Index n, T scale = T(1), SignFlips<T> flips = {}) noexcept {
  CAFEQ_ASSERT(is_power_of_two(n) && X.rows_contiguous() && X.rows % n == 0);
  using namespace detail;
  const Index slab = n <= sweep_rows ? X.cols : std::max(sweep_columns<T>, slab_size<T> / n);
  for (Index block = 0; block < X.rows; block += n, flips = flips.from(n))
    for (Index c = 0; c < X.cols; c += slab) {
      const PanelRows<T> rows{X.data + block * X.row_stride + c, X.row_stride};
      Index step = 1;  // between the rows of a sweep
      do {
        const Index count = std::min(n / step, sweep_rows);
        const RowFactors<T> before{step == 1 ? flips.before : nullptr};
        const RowFactors<T> after =
            step * count == n ? RowFactors<T>{flips.after, true, scale} : RowFactors<T>{};
        const Index ahead = (step == 1 ? count : 1) * X.row_stride;
        for (Index base = 0; base < n; base += step * count)
          for (Index i = base; i < base + step; ++i)
            column_sweep<T, Arch>(count, rows.every(step, i), std::min(slab, X.cols - c),
                                  before.every(step, i), after.every(step, i), ahead);
        step *= count;
      } while (step < n);
    }
}

}  // namespace cafeq::kernel
