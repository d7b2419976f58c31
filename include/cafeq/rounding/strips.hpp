/// Rounding strip by strip: codes of some hundred rows at a time, so that no copy of the matrix and
/// no matrix of codes is needed.
#pragma once

#include <algorithm>
#include <utility>
#include <vector>

#include "cafeq/quant/joint_encoding.hpp"
#include "cafeq/rounding/rounder.hpp"

namespace cafeq::rounding {

/// A matrix X [rows, cols] in strips of rows: the parameters of all of them, and room for the
/// weights and the codes of one strip. A pass goes over all strips; the first one fits the
/// quantizer to them, later ones go on from the parameters that the one before has left.
template <ScalarQuantizer Q>
class Strips {
 public:
  using Params = typename Q::Params;

  /// Strips of about a million weights, but an eighth of the rows at most and 128 rows a thread at
  /// least: what is rounded does not depend on it. One strip of all rows where the rows depend on
  /// each other: through the quantizer (couples_rows), or because the rounder R does not promise to
  /// round row by row.
  template <class R>
  static Strips for_rounder(const R&, const Q& quantizer, Index rows, Index cols,
                            ExecutorRef executor) {
    const bool whole = cafeq::detail::couples_rows(quantizer) || !rounds_row_by_row<R>;
    const Index step = std::max(std::min((Index(1) << 20) / cols, rows / 8) / 64 * 64,
                                128 * executor.concurrency());
    return Strips(quantizer, rows, cols, whole ? rows : step);
  }

  /// Strips of `step` rows, but for the last. rows, cols, step > 0.
  Strips(const Q& quantizer, Index rows, Index cols, Index step)
      : rows_(rows),
        step_(std::min(step, rows)),
        X_(step_, cols),
        full_(quantizer, step_, cols),
        params_(std::size_t(Grouping{rows, cols, quantizer.group}.count())) {
    if (rows % step_ != 0) last_ = Encoding<Q>(quantizer, rows % step_, cols);
  }

  std::vector<Params> take_params() && noexcept { return std::move(params_); }

  /// One pass: read(first row, X, executor) writes the rows of a strip, and f(first row, X,
  /// encoding) rounds them. The encoding holds the parameters of these rows and keeps those that f
  /// leaves in it; its codes are those of the strip before. X may be overwritten.
  template <class Read, class F>
  void for_each(Read&& read, ExecutorRef executor, F&& f) {
    for (Index begin = 0; begin < rows_; begin += step_) {
      const Index n = std::min(step_, rows_ - begin);
      Encoding<Q>& encoding = n == step_ ? full_ : last_;
      const View<float> X = X_.view().row_block(0, n);
      read(begin, X, executor);

      // One strip of all rows has all parameters, also a single one for the whole matrix.
      const auto params = encoding.all_params();
      const auto kept =
          params_.begin() + (step_ == rows_ ? 0 : begin * encoding.grouping().per_row_count());
      if (fitted_) std::copy_n(kept, params.size(), params.begin());
      else encoding.fit(X, executor);
      f(begin, X, encoding);
      std::copy_n(params.begin(), params.size(), kept);
    }
    fitted_ = true;
  }

 private:
  Index rows_;
  Index step_;
  Matrix<float> X_;
  Encoding<Q> full_;
  Encoding<Q> last_;  // of the rows that are left
  std::vector<Params> params_;
  bool fitted_ = false;
};

/// Codes of X [rows, metric.dim()] on the input side, strip by strip: read(first row, X, executor)
/// writes the rows of a strip. For rounders and quantizers whose rows do not depend on each other.
/// Memory beyond the result: a strip of X, its codes, and what the rounder takes.
template <ScalarQuantizer Q, RounderFor<Q> R, class Read>
Codes<Q> round_rows(const R& rounder, const Q& quantizer, const Metric& metric, Index rows,
                    Read&& read, ExecutorRef executor = {}) {
  const Index cols = metric.dim();
  auto strips = Strips<Q>::for_rounder(rounder, quantizer, rows, cols, executor);
  PackedCodes packed(rows, cols, quantizer.bits);

  strips.for_each(read, executor, [&](Index begin, View<float> X, Encoding<Q>& encoding) {
    rounder.round(View<const float>(X), metric, Side::input, encoding, executor);
    executor.parallel_for(X.rows, 16, [&](Index first, Index last, Index) {
      for (Index i = first; i < last; ++i) packed.pack_row(begin + i, encoding.codes(i));
    });
  });
  return {quantizer, cols, std::move(packed), std::move(strips).take_params()};
}

}  // namespace cafeq::rounding
