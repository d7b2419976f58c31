/// Least-squares parameters for given codes, in a metric.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "cafeq/core/workspace.hpp"
#include "cafeq/kernel/dense_product.hpp"
#include "cafeq/kernel/line_products.hpp"
#include "cafeq/kernel/moments.hpp"
#include "cafeq/linalg/metric.hpp"
#include "cafeq/quant/encoding.hpp"
#include "cafeq/rounding/row_tile.hpp"

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

  /// The best parameters that can be stored: the least-squares solution, for affine grids also the
  /// one that keeps offset/scale (a format may round its offset), or `params` where neither is
  /// better.
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
        offer(std::fma(cx, n1, -(c1 * x1)) / determinant,
              std::fma(cc, x1, -(c1 * cx)) / determinant);
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

/// The sums of columns [begin, end), in eight lanes of doubles, column j in lane (j − begin) mod 8,
/// then lane after lane: a fixed order that hides the latency of additions.
template <LinearGrid Q>
NormalEquations row_sums(const Q& q, std::span<const std::uint8_t> codes, std::span<const float> t,
                         Index begin, Index end) noexcept {
  constexpr Index lanes = 8;
  double cc[lanes] = {}, c1[lanes] = {}, cx[lanes] = {}, x1[lanes] = {};
  const auto add = [&](Index j, Index l) {
    const double c = double(q.level(codes[std::size_t(j)]));
    const double x = double(t[std::size_t(j)]);
    cc[l] += c * c;  // products of floats: exact
    cx[l] += c * x;
    if constexpr (Q::has_offset) {
      c1[l] += c;
      x1[l] += x;
    }
  };
  Index j = begin;
  for (; j + lanes <= end; j += lanes)
    for (Index l = 0; l < lanes; ++l) add(j + l, l);
  for (Index l = 0; j < end; ++j, ++l) add(j, l);
  NormalEquations sums;
  for (Index l = 0; l < lanes; ++l) {
    sums.cc += cc[l];
    sums.c1 += c1[l];
    sums.cx += cx[l];
    sums.x1 += x1[l];
  }
  sums.n1 = double(end - begin);
  return sums;
}

}  // namespace detail

/// The parameters of row i, group by group, that fit its codes to the targets t in plain squared
/// error: what a row of an output-side metric needs.
template <LinearGrid Q>
void refit_row(Encoding<Q>& encoding, Index i, std::span<const float> t) {
  const Q& q = encoding.quantizer();
  const Index width = encoding.grouping().width();
  for (Index j = 0; j < encoding.cols(); j += width) {
    const auto sums =
        detail::row_sums(q, encoding.codes(i), t, j, std::min(j + width, encoding.cols()));
    encoding.params(i, j) = sums.solve(q, encoding.params(i, j));
  }
}

/// A metric's blocks in fp32, as the loops over lines need them: each H = scale · H, scale a power
/// of two, so that a metric of any magnitude fits. Refers to the metric's own factors.
struct MetricFloats {
  struct Block {
    Index offset = 0;
    Index size = 0;
    double scale = 1;
    bool is_dense = false;
    View<const float>
        L;            ///< H = L D Lᵀ; empty unless dense. Columns are contiguous: products read Lᵀ
    Matrix<float> H;  ///< empty unless dense and asked for
    std::vector<float> weights;  ///< of a diagonal; empty for the identity and for dense
  };
  std::vector<Block> blocks;

  /// Without `with_H`, what error feedback alone needs.
  explicit MetricFloats(const Metric& metric, bool with_H = true) {
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
      Block b{block.offset,
              block.size,
              std::ldexp(1.0, exponents[n] - highest),
              block.is_dense(),
              block.factor.view().transposed(),
              {},
              {}};
      const PowerOfTwo normalize(-exponents[n]);
      if (block.is_dense() && with_H) {
        b.H = Matrix<float>(block.size, block.size);
        for (Index i = 0; i < b.H.size(); ++i)
          b.H.data()[i] = float(normalize(block.dense.data()[i]));
      }
      for (const double w : block.diagonal) b.weights.push_back(float(normalize(w)));
      blocks.push_back(std::move(b));
    }
  }
  MetricFloats(Metric&&, bool = true) = delete;  // the factors would be gone
};

namespace detail {

/// The sums of NormalEquations for each lane, and a part of them that is yet to be scaled.
class LaneSums {
 public:
  LaneSums(Index lanes, bool has_offset, Workspace& workspace)
      : lanes_(lanes),
        kinds_(has_offset ? 4 : 2),
        sums_(workspace.take<double>(2 * kinds_ * lanes)) {}

  void clear() noexcept { std::fill(sums_.begin(), sums_.end(), 0.0), n1_ = 0; }
  std::span<double> part_cc() noexcept { return part(0); }
  std::span<double> part_cx() noexcept { return part(1); }
  std::span<double> part_c1() noexcept { return part(2); }
  std::span<double> part_x1() noexcept { return part(3); }
  /// Ends a part: adds scale times it, and scale · n1.
  void add_part(double scale, double n1) noexcept {
    double* total = sums_.data();
    double* now = total + kinds_ * lanes_;
    for (Index i = 0; i < kinds_ * lanes_; ++i) {
      total[i] += scale * now[i];  // a power of two: exact
      now[i] = 0;
    }
    n1_ += scale * n1;
  }
  NormalEquations lane(Index l) const noexcept {
    const double* sum = sums_.data() + l;
    NormalEquations equations;
    equations.cc = sum[0];
    equations.cx = sum[lanes_];
    if (kinds_ == 4) equations.c1 = sum[2 * lanes_], equations.x1 = sum[3 * lanes_];
    equations.n1 = n1_;
    return equations;
  }

 private:
  std::span<double> part(Index kind) noexcept {
    return sums_.subspan(std::size_t((kinds_ + kind) * lanes_), std::size_t(lanes_));
  }

  Index lanes_;
  Index kinds_;
  double n1_ = 0;
  std::span<double> sums_;
};

}  // namespace detail

/// Least-squares parameters in an input-side metric for a tile of rows, given as lines X [cols,
/// m]; E [cols, m] holds the errors and follows the new parameters. Groups one after another, each
/// with the errors of the others fixed: s = (c H E′)/(c H c), E′ the error without this group
/// (affine grids: the 2 × 2 system of slope and offset). H c is a product in float, chains of fused
/// multiply-adds; the sums over lines that multiply it run in double from exact products, in the
/// order of the lines. A per-tensor scale spans all rows and is left as it is.
template <class Tile>
void refit_tile(View<const float> X, View<float> E, const MetricFloats& metric, Tile& tile,
                Workspace& workspace) {
  auto& encoding = tile.encoding();
  const auto& q = encoding.quantizer();
  constexpr bool has_offset = std::remove_cvref_t<decltype(q)>::has_offset;
  if (encoding.grouping().group == per_tensor) return;
  const Index m = X.cols;
  const Index width = encoding.grouping().width();
  const Workspace::Frame frame(workspace);
  detail::LaneSums sums(m, has_offset, workspace);
  for (Index begin = 0; begin < X.rows; begin += width) {
    const Index end = std::min(begin + width, X.rows);
    sums.clear();
    for (const auto& block : metric.blocks) {
      const Index a = std::max(begin, block.offset);
      const Index b = std::min(end, block.offset + block.size);
      if (a >= b) continue;
      const Workspace::Frame block_frame(workspace);
      const auto C = workspace.take<float>(b - a, m);
      for (Index j = a; j < b; ++j) tile.levels(j, C.row(j - a));
      // The lines that the group's part of H reaches: all of a dense block, the group's own of a
      // diagonal. R = H·C of these; h = H·1.
      const Index first = block.is_dense ? block.offset : a;
      const Index last = block.is_dense ? block.offset + block.size : b;
      const auto R = workspace.take<float>(last - first, m);
      const auto h = workspace.take<float>(has_offset ? last - first : 0);
      if (block.is_dense) {
        const auto H = block.H.view().col_block(a - block.offset, b - a);
        kernel::multiply<float>(H, C, R);
        for (std::size_t i = 0; i < h.size(); ++i)
          h[i] = float(kernel::moments(H.row(Index(i))).sum);
      } else {
        for (Index j = 0; j < b - a; ++j) {
          const float w =
              block.weights.empty() ? 1.0f : block.weights[std::size_t(a + j - block.offset)];
          for (Index l = 0; l < m; ++l) R(j, l) = w * C(j, l);
          if constexpr (has_offset) h[std::size_t(j)] = w;
        }
      }
      const auto add = [&](Index from, Index to, View<const float> lines, std::span<double> with_c,
                           std::span<double> with_1) {
        kernel::add_line_products(View<const float>(R).row_block(from - first, to - from), lines,
                                  with_c);
        if constexpr (has_offset)
          kernel::add_line_products(h.subspan(std::size_t(from - first), std::size_t(to - from)),
                                    lines, with_1);
      };
      if constexpr (!has_offset) {
        add(a, b, C, sums.part_cc(), {});
        add(first, a, View<const float>(E).row_block(first, a - first), sums.part_cx(), {});
        add(a, b, X.row_block(a, b - a), sums.part_cx(), {});
        add(b, last, View<const float>(E).row_block(b, last - b), sums.part_cx(), {});
        sums.add_part(block.scale, 0);
      } else {
        add(a, b, C, sums.part_cc(), sums.part_c1());
        add(first, a, View<const float>(E).row_block(first, a - first), sums.part_cx(),
            sums.part_x1());
        add(a, b, X.row_block(a, b - a), sums.part_cx(), sums.part_x1());
        add(b, last, View<const float>(E).row_block(b, last - b), sums.part_cx(), sums.part_x1());
        double n1 = 0;
        for (Index j = a; j < b; ++j) n1 += double(h[std::size_t(j - first)]);
        sums.add_part(block.scale, n1);
      }
    }
    for (Index l = 0; l < tile.rows(); ++l) {
      auto& params = encoding.params(tile.row() + l, begin);
      params = sums.lane(l).solve(q, params);
    }
    tile.update_group(begin);
    for (Index j = begin; j < end; ++j) tile.errors(j, X.row(j), E.row(j));
  }
}

/// refit_tile for rows [row, row + X.cols), any number of them.
template <LinearGrid Q>
void refit_lines(View<const float> X, View<float> E, const MetricFloats& metric,
                 Encoding<Q>& encoding, Index row, Workspace& workspace) {
  const Workspace::Frame frame(workspace);
  ScalarTile<Q> tile(encoding, row, X.cols, workspace);
  refit_tile(X, E, metric, tile, workspace);
}

}  // namespace cafeq::rounding
