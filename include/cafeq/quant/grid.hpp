/// Grid: levels and a scale format, put together; all of a quantizer follows from the two.
///
///   struct MyLevels {                                       // what is yours
///     static constexpr std::string_view name = "mine";
///     static constexpr UniformLevels<false> of(int bits) { … }
///   };
///   template <int Bits = runtime_bits>
///   using MyGrid = Grid<MyLevels, Fp16Scale<>, Bits>;       // MyGrid<4>{.group = 64}
///
/// Grids of UniformLevels are packed, rounded and multiplied in the fastest loops there are,
/// whoever wrote them: everything that those loops ask is in the concept UniformGrid below.
#pragma once

#include <optional>
#include <span>
#include <string_view>
#include <utility>

#include "cafeq/kernel/pack_codes.hpp"
#include "cafeq/quant/quantizer.hpp"
#include "cafeq/quant/rows.hpp"
#include "cafeq/quant/scale_fit.hpp"

namespace cafeq {

namespace detail {

/// The bits of a grid that is not told: those of its type, or of its table of levels, or 4.
template <int Bits, class F>
constexpr BitCount<Bits> default_bits([[maybe_unused]] const F& levels) noexcept {
  if constexpr (Bits == runtime_bits && requires { levels.bits(); }) return levels.bits();
  else return {};
}

template <class F>
constexpr std::string_view name_of() noexcept {
  if constexpr (requires { F::name; }) return F::name;
  else return {};
}

/// Rows up to this size are asked for one row ahead: while this one, read when its parameters were
/// found, is computed with, memory would be idle.
inline constexpr Index prefetched_bytes = Index(1) << 17;

}  // namespace detail

/// A quantizer of the given levels under the given scales. Bits are part of the type, or chosen at
/// run time; Group is the granularity that it has if not told.
///
/// x̂ = scale(params) · level(code) + offset(params), rounded to float once.
template <LevelFamily F, ScaleFormat S, int Bits = runtime_bits, Index Group = per_row>
struct Grid {
  using Params = typename S::Params;
  using Levels = decltype(std::declval<const F&>().of(Bits));
  static constexpr std::string_view name = detail::name_of<F>();
  static constexpr bool has_offset = S::has_offset;
  /// Whether scale · code has no more digits than a float.
  static constexpr bool has_exact_products =
      S::scale_digits + (Bits == runtime_bits ? 8 : Bits) <= 24;
  /// Whether all groups have the same levels.
  static constexpr bool shares_levels = !HasZeroPoint<S>;
  static_assert(HasZeroPoint<S> ? detail::is_uniform<Levels> && !Levels::has_offset
                                : Levels::has_offset == S::has_offset,
                "cafeq: levels have an offset where their scale format has one; under a zero point "
                "they are UniformLevels without");

  [[no_unique_address]] F levels{};
  [[no_unique_address]] BitCount<Bits> bits = detail::default_bits<Bits>(levels);
  Index group = Group;
  ScaleSearch search = ScaleSearch::mse;
  [[no_unique_address]] S scale_format{};

  std::optional<Error> fault(Index /*rows*/, Index /*cols*/) const {
    if constexpr (requires { levels.fault(bits); }) {
      if (auto fault = levels.fault(bits)) return fault;
    } else if constexpr (Bits == runtime_bits) {
      if (auto fault = fault_of(bits)) return fault;
    }
    if constexpr (requires { scale_format.fault(group); }) return scale_format.fault(group);
    else return std::nullopt;
  }
  /// The scale format for codes of these bits.
  constexpr S format() const noexcept {
    if constexpr (requires { scale_format.for_bits(bits); }) return scale_format.for_bits(bits);
    else return scale_format;
  }

  /// The levels in units of the scale; they refer to this grid if they are a table.
  constexpr Levels level_set() const noexcept { return levels.of(bits); }
  /// Those of one group: shifted by its zero point, if it has one.
  constexpr Levels level_set([[maybe_unused]] const Params& p) const noexcept {
    Levels set = level_set();
    if constexpr (HasZeroPoint<S>) {
      const float zero = scale_format.zero(p);
      set.low -= zero;
      set.high -= zero;
    }
    return set;
  }

  // One weight, one group.

  Params fit(std::span<const float> x) const noexcept {
    Params p{};
    fit_row(x, std::max<Index>(1, Index(x.size())), {&p, 1});
    return p;
  }
  std::uint8_t encode(float x, const Params& p) const noexcept {
    const float y = Levels::has_offset ? x - offset(p) : x;
    return level_set(p).code(y * kernel::inverse_scale(scale(p)));
  }
  /// The product is exact, in float or else in double, so contraction cannot change the sum.
  float decode(std::uint8_t code, const Params& p) const noexcept {
    if constexpr (detail::is_uniform<Levels> && has_exact_products) {
      if constexpr (has_offset) return scale(p) * level(code) + offset(p);
      else return scale(p) * level(code);
    } else {
      const double product = double(scale(p)) * double(level(code));
      if constexpr (has_offset) return float(product + double(offset(p)));
      else return float(product);
    }
  }
  void encode_group(std::span<const float> x, const Params& p,
                    std::span<std::uint8_t> codes) const noexcept;

  // What a LinearGrid says.

  float level(std::uint8_t code) const noexcept { return level_set().level(code); }
  float scale(const Params& p) const noexcept { return scale_format.scale(p); }
  float offset(const Params& p) const noexcept { return scale_format.offset(p); }
  Params with_scale(const Params& p, float scale, float offset) const noexcept {
    return format().nearest(p, scale, offset);
  }
  /// Scales and offsets of as many groups as there are in ScaleOffsets, or fewer.
  ScaleOffsets scale_offsets(std::span<const Params> params) const noexcept {
    return detail::read_params(scale_format, params);
  }
  /// The same for any number of groups; all spans have one length.
  void read_scales(std::span<const Params> params, std::span<float> scale,
                   std::span<float> offset) const noexcept {
    detail::read_params(scale_format, params, scale, offset);
  }

  // Rows; see quant/rows.hpp.

  void fit_row(std::span<const float> x, Index width, std::span<Params> params) const noexcept {
    const FitOptions options{bits, search};
    if constexpr (requires { format().fit_row(x, width, level_set(), options, params); })
      format().fit_row(x, width, level_set(), options, params);
    else detail::fit_scales(format(), level_set(), options, x, width, params);
  }
  void pack_row(std::span<const float> x, Index width, std::span<const Params> params,
                std::span<std::uint8_t> packed) const noexcept;
  void unpack_row(std::span<const std::uint8_t> packed, Index width, std::span<const Params> params,
                  std::span<float> out) const noexcept;

  // What is stored.

  std::int64_t param_bits() const noexcept { return format().bits(); }
  static constexpr std::int64_t tensor_bits() noexcept {
    if constexpr (requires { S::tensor_bits(); }) return S::tensor_bits();
    else return 0;
  }
  Grid for_tensor(View<const float> X) const noexcept
    requires requires(const S& format) { format.for_tensor(X, 0.0f); }
  {
    Grid fitted = *this;
    fitted.scale_format = scale_format.for_tensor(X, level_set().reach());
    return fitted;
  }
  template <class Visit>
  static void for_each_field(Visit&& visit)
    requires requires { S::for_each_field(visit); }
  {
    S::for_each_field(visit);
  }
};

/// A linear grid whose lines and products go through the fastest loops. Every Grid of UniformLevels
/// is one, under any scale format of the library; a class of your own may be one too.
///   Levels               UniformLevels
///   level_set(params)    the levels of one group: encode(x, params) is their code for
///                        (x − offset)/scale if they have an offset, else for x/scale
///   has_exact_products   scale · code, and scale times half an odd number, are exact in float
template <class Q>
concept UniformGrid =
    LinearGrid<Q> && detail::is_uniform<typename Q::Levels> && Q::has_exact_products &&
    requires(const Q& q, const typename Q::Params& params) {
      { q.level_set(params) } -> std::same_as<typename Q::Levels>;
    };

template <LevelFamily F, ScaleFormat S, int Bits, Index Group>
void Grid<F, S, Bits, Group>::encode_group(std::span<const float> x, const Params& p,
                                           std::span<std::uint8_t> codes) const noexcept {
  const Levels set = level_set(p);
  if constexpr (detail::is_uniform<Levels>) {
    kernel::encode(x, set, detail::ScaleOffset{scale(p), offset(p)}, codes);
  } else {
    std::size_t whole = 0;
    if constexpr (requires(const Batch<float>& v) { set.codes(v); } && !Levels::has_offset) {
      using V = Batch<float>;
      const V inverse(kernel::inverse_scale(scale(p)));
      whole = x.size() / V::size * V::size;
      for (std::size_t i = 0; i < whole; i += V::size)
        simd::store_uint8<DefaultArch>(codes.data() + i,
                                       set.codes(V::load_unaligned(x.data() + i) * inverse));
    }
    for (std::size_t i = whole; i < x.size(); ++i) codes[i] = encode(x[i], p);
  }
}

template <LevelFamily F, ScaleFormat S, int Bits, Index Group>
void Grid<F, S, Bits, Group>::pack_row(std::span<const float> x, Index width,
                                       std::span<const Params> params,
                                       std::span<std::uint8_t> packed) const noexcept {
  // The kernel takes groups of one and the same level set that begin at a byte.
  if constexpr (detail::is_uniform<Levels> && shares_levels) {
    if (width % 8 == 0 || width >= Index(x.size())) {
      const Index following = Index(x.size_bytes());
      detail::for_each_groups(x, width, [&](std::size_t first, const detail::GroupSpan& groups) {
        if (following <= detail::prefetched_bytes)
          for (std::size_t l = 0; l < groups.x.size(); l += 16)
            simd::prefetch(groups.x.data() + l, following);
        const ScaleOffsets at = scale_offsets(params.subspan(first, std::size_t(groups.count())));
        kernel::encode_packed(groups.x, width, level_set(), at.scale.data(), at.offset.data(), bits,
                              packed.subspan(first * std::size_t(width) / 8 * std::size_t(bits)));
      });
      return;
    }
  }
  detail::pack_groups(*this, x, width, params, packed);
}

template <LevelFamily F, ScaleFormat S, int Bits, Index Group>
void Grid<F, S, Bits, Group>::unpack_row(std::span<const std::uint8_t> packed, Index width,
                                         std::span<const Params> params,
                                         std::span<float> out) const noexcept {
  // The kernel adds scale · code, exact in float, to what code 0 stands for.
  if constexpr (detail::is_uniform<Levels> && has_exact_products) {
    const Index n = Index(out.size()), at_once = Index(detail::groups_at_once);
    if (width % 8 == 0 || width >= n) {
      const float lowest = level(0);
      for (Index g = 0; g < Index(params.size()); g += at_once) {
        const std::size_t count = std::size_t(std::min(at_once, Index(params.size()) - g));
        ScaleOffsets at = scale_offsets(params.subspan(std::size_t(g), count));
        if constexpr (!has_offset)
          for (std::size_t k = 0; k < at.scale.size(); ++k) at.offset[k] = at.scale[k] * lowest;
        kernel::decode_packed(packed.subspan(std::size_t(g * width / 8 * bits)), bits, width,
                              at.scale.data(), at.offset.data(),
                              out.subspan(std::size_t(g * width),
                                          std::size_t(std::min(at_once * width, n - g * width))));
      }
      return;
    }
  }
  detail::unpack_groups(*this, packed, width, params, out);
}

}  // namespace cafeq
