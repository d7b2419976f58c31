/// Least-squares parameters for given codes, in a metric.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "cafeq/core/workspace.hpp"
#include "cafeq/kernel/product.hpp"
#include "cafeq/linalg/metric.hpp"
#include "cafeq/quant/encoding.hpp"

namespace cafeq::rounding {

namespace detail {

/// The normal equations of x ≈ s·c + z: sums of c·c, c·1, 1·1, c·x, 1·x in a metric.
struct NormalEquations {
  double cc = 0, c1 = 0, n1 = 0, cx = 0, x1 = 0;

  /// s²·cc + 2 s z·c1 + z²·1 − 2 s·cx − 2 z·x1: the squared error but for a constant.
  double error(double s, double z) const noexcept {
    // Explicit fma, here and below: the same bits whether or not the compiler contracts.
    return std::fma(s, std::fma(s, cc, 2 * std::fma(z, c1, -cx)), z * std::fma(z, n1, -2 * x1));
  }

  /// The best parameters that can be stored: the least-squares solution, for affine grids also the one that keeps offset/scale (a format may round its
  /// offset), or `params` where neither is better.
  template <LinearGrid Q>
  typename Q::Params solve(const Q& q, const typename Q::Params& params) const {
    typename Q::Params best = params;
    double least = error(double(q.scale(params)), double(q.offset(params)));
    const auto offer = [&](double s, double z) {
      if (!std::isfinite(s) || !std::isfinite(z)) return;
      const auto candidate = q.with_scale(params, float(s), float(z));
      const double now = error(double(q.scale(candidate)), double(q.offset(candidate)));
      if (now < least) {
        least = now;
        best = candidate;
      }
    };
    if constexpr (Q::has_offset) {
      const double determinant = std::fma(cc, n1, -(c1 * c1));
      if (determinant > 1e-6 * cc * n1)  // the sums carry the rounding of float products
        offer(std::fma(cx, n1, -(c1 * x1)) / determinant, std::fma(cc, x1, -(c1 * cx)) / determinant);
      if (q.scale(params) != 0) {
        const double r = double(q.offset(params)) / double(q.scale(params));
        const double square = std::fma(r, std::fma(r, n1, 2 * c1), cc);
        if (square > 0) offer(std::fma(r, x1, cx) / square, r * std::fma(r, x1, cx) / square);
      }
    } else if (cc > 0) {
      offer(cx / cc, 0.0);
    }
    return best;
  }
};

}  // namespace detail

/// The parameters of row i, group by group, that fit its codes to the targets t in plain squared error: what a row of an output-side metric needs.
template <LinearGrid Q>
void refit_row(Encoding<Q>& encoding, Index i, std::span<const float> t) {
  const Q& q = encoding.quantizer();
  const Index width = encoding.grouping().width();
  for (Index j = 0; j < encoding.cols(); j += width) {
    detail::NormalEquations sums;
    for (Index l = j; l < std::min(j + width, encoding.cols()); ++l) {
      const double c = q.level(encoding.code(i, l));
      const double x = t[std::size_t(l)];
      sums.cc += c * c;
      sums.c1 += c;
      sums.n1 += 1;
      sums.cx += c * x;
      sums.x1 += x;
    }
    encoding.params(i, j) = sums.solve(q, encoding.params(i, j));
  }
}

/// A metric's blocks in fp32, as the loops over lines need them: each H = scale · H, scale a power of two, so that a metric of any magnitude fits.
struct MetricFloats {
  struct Block {
    Index offset = 0;
    Index size = 0;
    double scale = 1;
    Matrix<float> H;             ///< empty unless dense
    Matrix<float> L;             ///< H = L D Lᵀ; empty unless dense
    std::vector<float> weights;  ///< of a diagonal; empty for the identity and for dense
  };
  std::vector<Block> blocks;

  CAFEQ_LAZY explicit MetricFloats(const Metric& metric) {
    int highest = std::numeric_limits<int>::min();
    std::vector<int> exponents;
    for (const Metric::Block& block : metric.blocks()) {
      double largest = 0;
      for (Index i = 0; i < block.size; ++i) largest = std::max(largest, block.weight(i));
      exponents.push_back(floor_log2(largest));
      highest = std::max(highest, exponents.back());
    }
    for (std::size_t n = 0; n < exponents.size(); ++n) {
      const Metric::Block& block = metric.blocks()[n];
      Block b{block.offset, block.size, std::ldexp(1.0, exponents[n] - highest), {}, {}, {}};
      const PowerOfTwo normalize(-exponents[n]);
      if (block.is_dense()) {
        auto factor = linalg::factor_ldl(block.dense.view());
        if (!factor) raise(ErrorCode::not_positive_definite, message("metric: the block at ", block.offset, " is not positive definite"));
        b.H = Matrix<float>(block.size, block.size);
        for (Index i = 0; i < b.H.size(); ++i) b.H.data()[i] = float(normalize(block.dense.data()[i]));
        b.L = to_matrix<float>(factor->L.view());
      } else {
        for (const double w : block.diagonal) b.weights.push_back(float(normalize(w)));
      }
      blocks.push_back(std::move(b));
    }
  }
};

/// Least-squares parameters in an input-side metric for rows [row, row + m) of X, given as lines X [cols, m]; E [cols, m] holds the errors and follows the new
/// parameters. Groups one after another, each with the errors of the others fixed: s = (E′ H c)/(c H c), E′ the error without this group (affine
/// grids: the 2 × 2 system of slope and offset). A per-tensor scale spans all rows and is left as it is.
template <LinearGrid Q>
void refit_lines(View<const float> X, View<float> E, const MetricFloats& metric, Encoding<Q>& encoding, Index row, Workspace& workspace) {
  const Q& q = encoding.quantizer();
  if (encoding.grouping().group == per_tensor) return;
  const Index m = X.cols;
  const Index width = encoding.grouping().width();
  const Workspace::Frame frame(workspace);
  const auto sums = workspace.take<detail::NormalEquations>(m);
  for (Index begin = 0; begin < X.rows; begin += width) {
    const Index end = std::min(begin + width, X.rows);
    std::fill(sums.begin(), sums.end(), detail::NormalEquations{});
    for (const auto& block : metric.blocks) {
      const Index a = std::max(begin, block.offset);
      const Index b = std::min(end, block.offset + block.size);
      if (a >= b) continue;
      const Workspace::Frame block_frame(workspace);
      const auto C = workspace.take<float>(b - a, m);
      for (Index j = a; j < b; ++j)
        for (Index l = 0; l < m; ++l) C(j - a, l) = q.level(encoding.code(row + l, j));
      const bool dense = !block.H.empty();
      auto P = workspace.take<float>(b - a, m);  // H·E′ of the group's lines
      auto R = workspace.take<float>(b - a, m);  // H·C of the group's lines
      View<const float> H;
      if (dense) {
        const auto Eb = workspace.take<float>(block.size, m);
        copy(View<const float>(E).row_block(block.offset, block.size), Eb);
        copy(X.row_block(a, b - a), Eb.row_block(a - block.offset, b - a));
        const View<const float> rows = block.H.view().row_block(a - block.offset, b - a);
        H = rows.col_block(a - block.offset, b - a);
        kernel::multiply<float>(rows, Eb, P);
        kernel::multiply<float>(H, C, R);
      } else {
        for (Index j = a; j < b; ++j) {
          const float w = block.weights.empty() ? 1.0f : block.weights[std::size_t(j - block.offset)];
          for (Index l = 0; l < m; ++l) P(j - a, l) = w * X(j, l), R(j - a, l) = w * C(j - a, l);
        }
      }
      for (Index j = a; j < b; ++j) {
        double h1 = 1.0;  // Σ_i H_ji over the group's lines
        if (dense) {
          h1 = 0;
          for (Index i = 0; i < b - a; ++i) h1 += double(H(j - a, i));
        } else if (!block.weights.empty()) {
          h1 = double(block.weights[std::size_t(j - block.offset)]);
        }
        for (Index l = 0; l < m; ++l) {
          auto& s = sums[std::size_t(l)];
          const double c = block.scale * double(C(j - a, l));  // a power of two: the products below stay exact
          s.cc += c * double(R(j - a, l));
          s.cx += c * double(P(j - a, l));
          if constexpr (Q::has_offset) {
            s.c1 += block.scale * double(R(j - a, l));
            s.n1 += block.scale * h1;
            s.x1 += block.scale * double(P(j - a, l));
          }
        }
      }
    }
    for (Index l = 0; l < m; ++l) {
      auto& params = encoding.params(row + l, begin);
      params = sums[std::size_t(l)].solve(q, params);
      for (Index j = begin; j < end; ++j) E(j, l) = X(j, l) - q.decode(encoding.code(row + l, j), params);
    }
  }
}

}  // namespace cafeq::rounding
