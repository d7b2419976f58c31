/// BlockFactor: the float form of blockdiag(M_1, M_2, …) in which it multiplies weights.
#pragma once

#include <algorithm>
#include <span>
#include <vector>

#include "cafeq/core/executor.hpp"
#include "cafeq/kernel/dense_product.hpp"

namespace cafeq::detail {

/// Blocks packed for kernel::multiply. All storage is allocated by the constructor.
template <class Arch = DefaultArch>
class BlockFactor {
 public:
  explicit BlockFactor(std::span<const Index> sizes) {
    Index column = 0;
    Index position = 0;
    for (const Index k : sizes) {
      blocks_.push_back({.size = k, .column = column, .position = position});
      column += k;
      position += kernel::panels_size<float>(k, k);
      largest_ = std::max(largest_, k);
    }
    packed_.resize(std::size_t(position));
  }

  Index count() const noexcept { return Index(blocks_.size()); }

  /// Block b ← diag(row_scale(0), row_scale(1), …)·M, rounded to floats. Scratch: as many floats as
  /// M has entries.
  template <class F>
  void set(Index b, View<const double> M, F&& row_scale, std::span<float> scratch) noexcept {
    const Block& block = blocks_[std::size_t(b)];
    const View<float> scaled{scratch.data(), block.size, block.size, block.size, 1};
    for (Index i = 0; i < block.size; ++i) {
      const double scale = row_scale(i);
      for (Index j = 0; j < block.size; ++j) scaled(i, j) = float(scale * M(i, j));
    }
    kernel::pack_panels<float, Arch>(View<const float>(scaled), packed_.data() + block.position);
  }

  /// X = W·blockdiag, [n, d]·[d, d], in parallel. Rows of X contiguous.
  void multiply(View<const float> W, View<float> X, ExecutorRef executor) const {
    // A few rows of W run through all blocks, each through a copy that lies in L1, before the next
    // ones: a row is read from memory once.
    constexpr Index rows = 48;
    const Index parts = ceil_div(W.rows, rows);
    const Index grain = std::max<Index>(1, (Index(1) << 19) / (rows * largest_ * largest_));
    executor.parallel_for(parts * count(), grain, [&](Index begin, Index end, Index) {
      for (Index task = begin; task < end; ++task) {
        const Block& block = blocks_[std::size_t(task % count())];
        const Index row = task / count() * rows;
        const Index n = std::min(rows, W.rows - row);
        multiply_block(W.block(row, block.column, n, block.size), block,
                       X.block(row, block.column, n, block.size));
      }
    });
  }

 private:
  struct Block {
    Index size;
    Index column;    // of W and of X
    Index position;  // in packed_
  };

  void multiply_block(View<const float> W, const Block& block, View<float> X) const noexcept {
    const kernel::Panels<float> M{packed_.data() + block.position, block.size, block.size};
    constexpr Index capacity = 6144;
    alignas(64) float copied[capacity];
    const Index step = capacity / block.size / 6 * 6;  // whole tiles of the product
    if (step == 0) return kernel::multiply<float, Arch>(W, M, X);
    for (Index i = 0; i < W.rows; i += step) {
      const View<float> rows{copied, std::min(step, W.rows - i), block.size, block.size, 1};
      copy(W.row_block(i, rows.rows), rows);
      kernel::multiply<float, Arch>(View<const float>(rows), M, X.row_block(i, rows.rows));
    }
  }

  std::vector<Block> blocks_;
  Index largest_ = 0;
  Buffer<float> packed_;
};

}  // namespace cafeq::detail
