/// InputGram: the second moments of what a layer takes in, summed while a model runs.
///
/// With H = Σ x xᵀ / n over n inputs x, an error E of weights W changes the outputs by tr(E H Eᵀ)
/// in the mean. So H, with a ridge, is the metric that weights are to be rounded in; GPTQ's Hessian
/// (Frantar et al., arXiv 2210.17323) is 2 n H.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "cafeq/core/as_view.hpp"
#include "cafeq/core/copy.hpp"
#include "cafeq/core/executor.hpp"
#include "cafeq/core/fault.hpp"
#include "cafeq/core/matrix.hpp"
#include "cafeq/kernel/gram.hpp"
#include "cafeq/linalg/metric.hpp"

namespace cafeq {

/// What is kept of inputs x [dim].
enum class GramKind {
  diagonal,  ///< Σ x_j², a vector
  whole,     ///< Σ x xᵀ, a symmetric matrix
};

constexpr std::string_view name_of(GramKind kind) noexcept {
  return kind == GramKind::whole ? "whole" : "diagonal";
}

/// Memory: `dim` doubles, or dim² of a whole one.
class InputGram {
 public:
  InputGram() = default;
  InputGram(Index dim, GramKind kind)
      : kind_(kind),
        squares_(kind == GramKind::diagonal ? std::size_t(dim) : 0),
        upper_(kind == GramKind::whole ? Matrix<double>(dim, dim) : Matrix<double>()) {}
  /// From stored sums: Σ x_j², or Σ x xᵀ, of which the upper triangle is read.
  InputGram(std::vector<double> squares, std::int64_t count)
      : kind_(GramKind::diagonal), squares_(std::move(squares)), count_(count) {}
  InputGram(Matrix<double> gram, std::int64_t count) : upper_(std::move(gram)), count_(count) {
    if (upper_.rows() != upper_.cols())
      raise(ErrorCode::invalid_shape,
            message("InputGram: ", upper_.rows(), " x ", upper_.cols(), " is not square"));
  }

  Index dim() const noexcept {
    return kind_ == GramKind::whole ? upper_.rows() : Index(squares_.size());
  }
  GramKind kind() const noexcept { return kind_; }
  /// How many inputs are in it.
  std::int64_t count() const noexcept { return count_; }
  /// Σ x_j².
  double square(Index j) const noexcept {
    return kind_ == GramKind::whole ? upper_(j, j) : squares_[std::size_t(j)];
  }
  /// Σ x_i x_j; 0 off a diagonal.
  double product(Index i, Index j) const noexcept {
    if (kind_ == GramKind::diagonal) return i == j ? square(i) : 0;
    return upper_(std::min(i, j), std::max(i, j));
  }

  /// Adds inputs, the rows of X [n, dim] of any strides and element type. Products are summed in
  /// fp32 over 512 rows of a call and in fp64 from there on, diagonals in fp64; the same bits for
  /// any number of threads. Raises invalid_shape, and non_finite before anything is added.
  template <MatrixView M>
  void add(M&& X, ExecutorRef executor = {}) {
    add_view(as_view(X).as_const(), executor);
  }
  /// Adds the sums of other inputs. Raises invalid_shape where dimension or kind differ.
  void merge(const InputGram& other) {
    if (other.dim() != dim() || other.kind_ != kind_)
      raise(ErrorCode::invalid_shape,
            message("InputGram: a sum of ", name_of(other.kind_), " ", other.dim(),
                    " cannot join one of ", name_of(kind_), " ", dim()));
    for (std::size_t j = 0; j < squares_.size(); ++j) squares_[j] += other.squares_[j];
    for (Index i = 0; i < upper_.size(); ++i) upper_.data()[i] += other.upper_.data()[i];
    count_ += other.count_;
  }
  /// Its diagonal alone.
  InputGram diagonal() const {
    InputGram result(dim(), GramKind::diagonal);
    for (Index j = 0; j < dim(); ++j) result.squares_[std::size_t(j)] = square(j);
    result.count_ = count_;
    return result;
  }

  static constexpr double usual_ridge = 0.02;

  /// The metric for weights that read these inputs, of a mean diagonal of 1 + ridge:
  ///   H / m + ridge · I,  m = tr H / dim
  /// The ridge keeps directions that few inputs had from counting for nothing; it does not depend
  /// on the size of the inputs. A diagonal stays one. The identity where there was no input, or
  /// only zeros. Raises invalid_argument for a ridge that is not positive.
  Metric metric(double ridge = usual_ridge) const {
    if (!(ridge > 0))
      raise(ErrorCode::invalid_argument, message("ridge is ", ridge, ", must be positive"));
    double mean = 0;
    for (Index j = 0; j < dim(); ++j) mean += square(j) / double(dim());
    if (!(mean > 0)) return Metric::identity(dim());
    if (kind_ == GramKind::diagonal) {
      std::vector<double> weights;
      for (const double square : squares_) weights.push_back(square / mean + ridge);
      return Metric::diagonal(std::move(weights));
    }
    Matrix<double> H(dim(), dim());
    for (Index i = 0; i < dim(); ++i) {
      for (Index j = i; j < dim(); ++j) H(i, j) = H(j, i) = upper_(i, j) / mean;
      H(i, i) += ridge;
    }
    return Metric::unfactored(std::move(H));
  }

 private:
  template <class E>
  void add_view(View<const E> X, ExecutorRef executor) {
    if (X.cols != dim())
      raise(ErrorCode::invalid_shape,
            message("InputGram: inputs of ", X.cols, " entries, expected ", dim()));
    check_finite(X, "X");
    count_ += X.rows;
    if constexpr (std::is_same_v<E, float>)
      if (X.rows_contiguous()) return add_floats(X, executor);
    constexpr Index rows_at_once = 2 * kernel::gram_float_rows;
    Matrix<float> copied(std::min(rows_at_once, X.rows), X.cols);
    for (Index i = 0; i < X.rows; i += rows_at_once) {
      const View<float> part = copied.view().row_block(0, std::min(rows_at_once, X.rows - i));
      copy(X.row_block(i, part.rows), part);
      add_floats(part, executor);
    }
  }
  void add_floats(View<const float> X, ExecutorRef executor) {
    if (kind_ == GramKind::whole) return kernel::gram_add_floats(X, upper_.view(), executor);
    constexpr Index columns_at_once = 256;
    executor.parallel_for(dim(), columns_at_once, [&](Index begin, Index end, Index) {
      for (Index i = 0; i < X.rows; ++i) {
        const auto x = X.row(i);
        for (auto j = std::size_t(begin); j < std::size_t(end); ++j)
          squares_[j] += double(x[j]) * double(x[j]);
      }
    });
  }

  GramKind kind_ = GramKind::whole;
  std::vector<double> squares_;  // of a diagonal
  Matrix<double> upper_;         // of a whole one: what lies below the diagonal is of no use
  std::int64_t count_ = 0;
};

}  // namespace cafeq
