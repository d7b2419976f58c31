/// Adaptive rounding in a metric: LDLQ error feedback, then coordinate descent with scale refits.
#pragma once

#include "cafeq/rounding/lines.hpp"
#include "cafeq/rounding/refit.hpp"
#include "cafeq/rounding/rounder.hpp"

namespace cafeq {

/// LDLQ in any metric on either side, then `sweeps` sweeps of coordinate descent, each preceded by a least-squares refit of the parameters
/// where the grid allows it. With a Hessian from data as the metric this is GPTQ with refined scales; where a block of the metric is diagonal
/// there is nothing to feed back and it rounds to nearest.
struct ErrorFeedback {
  static constexpr bool row_by_row = true;

  int sweeps = 1;
  bool feedback = true;  ///< false: start from nearest codes instead (plain coordinate descent)

  template <Quantizer Q>
  void round(View<const float> X, const Metric& metric, Side side, Encoding<Q>& encoding, ExecutorRef executor = {}) const {
    check_metric(X, metric, side);
    if (sweeps < 0) raise(ErrorCode::invalid_argument, message("ErrorFeedback: sweeps is ", sweeps, ", must not be negative"));
    if (X.empty()) return;
    const rounding::MetricFloats floats(metric);
    if (side == Side::input) round_input(X, floats, encoding, executor);
    else round_output(X, floats, encoding, executor);
  }

 private:
  /// Lines are columns; rows are independent of each other and go to the executor in chunks.
  template <Quantizer Q>
  void round_input(View<const float> X, const rounding::MetricFloats& metric, Encoding<Q>& encoding, ExecutorRef executor) const {
    constexpr Index rows_a_chunk = 64;
    WorkspacePool workspaces(executor.concurrency());
    executor.parallel_for(X.rows, rows_a_chunk, [&](Index begin, Index end, Index worker) {
      Workspace& workspace = workspaces[worker];
      const Workspace::Frame frame(workspace);
      const auto lines = workspace.take<float>(X.cols, end - begin);
      const auto E = workspace.take<float>(X.cols, end - begin);
      copy(X.row_block(begin, end - begin), lines.transposed());
      const auto encode_from = [&](Index offset) {
        return [&, offset](Index j, std::span<const float> target, std::span<float> decoded) {
          encoding.encode_column(offset + j, begin, target, decoded);
        };
      };
      for (const auto& block : metric.blocks)
        start(lines.row_block(block.offset, block.size), block, E.row_block(block.offset, block.size), workspace, encode_from(block.offset));
      for (int sweep = 0; sweep < sweeps; ++sweep) {
        if constexpr (LinearGrid<Q>) rounding::refit_lines<Q>(lines, E, metric, encoding, begin, workspace);
        for (const auto& block : metric.blocks)
          improve(lines.row_block(block.offset, block.size), block, E.row_block(block.offset, block.size), workspace, encode_from(block.offset));
      }
    });
  }

  /// Lines are rows; blocks of the metric are independent of each other.
  template <Quantizer Q>
  void round_output(View<const float> X, const rounding::MetricFloats& metric, Encoding<Q>& encoding, ExecutorRef executor) const {
    CAFEQ_ASSERT(X.rows_contiguous());
    WorkspacePool workspaces(executor.concurrency());
    detail::for_each(executor, Index(metric.blocks.size()), [&](Index b, Index worker) {
      const auto& block = metric.blocks[std::size_t(b)];
      Workspace& workspace = workspaces[worker];
      const Workspace::Frame frame(workspace);
      const auto lines = X.row_block(block.offset, block.size);
      const auto E = workspace.take<float>(block.size, X.cols);
      const auto encode = [&](Index i, std::span<const float> target, std::span<float> decoded) {
        encoding.encode_row(block.offset + i, 0, target, decoded);
      };
      start(lines, block, E, workspace, encode);
      for (int sweep = 0; sweep < sweeps; ++sweep)
        improve(lines, block, E, workspace, [&](Index i, std::span<const float> target, std::span<float> decoded) {
          if constexpr (LinearGrid<Q>)
            if (encoding.grouping().group != per_tensor) rounding::refit_row(encoding, block.offset + i, target);
          encode(i, target, decoded);
        });
    });
  }

  template <class Encode>
  void start(View<const float> X, const rounding::MetricFloats::Block& block, View<float> E, Workspace& workspace, Encode&& encode) const {
    if (feedback && !block.L.empty()) rounding::feed_back(X, block.L.view(), E, workspace, encode);
    else nearest(X, E, workspace, encode);
  }

  template <class Encode>
  void improve(View<const float> X, const rounding::MetricFloats::Block& block, View<float> E, Workspace& workspace, Encode&& encode) const {
    if (!block.H.empty()) rounding::descend(X, block.H.view(), E, workspace, encode);
    else nearest(X, E, workspace, encode);
  }

  template <class Encode>
  static void nearest(View<const float> X, View<float> E, Workspace& workspace, Encode&& encode) {
    const Workspace::Frame frame(workspace);
    const auto decoded = workspace.take<float>(X.cols);
    for (Index j = 0; j < X.rows; ++j) {
      encode(j, std::span<const float>(X.row(j)), decoded);
      for (Index l = 0; l < X.cols; ++l) E(j, l) = X(j, l) - decoded[std::size_t(l)];
    }
  }
};

}  // namespace cafeq
