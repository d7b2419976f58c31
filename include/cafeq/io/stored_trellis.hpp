/// A matrix of trellis codes as a quantized file keeps it.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "cafeq/io/stored_transform.hpp"
#include "cafeq/pipeline/trellis_pipeline.hpp"

namespace cafeq::detail {

inline constexpr const char* trellis_grid = "trellis";
inline constexpr std::array<const char*, 3> trellis_sequences{
    "rows", "row", "column"};  // in the order of TrellisSequence

inline constexpr Index trellis_side_limit = Index(1) << 31, trellis_weight_limit = Index(1) << 41;

template <Transform T>
MatrixParts parts_of(const Quantized<T, Trellis>& q, const std::string& name) {
  if (std::max(q.rows(), q.cols()) > trellis_side_limit ||
      q.rows() * q.cols() > trellis_weight_limit)
    raise(ErrorCode::unsupported,
          message("quantized file: a trellis of ", q.rows(), " x ", q.cols(), " weights"));
  MatrixParts parts = common_parts(q, name, trellis_grid);
  const Encoding<Trellis>& encoding = q.encoding();
  const TrellisScales& scales = encoding.scales();
  std::vector<std::uint8_t> codes;
  for (Index c = 0; c < encoding.chunks().count(); ++c) {
    const Index bits = encoding.chunks().bits_of(c);
    const auto chunk = encoding.chunk(c).first(std::size_t(ceil_div(bits, Index(8))));
    codes.insert(codes.end(), chunk.begin(), chunk.end());
    codes.back() = std::uint8_t(
        codes.back() &
        (0xff << (8 * Index(chunk.size()) - bits)));  // what is repeated in memory is left out
  }
  std::vector<std::uint8_t> packed(
      std::size_t(ceil_div(Index(scales.codes().size()) * scales.bits(), Index(8))));
  pack_codes(scales.codes(), scales.bits(), packed);
  parts.put("codes", {Index(codes.size())}, codes);
  parts.put("scale_codes", {Index(packed.size())}, packed);
  parts.description.update({{"rate", q.quantizer().rate.sixteenths},
                            {"window", q.quantizer().window},
                            {"sequence", trellis_sequences[std::size_t(q.quantizer().sequence)]},
                            {"scale_bits", scales.bits()},
                            {"scale_base", scales.base()},
                            {"scale_step", scales.step()}});
  return parts;
}

template <Transform T>
Quantized<T, Trellis> load_trellis(const StoredMatrix& stored) {
  stored.check_grid(trellis_grid);
  constexpr Index most = trellis_side_limit;
  const Index rows = stored.number("rows", 1, most), cols = stored.number("cols", 1, most);
  Trellis quantizer{.rate = {int(stored.number("rate", TrellisRate::least, TrellisRate::most))},
                    .scale_bits = int(stored.number("scale_bits", 6, 8)),
                    .window = int(stored.number("window", 10, 14))};
  if (auto fault = quantizer_fault(quantizer)) stored.fail(fault->message());
  const auto sequence =
      std::find(trellis_sequences.begin(), trellis_sequences.end(), stored.text("sequence"));
  if (sequence == trellis_sequences.end())
    stored.fail(message("its sequence is ", stored.text("sequence")));
  quantizer.sequence = TrellisSequence(sequence - trellis_sequences.begin());
  const Side side = stored.side();
  const auto logarithm = [&](const char* key, double least) {  // of scales that fp32 can hold
    const Json* member = find_member(stored.description, key);
    if (member == nullptr || !member->is_number() ||
        !(member->get<double>() >= least && member->get<double>() <= 88))
      stored.fail(message("has no number ", key));
    return member->get<float>();
  };
  const float base = logarithm("scale_base", -1000), step = logarithm("scale_step", 0);
  // Parts are read before anything of the size that the description claims is allocated.
  if (rows * cols > trellis_weight_limit)
    stored.fail(message("has ", rows, " x ", cols, " weights"));
  const TrellisChunks chunks(quantizer, rows, cols);
  const auto packed = stored.values<std::uint8_t>(
      "scale_codes", {ceil_div(chunks.lines * quantizer.scale_bits, Index(8))});
  const auto codes = stored.values<std::uint8_t>("codes", {Index(chunks.storage_bits() / 8)});
  StoredFactors factors(stored, side == Side::input ? cols : rows);
  T transform = TransformLoader<T>::load(factors);
  Encoding<Trellis> encoding(quantizer, rows, cols);
  auto from = codes.begin();
  for (Index c = 0; c < chunks.count(); ++c) {
    const Index bits = chunks.bits_of(c);
    const auto bytes = ceil_div(bits, Index(8));
    std::copy_n(from, bytes, encoding.chunk(c).begin());
    close_trellis_chunk(encoding.chunk(c), bits, quantizer.window);
    from += bytes;
  }
  std::vector<std::uint8_t> scales(static_cast<std::size_t>(chunks.lines));
  unpack_codes(packed, quantizer.scale_bits, scales);
  encoding.set_scales(TrellisScales(quantizer.scale_bits, base, step, std::move(scales)));
  return {std::move(encoding), std::move(transform), side, stored.exponent()};
}

}  // namespace cafeq::detail
