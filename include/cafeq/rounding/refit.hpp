/// Least-squares parameters for given codes, in a metric.
///
/// Where the metric is on the output side a row stands alone, and plain squared error decides
/// (refit_row). On the input side the columns of a group are coupled to all others, so a slab of
/// rows is refitted at once, by products with H (refit_slab).
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <type_traits>

#include "cafeq/core/workspace.hpp"
#include "cafeq/kernel/dense_product.hpp"
#include "cafeq/kernel/line_products.hpp"
#include "cafeq/kernel/moments.hpp"
#include "cafeq/quant/encoding.hpp"
#include "cafeq/rounding/metric_floats.hpp"
#include "cafeq/rounding/normal_equations.hpp"

namespace cafeq::rounding {

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

namespace detail {

/// The products of a group's levels with the part of H that multiplies them.
struct GroupProducts {
  Index first, last;         ///< the lines that this part of H reaches
  View<const float> C;       ///< levels, a row a line of the group
  View<const float> R;       ///< H·C, a row for each line from `first` to `last`
  std::span<const float> h;  ///< H·1 of these lines; empty without an offset
};

/// Of lines [begin, end), which lie in the block. A dense block reaches all of its lines, a
/// diagonal one the group's own.
template <class Slab>
GroupProducts group_products(const MetricFloats::Block& block, Index begin, Index end, Index m,
                             bool has_offset, const Slab& slab, Workspace& workspace) {
  const Index first = block.is_dense ? block.offset : begin;
  const Index last = block.is_dense ? block.offset + block.size : end;
  const auto C = workspace.take<float>(end - begin, m);
  const auto R = workspace.take<float>(last - first, m);
  const auto h = workspace.take<float>(has_offset ? last - first : 0);

  for (Index j = begin; j < end; ++j) slab.levels(j, C.row(j - begin));
  if (block.is_dense) {
    const auto H = block.H.view().col_block(begin - block.offset, end - begin);
    kernel::multiply<float>(H, C, R);
    for (std::size_t i = 0; i < h.size(); ++i) h[i] = float(kernel::moments(H.row(Index(i))).sum);
  } else {
    for (Index j = 0; j < end - begin; ++j) {
      const float w =
          block.weights.empty() ? 1.0f : block.weights[std::size_t(begin + j - block.offset)];
      for (Index l = 0; l < m; ++l) R(j, l) = w * C(j, l);
      if (has_offset) h[std::size_t(j)] = w;
    }
  }
  return {first, last, C, R, h};
}

/// What lines [begin, end) of one block add to the normal equations of the group that they belong
/// to. Of the group itself the weights count, of all other lines their errors.
template <class Slab>
void add_block(View<const float> X, View<const float> E, const MetricFloats::Block& block,
               Index begin, Index end, bool has_offset, const Slab& slab, LaneSums& sums,
               Workspace& workspace) {
  const Workspace::Frame frame(workspace);
  const GroupProducts products =
      group_products(block, begin, end, X.cols, has_offset, slab, workspace);
  const auto add = [&](Index from, Index to, View<const float> lines, std::span<double> with_c,
                       std::span<double> with_1) {
    const Index at = from - products.first, count = to - from;
    kernel::add_line_products(products.R.row_block(at, count), lines, with_c);
    if (has_offset)
      kernel::add_line_products(products.h.subspan(std::size_t(at), std::size_t(count)), lines,
                                with_1);
  };

  add(begin, end, products.C, sums.part_cc(), sums.part_c1());
  // In the order of the lines, which fixes the order of the sums.
  const Index first = products.first, last = products.last;
  add(first, begin, E.row_block(first, begin - first), sums.part_cx(), sums.part_x1());
  add(begin, end, X.row_block(begin, end - begin), sums.part_cx(), sums.part_x1());
  add(end, last, E.row_block(end, last - end), sums.part_cx(), sums.part_x1());

  double n1 = 0;
  if (has_offset)
    for (Index j = begin; j < end; ++j) n1 += double(products.h[std::size_t(j - first)]);
  sums.add_part(block.scale, n1);
}

}  // namespace detail

/// Least-squares parameters in an input-side metric for a slab of rows, given as lines X [cols,
/// m]; E [cols, m] holds the errors and follows the new parameters. Groups one after another, each
/// with the errors of the others fixed: s = (c H E′)/(c H c), E′ the error without this group
/// (affine grids: the 2 × 2 system of slope and offset). H c is a product in float, chains of fused
/// multiply-adds; the sums over lines that multiply it run in double from exact products, in the
/// order of the lines. A per-tensor scale spans all rows and is left as it is.
template <class Slab>
void refit_slab(View<const float> X, View<float> E, const MetricFloats& metric, Slab& slab,
                Workspace& workspace) {
  auto& encoding = slab.encoding();
  const auto& q = encoding.quantizer();
  constexpr bool has_offset = std::remove_cvref_t<decltype(q)>::has_offset;
  if (encoding.grouping().group == per_tensor) return;

  const Workspace::Frame frame(workspace);
  detail::LaneSums sums(X.cols, has_offset, workspace);
  const Index width = encoding.grouping().width();
  for (Index begin = 0; begin < X.rows; begin += width) {
    const Index end = std::min(begin + width, X.rows);

    // A group may lie in several blocks.
    sums.clear();
    for (const auto& block : metric.blocks) {
      const Index from = std::max(begin, block.offset);
      const Index to = std::min(end, block.offset + block.size);
      if (from < to) detail::add_block(X, E, block, from, to, has_offset, slab, sums, workspace);
    }

    for (Index l = 0; l < slab.rows(); ++l) {
      auto& params = encoding.params(slab.row() + l, begin);
      params = sums.lane(l).solve(q, params);
    }
    slab.update_group(begin);
    for (Index j = begin; j < end; ++j) slab.errors(j, X.row(j), E.row(j));
  }
}

}  // namespace cafeq::rounding
