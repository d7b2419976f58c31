/// Trellis: a joint quantizer whose weights are functions of a window of bits that slides along a
/// stream (trellis/code.hpp).
///
/// On weights like a Gaussian's — a randomized Hadamard makes them so — the relative error is .194
/// at 1 1/4 bits, .0500 at 2 1/4, .0129 at 3 1/4, .0033 at 4 1/4, where no scalar grid has less
/// than .1175, .0346 and .0095 at 2, 3 and 4.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "cafeq/quant/joint_encoding.hpp"
#include "cafeq/trellis/code_tables.hpp"
#include "cafeq/trellis/decode.hpp"
#include "cafeq/trellis/search.hpp"
#include "cafeq/trellis/stream.hpp"

namespace cafeq {

/// Rate, width of the scales, length of the windows, order of the weights. With windows of 10 bits
/// the search is about three times as fast and the error 4 to 7 % larger, with 14 four times as
/// slow and the error 2 % smaller; decoding does not mind.
struct Trellis {
  static constexpr std::string_view name = "trellis";

  static constexpr int least_scale_bits = 3, most_scale_bits = 8;

  TrellisRate rate{};
  int scale_bits = 8;  ///< of a line: 3 to 8; fewer for lines that are short or much alike
  int window = 12;
  Sequence sequence = Sequence::rows;

  const TrellisCode& code() const noexcept { return trellis_code(rate, window); }

  Index chunk_bits(Index n) const noexcept { return stream().bits(n); }
  Index chunk_bytes(Index n) const noexcept { return stream().bytes(n); }
  void complete(std::span<std::uint8_t> chunk, Index n) const noexcept { stream().close(chunk, n); }

  /// Searches chunks, by kernels for an architecture: .1 to 18 MB by window and rate.
  template <class Arch>
  class EncoderOn {
   public:
    explicit EncoderOn(const Trellis& q) : search_(q.code(), q.rate) {}
    void encode(std::span<const float> x, std::span<std::uint8_t> chunk) {
      search_.encode(x, chunk);
    }

   private:
    kernel::TrellisSearch<Arch> search_;
  };
  using Encoder = EncoderOn<DefaultArch>;
  /// Decodes chunks.
  struct Decoder : kernel::TrellisDecoder<> {
    using Level = std::int8_t;
    explicit Decoder(const Trellis& q) noexcept : kernel::TrellisDecoder<>(q.code(), q.rate) {}
  };

  /// How its codes are multiplied: trellis/multiply.hpp.
  template <class Arch>
  class ProductOn;
  using Product = ProductOn<DefaultArch>;

  /// In a few words.
  std::string text() const {
    return message(name, rate.bits(), along_columns(sequence) ? " column" : " row", scale_bits);
  }
  template <class Self, class F>
  static void fields(Self& q, F&& f) {
    f("rate", q.rate.sixteenths, TrellisRate::least, TrellisRate::most);
    f("window", q.window, 10, 14);
  }
  std::optional<Error> fault(Index, Index) const {
    if (!rate.is_valid())
      return Error(ErrorCode::invalid_argument,
                   message("trellis: rate is ", rate.sixteenths, " sixteenths of a bit, must be ",
                           TrellisRate::least, " to ", TrellisRate::most));
    if (scale_bits < least_scale_bits || scale_bits > most_scale_bits)
      return Error(ErrorCode::invalid_argument,
                   message("trellis: scale_bits is ", scale_bits, ", must be ", least_scale_bits,
                           " to ", most_scale_bits));
    if (!detail::is_trellis_window(window))
      return Error(ErrorCode::invalid_argument,
                   message("trellis: window is ", window, ", must be 10, 12 or 14"));
    return std::nullopt;
  }
  bool operator==(const Trellis&) const = default;

 private:
  kernel::TrellisStream stream() const noexcept { return {rate, window}; }
};
static_assert(JointQuantizer<Trellis>);

}  // namespace cafeq
