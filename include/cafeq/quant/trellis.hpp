/// A joint quantizer: sequences of weights as trellis codes, a logarithmic scale a row.
///
/// X [rows, cols] is cut into chunks of whole rows, about 8,192 weights each (or of single rows or
/// columns); a chunk is one cyclic sequence, row after row (core/trellis_code.hpp). A row is
/// divided by its root mean square, the codes are found by a Viterbi search, and the scale is
/// refitted to them by least squares. On weights like a Gaussian's — a randomized Hadamard makes
/// them so — the relative error is .0500 at 2 1/4 bits, .0129 at 3 1/4, .0033 at 4 1/4, where no
/// scalar grid has less than .1175, .0346 and .0095 at 2, 3 and 4.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "cafeq/core/matrix.hpp"
#include "cafeq/core/packed.hpp"
#include "cafeq/core/trellis_code.hpp"
#include "cafeq/kernel/trellis_decode.hpp"
#include "cafeq/kernel/trellis_search.hpp"
#include "cafeq/quant/encoding.hpp"
#include "cafeq/quant/trellis_scales.hpp"

namespace cafeq {

/// Which weights follow each other in a sequence, and which share a scale.
enum class TrellisSequence {
  rows,    ///< chunks of whole rows, some 8,192 weights; a scale a row
  row,     ///< each row a chunk by itself: what error feedback from row to row needs
  column,  ///< each column, which then has a scale of its own
};

/// Rate, width of the scales, length of the windows, order of the weights. With windows of 10 bits
/// the search is about three times as fast and the error 4 to 7 % larger, with 14 four times as
/// slow and the error 2 % smaller; decoding does not mind.
struct Trellis {
  static constexpr bool chooses_jointly = true;
  using Sequence = TrellisSequence;
  static constexpr Index group = per_row;

  TrellisRate rate{};
  int scale_bits = 8;  ///< of a line: 8, or 6 for narrow rows
  int window = 12;
  TrellisSequence sequence = TrellisSequence::rows;

  const TrellisCode& code() const noexcept { return trellis_code(rate, window); }

  bool operator==(const Trellis&) const = default;
};

/// What is wrong with a member, if anything.
inline std::optional<Error> quantizer_fault(const Trellis& q) {
  if (!q.rate.is_valid())
    return Error(ErrorCode::invalid_argument,
                 message("trellis: rate is ", q.rate.sixteenths, " sixteenths of a bit, must be ",
                         TrellisRate::least, " to ", TrellisRate::most));
  if (q.scale_bits != 8 && q.scale_bits != 6)
    return Error(ErrorCode::invalid_argument,
                 message("trellis: scale_bits is ", q.scale_bits, ", must be 8 or 6"));
  if (!is_trellis_window(q.window))
    return Error(ErrorCode::invalid_argument,
                 message("trellis: window is ", q.window, ", must be 10, 12 or 14"));
  return std::nullopt;
}

inline void check_quantizer(const Trellis& q) {
  if (auto fault = quantizer_fault(q)) raise(*fault);
}

/// How lines (rows, or columns where those are the sequences) fall into chunks: ⌈lines·length /
/// 8192⌋ of them (to nearest, at least one, at most one a line), as even as can be; or each is one.
struct TrellisChunks {
  Index lines = 0;
  Index length = 0;
  TrellisRate rate{};
  int window = 12;
  bool alone = false;

  static constexpr Index weights = 8192;

  TrellisChunks(const Trellis& q, Index rows, Index cols) noexcept
      : lines(q.sequence == TrellisSequence::column ? cols : rows),
        length(q.sequence == TrellisSequence::column ? rows : cols),
        rate(q.rate),
        window(q.window),
        alone(q.sequence != TrellisSequence::rows) {}

  Index count() const noexcept {
    return lines == 0 || alone
               ? lines
               : std::clamp((lines * length + weights / 2) / weights, Index(1), lines);
  }
  Index first_line(Index chunk) const noexcept { return chunk * lines / count(); }
  Index chunk_of(Index line) const noexcept {
    Index c = line * count() / lines;
    while (first_line(c + 1) <= line) ++c;
    return c;
  }
  Index lines_of(Index chunk) const noexcept { return first_line(chunk + 1) - first_line(chunk); }
  Index bits_of(Index chunk) const noexcept {
    return trellis_bits(lines_of(chunk) * length, rate, window);
  }
  /// Chunks begin at a byte. The remainder of the lines makes as many chunks one line longer.
  std::int64_t storage_bits() const noexcept {
    if (lines == 0) return 0;
    const auto of = [&](Index n) {
      return 8 * ceil_div(trellis_bits(n * length, rate, window), Index(8));
    };
    const Index each = lines / count(), longer = lines % count();
    return longer * of(each + 1) + (count() - longer) * of(each);
  }
};

namespace detail {

/// Of a line, any strides.
inline double root_mean_square(View<const float> line) noexcept {
  double squares = 0;
  for (Index j = 0; j < line.cols; ++j) squares += double(line(0, j)) * double(line(0, j));
  return std::sqrt(squares / double(line.cols));
}

}  // namespace detail

/// What one worker needs to search chunks: .1 to 9 MB by window and rate
/// (kernel/trellis_search.hpp), and two copies of a chunk in fp32.
class TrellisEncoder {
 public:
  explicit TrellisEncoder(const Trellis& quantizer)
      : search_(quantizer.code(), quantizer.rate),
        decoder_(quantizer.code(), quantizer.rate),
        unit_(quantizer.code().unit) {}

  /// The codes of X [n, length], rows contiguous, and of each row the scale that is best for them.
  void encode(View<const float> X, std::span<std::uint8_t> chunk, std::span<float> scales) {
    targets_.resize(std::size_t(X.rows * X.cols));
    levels_.resize(std::size_t(X.cols));
    for (Index i = 0; i < X.rows; ++i) {
      const double rms = detail::root_mean_square(X.row_block(i, 1));
      for (Index j = 0; j < X.cols; ++j)
        targets_[std::size_t(i * X.cols + j)] = rms > 0 ? float(double(X(i, j)) / rms) : 0;
    }
    search_.encode(targets_, chunk);
    for (Index i = 0; i < X.rows; ++i)
      scales[std::size_t(i)] = best_scale(X.row(i), chunk, i * X.cols);
  }

 private:
  /// ⟨x, q⟩ / ⟨q, q⟩, or 0 where that is negative.
  float best_scale(std::span<const float> x, std::span<const std::uint8_t> chunk, Index first) {
    decoder_.levels(chunk.data(), first, levels_);
    double product = 0, squares = 0;
    for (std::size_t j = 0; j < x.size(); ++j) {
      product += double(x[j]) * levels_[j];
      squares += double(levels_[j]) * levels_[j];
    }
    return product > 0 ? float(product / (squares * double(unit_))) : 0;
  }

  kernel::TrellisSearch<> search_;
  kernel::TrellisDecoder<> decoder_;
  float unit_;
  Buffer<float> targets_;
  Buffer<std::int8_t> levels_;
};

/// The codes and scales of a matrix.
template <>
class Encoding<Trellis> {
 public:
  using LineEncoder = TrellisEncoder;

  Encoding(const Trellis& quantizer, Index rows, Index cols)
      : quantizer_(checked(quantizer)),
        rows_(rows),
        cols_(cols),
        chunks_(quantizer, rows, cols),
        decoder_(quantizer.code(), quantizer.rate) {
    offsets_.push_back(0);
    for (Index c = 0; c < chunks_.count(); ++c)
      offsets_.push_back(offsets_.back() +
                         trellis_chunk_bytes(chunks_.bits_of(c), quantizer.window));
    bytes_.resize(std::size_t(offsets_.back()));
  }

  const Trellis& quantizer() const noexcept { return quantizer_; }
  const TrellisChunks& chunks() const noexcept { return chunks_; }
  Index rows() const noexcept { return rows_; }
  Index cols() const noexcept { return cols_; }
  /// In memory form (trellis_chunk_bytes).
  std::span<std::uint8_t> chunk(Index c) noexcept {
    return std::span(bytes_).subspan(std::size_t(offsets_[std::size_t(c)]), chunk_size(c));
  }
  std::span<const std::uint8_t> chunk(Index c) const noexcept {
    return std::span(bytes_).subspan(std::size_t(offsets_[std::size_t(c)]), chunk_size(c));
  }
  const TrellisScales& scales() const noexcept { return scales_; }
  void set_scales(TrellisScales scales) noexcept { scales_ = std::move(scales); }
  const kernel::TrellisDecoder<>& decoder() const noexcept { return decoder_; }

  std::int64_t storage_bits() const noexcept { return storage_bits(quantizer_, rows(), cols()); }
  static std::int64_t storage_bits(const Trellis& quantizer, Index rows, Index cols) noexcept {
    const TrellisChunks chunks(quantizer, rows, cols);
    return chunks.storage_bits() + TrellisScales::storage_bits(quantizer.scale_bits, chunks.lines);
  }

  /// Codes and scales of the lines that read(first line, X [n, length]) writes, chunk by chunk.
  template <class F>
  void encode_lines(F&& read, ExecutorRef executor = {}) {
    std::vector<float> values(static_cast<std::size_t>(chunks_.lines));
    std::vector<std::optional<TrellisEncoder>> encoders(
        static_cast<std::size_t>(executor.concurrency()));
    std::vector<Matrix<float>> panels(encoders.size());
    executor.parallel_for(chunks_.count(), 1, [&](Index c, Index end, Index worker) {
      auto& encoder = encoders[std::size_t(worker)];
      auto& panel = panels[std::size_t(worker)];
      if (!encoder) encoder.emplace(quantizer_);
      for (; c < end; ++c) {
        const Index first = chunks_.first_line(c), n = chunks_.lines_of(c);
        if (panel.rows() < n) panel = Matrix<float>(n, chunks_.length);
        const View<float> X = panel.view().row_block(0, n);
        read(first, X);
        encoder->encode(X, chunk(c), std::span(values).subspan(std::size_t(first), std::size_t(n)));
      }
    });
    scales_ = TrellisScales(quantizer_.scale_bits, values);
  }
  /// Of a matrix of any strides.
  void encode(View<const float> X, ExecutorRef executor = {}) {
    const View<const float> lines = as_lines(X);
    encode_lines(
        [&](Index first, View<float> panel) { copy(lines.row_block(first, panel.rows), panel); },
        executor);
  }

  /// Prepares encode_line(): scales by the root mean square of each line, and room for lines a
  /// little larger.
  void fit(View<const float> X, ExecutorRef = {}) {
    const View<const float> lines = as_lines(X);
    std::vector<float> values(static_cast<std::size_t>(lines.rows));
    for (Index i = 0; i < lines.rows; ++i)
      values[std::size_t(i)] = float(detail::root_mean_square(lines.row_block(i, 1)));
    scales_ = TrellisScales(quantizer_.scale_bits, values, 1.25f);
  }
  /// Codes and scale of one line, which must be a chunk by itself; writes what they decode to.
  /// Lines may be encoded at the same time.
  void encode_line(Index line, std::span<const float> target, std::span<float> decoded,
                   LineEncoder& encoder) {
    float value = 0;
    encoder.encode(View<const float>{target.data(), 1, chunks_.length, chunks_.length, 1},
                   chunk(line), {&value, 1});
    scales_.set(line, value);
    decoder_.decode(chunk(line).data(), 0, scales_[line], decoded);
  }

  /// X̂ of entries [first, first + out.size()) of a line.
  void decode_line(Index line, Index first, std::span<float> out) const noexcept {
    const Index c = chunks_.chunk_of(line);
    decoder_.decode(chunk(c).data(), (line - chunks_.first_line(c)) * chunks_.length + first,
                    scales_[line], out);
  }
  /// X̂ of rows [begin, begin + out.rows), any strides.
  void decode_rows(Index begin, View<float> out) const {
    const bool columns = quantizer_.sequence == TrellisSequence::column;
    const View<float> lines = columns ? out.transposed() : out;
    Buffer<float> dense(std::size_t(lines.rows_contiguous() ? 0 : lines.cols));
    for (Index i = 0; i < lines.rows; ++i) {
      const std::span<float> line = dense.empty() ? lines.row(i) : std::span<float>(dense);
      decode_line(columns ? i : begin + i, columns ? begin : 0, line);
      for (std::size_t j = 0; j < dense.size(); ++j) lines(i, Index(j)) = dense[j];
    }
  }
  void decode(View<float> out, ExecutorRef executor = {}) const {
    executor.parallel_for(rows(), 64, [&](Index begin, Index end, Index) {
      decode_rows(begin, out.row_block(begin, end - begin));
    });
  }

 private:
  static const Trellis& checked(const Trellis& quantizer) {
    check_quantizer(quantizer);
    return quantizer;
  }
  std::size_t chunk_size(Index c) const noexcept {
    return std::size_t(offsets_[std::size_t(c) + 1] - offsets_[std::size_t(c)]);
  }
  View<const float> as_lines(View<const float> X) const noexcept {
    return quantizer_.sequence == TrellisSequence::column ? X.transposed() : X;
  }

  Trellis quantizer_;
  Index rows_, cols_;
  TrellisChunks chunks_;
  kernel::TrellisDecoder<> decoder_;
  std::vector<Index> offsets_;
  Buffer<std::uint8_t> bytes_;
  TrellisScales scales_;
};

}  // namespace cafeq
