/// What an optimizer is, and what it minimises.
#pragma once

#include <cmath>
#include <concepts>
#include <memory>
#include <optional>
#include <span>
#include <type_traits>
#include <vector>

#include "cafeq/core/error.hpp"
#include "cafeq/core/numeric.hpp"

namespace cafeq {

/// f(x, gradient) returns the value at x and writes the gradient there. A value that is not finite
/// means "outside the domain": optimizers back off and do not look at the gradient.
template <class F>
concept DifferentiableObjective =
    requires(F& f, std::span<const double> x, std::span<double> gradient) {
      { f(x, gradient) } -> std::convertible_to<double>;
    };

/// A reference to an objective that outlives the call: an object or a plain function.
class ObjectiveRef {
 public:
  template <class F>
    requires(!std::is_same_v<std::remove_cvref_t<F>, ObjectiveRef> &&
             DifferentiableObjective<std::remove_reference_t<F>>)
  ObjectiveRef(F&& f) noexcept {  // NOLINT(google-explicit-constructor)
    using Target = std::remove_reference_t<F>;
    if constexpr (std::is_function_v<Target>) {
      target_.function = reinterpret_cast<void (*)()>(&f);
      call_ = [](Storage target, std::span<const double> x, std::span<double> gradient) -> double {
        return reinterpret_cast<Target*>(target.function)(x, gradient);
      };
    } else {
      target_.object = const_cast<void*>(static_cast<const void*>(std::addressof(f)));
      call_ = [](Storage target, std::span<const double> x, std::span<double> gradient) -> double {
        return (*static_cast<Target*>(target.object))(x, gradient);
      };
    }
  }

  double operator()(std::span<const double> x, std::span<double> gradient) const {
    return call_(target_, x, gradient);
  }

 private:
  union Storage {
    void* object;
    void (*function)();
  };
  Storage target_;
  double (*call_)(Storage, std::span<const double>, std::span<double>);
};

/// The best point that an optimizer has seen.
struct Minimum {
  std::vector<double> x;
  double value = 0;
  Index iterations = 0;
  Index evaluations = 0;
  /// Stopped because nothing was left to gain, rather than at the limit of iterations.
  bool converged = false;
};

/// Minimises any differentiable objective from a start; never returns a worse point than the start.
/// Optional members: fault() (core/fault.hpp), and with_iterations(n), the same optimizer with at
/// most n iterations, for those who try several starts briefly before they choose one.
template <class O>
concept Optimizer = requires(const O& optimizer, ObjectiveRef f, std::vector<double> x0) {
  { optimizer.minimize(f, x0) } -> std::same_as<Minimum>;
};

namespace detail {

/// The optimizer with at most n iterations where it has with_iterations(), else as it is.
template <Optimizer O>
O with_iterations(const O& optimizer, Index n) {
  if constexpr (requires {
                  { optimizer.with_iterations(n) } -> std::same_as<O>;
                })
    return optimizer.with_iterations(n);
  else return optimizer;
}

/// Says when the best value has fallen by less than `tolerance` over `window` iterations.
class GainWindow {
 public:
  GainWindow(double tolerance, Index window) : tolerance_(tolerance), best_(std::size_t(window)) {}

  /// Called once an iteration with the best value so far.
  bool exhausted(double best) {
    double& oldest = best_[std::size_t(count_) % best_.size()];
    const bool stop = tolerance_ > 0 && count_ >= Index(best_.size()) && oldest - best < tolerance_;
    oldest = best;
    ++count_;
    return stop;
  }

 private:
  double tolerance_;
  std::vector<double> best_;
  Index count_ = 0;
};

/// Σ a_i b_i in eight lanes, so that the sums do not wait for one another.
template <class T>
double dot_of(std::span<const T> a, std::span<const double> b) noexcept {
  constexpr std::size_t lanes = 8;
  double sum[lanes] = {};
  std::size_t i = 0;
  for (; i + lanes <= a.size(); i += lanes)
    for (std::size_t l = 0; l < lanes; ++l) sum[l] += double(a[i + l]) * b[i + l];
  for (std::size_t l = 0; i + l < a.size(); ++l) sum[l] += double(a[i + l]) * b[i + l];
  return ((sum[0] + sum[4]) + (sum[2] + sum[6])) + ((sum[1] + sum[5]) + (sum[3] + sum[7]));
}

inline double dot(std::span<const double> a, std::span<const double> b) noexcept {
  return dot_of(a, b);
}
inline double dot(std::span<const float> a, std::span<const double> b) noexcept {
  return dot_of(a, b);
}

inline double max_magnitude(std::span<const double> a) noexcept {
  double largest = 0;
  for (const double v : a) largest = largest < std::abs(v) ? std::abs(v) : largest;
  return largest;
}

/// What is wrong with the options by which optimizers stop, if anything.
inline std::optional<Error> stopping_fault(double tolerance, Index window,
                                           double gradient_tolerance) {
  if (!(tolerance >= 0))
    return Error(ErrorCode::invalid_argument,
                 message("optimizer: tolerance is ", tolerance, ", must not be negative"));
  if (window < 1)
    return Error(ErrorCode::invalid_argument,
                 message("optimizer: window is ", window, ", must be positive"));
  if (!(gradient_tolerance >= 0))
    return Error(
        ErrorCode::invalid_argument,
        message("optimizer: gradient_tolerance is ", gradient_tolerance, ", must not be negative"));
  return std::nullopt;
}

}  // namespace detail
}  // namespace cafeq
