/// The error of a reconstructed matrix: ‖W − Ŵ‖², and relative to ‖W‖², plain or in a metric.
///
/// Sums run in fp64 in an order that does not depend on the executor; the difference of two floats
/// (or of narrower types) is exact in it.
#pragma once

#include <cstdlib>
#include <vector>

#include "cafeq/core/executor.hpp"
#include "cafeq/core/matrix.hpp"
#include "cafeq/kernel/dense_product.hpp"
#include "cafeq/kernel/difference.hpp"
#include "cafeq/linalg/metric.hpp"
#include "cafeq/loss/error_and_norm.hpp"

namespace cafeq {

namespace detail {

/// Adds up f(begin, end) over portions of the rows, in order.
template <class F>
ErrorAndNorm sum_over_rows(Index rows, Index cols, ExecutorRef executor, F&& f) {
  const Index grain = std::max<Index>(1, 32768 / std::max<Index>(1, cols));
  std::vector<ErrorAndNorm> partial(std::size_t(ceil_div(rows, grain)));
  executor.parallel_for(rows, grain, [&](Index begin, Index end, Index) {
    partial[std::size_t(begin / grain)] = f(begin, end);
  });
  ErrorAndNorm sum;
  for (const ErrorAndNorm& p : partial) {
    sum.error += p.error;
    sum.norm += p.norm;
  }
  return sum;
}

/// Row after row, each in the fixed order of its kernel.
template <class T, class U>
ErrorAndNorm plain_rows(View<T> W, View<U> W_hat) noexcept {
  ErrorAndNorm sum;
  const bool contiguous = W.col_stride == 1 && W_hat.col_stride == 1;
  for (Index i = 0; i < W.rows; ++i) {
    const T* w = W.data + i * W.row_stride;
    const U* w_hat = W_hat.data + i * W_hat.row_stride;
    const auto row = contiguous ? kernel::squared_differences(w, w_hat, W.cols)
                                : kernel::squared_differences_reference(w, W.col_stride, w_hat,
                                                                        W_hat.col_stride, W.cols);
    sum.error += row.error;
    sum.norm += row.norm;
  }
  return sum;
}

template <class T, class U>
ErrorAndNorm plain_error(View<T> W, View<U> W_hat, ExecutorRef executor) {
  if (std::abs(W.col_stride) > std::abs(W.row_stride)) {  // walk along memory
    W = W.transposed();
    W_hat = W_hat.transposed();
  }
  return sum_over_rows(W.rows, W.cols, executor, [&](Index begin, Index end) {
    return plain_rows(W.row_block(begin, end - begin), W_hat.row_block(begin, end - begin));
  });
}

/// tr(E H Eᵀ) for one block of H and the rows of E that are in `E`; `product` is scratch of the
/// same shape.
template <class Arch = DefaultArch>
double quadratic_form(const Metric::Block& block, View<const double> E,
                      View<double> product) noexcept {
  double sum = 0;
  if (block.is_dense())
    kernel::multiply<double, Arch>(E, block.dense.view(), product);  // [rows, n] · [n, n]
  for (Index i = 0; i < E.rows; ++i)
    for (Index j = 0; j < E.cols; ++j)
      sum += E(i, j) * (block.is_dense() ? product(i, j) : E(i, j) * block.weight(j));
  return sum;
}

template <class T, class U>
ErrorAndNorm metric_error(View<T> W, View<U> W_hat, const Metric& metric, Side side,
                          ExecutorRef executor) {
  if (side == Side::output) {  // tr(Eᵀ H E) is the input side of Eᵀ
    W = W.transposed();
    W_hat = W_hat.transposed();
  }
  if (metric.dim() != W.cols)
    raise(ErrorCode::invalid_shape,
          message("metric: dimension ", metric.dim(), " does not fit the ", W.cols,
                  side == Side::input ? " columns of W" : " rows of W"));

  Index widest = 0;
  for (const Metric::Block& block : metric.blocks()) widest = std::max(widest, block.size);
  return sum_over_rows(W.rows, W.cols, executor, [&](Index begin, Index end) {
    const Index n = end - begin;
    Matrix<double> w(n, W.cols);
    Matrix<double> e(n, W.cols);
    Matrix<double> product(n, widest);
    copy(W.row_block(begin, n), w.view());
    copy(W_hat.row_block(begin, n), e.view());
    for (Index i = 0; i < w.size(); ++i) e.data()[i] = w.data()[i] - e.data()[i];

    ErrorAndNorm sum;
    for (const Metric::Block& block : metric.blocks()) {
      const auto scratch = product.view().col_block(0, block.size);
      sum.error += quadratic_form(block, e.view().col_block(block.offset, block.size), scratch);
      sum.norm += quadratic_form(block, w.view().col_block(block.offset, block.size), scratch);
    }
    return sum;
  });
}

template <class T, class U>
void check_pair(View<T> W, View<U> W_hat) {
  check_view(W, "W");
  check_view(W_hat, "W_hat");
  check_same_shape(W, "W", W_hat, "W_hat");
}

}  // namespace detail

/// ‖W − Ŵ‖²_F for two views of one shape and any element types.
template <class M, class N>
  requires MatrixView<M> && MatrixView<N>
double squared_error(M&& W, N&& W_hat, ExecutorRef executor = {}) {
  detail::check_pair(as_view(W), as_view(W_hat));
  return detail::plain_error(as_view(W), as_view(W_hat), executor).error;
}

/// tr((W − Ŵ) H (W − Ŵ)ᵀ) for a metric on the input side, tr((W − Ŵ)ᵀ H (W − Ŵ)) on the output
/// side. Scratch: three portions of rows a worker.
template <class M, class N>
  requires MatrixView<M> && MatrixView<N>
double squared_error(M&& W, N&& W_hat, const Metric& metric, Side side, ExecutorRef executor = {}) {
  detail::check_pair(as_view(W), as_view(W_hat));
  return detail::metric_error(as_view(W), as_view(W_hat), metric, side, executor).error;
}

/// ‖W − Ŵ‖²_F / ‖W‖²_F. Where W is zero (or empty): 0 if Ŵ is zero too, infinity if it is not.
template <class M, class N>
  requires MatrixView<M> && MatrixView<N>
double relative_error(M&& W, N&& W_hat, ExecutorRef executor = {}) {
  detail::check_pair(as_view(W), as_view(W_hat));
  return detail::plain_error(as_view(W), as_view(W_hat), executor).relative();
}

/// The same with both norms in a metric.
template <class M, class N>
  requires MatrixView<M> && MatrixView<N>
double relative_error(M&& W, N&& W_hat, const Metric& metric, Side side,
                      ExecutorRef executor = {}) {
  detail::check_pair(as_view(W), as_view(W_hat));
  return detail::metric_error(as_view(W), as_view(W_hat), metric, side, executor).relative();
}

}  // namespace cafeq
