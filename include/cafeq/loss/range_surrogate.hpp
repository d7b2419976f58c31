/// Smooth stand-ins for the quantization range of each scale's set of weights: what a learned
/// transform makes small.
///
/// The weights of X that share a scale form a set: a row, a group of a row, a column, a group of a
/// column. With R_s the smooth range of set s,
///   f(X) = log mean R²,
/// the mean taken over sets, each weighted by its number of weights (so that a short last group
/// counts for what it holds).
#pragma once

#include <cmath>
#include <concepts>
#include <limits>
#include <optional>

#include "cafeq/core/executor.hpp"
#include "cafeq/core/fault.hpp"
#include "cafeq/core/matrix.hpp"
#include "cafeq/kernel/column_range.hpp"
#include "cafeq/kernel/row_range.hpp"

namespace cafeq {

/// Which weights of a matrix share a scale.
struct ScaleSets {
  enum class Axis { row, column };

  Axis axis = Axis::row;
  Index group = 0;  ///< consecutive weights along the axis that share a scale; 0: all of them

  /// One scale a row.
  static constexpr ScaleSets rows() noexcept { return {Axis::row, 0}; }
  /// One scale for `group` consecutive weights of a row.
  static constexpr ScaleSets groups(Index group) noexcept { return {Axis::row, group}; }
  /// One scale a column, or one for `group` consecutive weights of a column.
  static constexpr ScaleSets columns(Index group = 0) noexcept { return {Axis::column, group}; }

  std::optional<Error> fault() const {
    if (group >= 0) return std::nullopt;
    return Error(ErrorCode::invalid_argument,
                 message("scale sets: group is ", group,
                         ", must be positive, or 0 for whole rows or columns"));
  }
};

/// R² of one set, and ∂R²/∂x_j divided by the slope φ'(x_j) that the kernels return.
struct SetRange {
  double squared = 0;
  double slope_factor = 0;
};

/// What sums of φ and of its slopes taken relative to one peak must be multiplied by to be relative
/// to a larger one.
struct PeakChange {
  double sum = 1;
  double slope = 1;
};

/// R² = S^(2/p), S = mean_j |x_j|^p, p even: 8 in general, 16 at four bits and more. Sets of zeros
/// add nothing.
struct PNorm {
  int p = 8;

  std::optional<Error> fault() const {
    if (p >= 2 && p <= 64 && p % 2 == 0) return std::nullopt;
    return Error(ErrorCode::invalid_argument,
                 message("p-norm: p is ", p, ", must be even, 2 to 64"));
  }
  kernel::PowerRange kernel() const noexcept { return kernel::PowerRange(p); }

  /// For n weights with largest magnitude `peak` and sum Σ (x/peak)^p.
  SetRange range(float peak, double sum, Index n) const noexcept {
    if (!(sum > 0)) return {sum, 0};  // zeros, or NaN
    const double a = scale(peak);
    const double mean = sum / double(n);
    const double power = root(mean);
    return {a * a * power, 2.0 * a * power / (mean * double(n))};
  }
  PeakChange change(float from, float to) const noexcept {
    if (from == to) return {};
    const double ratio = scale(from) / scale(to);
    const double slope = std::pow(ratio, p - 1);
    return {slope * ratio, slope};
  }

 private:
  /// The peak as the kernel divides by it, so that its rounding cancels. A peak that the kernel
  /// takes for zero has no sum that it could spoil.
  static double scale(float peak) noexcept {
    return peak >= std::numeric_limits<float>::min() ? 1.0 / double(1.0f / peak) : double(peak);
  }

  /// mean^(2/p); square roots where they do it.
  double root(double mean) const noexcept {
    switch (p) {
      case 2: return mean;
      case 4: return std::sqrt(mean);
      case 8: return std::sqrt(std::sqrt(mean));
      case 16: return std::sqrt(std::sqrt(std::sqrt(mean)));
      default: return std::pow(mean, 2.0 / p);
    }
  }
};

/// R = t⁻¹ log Σ_j (e^(t x_j) + e^(−t x_j)). Meant for X of unit RMS: R has the scale of t in it.
struct LogSumExp {
  float t = 5;

  std::optional<Error> fault() const {
    if (t > 0 && std::isfinite(t)) return std::nullopt;
    return Error(ErrorCode::invalid_argument,
                 message("log-sum-exp: t is ", double(t), ", must be positive"));
  }
  kernel::ExponentialRange kernel() const noexcept { return kernel::ExponentialRange(t); }

  /// For a sum relative to e^(t peak).
  SetRange range(float peak, double sum, Index) const noexcept {
    // t·peak as the kernel rounds it, so that the rounding cancels.
    const double R = (double(kernel().prepare(peak).a) + std::log(sum)) / double(t);
    return {R * R, 2.0 * R / sum};
  }
  PeakChange change(float from, float to) const noexcept {
    const double factor =
        std::exp(double(kernel().prepare(from).a) - double(kernel().prepare(to).a));
    return {factor, factor};
  }
};

/// A smooth range: a kernel for φ and its slope, and what turns Σ φ into R². One that can be made
/// with members out of range says so by fault() (core/fault.hpp).
template <class S>
concept RangeSurrogate =
    std::copyable<S> && requires(const S& s, float peak, double sum, Index n, float* x) {
      { kernel::row_sum<DefaultArch>(s.kernel(), x, n, peak, x) } -> std::same_as<double>;
      { s.range(peak, sum, n) } -> std::same_as<SetRange>;
      { s.change(peak, peak) } -> std::same_as<PeakChange>;
    };

namespace detail {

/// Replaces one row by n_s ∂R_s²/∂x for each of its sets; returns Σ n_s R_s².
template <RangeSurrogate S>
double row_ranges(const S& surrogate, float* x, Index n, Index group) noexcept {
  const auto phi = surrogate.kernel();
  double total = 0;
  for (Index j = 0; j < n; j += group) {
    const Index size = std::min(group, n - j);
    kernel::row_gradient(phi, x + j, size, [&](float peak, double sum) {
      const SetRange set = surrogate.range(peak, sum, size);
      total += double(size) * set.squared;
      return float(double(size) * set.slope_factor);
    });
  }
  return total;
}

/// The same value without a gradient: the row is only read.
template <RangeSurrogate S>
double row_ranges_value(const S& surrogate, const float* x, Index n, Index group) noexcept {
  const auto phi = surrogate.kernel();
  double total = 0;
  for (Index j = 0; j < n; j += group) {
    const Index size = std::min(group, n - j);
    const kernel::PeakSum range = kernel::row_range(phi, x + j, size);
    total += double(size) * surrogate.range(range.peak, range.sum, size).squared;
  }
  return total;
}

/// f(X), and ∂f/∂X in `gradient` where that is not empty. X of any element type and strides;
/// entries are taken as floats. −infinity with no gradient where every R is zero. Scratch: a row a
/// portion, but none for the value alone of rows of floats. The library itself evaluates f in
/// strips (optimize/range_problem.hpp); this is what that is compared with.
template <RangeSurrogate S, class M, Element G = float>
  requires MatrixView<M>
double log_mean_range(const S& surrogate, M&& matrix, ScaleSets sets = {}, View<G> gradient = {},
                      ExecutorRef executor = {}) {
  auto X = as_view(matrix);
  check_view(X, "X");
  check(fault_of(surrogate));
  check(sets.fault());
  if (X.empty())
    raise(ErrorCode::invalid_shape, message("X: ", X.rows, " x ", X.cols, " has no range"));

  const bool with_gradient = gradient.data != nullptr;
  if (with_gradient) check_same_shape(X, "X", gradient, "gradient");
  if (sets.axis == ScaleSets::Axis::column) {
    X = X.transposed();
    gradient = gradient.transposed();
  }
  const Index group = sets.group > 0 ? sets.group : X.cols;
  const Index grain = std::max<Index>(1, 16384 / X.cols);

  const double total = parallel_sum(executor, X.rows, grain, [&](Index begin, Index end) {
    double sum = 0;
    if constexpr (std::is_same_v<std::remove_const_t<typename decltype(X)::value_type>, float>)
      if (!with_gradient && X.rows_contiguous()) {  // read where it lies
        for (Index i = begin; i < end; ++i)
          sum += row_ranges_value(surrogate, X.data + i * X.row_stride, X.cols, group);
        return sum;
      }
    Matrix<float> row(1, X.cols);
    for (Index i = begin; i < end; ++i) {
      copy(X.row_block(i, 1), row.view());
      sum += with_gradient ? row_ranges(surrogate, row.data(), X.cols, group)
                           : row_ranges_value(surrogate, row.data(), X.cols, group);
      if (with_gradient) copy(row.view(), gradient.row_block(i, 1));
    }
    return sum;
  });

  // What was written is ∂(Σ n_s R_s²)/∂X; f is the logarithm of that sum.
  if (with_gradient && total > 0)
    executor.parallel_for(X.rows, grain, [&](Index begin, Index end, Index) {
      for (Index i = begin; i < end; ++i)
        for (Index j = 0; j < X.cols; ++j)
          gradient(i, j) = static_cast<G>(float(double(gradient(i, j)) / total));
    });
  return std::log(total / double(X.size()));
}

}  // namespace detail
}  // namespace cafeq
