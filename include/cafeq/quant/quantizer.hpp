/// What a quantizer is: codes for weights, a granularity, and a way to find the parameters of a
/// group.
///
/// A weight matrix X [rows, cols] is cut along its rows into groups; each group has Params (a
/// scale, perhaps an offset), each weight a code in [0, 2^bits). There are three ways to write one,
/// from the freest to the fastest:
///   ScalarQuantizer   fit, encode and decode, whatever they do (examples/custom_quantizer.cpp)
///   LinearGrid        also says that values are scale · level + offset: rounders refit its scales
///   Grid              levels and a scale format (quant/grid.hpp), which gives all the rest
#pragma once

#include <concepts>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <type_traits>

#include "cafeq/core/fault.hpp"
#include "cafeq/core/view.hpp"

namespace cafeq {

/// Granularity: one group a row (an output channel).
inline constexpr Index per_row = 0;
/// Granularity: one group for the whole matrix.
inline constexpr Index per_tensor = -1;

/// A scalar quantizer.
///   bits               of a code, 1 to 8 (a static constant or a member)
///   group              per_row, per_tensor, or the number of consecutive weights of a row that
///                      share parameters (the last group of a row may be shorter)
///   Params             what is stored of a group; trivially copyable
///   fit(span)          parameters for the weights of one group
///   encode(x, params)  the code of a weight: the nearest level, ties as the grid says
///   decode(code, params)
///
/// Weights arrive scaled by a power of two to a largest magnitude in [2^12, 2^13), so that 16-bit
/// scales neither overflow nor vanish.
///
/// Optional members:
///   fault(rows, cols)  what keeps it from working on such a matrix, if anything (core/fault.hpp);
///                      bits and group out of range are found without it
///   param_bits()       stored bits of a Params (default: 8 · sizeof)
///   tensor_bits()      stored bits of the quantizer's own tensor-wide state (default 0)
///   for_tensor(view)   a copy with that state fitted to a whole matrix
///   encode_group(span, params, codes)   the codes of many weights at once, equal to encode's
///   fit_row, pack_row, unpack_row       whole rows at once: see quant/rows.hpp
///   name                                what a quantized file calls it
///   for_each_field(f)  f(name, &Params::member) for what a quantized file keeps of a Params
template <class Q>
concept ScalarQuantizer = requires(const Q& q, std::span<const float> group, float x,
                                   std::uint8_t code, const typename Q::Params& params) {
  requires std::is_trivially_copyable_v<typename Q::Params>;
  requires std::copyable<Q>;
  { q.bits } -> std::convertible_to<int>;
  { q.group } -> std::convertible_to<Index>;
  { q.fit(group) } -> std::same_as<typename Q::Params>;
  { q.encode(x, params) } -> std::same_as<std::uint8_t>;
  { q.decode(code, params) } -> std::same_as<float>;
};

/// A quantizer whose values are scale(params) · level(code) + offset(params). Its parameters can be
/// refitted by least squares for given codes, in any metric: what error feedback, ITQ, ALS and
/// alternating rounding do.
///   has_offset         whether the offset is stored; if not it is zero
///   with_scale(params, scale, offset)   the parameters nearest to these that can be stored, or
///                      `params` itself where they cannot be: not finite, or of a sign that the
///                      format does not have
/// Optional member:
///   read_scales(params, scale, offset)  scale() and offset() of many groups, spans of one length:
///                      what products ask a row at a time
template <class Q>
concept LinearGrid = ScalarQuantizer<Q> && requires(const Q& q, std::uint8_t code,
                                                    const typename Q::Params& params, float value) {
  { q.level(code) } -> std::same_as<float>;
  { q.scale(params) } -> std::same_as<float>;
  { q.offset(params) } -> std::same_as<float>;
  { q.with_scale(params, value, value) } -> std::same_as<typename Q::Params>;
  { Q::has_offset } -> std::convertible_to<bool>;
};

/// As an argument of a grid: its bits are a member, 2 to 8, chosen at run time.
inline constexpr int runtime_bits = 0;

/// The member `bits` of a grid: part of the type, or a number.
template <int Bits>
struct BitCount {
  static_assert(Bits >= 2 && Bits <= 8, "cafeq: bits must be 2 to 8");
  static constexpr int value = Bits;
  constexpr operator int() const noexcept { return Bits; }
};
template <>
struct BitCount<runtime_bits> {
  static constexpr int least = 2, most = 8;
  int count = 4;
  constexpr BitCount() noexcept = default;
  constexpr BitCount(int bits) noexcept : count(bits) {}
  constexpr operator int() const noexcept { return count; }
};

namespace detail {

/// The bits of a quantizer whose type says them, else 0.
template <class Q>
consteval int fixed_bits() {
  using Bits = std::remove_cvref_t<decltype(Q::bits)>;
  if constexpr (requires { std::bool_constant<(Bits::value > 0)>{}; }) return Bits::value;
  else if constexpr (requires { std::bool_constant<(Q::bits > 0)>{}; }) return Q::bits;
  else return 0;
}

}  // namespace detail

template <ScalarQuantizer Q>
std::int64_t param_bits(const Q& q) {
  if constexpr (requires { q.param_bits(); }) return q.param_bits();
  else return 8 * std::int64_t(sizeof(typename Q::Params));
}

template <ScalarQuantizer Q>
std::int64_t tensor_bits(const Q& q) {
  if constexpr (requires { q.tensor_bits(); }) return q.tensor_bits();
  else return 0;
}

/// The quantizer with its tensor-wide state, if it has one, fitted to X.
template <ScalarQuantizer Q>
Q for_tensor(const Q& q, View<const float> X) {
  if constexpr (requires {
                  { q.for_tensor(X) } -> std::same_as<Q>;
                })
    return q.for_tensor(X);
  else return q;
}

/// What is wrong with bits that were chosen at run time, if anything.
inline std::optional<Error> fault_of(const BitCount<runtime_bits>& bits) {
  if (bits.count >= bits.least && bits.count <= bits.most) return std::nullopt;
  return Error(ErrorCode::invalid_argument, message("quantizer: bits is ", bits.count, ", must be ",
                                                    bits.least, " to ", bits.most));
}

/// What is wrong with a quantizer for a matrix [rows, cols], if anything: what its own fault()
/// says, else bits or a group out of range, whoever wrote it.
template <ScalarQuantizer Q>
std::optional<Error> fault_of(const Q& q, Index rows, Index cols) {
  if constexpr (requires {
                  { q.fault(rows, cols) } -> std::same_as<std::optional<Error>>;
                })
    if (auto fault = q.fault(rows, cols)) return fault;
  if (q.bits < 1 || q.bits > 8)
    return Error(ErrorCode::invalid_argument,
                 message("quantizer: bits is ", int(q.bits), ", must be 1 to 8"));
  if (q.group < per_tensor)
    return Error(ErrorCode::invalid_argument, message("quantizer: group is ", Index(q.group),
                                                      ", must be positive, per_row or per_tensor"));
  return std::nullopt;
}

/// Raises what fault_of() finds.
template <ScalarQuantizer Q>
void check(const Q& q, Index rows, Index cols) {
  if (auto fault = fault_of(q, rows, cols)) raise(*fault);
}

/// How the rows of a matrix fall into groups.
struct Grouping {
  Index rows = 0;
  Index cols = 0;
  Index group = per_row;

  /// Weights of a row that share parameters; the last group of a row may be shorter.
  Index width() const noexcept { return group > 0 && group < cols ? group : (cols > 0 ? cols : 1); }
  Index per_row_count() const noexcept { return ceil_div(cols, width()); }
  /// Groups of the whole matrix.
  Index count() const noexcept {
    return rows == 0 || cols == 0 ? 0 : (group == per_tensor ? 1 : rows * per_row_count());
  }
  /// The group of an element.
  Index index(Index row, Index col) const noexcept {
    return group == per_tensor ? 0 : row * per_row_count() + col / width();
  }
};

}  // namespace cafeq
