/// Balance: the M that gives both factors of a pair the same singular values.
///
/// With A = F₂ [d, n₂] of a KV head and B [n₁·group, d] the transposed heads of F₁ that read it, B
/// A = U S Vᵀ is shared out as B M⁻¹ = U S^½ M₀ and M A = M₀ᵀ S^½ Vᵀ, for an orthogonal M₀ (default
/// I). Essential where spectra are skewed; harmless elsewhere.
#pragma once

#include <cmath>
#include <optional>
#include <vector>

#include "cafeq/linalg/dense.hpp"
#include "cafeq/loss/head_grams.hpp"
#include "cafeq/pair/head_transform.hpp"

namespace cafeq {

struct BalanceOptions {
  /// Singular values below this part of the largest count as that: the inverse of a direction that
  /// hardly matters must stay bounded.
  double floor = 1e-5;

  std::optional<Error> fault() const {
    if (floor > 0 && floor <= 1) return std::nullopt;
    return Error(ErrorCode::invalid_argument, message("floor: ", floor, ", must be in (0, 1]"));
  }
};

/// The balance of each KV head of two canonical factors; M0 [d, d] serves all heads. From Gram
/// matrices alone, which cost half the digits of a QR: singular values are good to 1e-8 of the
/// largest, three digits below the floor. Directions that a factor lacks are floored too, so M is
/// finite and invertible for every input; where a factor or the product is zero, M = M₀ᵀ.
template <MatrixView First, MatrixView Second>
HeadTransform balance(First&& first, Second&& second, HeadLayout layout, View<const double> M0 = {},
                      BalanceOptions options = {}, ExecutorRef executor = {});

/// Only scales: M diagonal, so that corresponding rows of both factors get the same norm. M = 1
/// where one of the rows is zero.
template <MatrixView First, MatrixView Second>
HeadTransform balance_diagonal(First&& first, Second&& second, HeadLayout layout,
                               ExecutorRef executor = {});

namespace detail {

/// M and M⁻¹ [d, d] for one head, and the d singular values of its product (descending, before the
/// floor).
struct BalancedHead {
  Matrix<double> M;
  Matrix<double> inverse;
  std::vector<double> singular_values;
};

/// The balance of one head from its Gram matrices `first` = BᵀB and `second` = A Aᵀ alone. With A
/// Aᵀ = E Λ Eᵀ and Λ^½ Eᵀ BᵀB E Λ^½ = V S² Vᵀ: M = M₀ᵀ S^½ Vᵀ Λ^{-½} Eᵀ (that is M₀ᵀ S^½ Vᵀ
/// R_A^{-ᵀ} with R_A = Λ^½ Eᵀ), M⁻¹ = E Λ^½ V S^{-½} M₀.
template <class Arch = DefaultArch>
BalancedHead balance_grams(View<const double> first, View<const double> second,
                           View<const double> M0 = {}, BalanceOptions options = {});

/// The Gram matrices of both factors by KV head, those of the first summed over the group.
struct PairGrams {
  std::vector<Matrix<double>> first;
  std::vector<Matrix<double>> second;
};

/// What keeps two matrices from being the canonical factors of a pair, if anything.
template <class T, class U>
std::optional<Error> factors_fault(View<T> first, View<U> second, const HeadLayout& layout) {
  if (auto fault = layout.fault()) return fault;
  if (auto fault = view_fault(first, "first")) return fault;
  if (auto fault = view_fault(second, "second")) return fault;
  if (auto fault = layout.first_fault(first.rows, "first")) return fault;
  if (auto fault = layout.second_fault(second.rows, "second")) return fault;
  if (auto fault = finite_fault(first, "first")) return fault;
  return finite_fault(second, "second");
}

template <class T, class U>
PairGrams pair_grams(View<T> first, View<U> second, const HeadLayout& layout,
                     ExecutorRef executor) {
  check(factors_fault(first, second, layout));

  PairGrams result;
  result.second = head_grams(second, layout.kv_heads, executor);
  const auto heads = head_grams(first, layout.heads, executor);
  for (Index kv = 0; kv < layout.kv_heads; ++kv) {
    Matrix<double> sum(layout.head_dim, layout.head_dim);
    for (Index h = kv * layout.group(); h < (kv + 1) * layout.group(); ++h)
      for (Index i = 0; i < sum.size(); ++i) sum.data()[i] += heads[std::size_t(h)].data()[i];
    result.first.push_back(std::move(sum));
  }
  return result;
}

/// ‖row i‖² of F.
template <class T>
std::vector<double> squared_row_norms(View<T> F, ExecutorRef executor) {
  std::vector<double> norms(static_cast<std::size_t>(F.rows));
  executor.parallel_for(F.rows, 16, [&](Index begin, Index end, Index) {
    // Columns outside: the rows of a transposed view share cache lines.
    for (Index j = 0; j < F.cols; ++j)
      for (Index i = begin; i < end; ++i) {
        const double x = double(F(i, j));
        norms[std::size_t(i)] = std::fma(x, x, norms[std::size_t(i)]);
      }
  });
  return norms;
}

/// The scale m with m²·second = first/m²: fourth root of the ratio of squared norms; 1 where there
/// is none.
inline double equalising_scale(double first, double second) {
  const double scale = std::sqrt(std::sqrt(first / second));
  return first > 0 && second > 0 && std::isfinite(scale) && scale > 0 ? scale : 1.0;
}

/// What is wrong with the M₀ of a balance, which may be left out.
inline std::optional<Error> rotation_fault(View<const double> M0, Index head_dim) {
  if (M0.data == nullptr || (M0.rows == head_dim && M0.cols == head_dim)) return std::nullopt;
  return Error(ErrorCode::invalid_shape,
               message("M0: ", M0.rows, " x ", M0.cols, ", but head_dim is ", head_dim));
}

inline double trace(View<const double> A) {
  double sum = 0;
  for (Index i = 0; i < A.rows; ++i) sum += A(i, i);
  return sum;
}

template <class Arch>
BalancedHead balance_grams(View<const double> first, View<const double> second,
                           View<const double> M0, BalanceOptions options) {
  const Index d = second.rows;
  if (first.rows != d || first.cols != d || second.cols != d)
    raise(ErrorCode::invalid_shape, message("balance: Gram matrices of ", first.rows, " x ",
                                            first.cols, " and ", second.rows, " x ", second.cols));
  check(rotation_fault(M0, d));
  check(options.fault());

  const auto identity = identity_matrix<double>(d);
  const View<const double> rotation = M0.data != nullptr ? M0 : identity.view();
  const BalancedHead unchanged{to_matrix<double>(rotation.transposed()),
                               to_matrix<double>(rotation), std::vector<double>(std::size_t(d))};

  const double first_norm = trace(first);
  const double second_norm = trace(second);
  if (!(first_norm > 0 && second_norm > 0)) return unchanged;

  // Norms of 1 keep the squares below in range; their ratio comes back at the end.
  Matrix<double> G1 = to_matrix<double>(first);
  Matrix<double> G2 = to_matrix<double>(second);
  for (Index i = 0; i < d * d; ++i) {
    G1.data()[i] /= first_norm;
    G2.data()[i] /= second_norm;
  }

  const auto eigen = linalg::symmetric_eigen<Arch>(G2.view());
  std::vector<double> root(std::size_t(d), 0.0);  // Λ^½, floored
  for (std::size_t i = 0; i < root.size(); ++i)
    root[i] = std::sqrt(std::max(eigen.values[i], 1e-12 * eigen.values.back()));
  Matrix<double> R = eigen.vectors;  // R_Aᵀ = E Λ^½
  Matrix<double> R_inverse = R;      // E Λ^{-½}, the transpose of R_A^{-ᵀ}
  for (Index i = 0; i < d; ++i)
    for (Index j = 0; j < d; ++j) {
      R(i, j) *= root[std::size_t(j)];
      R_inverse(i, j) /= root[std::size_t(j)];
    }

  const auto G1R = linalg::product<Arch>(G1.view(), R.view());
  const auto RtG1R = linalg::product<Arch>(R.view().transposed(), G1R.view());
  const auto product = linalg::symmetric_eigen<Arch>(RtG1R.view());  // V S² Vᵀ
  const double largest = std::sqrt(std::max(product.values.back(), 0.0));
  if (!(largest > 1e-10)) return unchanged;  // the factors do not meet: B A = 0

  Matrix<double> left(d, d);   // V S^½, columns by descending singular value
  Matrix<double> right(d, d);  // V S^{-½}
  std::vector<double> singular(std::size_t(d), 0.0);
  const double back = std::sqrt(first_norm) * std::sqrt(second_norm);
  for (Index j = 0; j < d; ++j) {
    const double s = std::sqrt(std::max(product.values[std::size_t(d - 1 - j)], 0.0));
    singular[std::size_t(j)] = s * back;
    const double half = std::sqrt(std::max(s, options.floor * largest));
    for (Index i = 0; i < d; ++i) {
      left(i, j) = product.vectors(i, d - 1 - j) * half;
      right(i, j) = product.vectors(i, d - 1 - j) / half;
    }
  }

  // Mᵀ = E Λ^{-½} V S^½ M₀, M⁻¹ = E Λ^½ V S^{-½} M₀.
  const auto balanced = linalg::product<Arch>(R_inverse.view(), left.view());
  const auto balanced_inverse = linalg::product<Arch>(R.view(), right.view());
  const auto M_transposed = linalg::product<Arch>(balanced.view(), rotation);
  BalancedHead result{to_matrix<double>(M_transposed.view().transposed()),
                      linalg::product<Arch>(balanced_inverse.view(), rotation),
                      std::move(singular)};
  const double ratio = equalising_scale(first_norm, second_norm);
  for (Index i = 0; i < d * d; ++i) {
    result.M.data()[i] *= ratio;
    result.inverse.data()[i] /= ratio;
  }
  return result;
}

}  // namespace detail

template <MatrixView First, MatrixView Second>
HeadTransform balance(First&& first, Second&& second, HeadLayout layout, View<const double> M0,
                      BalanceOptions options, ExecutorRef executor) {
  check(layout.fault());
  check(detail::rotation_fault(M0, layout.head_dim));
  check(options.fault());

  const auto grams = detail::pair_grams(as_view(first), as_view(second), layout, executor);
  const Index d = layout.head_dim;
  Matrix<double> M(layout.kv_heads * d, d);
  Matrix<double> inverse(layout.kv_heads * d, d);
  executor.parallel_for(layout.kv_heads, 1, [&](Index begin, Index end, Index) {
    for (Index kv = begin; kv < end; ++kv) {
      const auto head = detail::balance_grams(grams.first[std::size_t(kv)].view(),
                                              grams.second[std::size_t(kv)].view(), M0, options);
      copy(head.M.view(), M.view().row_block(kv * d, d));
      copy(head.inverse.view(), inverse.view().row_block(kv * d, d));
    }
  });
  return HeadTransform::with_inverse(layout, std::move(M), std::move(inverse));
}

template <MatrixView First, MatrixView Second>
HeadTransform balance_diagonal(First&& first, Second&& second, HeadLayout layout,
                               ExecutorRef executor) {
  check(detail::factors_fault(as_view(first), as_view(second), layout));

  const auto first_norms = detail::squared_row_norms(as_view(first), executor);
  const auto second_norms = detail::squared_row_norms(as_view(second), executor);
  const Index d = layout.head_dim;
  Matrix<double> M(layout.kv_heads * d, d);
  Matrix<double> inverse(layout.kv_heads * d, d);
  for (Index row = 0; row < M.rows(); ++row) {
    const Index i = row % d;
    double group = 0;
    for (Index h = row / d * layout.group(); h < (row / d + 1) * layout.group(); ++h)
      group += first_norms[std::size_t(h * d + i)];
    M(row, i) = detail::equalising_scale(group, second_norms[std::size_t(row)]);
    inverse(row, i) = 1.0 / M(row, i);
  }
  return HeadTransform::with_inverse(layout, std::move(M), std::move(inverse));
}

}  // namespace cafeq
