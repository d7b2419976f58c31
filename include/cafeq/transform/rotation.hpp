/// Dense rotations: one orthogonal matrix over the whole width, and Kronecker products of two
/// transforms.
#pragma once

#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

#include "cafeq/transform/block_diagonal.hpp"

namespace cafeq {

/// A dense orthogonal M [n, n]: n operations an element, so for small n or as a factor of a
/// Kronecker product.
class DenseOrthogonal {
 public:
  DenseOrthogonal() = default;
  /// Uniformly random (Haar), a function of the seed.
  template <class Arch = DefaultArch>
  DenseOrthogonal(Index dim, std::uint64_t seed) : seeded_(true) {
    if (dim < 0) raise(ErrorCode::invalid_shape, message("DenseOrthogonal: dim is ", dim));
    const CounterRng rng(seed, stream_of("rotation"));
    if (dim > 0)
      matrix_ = BlockDiagonal::orthogonal(one(linalg::random_orthogonal<Arch>(dim, rng)),
                                          InversePrecision::fp32);
  }
  /// The caller's, checked: |MᵀM − I| at most 1e-6. Its transpose is stored in fp16.
  template <class M>
    requires MatrixView<M>
  explicit DenseOrthogonal(M&& matrix)
      : matrix_(BlockDiagonal::orthogonal(one(to_matrix<double>(as_view(matrix))),
                                          InversePrecision::fp16)) {}

  Index dim() const noexcept { return matrix_.dim(); }
  template <class E>
  void apply(View<E> X, Op op = Op::forward) const {
    matrix_.apply(X, op);
  }
  bool is_orthogonal() const noexcept { return true; }
  /// 64 for the seed, or 16 an entry.
  std::int64_t storage_bits() const noexcept { return seeded_ ? 64 : matrix_.storage_bits(); }

 private:
  static std::vector<Matrix<double>> one(Matrix<double> M) {
    std::vector<Matrix<double>> blocks;
    blocks.push_back(std::move(M));
    return blocks;
  }

  BlockDiagonal matrix_;
  bool seeded_ = false;
};

/// Spec: a random rotation of the whole width.
struct RandomRotation {
  static constexpr bool depends_on_weights = false;
  std::uint64_t seed = 0;
  template <class T>
  DenseOrthogonal fit(View<T> W, ExecutorRef = {}) const {
    return DenseOrthogonal(W.cols, seed);
  }
};

/// M = A ⊗ B: a row x, read as [a, b], becomes Aᵀ x B. a + b operations an element where A and B
/// are dense.
template <Transform A, Transform B>
class Kronecker {
 public:
  Kronecker(A left, B right) : left_(std::move(left)), right_(std::move(right)) {}

  Index dim() const noexcept { return Index(left_.dim()) * Index(right_.dim()); }
  const A& left() const noexcept { return left_; }
  const B& right() const noexcept { return right_; }

  template <class E>
  void apply(View<E> X, Op op = Op::forward) const {
    detail::check_columns(X.cols, dim(), "Kronecker");
    const Index a = left_.dim();
    const Index b = right_.dim();
    detail::on_row_panels(X, [&](View<E> rows) {
      for (Index i = 0; i < rows.rows; ++i) {
        const View<E> x{rows.data + i * rows.row_stride, a, b, b, 1};
        right_.apply(x, op);
        left_.apply(x.transposed(), op);  // op(A ⊗ B) = op(A) ⊗ op(B)
      }
    });
  }
  bool is_orthogonal() const noexcept { return left_.is_orthogonal() && right_.is_orthogonal(); }
  std::int64_t storage_bits() const noexcept {
    return left_.storage_bits() + right_.storage_bits();
  }

 private:
  A left_;
  B right_;
};

/// Spec: the Kronecker product of two random rotations, of `left` and width / left rows.
struct RandomKronecker {
  static constexpr bool depends_on_weights = false;
  Index left = 0;  ///< 0: the divisor of the width that is nearest to its square root from below
  std::uint64_t seed = 0;

  std::optional<Error> fault(Index, Index cols) const {
    if (left == 0 || (left > 0 && cols % left == 0)) return std::nullopt;
    return Error(ErrorCode::invalid_argument,
                 message("RandomKronecker: left is ", left, ", must divide the width ", cols));
  }

  template <class T>
  Kronecker<DenseOrthogonal, DenseOrthogonal> fit(View<T> W, ExecutorRef = {}) const {
    check(*this, W.rows, W.cols);
    Index a = left;
    if (a == 0)
      for (Index d = 1; d * d <= std::max<Index>(W.cols, 1); ++d)
        if (W.cols % d == 0) a = d;
    return {DenseOrthogonal(a, seed), DenseOrthogonal(W.cols / a, ~seed)};
  }
};

}  // namespace cafeq
