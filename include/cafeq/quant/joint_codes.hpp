/// Codes of a joint quantizer: the chunks of a matrix, a scale a line, and perhaps one a row.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "cafeq/core/matrix.hpp"
#include "cafeq/quant/chunks.hpp"
#include "cafeq/quant/codes.hpp"
#include "cafeq/quant/line_scales.hpp"

namespace cafeq {

template <JointQuantizer Q>
class Codes<Q> {
 public:
  using Decoder = typename Q::Decoder;

  /// Room for the codes of X [rows, cols]. Raises what the quantizer says is wrong with it.
  Codes(const Q& quantizer, Index rows, Index cols)
      : quantizer_(checked(quantizer, rows, cols)),
        rows_(rows),
        cols_(cols),
        chunks_(quantizer, rows, cols),
        decoder_(quantizer) {
    offsets_.push_back(0);
    for (Index c = 0; c < chunks_.count(); ++c)
      offsets_.push_back(offsets_.back() + chunks_.bytes(c));
    bytes_.resize(std::size_t(offsets_.back()));
  }
  /// From stored parts: the bytes of all chunks one after the other; scales of rows where the
  /// quantizer has some. Raises corrupt where they contradict each other.
  Codes(const Q& quantizer, Index rows, Index cols, std::span<const std::uint8_t> stored,
        LineScales scales, LineScales row_scales = {})
      : Codes(quantizer, rows, cols) {
    if (8 * Index(stored.size()) != chunks_.storage_bits())
      raise(ErrorCode::corrupt, message("codes: ", stored.size(), " bytes of chunks, expected ",
                                        chunks_.storage_bits() / 8));
    if (Index(scales.codes().size()) != chunks_.lines())
      raise(ErrorCode::corrupt, message("codes: ", scales.codes().size(), " scales for ",
                                        chunks_.lines(), " sequences"));
    for (Index c = 0; c < chunks_.count(); ++c) {
      const auto bytes = std::size_t(chunks_.stored_bytes(c));
      std::copy_n(stored.begin(), bytes, chunk(c).begin());
      stored = stored.subspan(bytes);
      if constexpr (requires { quantizer_.complete(chunk(c), Index()); })
        quantizer_.complete(chunk(c), chunks_.weights_of(c));
    }
    scales_ = std::move(scales);
    set_row_scales(std::move(row_scales));
  }

  /// What quantize() will store for a matrix of that shape.
  static std::int64_t storage_bits(const Q& quantizer, Index rows, Index cols) {
    const Chunks<Q> chunks(quantizer, rows, cols);
    std::int64_t bits =
        chunks.storage_bits() + LineScales::storage_bits(quantizer.scale_bits, chunks.lines());
    if (quantizer.sequence == Sequence::scaled_column)
      bits += LineScales::storage_bits(quantizer.scale_bits, rows);
    return bits;
  }

  Index rows() const noexcept { return rows_; }
  Index cols() const noexcept { return cols_; }
  const Q& quantizer() const noexcept { return quantizer_; }
  const Chunks<Q>& chunks() const noexcept { return chunks_; }
  const Decoder& decoder() const noexcept { return decoder_; }
  const LineScales& scales() const noexcept { return scales_; }
  LineScales& scales() noexcept { return scales_; }
  /// None where lines have all the scales that there are.
  const LineScales& row_scales() const noexcept { return row_scales_; }
  /// What they are: of each row, or empty.
  std::span<const float> row_factors() const noexcept { return row_factors_; }
  /// Raises corrupt for other numbers of them than the quantizer has.
  void set_row_scales(LineScales row_scales) {
    const Index expected = quantizer_.sequence == Sequence::scaled_column ? rows_ : 0;
    if (Index(row_scales.codes().size()) != expected)
      raise(ErrorCode::corrupt,
            message("codes: ", row_scales.codes().size(), " scales for ", expected, " rows"));
    row_scales_ = std::move(row_scales);
    row_factors_.clear();
    for (Index i = 0; i < expected; ++i) row_factors_.push_back(row_scales_[i]);
  }
  /// The bytes of a chunk in memory.
  std::span<std::uint8_t> chunk(Index c) noexcept {
    return std::span(bytes_).subspan(offset(c), offset(c + 1) - offset(c));
  }
  std::span<const std::uint8_t> chunk(Index c) const noexcept {
    return std::span(bytes_).subspan(offset(c), offset(c + 1) - offset(c));
  }

  /// Chunks (each starts at a byte) and scales.
  std::int64_t storage_bits() const { return storage_bits(quantizer_, rows_, cols_); }

  /// The chunks as they are stored, one after the other: what is repeated in memory is left out.
  std::vector<std::uint8_t> stored_chunks() const {
    std::vector<std::uint8_t> stored;
    for (Index c = 0; c < chunks_.count(); ++c) {
      const auto bytes = chunk(c).first(std::size_t(chunks_.stored_bytes(c)));
      stored.insert(stored.end(), bytes.begin(), bytes.end());
      const Index unused = 8 * Index(bytes.size()) - quantizer_.chunk_bits(chunks_.weights_of(c));
      stored.back() = std::uint8_t(stored.back() & (0xff << unused));
    }
    return stored;
  }

  /// X̂ of entries [first, first + out.size()) of a line.
  void decode_line(Index line, Index first, std::span<float> out) const {
    const Index c = chunks_.chunk_of(line);
    const std::uint8_t* bytes = chunk(c).data();
    const Index at = (line - chunks_.first_line(c)) * chunks_.length() + first;
    const float scale = scales_[line];

    if constexpr (requires { decoder_.decode(bytes, at, scale, out); }) {
      decoder_.decode(bytes, at, scale, out);
    } else {
      std::vector<typename Decoder::Level> levels(out.size());
      decoder_.levels(bytes, at, std::span(levels));
      const float factor = float(decoder_.unit()) * scale;
      for (std::size_t j = 0; j < out.size(); ++j) out[j] = float(levels[j]) * factor;
    }
    if (!row_factors_.empty())
      for (std::size_t j = 0; j < out.size(); ++j) out[j] *= row_factors_[std::size_t(first) + j];
  }
  void decode_rows(Index begin, View<float> out) const {
    const bool columns = along_columns(quantizer_.sequence);
    const View<float> lines = columns ? out.transposed() : out;
    Buffer<float> dense(std::size_t(lines.rows_contiguous() ? 0 : lines.cols));

    for (Index i = 0; i < lines.rows; ++i) {
      const std::span<float> line = dense.empty() ? lines.row(i) : std::span<float>(dense);
      decode_line(columns ? i : begin + i, columns ? begin : 0, line);
      for (std::size_t j = 0; j < dense.size(); ++j) lines(i, Index(j)) = dense[j];
    }
  }

 private:
  static const Q& checked(const Q& quantizer, Index rows, Index cols) {
    check(quantizer, rows, cols);
    return quantizer;
  }
  std::size_t offset(Index c) const noexcept { return std::size_t(offsets_[std::size_t(c)]); }

  Q quantizer_;
  Index rows_, cols_;
  Chunks<Q> chunks_;
  Decoder decoder_;
  std::vector<Index> offsets_;  // where each chunk begins, and where the last one ends
  Buffer<std::uint8_t> bytes_;
  LineScales scales_;
  LineScales row_scales_;
  std::vector<float> row_factors_;
};

}  // namespace cafeq
