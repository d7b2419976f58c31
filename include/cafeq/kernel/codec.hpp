/// Levels of a grid, codes of weights and weights of codes.
///
/// A grid is given by its levels in units of the scale: a function object that takes u = (x −
/// offset)/scale, a float or a vector, to the nearest level. The value of a weight is x̂ = scale ·
/// level + offset. u is computed as (x − offset) · (1/scale), which no FMA can contract, so a
/// compiler has no say in which code a weight gets.
#pragma once

#include <cstdint>

#include "cafeq/kernel/lane_order.hpp"
#include "cafeq/simd/round_to_bytes.hpp"

namespace cafeq::kernel {

/// x̂ = scale · level + offset.
struct ScaleOffset {
  float scale = 0;
  float offset = 0;
  bool operator==(const ScaleOffset&) const = default;
};

/// 1/scale, and 0 for scale 0: then every weight is encoded as zero is.
inline float inverse_scale(float scale) noexcept { return scale != 0 ? 1.0f / scale : 0.0f; }
template <class Arch>
Batch<float, Arch> inverse_scale(const Batch<float, Arch>& scale) noexcept {
  using V = Batch<float, Arch>;
  return simd::select(scale != V(0.0f), V(1.0f) / scale, V(0.0f));
}

namespace detail {

inline float round_even(float u) noexcept { return std::nearbyint(u); }
inline float round_down(float u) noexcept { return std::floor(u); }
inline float clamp_level(float u, float low, float high) noexcept {
  const float raised = u > low ? u : low;  // NaN becomes low
  return raised < high ? raised : high;
}
template <class A>
Batch<float, A> round_even(const Batch<float, A>& u) noexcept {
  return simd::nearbyint(u);
}
template <class A>
Batch<float, A> round_down(const Batch<float, A>& u) noexcept {
  return simd::floor(u);
}
inline float magnitude(float x) noexcept { return std::abs(x); }
inline float at_most(float u, float top) noexcept { return u < top ? u : top; }
inline float clamp_code(float u, float top) noexcept { return clamp_level(u, 0.0f, top); }
template <class A>
Batch<float, A> magnitude(const Batch<float, A>& x) noexcept {
  return simd::abs(x);
}
template <class A>
Batch<float, A> at_most(const Batch<float, A>& u, float top) noexcept {
  if constexpr (simd::prefers_integers<A>) return simd::min_signed_bits(u, Batch<float, A>(top));
  else return simd::min(u, Batch<float, A>(top));
}
/// Between 0 and top. (Where the bits of floats are compared as integers, the units that round and
/// add have the less to do.)
template <class A>
Batch<float, A> clamp_code(const Batch<float, A>& u, float top) noexcept {
  using V = Batch<float, A>;
  if constexpr (simd::prefers_integers<A>)
    return simd::min_signed_bits(simd::max_signed_bits(u, V(0.0f)), V(top));
  else return simd::min(simd::max(u, V(0.0f)), V(top));
}
template <class A>
Batch<float, A> clamp_level(const Batch<float, A>& u, const Batch<float, A>& low,
                            const Batch<float, A>& high) noexcept {
  return simd::min(simd::max(u, low), high);
}
template <class A>
Batch<float, A> clamp_level(const Batch<float, A>& u, float low, float high) noexcept {
  return clamp_level(u, Batch<float, A>(low), Batch<float, A>(high));
}

}  // namespace detail

/// Consecutive integers low … high, ties to even; with Half, low + ½ … high + ½, where level k + ½
/// holds k <= u < k + 1.
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
  /// Half levels are symmetric about zero: of a weight's magnitude, fold(x)/s − ½ rounded is the
  /// step above the lowest positive level. Others are counted from the lowest: u − low rounded,
  /// between 0 and the last.
  static constexpr bool is_folded = Half;
  template <class V>
  V fold(const V& x) const noexcept {
    if constexpr (Half) return detail::magnitude(x);
    else return x;
  }
  template <class V>
  V nearest(const V& shifted) const noexcept {
    if constexpr (Half) return detail::at_most(detail::round_even(shifted), high);
    else return detail::clamp_code(detail::round_even(shifted), high - low);
  }
  /// What takes a count back to a level.
  float bias() const noexcept { return Half ? 0.5f : low; }

  /// The level of a largest weight that is not clipped: the end with the shorter reach.
  float reach() const noexcept { return Half ? high + 0.5f : high; }
  /// The lowest level.
  float base() const noexcept { return Half ? low + 0.5f : low; }
  std::uint8_t code(float u) const noexcept { return std::uint8_t((*this)(u)-base()); }
  float level(std::uint8_t code) const noexcept { return base() + float(code); }
};

namespace detail {

template <class Levels, class V>
V above_offset(const V& x, const V& offset) noexcept {
  if constexpr (Levels::has_offset) return x - offset;
  else return x;
}

/// The codes of weights, 32 at a time: what rounds (x − offset)/scale to the number of a level.
template <class Arch, class Levels>
using CodesOf = simd::RoundToBytes<Arch, Levels::has_offset, Levels::is_folded>;
template <class Arch, class Levels>
CodesOf<Arch, Levels> codes_of(const Levels& levels) noexcept {
  return {int(-levels.low), int(levels.high - levels.low)};
}

}  // namespace detail

/// codes[i] = the number, from the lowest level up, of the level nearest to (x[i] − offset)/scale.
template <class Arch = DefaultArch, bool Offset, bool Half>
void encode(std::span<const float> x, const UniformLevels<Offset, Half>& levels, ScaleOffset at,
            std::span<std::uint8_t> codes) noexcept {
  CAFEQ_ASSERT(codes.size() == x.size() && (!Offset || levels.low == 0));
  using V = Batch<float, Arch>;
  using Levels = UniformLevels<Offset, Half>;
  const float per_unit = inverse_scale(at.scale);

  if constexpr (detail::CodesOf<Arch, Levels>::fast) {
    auto round = detail::codes_of<Arch>(levels);
    round.measure(at.offset, per_unit);
    std::size_t done = 0;
    for (; done + 32 <= x.size(); done += 32) round.store(x.data() + done, codes.data() + done);
    x = x.subspan(done);
    codes = codes.subspan(done);
  }
  if (x.empty()) return;

  // What is left, or all of it elsewhere: 16 codes at a time go through integers of 32 bits.
  const V inverse(per_unit), offset(at.offset), base(levels.base());
  alignas(64) std::int32_t wide[detail::lanes];
  std::uint8_t* out = codes.data();
  Index left = Index(codes.size());
  detail::for_each_vector<Arch>(x, [&](Index p, const V& v, auto) {
    const V level = levels(detail::above_offset<Levels>(v, offset) * inverse);
    simd::to_int(level - base).store_aligned(wide + p * Index(V::size));
    if (p + 1 < detail::lane_parts<Arch>) return;
    const Index now = std::min(left, detail::lanes);
    for (Index l = 0; l < now; ++l) out[l] = std::uint8_t(wide[l]);
    out += detail::lanes;
    left -= detail::lanes;
  });
}

/// The meaning of encode(), weight by weight.
template <bool Offset, bool Half>
void encode_reference(std::span<const float> x, const UniformLevels<Offset, Half>& levels,
                      ScaleOffset at, std::span<std::uint8_t> codes) noexcept {
  for (std::size_t i = 0; i < x.size(); ++i)
    codes[i] = levels.code(detail::above_offset<UniformLevels<Offset, Half>>(x[i], at.offset) *
                           inverse_scale(at.scale));
}

}  // namespace cafeq::kernel
