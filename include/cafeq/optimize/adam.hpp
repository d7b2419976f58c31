/// Adam: gradient descent with a step size a coordinate (Kingma & Ba, "Adam: A method for
/// stochastic optimization", 2015).
#pragma once

#include <algorithm>
#include <cmath>

#include "cafeq/core/fault.hpp"
#include "cafeq/optimize/objective.hpp"

namespace cafeq {

/// The best point of all steps is returned. Where a step leaves the domain, it goes back to the
/// best point with half the learning rate.
struct Adam {
  double learning_rate = 1e-2;
  Index steps = 3000;
  double beta1 = 0.9;
  double beta2 = 0.999;
  double epsilon = 1e-8;
  double tolerance = 0;  ///< stop when the best value falls by less over `window` steps; 0: never
  Index window = 10;
  double gradient_tolerance = 1e-10;  ///< stop when no component of the gradient is larger

  std::optional<Error> fault() const {
    if (!(learning_rate > 0 && std::isfinite(learning_rate)))
      return Error(ErrorCode::invalid_argument,
                   message("adam: learning_rate is ", learning_rate, ", must be positive"));
    if (steps < 0)
      return Error(ErrorCode::invalid_argument,
                   message("adam: steps is ", steps, ", must not be negative"));
    for (const double beta : {beta1, beta2})
      if (!(beta >= 0 && beta < 1))
        return Error(ErrorCode::invalid_argument,
                     message("adam: beta is ", beta, ", must lie in [0, 1)"));
    if (!(epsilon > 0 && std::isfinite(epsilon)))
      return Error(ErrorCode::invalid_argument,
                   message("adam: epsilon is ", epsilon, ", must be positive"));
    return detail::stopping_fault(tolerance, window, gradient_tolerance);
  }

  /// The same with at most n steps.
  Adam with_iterations(Index n) const {
    Adam limited = *this;
    limited.steps = std::min(steps, n);
    return limited;
  }

  Minimum minimize(ObjectiveRef f, std::vector<double> x0) const {
    check(fault());

    const std::size_t n = x0.size();
    std::vector<double> x = x0;
    std::vector<double> gradient(n);
    std::vector<double> mean(n);
    std::vector<double> square(n);
    Minimum best{.x = std::move(x0), .value = f(x, gradient), .evaluations = 1};
    if (!std::isfinite(best.value)) return best;

    detail::GainWindow gain(tolerance, window);
    double rate = learning_rate;
    double power1 = 1;
    double power2 = 1;
    for (; best.iterations < steps; ++best.iterations) {
      if (detail::max_magnitude(gradient) <= gradient_tolerance || gain.exhausted(best.value)) {
        best.converged = true;
        break;
      }

      power1 *= beta1;
      power2 *= beta2;
      const double step = rate * std::sqrt(1 - power2) / (1 - power1);
      for (std::size_t i = 0; i < n; ++i) {
        mean[i] = beta1 * mean[i] + (1 - beta1) * gradient[i];
        square[i] = beta2 * square[i] + (1 - beta2) * gradient[i] * gradient[i];
        x[i] -= step * mean[i] / (std::sqrt(square[i]) + epsilon * std::sqrt(1 - power2));
      }

      const double value = f(x, gradient);
      ++best.evaluations;
      if (!std::isfinite(value)) {
        x = best.x;
        f(x, gradient);
        ++best.evaluations;
        mean.assign(n, 0.0);
        square.assign(n, 0.0);
        power1 = power2 = 1;
        rate /= 2;
      } else if (value < best.value) {
        best.value = value;
        best.x = x;
      }
    }
    return best;
  }
};

static_assert(Optimizer<Adam>);

}  // namespace cafeq
