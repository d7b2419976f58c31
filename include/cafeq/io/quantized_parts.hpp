/// A quantized matrix as a description and a few tensors, and back: what a quantized file keeps of
/// it.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "cafeq/io/stored_transform.hpp"
#include "cafeq/io/stored_trellis.hpp"
#include "cafeq/pipeline/any_quantized.hpp"

namespace cafeq::detail {

template <class Q>
struct GridName;
template <int Bits>
struct GridName<Affine<Bits>> {
  static constexpr const char* name = "affine";
};
template <int Bits>
struct GridName<AffineIntegerZero<Bits>> {
  static constexpr const char* name = "affine_integer_zero";
};
template <int Bits>
struct GridName<Symmetric<Bits>> {
  static constexpr const char* name = "symmetric";
};
template <int Bits>
struct GridName<Midrise<Bits>> {
  static constexpr const char* name = "midrise";
};

inline std::vector<Index> param_shape(const Grouping& grouping) {
  if (grouping.group == per_tensor) return {1, 1};
  return {grouping.rows, grouping.per_row_count()};
}

template <class Params>
void put_params(MatrixParts& parts, std::vector<Index> shape, std::span<const Params> params) {
  const auto put = [&](const char* suffix, auto&& member) {
    std::vector<std::remove_cvref_t<decltype(member(params[0]))>> values;
    for (const Params& p : params) values.push_back(member(p));
    parts.put(suffix, shape, values);
  };
  put("scales", [](const Params& p) { return p.scale; });
  if constexpr (requires(Params p) { p.offset; })
    put("offsets", [](const Params& p) { return p.offset; });
  if constexpr (requires(Params p) { p.zero; })
    put("zeros", [](const Params& p) { return p.zero; });
}

template <class Params>
std::vector<Params> load_params(const StoredMatrix& stored, const std::vector<Index>& shape) {
  std::vector<Params> params;
  for (const fp16 scale : stored.values<fp16>("scales", shape)) {
    if (!std::isfinite(float(scale))) stored.fail("a scale is not finite");
    params.push_back(Params{});
    params.back().scale = scale;
  }
  if constexpr (requires(Params p) { p.offset; }) {
    const auto offsets = stored.values<fp16>("offsets", shape);
    for (std::size_t i = 0; i < params.size(); ++i) {
      if (!std::isfinite(float(offsets[i]))) stored.fail("an offset is not finite");
      params[i].offset = offsets[i];
    }
  }
  if constexpr (requires(Params p) { p.zero; }) {
    const auto zeros = stored.values<std::uint8_t>("zeros", shape);
    for (std::size_t i = 0; i < params.size(); ++i) params[i].zero = zeros[i];
  }
  return params;
}

template <Transform T, ScalarQuantizer Q>
MatrixParts parts_of(const Quantized<T, Q>& q, const std::string& name) {
  static_assert(
      requires { GridName<Q>::name; }, "cafeq: the quantized file has no words for this grid");
  MatrixParts parts = common_parts(q, name, GridName<Q>::name);
  parts.put("codes", {q.rows(), q.codes().row_bytes()}, q.codes().bytes());
  put_params(parts, param_shape(q.grouping()), q.params());
  parts.description.update({{"bits", q.bits()}, {"group", q.quantizer().group}});
  return parts;
}

template <Transform T, ScalarQuantizer Q>
Quantized<T, Q> load_quantized(const StoredMatrix& stored) {
  stored.check_grid(GridName<Q>::name);
  constexpr Index most = Index(1) << 40;
  const Index rows = stored.number("rows", 1, most), cols = stored.number("cols", 1, most);
  const int bits = int(stored.number("bits", 2, 8));
  const Side side = stored.side();
  Q quantizer{};
  if constexpr (fixed_bits<Q>() == 0) quantizer.bits = bits;
  else if (quantizer.bits != bits)
    stored.fail(message("has ", bits, " bits, not ", int(quantizer.bits)));
  quantizer.group = stored.number("group", per_tensor, most);
  const Grouping grouping{rows, cols, quantizer.group};
  // Parts are read before anything of the size that the description claims is allocated.
  const auto bytes = stored.values<std::uint8_t>("codes", {rows, ceil_div(cols * bits, 8)});
  auto params = load_params<typename Q::Params>(stored, param_shape(grouping));
  StoredFactors factors(stored, side == Side::input ? cols : rows);
  T transform = TransformLoader<T>::load(factors);
  PackedCodes codes(rows, cols, bits);
  std::memcpy(codes.bytes().data(), bytes.data(), bytes.size());
  return {std::move(quantizer), cols, std::move(codes), std::move(params),
          std::move(transform), side, stored.exponent()};
}

CAFEQ_LAZY AnyQuantized load_any(const StoredMatrix& stored) {
  const std::string grid = stored.text("grid");
  const std::string kinds = StoredFactors(stored, 0).kinds();
  if (grid == trellis_grid) {
    if (kinds == "hadamard") return load_trellis<Hadamard>(stored);
    if (kinds.empty()) return load_trellis<Identity::Fitted>(stored);
    raise(ErrorCode::unsupported,
          message(stored.where, ": its transform is ", kinds, ", which no trellis has here"));
  }
  const auto load = [&]<class T>(T*) -> AnyQuantized {
    if (grid == GridName<Affine<>>::name) return load_quantized<T, Affine<>>(stored);
    if (grid == GridName<Midrise<>>::name) return load_quantized<T, Midrise<>>(stored);
    raise(ErrorCode::unsupported,
          message(stored.where, ": its grid is ", grid, "; load_as() can load it"));
  };
  if (kinds.empty()) return load(static_cast<Identity::Fitted*>(nullptr));
  if (kinds == "diagonal*hadamard") return load(static_cast<ScaledHadamard*>(nullptr));
  if (kinds == "block_diagonal") return load(static_cast<BlockDiagonal*>(nullptr));
  raise(ErrorCode::unsupported,
        message(stored.where, ": its transform is ", kinds, "; load_as() can load it"));
}

}  // namespace cafeq::detail
