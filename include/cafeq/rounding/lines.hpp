/// Rounding line by line in a metric: the two loops that error feedback and coordinate descent
/// consist of.
///
/// A line is what is rounded at once: a column of X (many rows of it) where the metric is on the
/// input side, a row where it is on the output side. With lines as contiguous rows both sides are
/// the same computation: X [n, m], n lines of m weights, H [n, n].
///
/// Lines go in panels of 128 and batches of 16. What comes from outside a panel, and inside it from
/// outside a batch, arrives by one product each; the panels make the large one: [128, n]·[n, m].
/// The order of every sum follows from n alone, so neither m nor the way batches are rounded
/// changes a bit.
#pragma once

#include <algorithm>
#include <concepts>

#include "cafeq/core/workspace.hpp"
#include "cafeq/kernel/dense_product.hpp"

namespace cafeq::rounding {

inline constexpr Index lines_a_batch = 16;
inline constexpr Index lines_a_panel = 128;

/// What rounds the lines of one batch. begin is the batch's first line, all views have the batch's
/// lines only:
///   feed_back(begin, X, L, T, E)         last line first: t_j = T_j + Σ_{i>j} L_ij e_i, i
///                                        descending, rounded; E_j = x_j − x̂_j
///   descend(begin, X, H, T, E, change)   first line first: t_j = x_j − E_j + (T_j + Σ_{i<j} H_ji
///                                        change_i)/H_jj, rounded; change_j is what E_j changes by
/// T may be overwritten.
template <class B>
concept BatchRounder = requires(B& b, Index begin, View<const float> in, View<float> out) {
  b.feed_back(begin, in, in, out, out);
  b.descend(begin, in, in, out, out, out);
};

/// Rounds the lines of a batch one by one: encode(j, target, decoded) chooses the codes of line j
/// for its targets and says what they decode to.
template <class Encode>
class LineByLine {
 public:
  LineByLine(Encode& encode, Index m, Workspace& workspace)
      : encode_(encode), decoded_(workspace.take<float>(m)) {}

  void feed_back(Index begin, View<const float> X, View<const float> L, View<float> T,
                 View<float> E) {
    for (Index j = X.rows - 1; j >= 0; --j) {
      // From the last line on: i descending.
      add_lines(backwards(L.block(j + 1, j, X.rows - 1 - j, 1)).transposed(),
                backwards(View<const float>(E).row_block(j + 1, X.rows - 1 - j)),
                T.row_block(j, 1));

      encode_(begin + j, std::span<const float>(T.row(j)), decoded_);
      for (Index l = 0; l < X.cols; ++l) E(j, l) = X(j, l) - decoded_[std::size_t(l)];
    }
  }

  void descend(Index begin, View<const float> X, View<const float> H, View<float> T, View<float> E,
               View<float> change) {
    for (Index j = 0; j < X.rows; ++j) {
      add_lines(H.block(j, 0, 1, j), View<const float>(change).row_block(0, j), T.row_block(j, 1));

      const auto target = T.row(j);
      const float inverse = 1.0f / H(j, j);
      for (Index l = 0; l < X.cols; ++l)
        target[std::size_t(l)] = std::fma(target[std::size_t(l)], inverse, X(j, l) - E(j, l));

      encode_(begin + j, std::span<const float>(target), decoded_);
      for (Index l = 0; l < X.cols; ++l) {
        const float e = X(j, l) - decoded_[std::size_t(l)];
        change(j, l) = e - E(j, l);
        E(j, l) = e;
      }
    }
  }

 private:
  static View<const float> backwards(View<const float> R) noexcept {
    return R.rows == 0 ? R
                       : View<const float>{R.data + (R.rows - 1) * R.row_stride, R.rows, R.cols,
                                           -R.row_stride, R.col_stride};
  }
  static void add_lines(View<const float> factors, View<const float> lines,
                        View<float> target) noexcept {
    kernel::multiply<float>(factors, lines, target, kernel::Store::add);
  }

  Encode& encode_;
  std::span<float> decoded_;
};

/// LDLQ, which equals GPTQ's order of updates (Chee et al., "QuIP", arXiv 2307.13304, section 3): H
/// = L D Lᵀ with L unit lower; for j = n−1 … 0 the target is t = x_j + Σ_{i>j} L_ij e_i; it is
/// rounded and e_j = x_j − x̂_j. E [n, m] receives the errors.
template <BatchRounder Rounder>
void feed_back(View<const float> X, View<const float> L, View<float> E, Workspace& workspace,
               Rounder&& rounder) {
  const Workspace::Frame frame(workspace);
  const Index n = X.rows;
  const auto T = workspace.take<float>(std::min(n, lines_a_panel), X.cols);
  const auto add_later_lines = [&](Index begin, Index end, Index last, View<float> target) {
    kernel::multiply<float>(L.block(end, begin, last - end, end - begin).transposed(),
                            View<const float>(E).row_block(end, last - end), target,
                            kernel::Store::add);
  };

  for (Index panel_end = n; panel_end > 0;) {
    const Index panel = (panel_end - 1) / lines_a_panel * lines_a_panel;
    const auto target = T.row_block(0, panel_end - panel);
    copy(X.row_block(panel, panel_end - panel), target);
    add_later_lines(panel, panel_end, n, target);

    for (Index end = panel_end; end > panel;) {
      const Index begin = (end - 1) / lines_a_batch * lines_a_batch;
      const Index count = end - begin;
      const auto batch = target.row_block(begin - panel, count);
      add_later_lines(begin, end, panel_end, batch);
      rounder.feed_back(begin, X.row_block(begin, count), L.block(begin, begin, count, count),
                        batch, E.row_block(begin, count));
      end = begin;
    }
    panel_end = panel;
  }
}

/// One sweep of coordinate descent over the lines, j = 0 … n−1: t = x_j + (H E)_j / H_jj − e_j, the
/// minimiser of tr(Eᵀ H E) over line j before it is rounded. E holds the errors and is kept up to
/// date. No step increases the loss.
template <BatchRounder Rounder>
void descend(View<const float> X, View<const float> H, View<float> E, Workspace& workspace,
             Rounder&& rounder) {
  const Workspace::Frame frame(workspace);
  const Index n = X.rows;
  const auto G = workspace.take<float>(std::min(n, lines_a_panel), X.cols);
  const auto change = workspace.take<float>(std::min(n, lines_a_panel), X.cols);

  for (Index panel = 0; panel < n; panel += lines_a_panel) {
    const Index panel_end = std::min(panel + lines_a_panel, n);
    kernel::multiply<float>(H.row_block(panel, panel_end - panel), E,
                            G.row_block(0, panel_end - panel));

    // That was before any line of the panel changed. A batch also sees what those before it have
    // changed.
    for (Index begin = panel; begin < panel_end; begin += lines_a_batch) {
      const Index count = std::min(lines_a_batch, panel_end - begin);
      const auto batch = G.row_block(begin - panel, count);
      kernel::multiply<float>(H.block(begin, panel, count, begin - panel),
                              View<const float>(change).row_block(0, begin - panel), batch,
                              kernel::Store::add);
      rounder.descend(begin, X.row_block(begin, count), H.block(begin, begin, count, count), batch,
                      E.row_block(begin, count), change.row_block(begin - panel, count));
    }
  }
}

/// The same with a function encode(j, target, decoded) that rounds one line.
template <class Encode>
  requires std::invocable<Encode&, Index, std::span<const float>, std::span<float>>
void feed_back(View<const float> X, View<const float> L, View<float> E, Workspace& workspace,
               Encode&& encode) {
  const Workspace::Frame frame(workspace);
  feed_back(X, L, E, workspace, LineByLine(encode, X.cols, workspace));
}
template <class Encode>
  requires std::invocable<Encode&, Index, std::span<const float>, std::span<float>>
void descend(View<const float> X, View<const float> H, View<float> E, Workspace& workspace,
             Encode&& encode) {
  const Workspace::Frame frame(workspace);
  descend(X, H, E, workspace, LineByLine(encode, X.cols, workspace));
}

}  // namespace cafeq::rounding
