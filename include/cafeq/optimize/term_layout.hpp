/// How the objective of learned transforms (optimize/range_problem.hpp) walks over a term: its
/// columns in the blocks that one learned matrix acts on, its rows in strips. Internal.
#pragma once

#include <algorithm>
#include <span>
#include <utility>
#include <vector>

#include "cafeq/core/error.hpp"
#include "cafeq/core/numeric.hpp"
#include "cafeq/optimize/block_factor.hpp"
#include "cafeq/optimize/column_ranges.hpp"
#include "cafeq/optimize/range_term.hpp"

namespace cafeq::detail {

/// A term, its blocks of columns, and how many of its rows are worked on at once.
template <class Arch = DefaultArch>
struct TermLayout {
  struct Block {
    std::size_t matrix;  // which of the learned ones acts on it
    Index size;
    Index column;  // of W, where it starts
    Index entry;   // where its [size, size] gradient starts in a buffer for all blocks
  };

  RangeTerm weights;
  std::vector<Block> blocks;
  std::vector<std::vector<std::size_t>> blocks_of_matrix;
  Index strip = 0;           // rows at a time
  Index task_rows = 0;       // rows of a strip whose ranges one task finds
  BlockFactor<Arch> factor;  // the matrices as they multiply W

  /// `sizes` are those of the learned matrices. Raises where they do not cover W.
  TermLayout(RangeTerm term, std::span<const Index> sizes)
      : weights(std::move(term)),
        blocks(cut_columns(weights, sizes)),
        blocks_of_matrix(sizes.size()),
        factor(block_sizes()) {
    for (std::size_t b = 0; b < blocks.size(); ++b) blocks_of_matrix[blocks[b].matrix].push_back(b);
    if (!weights.vanishes()) cut_rows();
  }

  Index rows() const noexcept { return weights.rows(); }
  Index cols() const noexcept { return weights.cols(); }
  bool by_row() const noexcept { return weights.sets().axis == ScaleSets::Axis::row; }
  bool whole_columns() const noexcept { return !by_row() && weights.sets().group == 0; }

  /// Entries of the gradients of all blocks.
  Index entries() const noexcept {
    return blocks.empty() ? 0 : blocks.back().entry + blocks.back().size * blocks.back().size;
  }
  /// Elements of a strip of X.
  Index strip_size() const noexcept { return std::min(strip, rows()) * leading_dimension(); }
  /// Distance of the rows of X: a cache line more than whole cache lines, so that a column of tiles
  /// does not fall on one set of the cache where the width is a power of two.
  Index leading_dimension() const noexcept { return ceil_div(cols(), 16) * 16 + 16; }
  /// Tasks of a strip of `n` rows.
  Index tasks(Index n) const noexcept { return ceil_div(n, task_rows); }

 private:
  static std::vector<Block> cut_columns(const RangeTerm& term, std::span<const Index> sizes) {
    std::vector<Index> order(term.matrix_of_block().begin(), term.matrix_of_block().end());
    if (order.empty())
      for (Index m = 0; m < Index(sizes.size()); ++m) order.push_back(m);

    std::vector<Block> blocks;
    Index column = 0;
    Index entry = 0;
    for (const Index m : order) {
      if (m < 0 || m >= Index(sizes.size()))
        raise(ErrorCode::invalid_argument,
              message("matrix_of_block: there is no matrix ", m, " among ", sizes.size()));
      const Index k = sizes[std::size_t(m)];
      blocks.push_back({.matrix = std::size_t(m), .size = k, .column = column, .entry = entry});
      column += k;
      entry += k * k;
    }

    if (column != term.cols())
      raise(ErrorCode::invalid_shape,
            message("W: ", term.cols(), " columns, but the blocks have ", column));
    return blocks;
  }

  std::vector<Index> block_sizes() const {
    std::vector<Index> sizes;
    for (const Block& block : blocks) sizes.push_back(block.size);
    return sizes;
  }

  void cut_rows() {
    // Strips and tasks hold whole groups of columns, and whole tiles of the products elsewhere.
    const Index group = weights.sets().group;
    const Index unit = !by_row() && group > 0 ? std::min(group, rows()) : 6;
    const auto units = [unit](Index n) { return std::max<Index>(1, n / unit) * unit; };

    // Sums of a strip go over to fp64 once a strip, which must be little beside its products.
    Index largest = 0;
    for (const Block& block : blocks) largest = std::max(largest, block.size);
    const Index longest = 4 * summed_rows;
    const Index shortest = std::clamp<Index>(2 * largest, summed_rows, longest);

    strip = units(
        std::clamp<Index>(std::min((Index(1) << 20) / cols(), rows() / 8), shortest, longest));
    task_rows = units(std::clamp<Index>((Index(1) << 16) / cols(), 6, 48));
  }
};

}  // namespace cafeq::detail
