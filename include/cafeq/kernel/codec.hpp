/// Codes of a group and what a scale costs it: the inner loops of every scale search.
///
/// A grid is given by its levels in units of the scale: a function object that takes u = (x − offset)/scale, a float or a vector, to the
/// nearest level. The value of a weight is x̂ = scale · level + offset. u is computed as (x − offset) · (1/scale), which no FMA can contract; residuals and
/// sums are explicit FMAs in the fixed lane order of kernel/stats.hpp. So a compiler has no say in which scale wins.
#pragma once

#include <cstdint>

#include "cafeq/kernel/stats.hpp"

namespace cafeq::kernel {

/// x̂ = scale · level + offset.
struct Line {
  float scale = 0;
  float offset = 0;
  bool operator==(const Line&) const = default;
};

/// 1/scale, and 0 for scale 0: then every weight is encoded as zero is.
inline float inverse_scale(float scale) noexcept { return scale != 0 ? 1.0f / scale : 0.0f; }

namespace detail {

inline float round_even(float u) noexcept { return std::nearbyint(u); }
inline float round_down(float u) noexcept { return std::floor(u); }
inline float clamp_level(float u, float low, float high) noexcept {
  const float raised = u > low ? u : low;  // NaN becomes low
  return raised < high ? raised : high;
}
template <class A>
Batch<float, A> round_even(const Batch<float, A>& u) noexcept {
  return xsimd::nearbyint(u);
}
template <class A>
Batch<float, A> round_down(const Batch<float, A>& u) noexcept {
  return xsimd::floor(u);
}
template <class A>
Batch<float, A> clamp_level(const Batch<float, A>& u, float low, float high) noexcept {
  using V = Batch<float, A>;
  return xsimd::min(xsimd::max(u, V(low)), V(high));
}

}  // namespace detail

/// Consecutive integers low … high, ties to even; with Half, low + ½ … high + ½, where level k + ½ holds k <= u < k + 1.
template <bool Offset, bool Half>
struct UniformLevels {
  static constexpr bool has_offset = Offset;
  float low;
  float high;

  template <class V>
  V operator()(const V& u) const noexcept {
    if constexpr (Half) return detail::clamp_level(detail::round_down(u), low, high) + V(0.5f);
    else return detail::clamp_level(detail::round_even(u), low, high);
  }
  /// The lowest level.
  float base() const noexcept { return Half ? low + 0.5f : low; }
  std::uint8_t code(float u) const noexcept { return std::uint8_t((*this)(u) - base()); }
  float level(std::uint8_t code) const noexcept { return base() + float(code); }
};

/// Sums over a group with residuals r = x − x̂ and levels l: all that a least-squares step of scale and offset needs. Without an offset,
/// `residual` and `level` stay zero.
struct LevelSums {
  double residual = 0;        ///< Σ r
  double level = 0;           ///< Σ l
  double residual_level = 0;  ///< Σ r l
  double level_squares = 0;   ///< Σ l²
};

namespace detail {

template <class Levels, class V>
V above_offset(const V& x, const V& offset) noexcept {
  if constexpr (Levels::has_offset) return x - offset;
  else return x;
}

/// Candidates that share one pass over a block: enough to hide the latency of one another's chains in groups as short as 64.
inline constexpr Index candidates_at_once = 8;

template <Index Count, class Arch, class Levels>
inline void squared_errors_block(std::span<const float> x, const Levels& levels, const Line* lines, double* errors) noexcept {
  using V = Batch<float, Arch>;
  constexpr Index parts = lane_parts<Arch>;
  V sum[Count][parts];
  V scale[Count], inverse[Count], offset[Count];
  CAFEQ_UNROLL
  for (Index c = 0; c < Count; ++c) {
    scale[c] = V(lines[c].scale);
    inverse[c] = V(inverse_scale(lines[c].scale));
    offset[c] = V(lines[c].offset);
    CAFEQ_UNROLL
    for (Index p = 0; p < parts; ++p) sum[c][p] = V(0.0f);
  }
  for_each_vector<Arch>(x, [&](Index p, const V& v, auto keep) {
    CAFEQ_UNROLL
    for (Index c = 0; c < Count; ++c) {
      const V y = above_offset<Levels>(v, offset[c]);
      const V residual = keep(simd::fnma(levels(y * inverse[c]), scale[c], y));
      sum[c][p] = simd::fma(residual, residual, sum[c][p]);
    }
  });
  CAFEQ_UNROLL
  for (Index c = 0; c < Count; ++c) errors[c] += double(sum_of_lanes<Arch>(sum[c]));
}

}  // namespace detail

/// errors[c] = Σ (x − x̂)² at lines[c]. One pass over memory for all of them.
template <class Arch = DefaultArch, class Levels>
void squared_errors(std::span<const float> x, const Levels& levels, std::span<const Line> lines, std::span<double> errors) noexcept {
  CAFEQ_ASSERT(errors.size() == lines.size());
  constexpr Index many = detail::candidates_at_once;
  std::fill(errors.begin(), errors.end(), 0.0);
  const Index count = Index(lines.size());
  detail::for_each_block(x, [&](std::span<const float> block) {
    Index c = 0;
    for (; c + many <= count; c += many) detail::squared_errors_block<many, Arch>(block, levels, lines.data() + c, errors.data() + c);
    if (c + many / 2 <= count) {
      detail::squared_errors_block<many / 2, Arch>(block, levels, lines.data() + c, errors.data() + c);
      c += many / 2;
    }
    for (; c < count; ++c) detail::squared_errors_block<1, Arch>(block, levels, lines.data() + c, errors.data() + c);
  });
}

template <class Levels>
void squared_errors_reference(std::span<const float> x, const Levels& levels, std::span<const Line> lines, std::span<double> errors) noexcept {
  for (std::size_t c = 0; c < lines.size(); ++c) {
    errors[c] = 0;
    const Line line = lines[c];
    detail::for_each_block(x, [&](std::span<const float> block) {
      float sum[detail::lanes] = {};
      for (std::size_t i = 0; i < block.size(); ++i) {
        const float y = detail::above_offset<Levels>(block[i], line.offset);
        const float residual = std::fma(-levels(y * inverse_scale(line.scale)), line.scale, y);
        float& lane = sum[i % std::size_t(detail::lanes)];
        lane = std::fma(residual, residual, lane);
      }
      errors[c] += double(detail::sum_of_lanes_reference(sum));
    });
  }
}

/// The sums for one least-squares step at the codes that `line` gives.
template <class Arch = DefaultArch, class Levels>
LevelSums level_sums(std::span<const float> x, const Levels& levels, Line line) noexcept {
  using V = Batch<float, Arch>;
  constexpr Index parts = detail::lane_parts<Arch>;
  const V scale(line.scale), inverse(inverse_scale(line.scale)), offset(line.offset);
  LevelSums total;
  detail::for_each_block(x, [&](std::span<const float> block) {
    V r[parts], l[parts], rl[parts], ll[parts];
    CAFEQ_UNROLL
    for (Index p = 0; p < parts; ++p) r[p] = l[p] = rl[p] = ll[p] = V(0.0f);
    detail::for_each_vector<Arch>(block, [&](Index p, const V& v, auto keep) {
      const V y = detail::above_offset<Levels>(v, offset);
      const V level = keep(levels(y * inverse));
      const V residual = keep(simd::fnma(level, scale, y));
      if constexpr (Levels::has_offset) {
        r[p] = r[p] + residual;
        l[p] = l[p] + level;
      }
      rl[p] = simd::fma(residual, level, rl[p]);
      ll[p] = simd::fma(level, level, ll[p]);
    });
    if constexpr (Levels::has_offset) {
      total.residual += double(detail::sum_of_lanes<Arch>(r));
      total.level += double(detail::sum_of_lanes<Arch>(l));
    }
    total.residual_level += double(detail::sum_of_lanes<Arch>(rl));
    total.level_squares += double(detail::sum_of_lanes<Arch>(ll));
  });
  return total;
}

template <class Levels>
LevelSums level_sums_reference(std::span<const float> x, const Levels& levels, Line line) noexcept {
  LevelSums total;
  detail::for_each_block(x, [&](std::span<const float> block) {
    float r[detail::lanes] = {}, l[detail::lanes] = {}, rl[detail::lanes] = {}, ll[detail::lanes] = {};
    for (std::size_t i = 0; i < block.size(); ++i) {
      const std::size_t lane = i % std::size_t(detail::lanes);
      const float y = detail::above_offset<Levels>(block[i], line.offset);
      const float level = levels(y * inverse_scale(line.scale));
      const float residual = std::fma(-level, line.scale, y);
      if constexpr (Levels::has_offset) {
        r[lane] += residual;
        l[lane] += level;
      }
      rl[lane] = std::fma(residual, level, rl[lane]);
      ll[lane] = std::fma(level, level, ll[lane]);
    }
    total.residual += double(detail::sum_of_lanes_reference(r));
    total.level += double(detail::sum_of_lanes_reference(l));
    total.residual_level += double(detail::sum_of_lanes_reference(rl));
    total.level_squares += double(detail::sum_of_lanes_reference(ll));
  });
  return total;
}

/// codes[i] = the number, from the lowest level up, of the level nearest to (x[i] − offset)/scale.
template <class Arch = DefaultArch, bool Offset, bool Half>
void encode(std::span<const float> x, const UniformLevels<Offset, Half>& levels, Line line, std::span<std::uint8_t> codes) noexcept {
  CAFEQ_ASSERT(codes.size() == x.size());
  using V = Batch<float, Arch>;
  using Levels = UniformLevels<Offset, Half>;
  const V inverse(inverse_scale(line.scale)), offset(line.offset), base(levels.base());
  alignas(64) std::int32_t wide[detail::lanes];
  std::uint8_t* out = codes.data();
  Index left = Index(codes.size());
  detail::for_each_vector<Arch>(x, [&](Index p, const V& v, auto) {
    const V level = levels(detail::above_offset<Levels>(v, offset) * inverse);
    xsimd::to_int(level - base).store_aligned(wide + p * Index(V::size));
    if (p + 1 < detail::lane_parts<Arch>) return;
    if (left >= detail::lanes) {
      for (Index l = 0; l < detail::lanes; ++l) out[l] = std::uint8_t(wide[l]);
    } else {
      for (Index l = 0; l < left; ++l) out[l] = std::uint8_t(wide[l]);
    }
    out += detail::lanes;
    left -= detail::lanes;
  });
}

template <bool Offset, bool Half>
void encode_reference(std::span<const float> x, const UniformLevels<Offset, Half>& levels, Line line, std::span<std::uint8_t> codes) noexcept {
  for (std::size_t i = 0; i < x.size(); ++i)
    codes[i] = levels.code(detail::above_offset<UniformLevels<Offset, Half>>(x[i], line.offset) * inverse_scale(line.scale));
}

}  // namespace cafeq::kernel
