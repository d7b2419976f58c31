/// The codes and scales of a joint quantizer while they are being chosen.
///
/// A line is divided by its root mean square, the codes of a chunk are searched, and each scale is
/// refitted to them by least squares.
#pragma once

#include <algorithm>
#include <cmath>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "cafeq/core/executor.hpp"
#include "cafeq/core/matrix.hpp"
#include "cafeq/quant/encoding.hpp"
#include "cafeq/quant/joint_codes.hpp"

namespace cafeq {

namespace detail {

/// Of a line [1, n] of any strides.
inline double root_mean_square(View<const float> line) noexcept {
  double squares = 0;
  for (Index j = 0; j < line.cols; ++j) squares += double(line(0, j)) * double(line(0, j));
  return std::sqrt(squares / double(line.cols));
}

/// Chunks one after the other, by one worker. Memory: what the quantizer's own encoder has, and two
/// copies of a chunk.
template <JointQuantizer Q>
class ChunkEncoder {
 public:
  explicit ChunkEncoder(const Q& quantizer) : search_(quantizer), decoder_(quantizer) {}

  /// The codes of the lines X [n, length], rows contiguous, and of each line the scale that is best
  /// for them.
  void encode(View<const float> X, std::span<std::uint8_t> chunk, std::span<float> scales) {
    targets_.resize(std::size_t(X.rows * X.cols));
    levels_.resize(std::size_t(X.cols));

    for (Index i = 0; i < X.rows; ++i) {
      const double rms = root_mean_square(X.row_block(i, 1));
      float* const target = targets_.data() + i * X.cols;
      for (Index j = 0; j < X.cols; ++j) target[j] = rms > 0 ? float(double(X(i, j)) / rms) : 0;
    }
    search_.encode(std::span<const float>(targets_), chunk);

    for (Index i = 0; i < X.rows; ++i)
      scales[std::size_t(i)] = best_scale(X.row(i), chunk, i * X.cols);
  }

 private:
  /// ⟨x, q⟩ / ⟨q, q⟩, or 0 where that is negative.
  float best_scale(std::span<const float> x, std::span<const std::uint8_t> chunk, Index first) {
    decoder_.levels(chunk.data(), first, std::span(levels_));
    double product = 0, squares = 0;
    for (std::size_t j = 0; j < x.size(); ++j) {
      product += double(x[j]) * double(levels_[j]);
      squares += double(levels_[j]) * double(levels_[j]);
    }
    return product > 0 ? float(product / (squares * double(decoder_.unit()))) : 0;
  }

  typename Q::Encoder search_;
  typename Q::Decoder decoder_;
  Buffer<float> targets_;
  Buffer<typename Q::Decoder::Level> levels_;
};

}  // namespace detail

template <JointQuantizer Q>
class Encoding<Q> {
 public:
  using LineEncoder = detail::ChunkEncoder<Q>;

  /// Raises what the quantizer says is wrong with it.
  Encoding(const Q& quantizer, Index rows, Index cols) : codes_(quantizer, rows, cols) {}

  const Q& quantizer() const noexcept { return codes_.quantizer(); }
  const Codes<Q>& codes() const noexcept { return codes_; }
  Index rows() const noexcept { return codes_.rows(); }
  Index cols() const noexcept { return codes_.cols(); }

  /// Prepares encode_line(): scales by the root mean square of each row, where rows have some, and
  /// of each line, with room for lines a little larger.
  void fit(View<const float> X, ExecutorRef = {}) {
    fit_rows(X);
    const View<const float> lines = as_lines(X);
    std::vector<float> values(static_cast<std::size_t>(lines.rows));
    Matrix<float> line(1, lines.cols);
    for (Index i = 0; i < lines.rows; ++i) {
      copy(lines.row_block(i, 1), line.view());
      divide_by_rows(line.row(0));
      values[std::size_t(i)] = float(detail::root_mean_square(line.view()));
    }
    codes_.scales() = LineScales(quantizer().scale_bits, values, 1.25f);
  }

  /// Codes and scales of X, of any strides.
  void encode(View<const float> X, ExecutorRef executor = {}) {
    fit_rows(X);
    const View<const float> lines = as_lines(X);
    encode_lines(
        [&](Index first, View<float> panel) {
          copy(lines.row_block(first, panel.rows), panel);
          for (Index i = 0; i < panel.rows; ++i) divide_by_rows(panel.row(i));
        },
        executor);
  }
  /// Of the lines that read(first line, X [n, length]) writes, divided by the scales of rows where
  /// those have some, chunk by chunk.
  template <class Read>
  void encode_lines(Read&& read, ExecutorRef executor = {}) {
    const Chunks<Q>& chunks = codes_.chunks();
    std::vector<float> values(static_cast<std::size_t>(chunks.lines()));
    std::vector<std::optional<LineEncoder>> encoders(std::size_t(executor.concurrency()));
    std::vector<Matrix<float>> panels(encoders.size());

    executor.parallel_for(chunks.count(), 1, [&](Index c, Index end, Index worker) {
      auto& encoder = encoders[std::size_t(worker)];
      auto& panel = panels[std::size_t(worker)];
      if (!encoder) encoder.emplace(quantizer());
      for (; c < end; ++c) {
        const Index first = chunks.first_line(c), n = chunks.lines_of(c);
        if (panel.rows() < n) panel = Matrix<float>(n, chunks.length());
        const View<float> X = panel.view().row_block(0, n);
        read(first, X);
        encoder->encode(X, codes_.chunk(c),
                        std::span(values).subspan(std::size_t(first), std::size_t(n)));
      }
    });

    codes_.scales() = LineScales(quantizer().scale_bits, values);
  }
  /// Codes and scale of one line, which must be a chunk by itself. Lines may be encoded at the same
  /// time.
  void encode_line(Index line, std::span<const float> target, std::span<float> decoded,
                   LineEncoder& encoder) {
    const Index n = codes_.chunks().length();
    float value = 0;
    std::span<const float> x = target;
    if (!codes_.row_factors().empty()) {
      // In the place of what is decoded below.
      std::copy(target.begin(), target.end(), decoded.begin());
      divide_by_rows(decoded);
      x = decoded;
    }
    encoder.encode({x.data(), 1, n, n, 1}, codes_.chunk(line), {&value, 1});
    codes_.scales().set(line, value);
    codes_.decode_line(line, 0, decoded);
  }

  void decode(View<float> out, ExecutorRef executor = {}) const {
    executor.parallel_for(rows(), 64, [&](Index begin, Index end, Index) {
      codes_.decode_rows(begin, out.row_block(begin, end - begin));
    });
  }

  Codes<Q> pack(ExecutorRef = {}) const& { return codes_; }
  Codes<Q> pack(ExecutorRef = {}) && { return std::move(codes_); }

 private:
  View<const float> as_lines(View<const float> X) const noexcept {
    return along_columns(quantizer().sequence) ? X.transposed() : X;
  }
  void fit_rows(View<const float> X) {
    if (quantizer().sequence != Sequence::scaled_column) return;
    std::vector<float> values(static_cast<std::size_t>(X.rows));
    for (Index i = 0; i < X.rows; ++i)
      values[std::size_t(i)] = float(detail::root_mean_square(X.row_block(i, 1)));
    codes_.set_row_scales(LineScales(quantizer().scale_bits, values));
  }
  /// A column, entry by entry; a row without a scale is zero.
  void divide_by_rows(std::span<float> column) const noexcept {
    const std::span<const float> factors = codes_.row_factors();
    for (std::size_t i = 0; i < factors.size(); ++i)
      column[i] = factors[i] > 0 ? column[i] / factors[i] : 0;
  }

  Codes<Q> codes_;
};

}  // namespace cafeq
