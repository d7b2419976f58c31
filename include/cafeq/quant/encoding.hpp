/// Encoding<Q>: the codes and scales of one matrix while they are being chosen.
///
/// Every encoding, whatever the quantizer, has
///   Encoding(quantizer, rows, cols)
///   fit(X, executor)         scales for X
///   encode(X, executor)      the nearest codes of X that the quantizer finds
///   encode_line(line, target, decoded, encoder)
///                            chooses the codes of a whole line at once and says what they decode
///                            to; a line is a row, or a column of sequences along columns
///   LineEncoder              what a worker needs for that, made from the quantizer
///   decode(out, executor)    X̂
///   pack(executor)           the codes as they are stored
/// Rounders work on it. Here is the one of a scalar quantizer, a byte a code, in which rounders may
/// also change single codes and parameters; that of a joint one is in quant/joint_encoding.hpp.
#pragma once

#include <algorithm>
#include <utility>
#include <vector>

#include "cafeq/core/executor.hpp"
#include "cafeq/core/matrix.hpp"
#include "cafeq/quant/codes.hpp"
#include "cafeq/quant/joint.hpp"

namespace cafeq {

template <Quantizer Q>
class Encoding;

template <Quantizer Q>
Encoding(const Q&, Index, Index) -> Encoding<Q>;

template <ScalarQuantizer Q>
class Encoding<Q> {
 public:
  using Params = typename Q::Params;
  /// Each weight is coded by itself: there is nothing to prepare.
  struct LineEncoder {
    explicit LineEncoder(const Q&) noexcept {}
  };

  Encoding() = default;
  Encoding(const Q& quantizer, Index rows, Index cols)
      : quantizer_(quantizer),
        grouping_{rows, cols, quantizer.group},
        codes_(rows, cols),
        params_(std::size_t(grouping_.count())) {}

  const Q& quantizer() const noexcept { return quantizer_; }
  const Grouping& grouping() const noexcept { return grouping_; }
  Index rows() const noexcept { return grouping_.rows; }
  Index cols() const noexcept { return grouping_.cols; }

  std::uint8_t& code(Index i, Index j) noexcept { return codes_(i, j); }
  std::uint8_t code(Index i, Index j) const noexcept { return codes_(i, j); }
  std::span<const std::uint8_t> codes(Index i) const noexcept { return codes_.row(i); }
  std::span<std::uint8_t> codes(Index i) noexcept { return codes_.row(i); }
  /// The parameters of the group that holds an element.
  Params& params(Index i, Index j) noexcept { return params_[std::size_t(grouping_.index(i, j))]; }
  const Params& params(Index i, Index j) const noexcept {
    return params_[std::size_t(grouping_.index(i, j))];
  }
  std::span<const Params> all_params() const noexcept { return params_; }
  std::span<Params> all_params() noexcept { return params_; }

  float value(Index i, Index j) const noexcept {
    return quantizer_.decode(code(i, j), params(i, j));
  }

  /// Fits the parameters to X (rows contiguous), and any tensor-wide state before them. Codes stay
  /// as they are.
  void fit(View<const float> X, ExecutorRef executor = {}) {
    CAFEQ_ASSERT(X.rows == rows() && X.cols == cols());
    if (X.empty()) return;
    quantizer_ = cafeq::for_tensor(quantizer_, X);
    if (grouping_.group == per_tensor) {
      const Matrix<float> dense = to_matrix<float>(X);
      params_[0] = quantizer_.fit(std::span<const float>(dense.data(), std::size_t(dense.size())));
      return;
    }
    executor.parallel_for(rows(), row_grain(), [&](Index begin, Index end, Index) {
      const std::size_t groups = std::size_t(grouping_.per_row_count());
      for (Index i = begin; i < end; ++i)
        fit_row(quantizer_, X.row(i), grouping_.width(),
                std::span(params_).subspan(std::size_t(i) * groups, groups));
    });
  }

  /// The nearest codes of X (rows contiguous) at the present parameters.
  void encode(View<const float> X, ExecutorRef executor = {}) {
    CAFEQ_ASSERT(X.rows == rows() && X.cols == cols());
    executor.parallel_for(rows(), row_grain(), [&](Index begin, Index end, Index) {
      for (Index i = begin; i < end; ++i)
        for_each_group(i, [&](Index j, Index n, const Params& p) {
          const auto x = X.row(i).subspan(std::size_t(j), std::size_t(n));
          encode_group(quantizer_, x, p, codes_.row(i).subspan(std::size_t(j), std::size_t(n)));
        });
    });
  }

  /// Chooses the codes of column j, rows [row, row + n), for the targets; writes what they decode
  /// to.
  void encode_column(Index j, Index row, std::span<const float> target,
                     std::span<float> decoded) noexcept {
    if (target.empty()) return;
    const bool shared = grouping_.group == per_tensor;
    const Index step = shared ? 0 : grouping_.per_row_count();
    const Params* p = params_.data() + grouping_.index(row, j);
    std::uint8_t* c = codes_.data() + row * cols() + j;
    for (std::size_t l = 0; l < target.size(); ++l, p += step, c += cols()) {
      *c = quantizer_.encode(target[l], *p);
      decoded[l] = quantizer_.decode(*c, *p);
    }
  }

  /// Chooses the codes of row i, columns [col, col + n).
  void encode_row(Index i, Index col, std::span<const float> target,
                  std::span<float> decoded) noexcept {
    for (Index l = 0; l < Index(target.size());) {
      const Index stop =
          std::min(Index(target.size()),
                   (col + l) / grouping_.width() * grouping_.width() + grouping_.width() - col);
      const Params p = params(i, col + l);  // a copy: codes are bytes, which may alias anything
      const auto codes = codes_.row(i).subspan(std::size_t(col + l), std::size_t(stop - l));
      encode_group(quantizer_, target.subspan(std::size_t(l), codes.size()), p, codes);
      for (const std::uint8_t c : codes) decoded[std::size_t(l++)] = quantizer_.decode(c, p);
    }
  }

  void encode_line(Index row, std::span<const float> target, std::span<float> decoded,
                   LineEncoder&) noexcept {
    encode_row(row, 0, target, decoded);
  }

  /// X̂, into a view of any strides.
  void decode(View<float> out, ExecutorRef executor = {}) const {
    CAFEQ_ASSERT(out.rows == rows() && out.cols == cols());
    executor.parallel_for(rows(), row_grain(), [&](Index begin, Index end, Index) {
      for (Index i = begin; i < end; ++i)
        for (Index j = 0; j < cols(); j += grouping_.width()) {
          const Params& p = params(i, j);
          for (Index l = j; l < std::min(j + grouping_.width(), cols()); ++l)
            out(i, l) = quantizer_.decode(codes_(i, l), p);
        }
    });
  }

  Codes<Q> pack(ExecutorRef executor = {}) const {
    PackedCodes packed(rows(), cols(), quantizer_.bits);
    executor.parallel_for(rows(), row_grain(), [&](Index begin, Index end, Index) {
      for (Index i = begin; i < end; ++i) packed.pack_row(i, codes_.row(i));
    });
    return {quantizer_, cols(), std::move(packed), params_};
  }

 private:
  Index row_grain() const noexcept {
    return std::max<Index>(1, 16384 / std::max<Index>(1, cols()));
  }

  template <class F>
  void for_each_group(Index i, F&& f) {
    for (Index j = 0; j < cols(); j += grouping_.width())
      f(j, std::min(grouping_.width(), cols() - j), params(i, j));
  }

  Q quantizer_{};
  Grouping grouping_;
  Matrix<std::uint8_t> codes_;
  std::vector<Params> params_;
};

}  // namespace cafeq
