/// Error feedback and coordinate descent inside a block of a few lines, codes included, for grids
/// of uniform levels.
///
/// A line is what is rounded at once; its lanes are independent of each other and run through
/// vectors. Lane l of a line has the values scale·(k + ½) + offset or scale·k + offset, k = low …
/// high: the operations are those of UniformLevels::code and the quantizers' decode, so the codes
/// are those of rounding weight by weight. All targets are single chains of explicit fused
/// multiply-adds, in an order that depends on the block alone: every architecture that fuses gets
/// the same bits, at any number of lanes. Longer than most headers: both orders of rounding and
/// their references share the step that rounds a vector of lanes.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <span>
#include <type_traits>

#include "cafeq/core/view.hpp"
#include "cafeq/kernel/codec.hpp"
#include "cafeq/simd/compat.hpp"

namespace cafeq::kernel {

/// Lines that the kernels below see have a multiple of this many lanes. Lanes to fill up may hold
/// anything finite.
inline constexpr Index lane_multiple = 16;

/// The grid of each lane of a line; arrays of as many floats as there are lanes. inverse is
/// inverse_scale(scale).
struct LaneGrid {
  const float* scale;
  const float* inverse;
  const float* offset;
  const float* low;
  const float* high;
};

/// n lines of m lanes that are rounded one after another.
struct LineBlock {
  View<const float> X;         ///< [n, m], what is rounded
  View<const float> coupling;  ///< [n, n]: L of the metric's LDLᵀ for feed_back, H for descend;
                               ///< only below the diagonal, and H's diagonal, is read
  View<const float> T;         ///< [n, m]: what other lines contribute
  View<float> E;               ///< [n, m], the errors X − X̂
  const LaneGrid* grids;       ///< [n]
  std::uint8_t* codes;         ///< [n, m], lines code_stride apart
  Index code_stride;
};

namespace detail {

inline float step_between(float u, float low, float high) noexcept {
  return clamp_level(u, low, high);
}
template <class A>
Batch<float, A> step_between(const Batch<float, A>& u, const Batch<float, A>& low,
                             const Batch<float, A>& high) noexcept {
  return xsimd::min(xsimd::max(u, low), high);
}
inline float fused(float x, float y, float z) noexcept { return std::fma(x, y, z); }
template <class A>
Batch<float, A> fused(const Batch<float, A>& x, const Batch<float, A>& y,
                      const Batch<float, A>& z) noexcept {
  return simd::fma(x, y, z);
}

/// The number k of the level nearest to t.
template <bool Half, class V>
V nearest_step(const V& t, const V& inverse, const V& offset, const V& low,
               const V& high) noexcept {
  const V u = (t - offset) * inverse;
  if constexpr (Half) return step_between(round_down(u), low, high);
  else return step_between(round_even(u), low, high);
}

/// x − (scale·level + offset). The product of a level and a 16-bit scale is exact, so the fma
/// rounds as the quantizers' own decode.
template <bool Half, class V>
V step_error(const V& x, const V& step, const V& scale, const V& offset) noexcept {
  const V level = Half ? step + V(0.5f) : step;
  return x - fused(scale, level, offset);
}

/// Rounds lanes [l, l + size) of line j to the level nearest to t; stores the codes, returns the
/// error.
template <bool Half, class V>
V round_lanes(const LineBlock& b, Index j, Index l, const V& t) noexcept {
  const LaneGrid& g = b.grids[j];
  const V low = V::load_unaligned(g.low + l), offset = V::load_unaligned(g.offset + l);
  const V step = nearest_step<Half>(t, V::load_unaligned(g.inverse + l), offset, low,
                                    V::load_unaligned(g.high + l));
  simd::store_uint8(b.codes + j * b.code_stride + l, step - low);
  return step_error<Half>(V::load_unaligned(&b.X.data[j * b.X.row_stride + l]), step,
                          V::load_unaligned(g.scale + l), offset);
}

/// t += Σ c(i)·R_i over the lines i of `range`, in its order, for Count vectors of lanes at l.
template <Index Count, class V>
void add_lines(V* t, View<const float> R, Index l, Index first, Index last, Index step,
               const float* c, Index c_stride) noexcept {
  constexpr Index w = Index(V::size);
  for (Index i = first; i != last; i += step) {
    const V factor(c[i * c_stride]);
    const float* r = R.data + i * R.row_stride + l;
    CAFEQ_UNROLL
    for (Index v = 0; v < Count; ++v) t[v] = simd::fma(factor, V::load_unaligned(r + v * w), t[v]);
  }
}

template <bool Half, class Arch, Index Count>
inline void feed_back_lanes(const LineBlock& b, Index l) noexcept {
  using V = Batch<float, Arch>;
  constexpr Index w = Index(V::size);
  const Index n = b.X.rows;
  for (Index j = n - 1; j >= 0; --j) {
    V t[Count];
    CAFEQ_UNROLL
    for (Index v = 0; v < Count; ++v)
      t[v] = V::load_unaligned(b.T.data + j * b.T.row_stride + l + v * w);
    add_lines<Count>(t, b.E, l, n - 1, j, -1, b.coupling.data + j * b.coupling.col_stride,
                     b.coupling.row_stride);
    CAFEQ_UNROLL
    for (Index v = 0; v < Count; ++v)
      round_lanes<Half>(b, j, l + v * w, t[v])
          .store_unaligned(b.E.data + j * b.E.row_stride + l + v * w);
  }
}

template <bool Half, class Arch, Index Count>
inline void descend_lanes(const LineBlock& b, View<float> change, Index l) noexcept {
  using V = Batch<float, Arch>;
  constexpr Index w = Index(V::size);
  for (Index j = 0; j < b.X.rows; ++j) {
    V t[Count];
    CAFEQ_UNROLL
    for (Index v = 0; v < Count; ++v)
      t[v] = V::load_unaligned(b.T.data + j * b.T.row_stride + l + v * w);
    add_lines<Count>(t, change, l, 0, j, 1, b.coupling.data + j * b.coupling.row_stride,
                     b.coupling.col_stride);
    const V inverse(1.0f / b.coupling(j, j));
    CAFEQ_UNROLL
    for (Index v = 0; v < Count; ++v) {
      float* error = b.E.data + j * b.E.row_stride + l + v * w;
      const V before = V::load_unaligned(error);
      const V kept = V::load_unaligned(b.X.data + j * b.X.row_stride + l + v * w) - before;
      const V after = round_lanes<Half>(b, j, l + v * w, simd::fma(t[v], inverse, kept));
      after.store_unaligned(error);
      (after - before).store_unaligned(change.data + j * change.row_stride + l + v * w);
    }
  }
}

/// f.operator()<Count>(l) for all lanes, 32 at a time where there are as many: two or four chains
/// hide one another's latency.
template <class Arch, class F>
inline void for_each_strip(Index width, F&& f) noexcept {
  constexpr Index vectors = lane_multiple / Index(Batch<float, Arch>::size);
  CAFEQ_ASSERT(width % lane_multiple == 0);
  Index l = 0;
  for (; l + 2 * lane_multiple <= width; l += 2 * lane_multiple)
    f(std::integral_constant<Index, 2 * vectors>{}, l);
  if (l < width) f(std::integral_constant<Index, vectors>{}, l);
}

}  // namespace detail

/// Error feedback inside the block, last line first: t_j = T_j + Σ_{i>j} L_ij e_i, i descending, is
/// rounded and leaves e_j = x_j − x̂_j. T holds X and what lines outside add to it. Lanes a multiple
/// of lane_multiple.
template <bool Half, class Arch = DefaultArch>
void feed_back(const LineBlock& block) noexcept {
  detail::for_each_strip<Arch>(block.X.cols, [&](auto count, Index l) {
    detail::feed_back_lanes<Half, Arch, decltype(count)::value>(block, l);
  });
}

/// Coordinate descent inside the block, first line first: g_j = T_j + Σ_{i<j} H_ji Δ_i, i
/// ascending, t_j = x_j − e_j + g_j/H_jj is rounded; e_j becomes x_j − x̂_j and Δ_j, line j of
/// `change` [n, m], what that differs by. T is H·E before the block.
template <bool Half, class Arch = DefaultArch>
void descend(const LineBlock& block, View<float> change) noexcept {
  detail::for_each_strip<Arch>(block.X.cols, [&](auto count, Index l) {
    detail::descend_lanes<Half, Arch, decltype(count)::value>(block, change, l);
  });
}

namespace detail {

template <bool Half>
float round_lane_reference(const LineBlock& b, Index j, Index l, float t) noexcept {
  const LaneGrid& g = b.grids[j];
  const float step = nearest_step<Half>(t, g.inverse[l], g.offset[l], g.low[l], g.high[l]);
  b.codes[j * b.code_stride + l] = std::uint8_t(step - g.low[l]);
  return step_error<Half>(b.X(j, l), step, g.scale[l], g.offset[l]);
}

}  // namespace detail

template <bool Half>
void feed_back_reference(const LineBlock& b) noexcept {
  for (Index j = b.X.rows - 1; j >= 0; --j)
    for (Index l = 0; l < b.X.cols; ++l) {
      float t = b.T(j, l);
      for (Index i = b.X.rows - 1; i > j; --i) t = std::fma(b.coupling(i, j), b.E(i, l), t);
      b.E(j, l) = detail::round_lane_reference<Half>(b, j, l, t);
    }
}

template <bool Half>
void descend_reference(const LineBlock& b, View<float> change) noexcept {
  for (Index j = 0; j < b.X.rows; ++j)
    for (Index l = 0; l < b.X.cols; ++l) {
      float g = b.T(j, l);
      for (Index i = 0; i < j; ++i) g = std::fma(b.coupling(j, i), change(i, l), g);
      const float before = b.E(j, l);
      b.E(j, l) = detail::round_lane_reference<Half>(
          b, j, l, std::fma(g, 1.0f / b.coupling(j, j), b.X(j, l) - before));
      change(j, l) = b.E(j, l) - before;
    }
}

/// The errors of lanes with known codes: e = x − x̂. Lanes a multiple of lane_multiple.
template <bool Half, class Arch = DefaultArch>
void code_errors(const float* x, const std::uint8_t* codes, const LaneGrid& g, float* e,
                 Index count) noexcept {
  using V = Batch<float, Arch>;
  CAFEQ_ASSERT(count % lane_multiple == 0);
  for (Index l = 0; l < count; l += Index(V::size)) {
    const V step = simd::load_float<Arch>(codes + l) + V::load_unaligned(g.low + l);
    detail::step_error<Half>(V::load_unaligned(x + l), step, V::load_unaligned(g.scale + l),
                             V::load_unaligned(g.offset + l))
        .store_unaligned(e + l);
  }
}

template <bool Half>
void code_errors_reference(const float* x, const std::uint8_t* codes, const LaneGrid& g, float* e,
                           Index count) noexcept {
  for (Index l = 0; l < count; ++l)
    e[l] = detail::step_error<Half>(x[l], float(codes[l]) + g.low[l], g.scale[l], g.offset[l]);
}

namespace detail {

template <class Arch, Index Count, class Left>
inline void add_products(Left&& left, View<const float> B, double* sums, Index l) noexcept {
  using V = Batch<float, Arch>;
  using D = Batch<double, Arch>;
  constexpr Index w = Index(V::size), half = Index(D::size);
  D sum[2 * Count];
  CAFEQ_UNROLL
  for (Index v = 0; v < 2 * Count; ++v) sum[v] = D::load_unaligned(sums + l + v * half);
  for (Index i = 0; i < B.rows; ++i) {
    CAFEQ_UNROLL
    for (Index v = 0; v < Count; ++v) {
      const auto a = simd::widen(left(i, l + v * w));
      const auto b = simd::widen(V::load_unaligned(B.data + i * B.row_stride + l + v * w));
      sum[2 * v] = simd::fma(a.low, b.low, sum[2 * v]);
      sum[2 * v + 1] = simd::fma(a.high, b.high, sum[2 * v + 1]);
    }
  }
  CAFEQ_UNROLL
  for (Index v = 0; v < 2 * Count; ++v) sum[v].store_unaligned(sums + l + v * half);
}

}  // namespace detail

/// The meaning of add_line_products: sums[l] += Σ_i A(i, l)·B(i, l), one chain in double over i
/// ascending; the products are exact.
inline void add_line_products_reference(View<const float> A, View<const float> B,
                                        std::span<double> sums) noexcept {
  for (Index l = 0; l < B.cols; ++l)
    for (Index i = 0; i < B.rows; ++i) sums[std::size_t(l)] += double(A(i, l)) * double(B(i, l));
}

/// sums[l] += Σ_i A(i, l)·B(i, l). Rows contiguous; lanes past a multiple of lane_multiple go one
/// by one.
template <class Arch = DefaultArch>
void add_line_products(View<const float> A, View<const float> B, std::span<double> sums) noexcept {
  CAFEQ_ASSERT(A.rows == B.rows && A.cols == B.cols && Index(sums.size()) == B.cols &&
               A.rows_contiguous() && B.rows_contiguous());
  const Index whole = B.cols / lane_multiple * lane_multiple;
  for (Index l = 0; l < whole; l += lane_multiple)
    detail::add_products<Arch, lane_multiple / Index(Batch<float, Arch>::size)>(
        [&](Index i, Index lane) {
          return Batch<float, Arch>::load_unaligned(A.data + i * A.row_stride + lane);
        },
        B, sums.data(), l);
  const Index rest = B.cols - whole;
  add_line_products_reference(A.col_block(whole, rest), B.col_block(whole, rest),
                              sums.subspan(std::size_t(whole)));
}

/// The same where all lanes of A's line i are a[i].
template <class Arch = DefaultArch>
void add_line_products(std::span<const float> a, View<const float> B,
                       std::span<double> sums) noexcept {
  CAFEQ_ASSERT(Index(a.size()) == B.rows && Index(sums.size()) == B.cols && B.rows_contiguous());
  const Index whole = B.cols / lane_multiple * lane_multiple;
  for (Index l = 0; l < whole; l += lane_multiple)
    detail::add_products<Arch, lane_multiple / Index(Batch<float, Arch>::size)>(
        [&](Index i, Index) { return Batch<float, Arch>(a[std::size_t(i)]); }, B, sums.data(), l);
  const Index rest = B.cols - whole;
  add_line_products_reference({a.data(), B.rows, rest, 1, 0}, B.col_block(whole, rest),
                              sums.subspan(std::size_t(whole)));
}

/// Rows [m, n] into lines [n, m]. Whole tiles through registers, the rest by copy().
template <class Arch = DefaultArch>
void rows_to_lines(View<const float> rows, View<float> lines) noexcept {
  using V = Batch<float, Arch>;
  constexpr Index w = Index(V::size);
  CAFEQ_ASSERT(rows.rows == lines.cols && rows.cols == lines.rows && rows.rows_contiguous() &&
               lines.rows_contiguous());
  const Index m = rows.rows / w * w, n = rows.cols / w * w;
  for (Index i = 0; i < m; i += w)
    for (Index j = 0; j < n; j += w) {
      V tile[w];
      CAFEQ_UNROLL
      for (Index r = 0; r < w; ++r)
        tile[r] = V::load_unaligned(rows.data + (i + r) * rows.row_stride + j);
      simd::transpose<Arch>(tile);
      CAFEQ_UNROLL
      for (Index r = 0; r < w; ++r)
        tile[r].store_unaligned(lines.data + (j + r) * lines.row_stride + i);
    }
  if (n < rows.cols)
    copy(rows.block(0, n, m, rows.cols - n), lines.block(n, 0, rows.cols - n, m).transposed());
  if (m < rows.rows)
    copy(rows.row_block(m, rows.rows - m), lines.col_block(m, rows.rows - m).transposed());
}

namespace detail {

/// Byte j of word i and byte i of word j change places.
inline void transpose_bytes(std::uint64_t (&word)[8]) noexcept {
  const auto exchange = [&](int distance, int shift, std::uint64_t mask) {
    CAFEQ_UNROLL
    for (int i = 0; i < 8; ++i)
      if ((i & distance) == 0) {
        const std::uint64_t moved = ((word[i] >> shift) ^ word[i + distance]) & mask;
        word[i + distance] ^= moved;
        word[i] ^= moved << shift;
      }
  };
  exchange(4, 32, 0x00000000ffffffffu);
  exchange(2, 16, 0x0000ffff0000ffffu);
  exchange(1, 8, 0x00ff00ff00ff00ffu);
}

}  // namespace detail

/// Codes of n lines of m lanes, lines `stride` apart, into m rows that row(l) gives as pointers to
/// n bytes.
template <class Row>
void lines_to_rows(const std::uint8_t* codes, Index stride, Index n, Index m, Row&& row) noexcept {
  constexpr Index tile = 8;
  for (Index l = 0; l < m; l += tile) {
    std::uint8_t* out[tile];
    const Index lanes = std::min(tile, m - l);
    for (Index i = 0; i < lanes; ++i) out[i] = row(l + i);
    Index j = 0;
    if (lanes == tile && std::endian::native == std::endian::little)
      for (; j + tile <= n; j += tile) {
        std::uint64_t word[tile];
        CAFEQ_UNROLL
        for (Index i = 0; i < tile; ++i)
          std::memcpy(&word[i], codes + (j + i) * stride + l, sizeof word[i]);
        detail::transpose_bytes(word);
        CAFEQ_UNROLL
        for (Index i = 0; i < tile; ++i) std::memcpy(out[i] + j, &word[i], sizeof word[i]);
      }
    for (; j < n; ++j)
      for (Index i = 0; i < lanes; ++i) out[i][j] = codes[j * stride + l + i];
  }
}

}  // namespace cafeq::kernel
