/// Rounding strip by strip: codes of some hundred rows at a time, so that no copy of the matrix and
/// no matrix of codes is needed.
#pragma once

#include <algorithm>
#include <utility>
#include <vector>

#include "cafeq/quant/joint_encoding.hpp"
#include "cafeq/rounding/rounder.hpp"

namespace cafeq {

/// The parameters of all rows of a matrix [rows, cols], and the codes of one strip of them.
template <ScalarQuantizer Q>
class StripEncoding {
 public:
  using Params = typename Q::Params;

  /// Strips of about a million weights, but an eighth of the rows at most and 128 rows a thread at
  /// least: what is rounded does not depend on it. One strip of all rows where the rows depend on
  /// each other: through the quantizer (couples_rows), or because the rounder R does not promise to
  /// round row by row.
  template <class R>
  static StripEncoding for_rounder(const R&, const Q& quantizer, Index rows, Index cols,
                                   ExecutorRef executor) {
    const bool whole = couples_rows(quantizer) || !rounds_row_by_row<R>;
    const Index step = std::max(std::min((Index(1) << 20) / cols, rows / 8) / 64 * 64,
                                128 * executor.concurrency());
    return StripEncoding(quantizer, rows, cols, whole ? rows : step);
  }

  StripEncoding(const Q& quantizer, Index rows, Index cols, Index step)
      : rows_(rows),
        cols_(cols),
        step_(std::min(step, rows)),
        full_(quantizer, step_, cols),
        params_(std::size_t(Grouping{rows, cols, quantizer.group}.count())) {
    if (rows % step_ != 0) last_ = Encoding<Q>(quantizer, rows % step_, cols);
  }

  /// Rows of a strip, but for the last.
  Index step() const noexcept { return step_; }
  std::span<const Params> params() const noexcept { return params_; }
  std::vector<Params> take_params() && noexcept { return std::move(params_); }
  /// With its tensor-wide state, once a strip was fitted.
  const Q& quantizer() const noexcept { return full_.quantizer(); }

  /// f(first row, rows, encoding) strip after strip. The encoding holds the present parameters of
  /// these rows and keeps those that f leaves in it; its codes are those of the strip before.
  template <class F>
  void for_each(F&& f) {
    for (Index begin = 0; begin < rows_; begin += step_) {
      const Index n = std::min(step_, rows_ - begin);
      Encoding<Q>& encoding = n == step_ ? full_ : last_;
      const auto params = encoding.all_params();
      const auto kept =
          params_.begin() + (step_ == rows_ ? 0 : begin * encoding.grouping().per_row_count());
      std::copy_n(kept, params.size(), params.begin());
      f(begin, n, encoding);
      std::copy_n(params.begin(), params.size(), kept);
    }
  }

 private:
  Index rows_;
  Index cols_;
  Index step_;
  Encoding<Q> full_;
  Encoding<Q> last_;  // of the rows that are left
  std::vector<Params> params_;
};

/// Codes of X [rows, metric.dim()] on the input side, strip by strip: read(first row, X, executor)
/// writes the rows of a strip. For rounders and quantizers whose rows do not depend on each other.
/// Memory beyond the result: a strip of X, its codes, and what the rounder takes.
template <ScalarQuantizer Q, RounderFor<Q> R, class Read>
Codes<Q> round_rows(const R& rounder, const Q& quantizer, const Metric& metric, Index rows,
                    Read&& read, ExecutorRef executor = {}) {
  const Index cols = metric.dim();
  auto encodings = StripEncoding<Q>::for_rounder(rounder, quantizer, rows, cols, executor);
  Matrix<float> strip(encodings.step(), cols);
  PackedCodes packed(rows, cols, quantizer.bits);

  encodings.for_each([&](Index begin, Index n, Encoding<Q>& encoding) {
    const View<float> X = strip.view().row_block(0, n);
    read(begin, X, executor);
    encoding.fit(X, executor);
    rounder.round(View<const float>(X), metric, Side::input, encoding, executor);
    executor.parallel_for(n, 16, [&](Index first, Index last, Index) {
      for (Index i = first; i < last; ++i) packed.pack_row(begin + i, encoding.codes(i));
    });
  });
  return {quantizer, cols, std::move(packed), std::move(encodings).take_params()};
}

}  // namespace cafeq
