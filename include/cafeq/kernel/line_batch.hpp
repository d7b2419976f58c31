/// A batch of lines that are rounded one after another, on grids of uniform levels, and the step
/// that rounds some lanes of one line.
///
/// A line is what is rounded at once, a row or a column of a matrix; its lanes are independent of
/// each other and run through vectors. Lane l of a line has the values scale·(k + ½) + offset or
/// scale·k + offset, k = low … high: the operations are those of UniformLevels::code and the
/// quantizers' decode, so the codes are those of rounding weight by weight.
#pragma once

#include <cmath>
#include <cstdint>

#include "cafeq/core/view.hpp"
#include "cafeq/kernel/codec.hpp"

namespace cafeq::kernel {

/// Lines that these kernels see have a multiple of this many lanes. Lanes to fill up may hold
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
struct LineBatch {
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
  if constexpr (Half) return clamp_level(round_down(u), low, high);
  else return clamp_level(round_even(u), low, high);
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
V round_lanes(const LineBatch& b, Index j, Index l, const V& t) noexcept {
  const LaneGrid& g = b.grids[j];
  const V low = V::load_unaligned(g.low + l), offset = V::load_unaligned(g.offset + l);
  const V step = nearest_step<Half>(t, V::load_unaligned(g.inverse + l), offset, low,
                                    V::load_unaligned(g.high + l));
  simd::store_uint8(b.codes + j * b.code_stride + l, step - low);
  return step_error<Half>(V::load_unaligned(&b.X.data[j * b.X.row_stride + l]), step,
                          V::load_unaligned(g.scale + l), offset);
}

/// The same for one lane.
template <bool Half>
float round_lane_reference(const LineBatch& b, Index j, Index l, float t) noexcept {
  const LaneGrid& g = b.grids[j];
  const float step = nearest_step<Half>(t, g.inverse[l], g.offset[l], g.low[l], g.high[l]);
  b.codes[j * b.code_stride + l] = std::uint8_t(step - g.low[l]);
  return step_error<Half>(b.X(j, l), step, g.scale[l], g.offset[l]);
}

}  // namespace detail

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

/// The meaning of code_errors(), lane by lane.
template <bool Half>
void code_errors_reference(const float* x, const std::uint8_t* codes, const LaneGrid& g, float* e,
                           Index count) noexcept {
  for (Index l = 0; l < count; ++l)
    e[l] = detail::step_error<Half>(x[l], float(codes[l]) + g.low[l], g.scale[l], g.offset[l]);
}

}  // namespace cafeq::kernel
