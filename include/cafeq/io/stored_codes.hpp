/// Codes as a quantized file keeps them: what the quantizer says of itself, and tensors of codes
/// and scales. docs/reference/format.md has the layout.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "cafeq/io/stored_matrix.hpp"
#include "cafeq/pipeline/any_quantized.hpp"

namespace cafeq::detail {

// Scalar quantizers: packed codes, and a tensor for each field of the parameters of groups.

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

template <ScalarQuantizer Q>
void put_codes(MatrixParts& parts, const Codes<Q>& codes) {
  parts.put("codes", {codes.rows(), codes.packed().row_bytes()}, codes.packed().bytes());
  put_params(parts, param_shape(codes.grouping()), codes.params());
  parts.description.update({{"grid", std::string(GridName<Q>::name)},
                            {"bits", int(codes.quantizer().bits)},
                            {"group", Index(codes.quantizer().group)}});
}

/// Parts are read before anything of the size that the description claims is allocated.
template <ScalarQuantizer Q>
Codes<Q> load_codes(const StoredMatrix& stored) {
  stored.check_grid(GridName<Q>::name);
  constexpr Index most = Index(1) << 40;
  const Index rows = stored.number("rows", 1, most), cols = stored.number("cols", 1, most);
  const int bits = int(stored.number("bits", 2, 8));

  Q quantizer{};
  if constexpr (fixed_bits<Q>() == 0) quantizer.bits = bits;
  else if (quantizer.bits != bits)
    stored.fail(message("has ", bits, " bits, not ", int(quantizer.bits)));
  quantizer.group = stored.number("group", per_tensor, most);

  const Grouping grouping{rows, cols, quantizer.group};
  const auto bytes = stored.values<std::uint8_t>("codes", {rows, ceil_div(cols * bits, 8)});
  auto params = load_params<typename Q::Params>(stored, param_shape(grouping));
  PackedCodes packed(rows, cols, bits);
  std::memcpy(packed.bytes().data(), bytes.data(), bytes.size());
  return {std::move(quantizer), cols, std::move(packed), std::move(params)};
}

// Joint quantizers: chunks one after the other, a code for the scale of each line.

inline constexpr std::array<const char*, 3> sequence_names{"rows", "row", "column"};
inline constexpr Index joint_side_limit = Index(1) << 31, joint_weight_limit = Index(1) << 41;

template <JointQuantizer Q>
void put_codes(MatrixParts& parts, const Codes<Q>& codes) {
  if (std::max(codes.rows(), codes.cols()) > joint_side_limit ||
      codes.rows() * codes.cols() > joint_weight_limit)
    raise(ErrorCode::unsupported, message("quantized file: a ", Q::name, " of ", codes.rows(),
                                          " x ", codes.cols(), " weights"));

  const LineScales& scales = codes.scales();
  std::vector<std::uint8_t> packed(
      std::size_t(ceil_div(Index(scales.codes().size()) * scales.bits(), Index(8))));
  pack_codes(scales.codes(), scales.bits(), packed);
  const auto chunks = codes.stored_chunks();
  parts.put("codes", {Index(chunks.size())}, chunks);
  parts.put("scale_codes", {Index(packed.size())}, packed);

  const Q& quantizer = codes.quantizer();
  parts.description.update({{"grid", std::string(Q::name)},
                            {"sequence", sequence_names[std::size_t(quantizer.sequence)]},
                            {"scale_bits", scales.bits()},
                            {"scale_base", scales.base()},
                            {"scale_step", scales.step()}});
  Q::fields(quantizer, [&](const char* name, const auto& member, Index, Index) {
    parts.description[name] = member;
  });
}

template <JointQuantizer Q>
Codes<Q> load_codes(const StoredMatrix& stored) {
  stored.check_grid(Q::name);
  const Index rows = stored.number("rows", 1, joint_side_limit);
  const Index cols = stored.number("cols", 1, joint_side_limit);

  Q quantizer{};
  Q::fields(quantizer, [&](const char* name, auto& member, Index least, Index most) {
    member = std::remove_cvref_t<decltype(member)>(stored.number(name, least, most));
  });
  quantizer.scale_bits = int(stored.number("scale_bits", 6, 8));
  const std::string sequence = stored.text("sequence");
  const auto named = std::find(sequence_names.begin(), sequence_names.end(), sequence);
  if (named == sequence_names.end()) stored.fail(message("its sequence is ", sequence));
  quantizer.sequence = Sequence(named - sequence_names.begin());
  if (auto fault = fault_of(quantizer, rows, cols)) stored.fail(fault->message());

  const float base = stored.real("scale_base", -1000, 88);  // logarithms of what fp32 can hold
  const float step = stored.real("scale_step", 0, 88);
  if (rows * cols > joint_weight_limit) stored.fail(message("has ", rows, " x ", cols, " weights"));

  const Chunks<Q> chunks(quantizer, rows, cols);
  const Index scale_bytes = ceil_div(chunks.lines() * quantizer.scale_bits, Index(8));
  const auto packed = stored.values<std::uint8_t>("scale_codes", {scale_bytes});
  const auto bytes = stored.values<std::uint8_t>("codes", {Index(chunks.storage_bits() / 8)});
  std::vector<std::uint8_t> scale_codes(static_cast<std::size_t>(chunks.lines()));
  unpack_codes(packed, quantizer.scale_bits, scale_codes);
  return {quantizer, rows, cols, bytes,
          LineScales(quantizer.scale_bits, base, step, std::move(scale_codes))};
}

// Whichever of RuntimeQuantizers it is.

template <class Q>
std::string name_of_quantizer() {
  if constexpr (JointQuantizer<Q>) return std::string(Q::name);
  else return GridName<Q>::name;
}

inline void put_codes(MatrixParts& parts, const Codes<AnyQuantizer>& codes) {
  codes.visit([&](const auto& own) { put_codes(parts, own); });
}

template <class Q>
  requires std::same_as<Q, AnyQuantizer>
Codes<Q> load_codes(const StoredMatrix& stored) {
  const std::string grid = stored.text("grid");
  std::optional<Codes<AnyQuantizer>> codes;
  const bool known = RuntimeQuantizers::any_of([&]<class One>(std::type_identity<One>) {
    if (name_of_quantizer<One>() != grid) return false;
    codes = load_codes<One>(stored);
    return true;
  });
  if (!known)
    raise(ErrorCode::unsupported,
          message(stored.where, ": its grid is ", grid, "; load_as() can load it"));
  return *std::move(codes);
}

}  // namespace cafeq::detail
