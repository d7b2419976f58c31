/// y_b = N_b x_b for the blocks of a block-diagonal N and a few vectors: what undoes a learned
/// transform on the activations.
///
/// N is kept as it is stored (fp32, fp16, or int8 with a scale a column or a row), in panels of 16
/// rows whose columns follow one another: a column of a panel times one entry of x is added to 16
/// results, so that no sum crosses lanes. Reads k·dim entries of 4, 2 or 1 bytes.
/// Every result is one chain of fused multiply-adds over the columns in ascending order, the same
/// bits on every architecture that has FMA: |error| <= (k + 2)·2^-24·Σ_c |N(r, c) x_c|.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

#include "cafeq/core/matrix.hpp"
#include "cafeq/simd/batch.hpp"

namespace cafeq::kernel {

/// Blocks of entries T: float, fp16 or std::int8_t. They stand for scale_of_row · entry ·
/// scale_of_column.
template <class T>
class BlockPanels {
 public:
  static constexpr Index panel_rows = 16;

  BlockPanels() = default;
  /// Blocks of these sizes, all entries zero and all scales one.
  explicit BlockPanels(std::span<const Index> sizes);

  Index dim() const noexcept { return dim_; }
  Index blocks() const noexcept { return Index(blocks_.size()); }
  Index size(Index block) const noexcept { return blocks_[std::size_t(block)].size; }
  Index offset(Index block) const noexcept { return blocks_[std::size_t(block)].offset; }
  T& operator()(Index block, Index row, Index col) noexcept {
    return entries_[std::size_t(position(block, row, col))];
  }
  const T& operator()(Index block, Index row, Index col) const noexcept {
    return entries_[std::size_t(position(block, row, col))];
  }
  /// dim() of them, or none where all are one.
  std::vector<float>& row_scales() noexcept { return row_scales_; }
  const std::vector<float>& row_scales() const noexcept { return row_scales_; }
  std::vector<float>& column_scales() noexcept { return column_scales_; }
  const std::vector<float>& column_scales() const noexcept { return column_scales_; }
  /// The first panel of a block; the next one is 16·size on. Rows past the size are zero.
  const T* panels(Index block) const noexcept {
    return entries_.data() + blocks_[std::size_t(block)].first;
  }
  std::int64_t bytes() const noexcept { return std::int64_t(entries_.size() * sizeof(T)); }

 private:
  struct Block {
    Index offset;  // in x and y
    Index size;
    Index first;  // in entries_
  };
  Index position(Index block, Index row, Index col) const noexcept {
    const Block& b = blocks_[std::size_t(block)];
    CAFEQ_ASSERT(row >= 0 && row < b.size && col >= 0 && col < b.size);
    return b.first + (row / panel_rows * b.size + col) * panel_rows + row % panel_rows;
  }

  Index dim_ = 0;
  std::vector<Block> blocks_;
  Buffer<T> entries_;
  std::vector<float> row_scales_, column_scales_;
};

template <class T>
BlockPanels<T>::BlockPanels(std::span<const Index> sizes) {
  Index first = 0;
  for (const Index size : sizes) {
    blocks_.push_back({dim_, size, first});
    dim_ += size;
    first += ceil_div(size, panel_rows) * panel_rows * size;
  }
  entries_.resize(std::size_t(first));
}

namespace detail {

/// Panels panels of 16 rows, `step` entries apart, times Vectors vectors: y(16·p + l, v).
template <int Panels, int Vectors, class Arch, class T>
inline void panel_product(const T* panel, Index step, Index size, const float* x, Index x_stride,
                          float* y, Index y_stride) noexcept {
  using V = Batch<float, Arch>;
  constexpr Index w = Index(V::size);
  constexpr int parts = int(BlockPanels<T>::panel_rows / w);
  V sum[Panels][parts][Vectors];
  CAFEQ_UNROLL
  for (int p = 0; p < Panels; ++p) {
    CAFEQ_UNROLL
    for (int i = 0; i < parts; ++i) {
      CAFEQ_UNROLL
      for (int v = 0; v < Vectors; ++v) sum[p][i][v] = V(0.0f);
    }
  }
  for (Index c = 0; c < size; ++c, panel += BlockPanels<T>::panel_rows) {
    V entry[Vectors];
    CAFEQ_UNROLL
    for (int v = 0; v < Vectors; ++v) entry[v] = V(x[v * x_stride + c]);
    CAFEQ_UNROLL
    for (int p = 0; p < Panels; ++p) {
      CAFEQ_UNROLL
      for (int i = 0; i < parts; ++i) {
        const V n = simd::load_float<Arch>(panel + p * step + i * w);
        CAFEQ_UNROLL
        for (int v = 0; v < Vectors; ++v) sum[p][i][v] = simd::fma(n, entry[v], sum[p][i][v]);
      }
    }
  }
  CAFEQ_UNROLL
  for (int v = 0; v < Vectors; ++v) {
    CAFEQ_UNROLL
    for (int p = 0; p < Panels; ++p) {
      CAFEQ_UNROLL
      for (int i = 0; i < parts; ++i)
        sum[p][i][v].store_unaligned(y + v * y_stride + (p * parts + i) * w);
    }
  }
}

}  // namespace detail

/// Floats of scratch for block_multiply.
template <class T>
constexpr Index block_multiply_scratch(Index largest_block) noexcept {
  return 4 * (largest_block +
              ceil_div(largest_block, BlockPanels<T>::panel_rows) * BlockPanels<T>::panel_rows);
}

/// Blocks [begin, end) of N times the rows of X, in place: x_b ← N_b x_b for each row x of X [n,
/// dim], rows contiguous.
template <class Arch = DefaultArch, class T>
void block_multiply(const BlockPanels<T>& N, Index begin, Index end, View<float> X,
                    std::span<float> scratch) noexcept {
  CAFEQ_ASSERT(X.cols == N.dim() && X.rows_contiguous());
  for (Index b = begin; b < end; ++b) {
    const Index k = N.size(b),
                padded = ceil_div(k, BlockPanels<T>::panel_rows) * BlockPanels<T>::panel_rows;
    CAFEQ_ASSERT(Index(scratch.size()) >= block_multiply_scratch<T>(k));
    float* x = scratch.data();
    float* y = x + 4 * k;
    const float* columns =
        N.column_scales().empty() ? nullptr : N.column_scales().data() + N.offset(b);
    const float* rows = N.row_scales().empty() ? nullptr : N.row_scales().data() + N.offset(b);
    const T* panels = N.panels(b);
    const Index step = k * BlockPanels<T>::panel_rows;
    for (Index n = 0; n < X.rows;) {
      const Index count = X.rows - n >= 4 ? 4 : 1;
      for (Index v = 0; v < count; ++v) {
        const float* from = X.data + (n + v) * X.row_stride + N.offset(b);
        for (Index c = 0; c < k; ++c)
          x[v * k + c] = columns == nullptr ? from[c] : columns[c] * from[c];
      }
      for (Index r = 0; r < padded;) {
        const T* panel = panels + r * k;
        if (count == 4) {
          detail::panel_product<1, 4, Arch>(panel, step, k, x, k, y + r, padded);
          r += 16;
        } else if (r + 64 <= padded) {
          detail::panel_product<4, 1, Arch>(panel, step, k, x, k, y + r, padded);
          r += 64;
        } else {
          detail::panel_product<1, 1, Arch>(panel, step, k, x, k, y + r, padded);
          r += 16;
        }
      }
      for (Index v = 0; v < count; ++v) {
        float* to = X.data + (n + v) * X.row_stride + N.offset(b);
        for (Index r = 0; r < k; ++r)
          to[r] = rows == nullptr ? y[v * padded + r] : rows[r] * y[v * padded + r];
      }
      n += count;
    }
  }
}

/// The meaning of block_multiply() for all blocks, entry by entry.
template <class T>
void block_multiply_reference(const BlockPanels<T>& N, View<float> X) {
  for (Index n = 0; n < X.rows; ++n)
    for (Index b = 0; b < N.blocks(); ++b) {
      std::vector<float> y(std::size_t(N.size(b)));
      for (Index r = 0; r < N.size(b); ++r) {
        float sum = 0;
        for (Index c = 0; c < N.size(b); ++c) {
          const Index j = N.offset(b) + c;
          const float x =
              N.column_scales().empty() ? X(n, j) : N.column_scales()[std::size_t(j)] * X(n, j);
          sum = std::fma(float(N(b, r, c)), x, sum);
        }
        y[std::size_t(r)] =
            N.row_scales().empty() ? sum : N.row_scales()[std::size_t(N.offset(b) + r)] * sum;
      }
      for (Index r = 0; r < N.size(b); ++r) X(n, N.offset(b) + r) = y[std::size_t(r)];
    }
}

}  // namespace cafeq::kernel
