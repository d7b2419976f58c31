/// Rounding line by line in a metric: the two loops that error feedback and coordinate descent consist of.
///
/// A line is what is rounded at once: a column of X (many rows of it) where the metric is on the input side, a row where it is on the output
/// side. With lines as contiguous rows both sides are the same computation: X [n, m], n lines of m weights, H [n, n].
#pragma once

#include <algorithm>

#include "cafeq/core/workspace.hpp"
#include "cafeq/kernel/product.hpp"

namespace cafeq::rounding {

namespace detail {

inline constexpr Index lines_a_block = 16;

/// y += a·x by fused multiply-adds, so that no compiler flag changes what is rounded next.
inline void add_scaled(float a, const float* x, float* y, Index n) noexcept {
  kernel::multiply<float>(View<const float>{&a, 1, 1, 1, 1}, View<const float>{x, 1, n, n, 1}, View<float>{y, 1, n, n, 1}, kernel::Store::add);
}

}  // namespace detail

/// LDLQ, which equals GPTQ's order of updates (Chee et al., "QuIP", arXiv 2307.13304, section 3): H = L D Lᵀ with L unit lower; for
/// j = n−1 … 0 the target is t = x_j + Σ_{i>j} L_ij e_i; encode(j, t, decoded) rounds it and e_j = x_j − decoded. E [n, m] receives the errors.
/// Blocks of 16 lines: what later blocks add arrives by one product.
template <class Encode>
void feed_back(View<const float> X, View<const float> L, View<float> E, Workspace& workspace, Encode&& encode) {
  const Workspace::Frame frame(workspace);
  const Index n = X.rows;
  const Index m = X.cols;
  const auto T = workspace.take<float>(detail::lines_a_block, m);
  const auto decoded = workspace.take<float>(m);
  for (Index end = n; end > 0;) {
    const Index begin = (end - 1) / detail::lines_a_block * detail::lines_a_block;
    const auto block = T.row_block(0, end - begin);
    copy(X.row_block(begin, end - begin), block);
    kernel::multiply<float>(L.block(end, begin, n - end, end - begin).transposed(), E.row_block(end, n - end), block, kernel::Store::add);
    for (Index j = end - 1; j >= begin; --j) {
      const auto target = block.row(j - begin);
      for (Index i = j + 1; i < end; ++i) detail::add_scaled(L(i, j), E.row(i).data(), target.data(), m);
      encode(j, std::span<const float>(target), decoded);
      for (Index l = 0; l < m; ++l) E(j, l) = X(j, l) - decoded[std::size_t(l)];
    }
    end = begin;
  }
}

/// One sweep of coordinate descent over the lines, j = 0 … n−1: t = x_j + (H E)_j / H_jj − e_j, the minimiser of tr(Eᵀ H E) over line j before it is
/// rounded. E holds the errors and is kept up to date. No step increases the loss.
template <class Encode>
void descend(View<const float> X, View<const float> H, View<float> E, Workspace& workspace, Encode&& encode) {
  const Workspace::Frame frame(workspace);
  const Index n = X.rows;
  const Index m = X.cols;
  const auto G = workspace.take<float>(detail::lines_a_block, m);
  const auto target = workspace.take<float>(m);
  const auto decoded = workspace.take<float>(m);
  const auto change = workspace.take<float>(m);
  for (Index begin = 0; begin < n; begin += detail::lines_a_block) {
    const Index end = std::min(begin + detail::lines_a_block, n);
    kernel::multiply<float>(H.row_block(begin, end - begin), E, G.row_block(0, end - begin));  // (H E) of the block's lines
    for (Index j = begin; j < end; ++j) {
      const float inverse = 1.0f / H(j, j);
      for (Index l = 0; l < m; ++l)
        target[std::size_t(l)] = float(double(X(j, l)) - double(E(j, l)) + double(G(j - begin, l)) * double(inverse));
      encode(j, std::span<const float>(target), decoded);
      for (Index l = 0; l < m; ++l) {
        const float e = X(j, l) - decoded[std::size_t(l)];
        change[std::size_t(l)] = e - E(j, l);
        E(j, l) = e;
      }
      for (Index i = j + 1; i < end; ++i) detail::add_scaled(H(i, j), change.data(), G.row(i - begin).data(), m);
    }
  }
}

}  // namespace cafeq::rounding
