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
inline constexpr bool has_file_form = requires { Q::for_each_field([](const char*, auto) {}); };

/// "a scale" of "scales".
inline std::string one_of(std::string_view plural) {
  const bool vowel = std::string_view("aeiou").find(plural.front()) != std::string_view::npos;
  return message(vowel ? "an " : "a ", plural.substr(0, plural.size() - 1));
}

inline std::vector<Index> param_shape(const Grouping& grouping) {
  if (grouping.group == per_tensor) return {1, 1};
  return {grouping.rows, grouping.per_row_count()};
}

template <ScalarQuantizer Q>
void put_params(MatrixParts& parts, const Codes<Q>& codes) {
  Q::for_each_field([&]<class Params, class Field>(const char* name, Field Params::* field) {
    std::vector<Field> values;
    for (const Params& p : codes.params()) values.push_back(p.*field);
    parts.put(name, param_shape(codes.grouping()), values);
  });
}

template <ScalarQuantizer Q>
std::vector<typename Q::Params> load_params(const StoredMatrix& stored, const Grouping& grouping) {
  std::vector<typename Q::Params> params;
  Q::for_each_field([&]<class Params, class Field>(const char* name, Field Params::* field) {
    const auto values = stored.values<Field>(name, param_shape(grouping));
    params.resize(values.size());
    for (std::size_t i = 0; i < values.size(); ++i) {
      if (!std::isfinite(float(values[i]))) stored.fail(message(one_of(name), " is not finite"));
      params[i].*field = values[i];
    }
  });
  return params;
}

template <ScalarQuantizer Q>
void put_codes(MatrixParts& parts, const Codes<Q>& codes) {
  static_assert(has_file_form<Q>, "cafeq: the quantized file has no words for this grid");
  parts.put("codes", {codes.rows(), codes.packed().row_bytes()}, codes.packed().bytes());
  put_params(parts, codes);
  parts.description.update({{"grid", std::string(Q::name)},
                            {"bits", int(codes.quantizer().bits)},
                            {"group", Index(codes.quantizer().group)}});
}

/// Parts are read before anything of the size that the description claims is allocated.
template <ScalarQuantizer Q>
Codes<Q> load_codes(const StoredMatrix& stored) {
  stored.check_grid(Q::name);
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
  auto params = load_params<Q>(stored, grouping);
  PackedCodes packed(rows, cols, bits);
  std::memcpy(packed.bytes().data(), bytes.data(), bytes.size());
  return {std::move(quantizer), cols, std::move(packed), std::move(params)};
}

// Joint quantizers: chunks one after the other, a code for the scale of each line.

inline constexpr std::array<const char*, 4> sequence_names{"rows", "row", "column",
                                                           "scaled_column"};
inline constexpr Index joint_side_limit = Index(1) << 31, joint_weight_limit = Index(1) << 41;

/// A tensor `name`_codes; base and step in the description.
inline void put_scales(MatrixParts& parts, const std::string& name, const LineScales& scales) {
  std::vector<std::uint8_t> packed(
      std::size_t(ceil_div(Index(scales.codes().size()) * scales.bits(), Index(8))));
  pack_codes(scales.codes(), scales.bits(), packed);
  parts.put((name + "_codes").c_str(), {Index(packed.size())}, packed);
  parts.description.update({{name + "_base", scales.base()}, {name + "_step", scales.step()}});
}

inline LineScales load_scales(const StoredMatrix& stored, const std::string& name, int bits,
                              Index count) {
  const float base =
      stored.real((name + "_base").c_str(), -1000, 88);  // logarithms of what fp32 can hold
  const float step = stored.real((name + "_step").c_str(), 0, 88);
  const auto packed =
      stored.values<std::uint8_t>((name + "_codes").c_str(), {ceil_div(count * bits, Index(8))});
  std::vector<std::uint8_t> codes(static_cast<std::size_t>(count));
  unpack_codes(packed, bits, codes);
  return {bits, base, step, std::move(codes)};
}

template <JointQuantizer Q>
void put_codes(MatrixParts& parts, const Codes<Q>& codes) {
  if (std::max(codes.rows(), codes.cols()) > joint_side_limit ||
      codes.rows() * codes.cols() > joint_weight_limit)
    raise(ErrorCode::unsupported, message("quantized file: a ", Q::name, " of ", codes.rows(),
                                          " x ", codes.cols(), " weights"));

  const auto chunks = codes.stored_chunks();
  parts.put("codes", {Index(chunks.size())}, chunks);
  const Q& quantizer = codes.quantizer();
  parts.description.update({{"grid", std::string(Q::name)},
                            {"sequence", sequence_names[std::size_t(quantizer.sequence)]},
                            {"scale_bits", quantizer.scale_bits}});
  put_scales(parts, "scale", codes.scales());
  if (quantizer.sequence == Sequence::scaled_column)
    put_scales(parts, "row_scale", codes.row_scales());
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
  quantizer.scale_bits = int(stored.number("scale_bits", 3, 8));
  const std::string sequence = stored.text("sequence");
  const auto named = std::find(sequence_names.begin(), sequence_names.end(), sequence);
  if (named == sequence_names.end()) stored.fail(message("its sequence is ", sequence));
  quantizer.sequence = Sequence(named - sequence_names.begin());
  if (auto fault = fault_of(quantizer, rows, cols)) stored.fail(fault->message());

  if (rows * cols > joint_weight_limit) stored.fail(message("has ", rows, " x ", cols, " weights"));

  const Chunks<Q> chunks(quantizer, rows, cols);
  const auto scales = [&](const char* name, Index count) {
    return load_scales(stored, name, quantizer.scale_bits, count);
  };
  LineScales of_lines = scales("scale", chunks.lines()), of_rows;
  if (quantizer.sequence == Sequence::scaled_column) of_rows = scales("row_scale", rows);
  const auto bytes = stored.values<std::uint8_t>("codes", {Index(chunks.storage_bits() / 8)});
  return {quantizer, rows, cols, bytes, std::move(of_lines), std::move(of_rows)};
}

// Whichever of RuntimeQuantizers it is.

inline void put_codes(MatrixParts& parts, const Codes<AnyQuantizer>& codes) {
  codes.visit([&](const auto& own) { put_codes(parts, own); });
}

template <class Q>
  requires std::same_as<Q, AnyQuantizer>
Codes<Q> load_codes(const StoredMatrix& stored) {
  const std::string grid = stored.text("grid");
  std::optional<Codes<AnyQuantizer>> codes;
  const bool known = RuntimeQuantizers::any_of([&]<class One>(std::type_identity<One>) {
    if (One::name != grid) return false;
    codes = load_codes<One>(stored);
    return true;
  });
  if (!known)
    raise(ErrorCode::unsupported,
          message(stored.where, ": its grid is ", grid, "; load_as() can load it"));
  return *std::move(codes);
}

}  // namespace cafeq::detail
