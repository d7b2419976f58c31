/// The randomized Hadamard transform: M = D H, D = diag(±1), H block-diagonal with orthonormal
/// Hadamard blocks.
///
/// A block of size n = m · 2^p is (H_m ⊗ H_{2^p}) / √n, H_m from Paley or Williamson (m minimal),
/// H_{2^p} in Sylvester order. It spreads outliers over the block for n (m/4 + p + 5) additions a
/// row, in one pass over memory where the block is a power of two. Specs: RandomizedHadamard (one
/// block over the whole width) and BlockHadamard{64}.
#pragma once

#include <algorithm>
#include <cmath>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "cafeq/kernel/fwht.hpp"
#include "cafeq/kernel/fwht_columns.hpp"
#include "cafeq/kernel/sign_product.hpp"
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
  /// One block over all of signs.dim(). Where no Hadamard matrix of that size is known: blocks of
  /// the largest power of two that divides it, or, where that is below 64, powers of two, largest
  /// first.
  explicit Hadamard(Signs signs);
  /// Blocks of the given sizes, which add up to signs.dim().
  Hadamard(Signs signs, std::span<const Index> sizes);

  /// M = I: signs of 1, blocks of 1.
  static Hadamard identity(Index dim) {
    return Hadamard(Signs(std::vector<float>(std::size_t(dim), 1.0f)),
                    std::vector<Index>(std::size_t(dim), 1));
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
  /// What kernel::sign_product() needs of H_m and H_mᵀ.
  struct Core {
    Index order;
    std::vector<std::uint8_t> codes;
    std::vector<std::uint8_t> transposed_codes;
  };
  /// diag(signs) before the blocks or after them, and scratch for their cores.
  template <class E>
  struct Pass {
    bool forward;
    const E* signs;
    Buffer<E> scratch;
  };

  void add_block(Index size);
  const Core& core_of(const Run& run) const;
  template <class E>
  void apply_rows(View<E> X, Pass<E>& pass) const;
  template <class E>
  void apply_columns(View<E> X, Pass<E>& pass) const;

  Signs signs_;
  std::vector<Run> runs_;
  Index covered_ = 0;
  std::vector<std::shared_ptr<const Core>> cores_;  // of the orders above 1 that occur
};

/// Spec: one Hadamard block over the whole width. A constant W, which every grid holds as it is, is
/// left alone.
struct RandomizedHadamard {
  // But for W being constant, which no transform before this changes.
  static constexpr bool depends_on_weights = false;
  std::uint64_t seed = 0;
  template <class T>
  Hadamard fit(View<T> W, ExecutorRef = {}) const {
    return detail::is_constant(W) ? Hadamard::identity(W.cols) : Hadamard(Signs(W.cols, seed));
  }
  static constexpr std::int64_t storage_bits(Index) noexcept { return 64; }
};

/// Spec: Hadamard blocks of one size; what is left over is covered by its half, its quarter, ….
struct BlockHadamard {
  static constexpr bool depends_on_weights = false;
  Index block = 64;
  std::uint64_t seed = 0;

  std::optional<Error> fault(Index, Index) const {
    if (block >= 1) return std::nullopt;
    return Error(ErrorCode::invalid_argument,
                 message("BlockHadamard: block is ", block, ", must be at least 1"));
  }
  template <class T>
  Hadamard fit(View<T> W, ExecutorRef = {}) const {
    check(*this, W.rows, W.cols);
    const auto sizes = uneven_blocks(W.cols, block);
    return detail::is_constant(W) ? Hadamard::identity(W.cols)
                                  : Hadamard(Signs(W.cols, seed), sizes);
  }
  static constexpr std::int64_t storage_bits(Index) noexcept { return 64; }
};

inline Hadamard::Hadamard(Signs signs) : signs_(std::move(signs)) {
  if (dim() > 0) add_block(dim());
}

inline Hadamard::Hadamard(Signs signs, std::span<const Index> sizes) : signs_(std::move(signs)) {
  for (const Index size : sizes) {
    if (size < 1) raise(ErrorCode::invalid_argument, message("Hadamard: a block of size ", size));
    add_block(size);
  }
  if (covered_ != dim())
    raise(ErrorCode::invalid_shape,
          message("Hadamard: blocks cover ", covered_, " of dimension ", dim()));
}

inline void Hadamard::add_block(Index size) {
  const Index order = detail::hadamard_core_order(size);
  if (order == 0) {
    const Index divisor = size & -size;  // the largest power of two that divides it
    for (const Index part :
         uneven_blocks(size, divisor >= 64 ? divisor : detail::floor_power_of_two(size)))
      add_block(part);
    return;
  }
  if (runs_.empty() || runs_.back().size != size) runs_.push_back({covered_, 0, size, order});
  ++runs_.back().count;
  covered_ += size;
  const auto same_order = [order](const auto& core) { return core->order == order; };
  if (order > 1 && std::none_of(cores_.begin(), cores_.end(), same_order)) {
    const auto H = hadamard_core(order);
    cores_.push_back(std::make_shared<const Core>(
        Core{order, kernel::sign_codes(H.view()), kernel::sign_codes(H.view().transposed())}));
  }
}

inline const Hadamard::Core& Hadamard::core_of(const Run& run) const {
  return **std::find_if(cores_.begin(), cores_.end(),
                        [&](const auto& core) { return core->order == run.order; });
}

template <class E>
void Hadamard::apply(View<E> X, Op op) const {
  detail::check_columns(X.cols, dim(), "Hadamard");
  if (X.empty()) return;

  Index largest_order = 0;
  bool narrow = false;  // whether rows are too short for the vectors of sign_product()
  for (const Run& run : runs_)
    if (run.order > 1) {
      largest_order = std::max(largest_order, run.order);
      narrow = narrow || run.size / run.order < 8;
    }
  Pass<E> pass{op == Op::forward || op == Op::inverse_transpose, nullptr,
               Buffer<E>(std::size_t(kernel::sign_product_scratch<E>(largest_order)))};
  Buffer<E> signs;
  if constexpr (std::is_same_v<E, float>) {
    pass.signs = signs_.entries().data();
  } else {
    signs.assign(signs_.entries().begin(), signs_.entries().end());
    pass.signs = signs.data();
  }

  if (X.rows_contiguous() && !narrow) return apply_rows(X, pass);
  if (X.row_stride == 1 && X.rows > 1) return apply_columns(X.transposed(), pass);

  // Neither rows nor columns lie side by side: some rows at a time, transposed.
  const Index step = std::min<Index>(X.rows, 64);
  Matrix<E> panel(dim(), step);
  for (Index i = 0; i < X.rows; i += step) {
    const View<E> rows = X.row_block(i, std::min(step, X.rows - i));
    const View<E> columns = panel.view().col_block(0, rows.rows);
    copy(rows, columns.transposed());
    apply_columns(columns, pass);
    copy(columns.transposed(), rows);
  }
}

/// X ← X·op(M), rows contiguous. Blocks with a core are x [order, 2^p]: x ← H_mᵀ·x·H_{2^p}, or
/// H_m·x·H_{2^p} for the transpose.
template <class E>
void Hadamard::apply_rows(View<E> X, Pass<E>& pass) const {
  for (const Run& run : runs_) {
    const View<E> columns = X.col_block(run.offset, run.count * run.size);
    const Index sylvester = run.size / run.order;
    const E scale = E(1.0 / std::sqrt(double(run.size)));
    const E* signs = pass.signs + run.offset;
    const E* after = pass.forward ? nullptr : signs;
    if (run.order == 1) {
      kernel::fwht_rows(columns, sylvester, scale, {pass.forward ? signs : nullptr, after});
      continue;
    }
    const Core& core = core_of(run);
    const std::uint8_t* codes = (pass.forward ? core.transposed_codes : core.codes).data();
    for (Index i = 0; i < columns.rows; ++i) {
      E* row = columns.data + i * columns.row_stride;
      if (pass.forward)
        for (Index j = 0; j < columns.cols; ++j) row[j] *= signs[j];
      for (Index b = 0; b < columns.cols; b += run.size)
        kernel::sign_product<E>(codes, {row + b, run.order, sylvester, sylvester, 1}, pass.scratch);
      kernel::fwht_blocks(row, sylvester, columns.cols / sylvester, scale, {nullptr, after},
                          i + 1 < columns.rows);
    }
  }
}

/// X ← op(M)ᵀ·X, rows contiguous: the same operations on every element.
template <class E>
void Hadamard::apply_columns(View<E> X, Pass<E>& pass) const {
  for (const Run& run : runs_) {
    const View<E> rows = X.row_block(run.offset, run.count * run.size);
    const Index sylvester = run.size / run.order;
    const E scale = E(1.0 / std::sqrt(double(run.size)));
    const E* signs = pass.signs + run.offset;
    const E* after = pass.forward ? nullptr : signs;
    if (run.order == 1) {
      kernel::fwht_columns(rows, sylvester, scale, {pass.forward ? signs : nullptr, after});
      continue;
    }
    const Core& core = core_of(run);
    const std::uint8_t* codes = (pass.forward ? core.transposed_codes : core.codes).data();
    constexpr Index width = 128;
    for (Index c = 0; c < rows.cols; c += width) {
      const View<E> panel = rows.col_block(c, std::min(width, rows.cols - c));
      if (pass.forward)
        for (Index i = 0; i < panel.rows; ++i)
          for (E& x : panel.row(i)) x *= signs[i];
      for (Index b = 0; b < panel.rows; b += run.size)
        for (Index s = b; s < b + sylvester; ++s)
          kernel::sign_product<E>(codes,
                                  {panel.data + s * panel.row_stride, run.order, panel.cols,
                                   sylvester * panel.row_stride, 1},
                                  pass.scratch);
      kernel::fwht_columns(panel, sylvester, scale, {nullptr, after});
    }
  }
}

}  // namespace cafeq
