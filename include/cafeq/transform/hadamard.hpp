/// The randomized Hadamard transform: M = D H, D = diag(±1), H block-diagonal with orthonormal Hadamard blocks.
///
/// A block of size n = m · 2^p is (H_m ⊗ H_{2^p}) / √n, H_m from Paley or Williamson (m minimal), H_{2^p} in Sylvester order. It spreads outliers
/// over the block for n (m + p) additions a row. Specs: RandomizedHadamard (one block over the whole width) and BlockHadamard{64}.
#pragma once

#include <algorithm>
#include <cmath>
#include <memory>
#include <span>
#include <vector>

#include "cafeq/kernel/block_product.hpp"
#include "cafeq/kernel/fwht.hpp"
#include "cafeq/transform/blocks.hpp"
#include "cafeq/transform/diagonal.hpp"
#include "cafeq/transform/hadamard_matrix.hpp"

namespace cafeq {

class Hadamard {
 public:
  /// Equal blocks next to each other.
  struct Run {
    Index offset = 0;
    Index count = 0;
    Index size = 0;   ///< of one block: order · 2^p
    Index order = 0;  ///< of the factor that is not Sylvester's; 1 for a power of two
  };

  Hadamard() = default;
  /// One block over all of signs.dim(). Where no Hadamard matrix of that size is known: blocks of the largest power of two that divides it, or, where
  /// that is below 64, powers of two, largest first.
  explicit Hadamard(Signs signs);
  /// Blocks of the given sizes, which add up to signs.dim().
  Hadamard(Signs signs, std::span<const Index> sizes);

  /// M = I: signs of 1, blocks of 1.
  static Hadamard identity(Index dim) {
    return Hadamard(Signs(std::vector<float>(std::size_t(dim), 1.0f)), std::vector<Index>(std::size_t(dim), 1));
  }

  Index dim() const noexcept { return signs_.dim(); }
  const Signs& signs() const noexcept { return signs_; }
  const std::vector<Run>& runs() const noexcept { return runs_; }

  template <class E>
  void apply(View<E> X, Op op = Op::forward) const;
  bool is_orthogonal() const noexcept { return true; }
  /// What the signs take; block sizes are part of the format.
  std::int64_t storage_bits() const noexcept { return signs_.storage_bits(); }

 private:
  void add_block(Index size);
  template <class E>
  void apply_core(View<E> X, const Run& run, bool transposed) const;

  Signs signs_;
  std::vector<Run> runs_;
  Index covered_ = 0;
  std::vector<std::shared_ptr<const Matrix<float>>> cores_;  // of the orders above 1 that occur
};

/// Spec: one Hadamard block over the whole width. A constant W, which every grid holds as it is, is left alone.
struct RandomizedHadamard {
  static constexpr bool depends_on_weights = false;  // but for W being constant, which no transform before this changes
  std::uint64_t seed = 0;
  Hadamard fit(View<const float> W, ExecutorRef = {}) const { return is_constant(W) ? Hadamard::identity(W.cols) : Hadamard(Signs(W.cols, seed)); }
};

/// Spec: Hadamard blocks of one size; what is left over is covered by its half, its quarter, ….
struct BlockHadamard {
  static constexpr bool depends_on_weights = false;
  Index block = 64;
  std::uint64_t seed = 0;
  Hadamard fit(View<const float> W, ExecutorRef = {}) const {
    const auto sizes = uneven_blocks(W.cols, block);
    return is_constant(W) ? Hadamard::identity(W.cols) : Hadamard(Signs(W.cols, seed), sizes);
  }
};

inline Hadamard::Hadamard(Signs signs) : signs_(std::move(signs)) {
  if (dim() > 0) add_block(dim());
}

inline Hadamard::Hadamard(Signs signs, std::span<const Index> sizes) : signs_(std::move(signs)) {
  for (const Index size : sizes) {
    if (size < 1) raise(ErrorCode::invalid_argument, message("Hadamard: a block of size ", size));
    add_block(size);
  }
  if (covered_ != dim()) raise(ErrorCode::invalid_shape, message("Hadamard: blocks cover ", covered_, " of dimension ", dim()));
}

inline void Hadamard::add_block(Index size) {
  const Index order = hadamard_core_order(size);
  if (order == 0) {
    const Index divisor = size & -size;  // the largest power of two that divides it
    for (const Index part : uneven_blocks(size, divisor >= 64 ? divisor : floor_power_of_two(size))) add_block(part);
    return;
  }
  if (runs_.empty() || runs_.back().size != size) runs_.push_back({covered_, 0, size, order});
  ++runs_.back().count;
  covered_ += size;
  const auto same_order = [order](const auto& core) { return core->rows() == order; };
  if (order > 1 && std::none_of(cores_.begin(), cores_.end(), same_order))
    cores_.push_back(std::make_shared<const Matrix<float>>(hadamard_core(order)));
}

template <class E>
void Hadamard::apply(View<E> X, Op op) const {
  detail::check_columns(X.cols, dim(), "Hadamard");
  const bool forward = op == Op::forward || op == Op::inverse_transpose;  // M is orthogonal
  const Index step = std::max<Index>(1, 16384 / std::max<Index>(1, dim()));  // rows that stay in L2 from the first pass to the last
  detail::on_row_panels(X, [&](View<E> panel) {
    for (Index i = 0; i < panel.rows; i += step) {
      const View<E> rows = panel.row_block(i, std::min(step, panel.rows - i));
      if (forward) signs_.apply(rows);
      for (const Run& run : runs_) {
        const View<E> columns = rows.col_block(run.offset, run.count * run.size);
        if (run.order > 1) apply_core(columns, run, !forward);
        kernel::fwht_rows(columns, run.size / run.order, E(1.0 / std::sqrt(double(run.size))));  // Sylvester's factor is symmetric
      }
      if (!forward) signs_.apply(rows);
    }
  });
}

/// Blocks x [order, 2^p] of each row: x ← H_mᵀ·x, or H_m·x for the transpose.
template <class E>
void Hadamard::apply_core(View<E> X, const Run& run, bool transposed) const {
  const auto core = std::find_if(cores_.begin(), cores_.end(), [&](const auto& c) { return c->rows() == run.order; });
  const Matrix<E> H = to_matrix<E>((*core)->view());
  const auto right = transposed ? H.view().transposed() : H.view();
  const Index sylvester = run.size / run.order;
  Buffer<E> scratch(std::size_t(kernel::in_place_scratch<E>(run.order)));
  for (Index b = 0; b < run.count; ++b) {
    const auto block = X.col_block(b * run.size, run.size);
    if (sylvester < 16) {  // too narrow for vectors along a row of x: take the same column of x from many rows of X
      for (Index c = 0; c < sylvester; ++c)
        kernel::multiply_right_in_place<E>({block.data + c, block.rows, run.order, block.row_stride, sylvester}, right, scratch);
    } else {
      for (Index i = 0; i < block.rows; ++i)
        kernel::multiply_left_in_place<E>(right.transposed(), {block.data + i * block.row_stride, run.order, sylvester, sylvester, 1}, scratch);
    }
  }
}

}  // namespace cafeq
