/// Adaptive rounding in a metric: LDLQ error feedback, then coordinate descent with scale refits.
#pragma once

#include <algorithm>
#include <optional>
#include <span>
#include <vector>

#include "cafeq/rounding/lines.hpp"
#include "cafeq/rounding/metric_floats.hpp"
#include "cafeq/rounding/refit.hpp"
#include "cafeq/rounding/rounder.hpp"
#include "cafeq/rounding/row_slab.hpp"
#include "cafeq/rounding/weighted_fit.hpp"

namespace cafeq {

/// LDLQ in any metric on either side, then `sweeps` sweeps of coordinate descent, each preceded by
/// a least-squares refit of the parameters where the grid allows it. With a Hessian from data as
/// the metric this is GPTQ with refined scales; where a block of the metric is diagonal there is
/// nothing to feed back and it rounds to nearest.
///
/// On the input side rows are independent of each other, but for a scale of the whole tensor: an
/// encoding of some of the rows gets what an encoding of all would get for them, so a matrix may be
/// rounded rows by rows. Scratch of a worker: 64 rows (128 where a block of the metric is wider
/// than 256) in floats twice, and their codes; on the output side one matrix like the block's rows.
struct ErrorFeedback {
  static constexpr bool row_by_row = true;

  int sweeps = 1;
  bool feedback = true;     ///< false: start from nearest codes instead (plain coordinate descent)
  bool fit_scales = false;  ///< on the input side, first fit a linear grid's scales anew, columns
                            ///< weighted by the metric's diagonal: for metrics of real inputs, some
                            ///< of which are far louder than others

  /// The encoding of a joint quantizer must have its sequences along the lines, so that what is fed
  /// back is exact: rows on the output side, columns on the input side (for_lines). Blocks of the
  /// metric then go to the executor, and X is in memory twice more.
  template <Quantizer Q>
  void round(View<const float> X, const Metric& metric, Side side, Encoding<Q>& encoding,
             ExecutorRef executor = {}) const {
    rounding::check_metric(X, metric, side);
    check(*this, X.rows, X.cols);
    if (X.empty()) return;

    const rounding::MetricFloats floats(metric, sweeps > 0, executor);

    if constexpr (ScalarQuantizer<Q>) {
      if constexpr (LinearGrid<Q>)
        if (fit_scales && side == Side::input)
          rounding::fit_weighted(X, metric, encoding, executor);
      if (side == Side::input) return round_slabs(X, floats, encoding, executor);
      return round_lines(X, floats, encoding, executor);
    } else {
      if (!(encoding.quantizer() == detail::for_lines(encoding.quantizer(), side)))
        raise(
            ErrorCode::invalid_argument,
            message("ErrorFeedback: sequences must be ",
                    side == Side::input ? "columns on the input" : "rows on the output", " side"));
      const Matrix<float> lines = to_matrix<float>(side == Side::input ? X.transposed() : X);
      encoding.fit(X, executor);
      round_lines(lines.view(), floats, encoding, executor);
    }
  }

  std::optional<Error> fault(Index, Index) const {
    if (sweeps >= 0) return std::nullopt;
    return Error(ErrorCode::invalid_argument,
                 message("ErrorFeedback: sweeps is ", sweeps, ", must not be negative"));
  }

 private:
  /// Lines are columns of X; rows are independent of each other and go to the executor in slabs.
  template <ScalarQuantizer Q>
  void round_slabs(View<const float> X, const rounding::MetricFloats& metric, Encoding<Q>& encoding,
                   ExecutorRef executor) const {
    // Wide blocks are read from memory for each slab; more rows share that. Results do not depend
    // on it.
    const Index rows_a_slab = metric.widest() > 256 ? 128 : 64;
    detail::WorkspacePool workspaces(executor.concurrency());

    executor.parallel_for(X.rows, rows_a_slab, [&](Index begin, Index end, Index worker) {
      Workspace& workspace = workspaces[worker];
      const Workspace::Frame frame(workspace);
      rounding::RowSlab<Q> slab(encoding, begin, end - begin, workspace);
      const auto lines = workspace.take<float>(X.cols, slab.lanes());
      const auto E = workspace.take<float>(X.cols, slab.lanes());

      // Lanes beyond the rows are weights of zero.
      for (Index j = 0; j < X.cols; ++j)
        std::fill(lines.row(j).begin() + (end - begin), lines.row(j).end(), 0.0f);
      kernel::rows_to_lines(X.row_block(begin, end - begin), lines.col_block(0, end - begin));

      for (const auto& block : metric.blocks)
        start(lines.row_block(block.offset, block.size), block,
              E.row_block(block.offset, block.size), workspace, slab.at(block.offset));
      for (int sweep = 0; sweep < sweeps; ++sweep) {
        if constexpr (LinearGrid<Q>) rounding::refit_slab(lines, E, metric, slab, workspace);
        for (const auto& block : metric.blocks)
          improve(lines.row_block(block.offset, block.size), block,
                  E.row_block(block.offset, block.size), workspace, slab.at(block.offset));
      }
      slab.store();
    });
  }

  /// X has the lines as its rows; blocks of the metric are independent of each other. Each sweep
  /// refits the scales of a line before it codes it, where the grid allows that.
  template <Quantizer Q>
  void round_lines(View<const float> X, const rounding::MetricFloats& metric, Encoding<Q>& encoding,
                   ExecutorRef executor) const {
    CAFEQ_ASSERT(X.rows_contiguous());
    detail::WorkspacePool workspaces(executor.concurrency());
    std::vector<std::optional<typename Encoding<Q>::LineEncoder>> encoders(
        std::size_t(executor.concurrency()));

    detail::for_each(executor, Index(metric.blocks.size()), [&](Index b, Index worker) {
      const auto& block = metric.blocks[std::size_t(b)];
      Workspace& workspace = workspaces[worker];
      const Workspace::Frame frame(workspace);
      auto& encoder = encoders[std::size_t(worker)];
      if (!encoder) encoder.emplace(encoding.quantizer());

      const auto encode = [&](Index j, std::span<const float> target, std::span<float> decoded) {
        encoding.encode_line(block.offset + j, target, decoded, *encoder);
      };
      const auto refit_and_encode = [&](Index j, std::span<const float> target,
                                        std::span<float> decoded) {
        if constexpr (LinearGrid<Q>)
          if (encoding.grouping().group != per_tensor)
            rounding::refit_row(encoding, block.offset + j, target);
        encode(j, target, decoded);
      };

      const auto lines = X.row_block(block.offset, block.size);
      const auto E = workspace.take<float>(block.size, X.cols);
      rounding::LineByLine first(encode, X.cols, workspace);
      rounding::LineByLine then(refit_and_encode, X.cols, workspace);
      start(lines, block, E, workspace, first);
      for (int sweep = 0; sweep < sweeps; ++sweep) improve(lines, block, E, workspace, then);
    });
  }

  /// The first codes of a block of the metric.
  template <rounding::BatchRounder Rounder>
  void start(View<const float> X, const rounding::MetricFloats::Block& block, View<float> E,
             Workspace& workspace, Rounder& rounder) const {
    if (feedback && block.is_dense) rounding::feed_back(X, block.L, E, workspace, rounder);
    else nearest(X, E, workspace, rounder);
  }

  /// One sweep over it.
  template <rounding::BatchRounder Rounder>
  void improve(View<const float> X, const rounding::MetricFloats::Block& block, View<float> E,
               Workspace& workspace, Rounder& rounder) const {
    if (block.is_dense) rounding::descend(X, block.H.view(), E, workspace, rounder);
    else nearest(X, E, workspace, rounder);
  }

  /// Line by line, nothing fed back: a batch of one line, whose L is 1.
  template <rounding::BatchRounder Rounder>
  static void nearest(View<const float> X, View<float> E, Workspace& workspace, Rounder& rounder) {
    const Workspace::Frame frame(workspace);
    const auto target = workspace.take<float>(1, X.cols);
    const float one = 1;
    for (Index j = 0; j < X.rows; ++j) {
      copy(X.row_block(j, 1), target);
      rounder.feed_back(j, X.row_block(j, 1), View<const float>{&one, 1, 1, 1, 1}, target,
                        E.row_block(j, 1));
    }
  }
};

}  // namespace cafeq
