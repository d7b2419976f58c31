/// Nearest codes of a matrix that is never in memory as a whole: its rows are written a few at a
/// time by whoever reads them, and coded at once.
#pragma once

#include <algorithm>
#include <span>
#include <utility>
#include <vector>

#include "cafeq/core/executor.hpp"
#include "cafeq/core/matrix.hpp"
#include "cafeq/quant/joint_encoding.hpp"

namespace cafeq::detail {

/// Rows that a worker handles at once: what stays in L2 and is little beside the matrix, a few at
/// least so that whoever writes them can share loads between them.
inline Index panel_rows(Index rows, Index cols) noexcept {
  const Index in_cache = (Index(1) << 16) / cols;
  return std::min(rows, std::clamp<Index>(std::min(in_cache, rows / 32), 4, 64));
}

/// f(first row, X) for panels of rows that read(first row, X) has written, in parallel. Memory: a
/// panel a worker.
template <class Read, class F>
void for_each_panel(Index rows, Index cols, Read&& read, ExecutorRef executor, F&& f) {
  const Index step = panel_rows(rows, cols);
  std::vector<Matrix<float>> panels(std::size_t(executor.concurrency()));
  for (auto& panel : panels) panel = Matrix<float>(step, cols);

  executor.parallel_for(rows, step, [&](Index begin, Index end, Index worker) {
    const View<float> X = panels[std::size_t(worker)].view().row_block(0, end - begin);
    read(begin, X);
    f(begin, X);
  });
}

/// The nearest codes of X [rows, cols], whose rows read(first row, panel) writes; it is called from
/// many threads at once. For quantizers whose rows do not depend on each other (couples_rows),
/// joint ones with sequences along rows. Memory beyond the result: a panel of rows a worker, or a
/// chunk.
template <ScalarQuantizer Q, class Read>
Codes<Q> encode_rows(const Q& quantizer, Index rows, Index cols, Read&& read,
                     ExecutorRef executor = {}) {
  const Grouping grouping{rows, cols, quantizer.group};
  const auto groups = std::size_t(grouping.per_row_count());
  PackedCodes packed(rows, cols, quantizer.bits);
  std::vector<typename Q::Params> params(std::size_t(grouping.count()));

  for_each_panel(rows, cols, read, executor, [&](Index begin, View<float> X) {
    for (Index i = 0; i < X.rows; ++i) {
      const auto row = std::span<const float>(X.row(i));
      const auto p = std::span(params).subspan(std::size_t(begin + i) * groups, groups);
      fit_row(quantizer, row, grouping.width(), p);
      pack_row(quantizer, row, grouping.width(), std::span<const typename Q::Params>(p),
               packed.row(begin + i));
    }
  });
  return {quantizer, cols, std::move(packed), std::move(params)};
}

template <JointQuantizer Q, class Read>
Codes<Q> encode_rows(const Q& quantizer, Index rows, Index cols, Read&& read,
                     ExecutorRef executor = {}) {
  CAFEQ_ASSERT(!along_columns(quantizer.sequence));
  Encoding<Q> encoding(quantizer, rows, cols);
  encoding.encode_lines(read, executor);
  return std::move(encoding).pack();
}

}  // namespace cafeq::detail
