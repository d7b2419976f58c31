/// L-BFGS with a strong-Wolfe line search (Nocedal & Wright, "Numerical Optimization", 2nd ed.,
/// algorithms 7.4, 3.5 and 3.6).
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>

#include "cafeq/core/fault.hpp"
#include "cafeq/optimize/objective.hpp"

namespace cafeq {

/// Values never grow from one iteration to the next. Memory: 2·history vectors of floats and 5 of
/// doubles.
struct Lbfgs {
  Index history = 10;
  Index max_iterations = 60;
  double tolerance = 1e-3;  ///< stop when the value falls by less over `window` steps; 0: never
  Index window = 10;
  double gradient_tolerance = 1e-10;  ///< stop when no component of the gradient is larger
  double sufficient_decrease = 1e-4;  ///< c₁ of the Wolfe conditions
  double curvature = 0.9;             ///< c₂
  Index max_search = 25;              ///< evaluations of one line search

  std::optional<Error> fault() const;
  /// The same with at most n iterations.
  Lbfgs with_iterations(Index n) const {
    Lbfgs limited = *this;
    limited.max_iterations = std::min(max_iterations, n);
    return limited;
  }
  Minimum minimize(ObjectiveRef f, std::vector<double> x0) const;
};

static_assert(Optimizer<Lbfgs>);

namespace detail {

/// f along x + step·direction.
class LineSearch {
 public:
  LineSearch(const Lbfgs& options, ObjectiveRef f, std::size_t n)
      : options_(options), f_(f), x_(n), gradient_(n) {}

  const std::vector<double>& x() const noexcept { return x_; }
  const std::vector<double>& gradient() const noexcept { return gradient_; }
  Index evaluations() const noexcept { return evaluations_; }

  /// Value at a step that satisfies the strong Wolfe conditions, or at least decreases f enough;
  /// nothing where none is found. x() and gradient() then hold the point.
  std::optional<double> search(std::span<const double> origin, std::span<const double> direction,
                               double value, double slope, double first) {
    origin_ = origin;
    direction_ = direction;
    start_ = {.step = 0, .value = value, .slope = slope};
    left_ = options_.max_search;
    Probe previous = start_;
    double step = first;
    while (left_ > 0) {
      const Probe probe = evaluate(step);
      if (!decreases(probe) || (previous.step > 0 && probe.value >= previous.value))
        return zoom(previous, probe);
      if (flat(probe)) return probe.value;
      if (probe.slope >= 0) return zoom(probe, previous);
      previous = probe;
      step *= 2.5;
    }
    return settle(previous);
  }

 private:
  struct Probe {
    double step = 0;
    double value = 0;
    double slope = 0;
  };

  Probe evaluate(double step) {
    for (std::size_t i = 0; i < x_.size(); ++i) x_[i] = origin_[i] + step * direction_[i];
    Probe probe{.step = step, .value = f_(x_, gradient_)};
    --left_;
    ++evaluations_;
    if (std::isfinite(probe.value))
      probe.slope = dot(std::span<const double>(gradient_), direction_);
    if (!std::isfinite(probe.slope)) probe.value = std::numeric_limits<double>::infinity();
    current_ = step;
    return probe;
  }

  bool decreases(const Probe& p) const noexcept {
    return std::isfinite(p.value) &&
           p.value <= start_.value + options_.sufficient_decrease * p.step * start_.slope;
  }
  bool flat(const Probe& p) const noexcept {
    return std::abs(p.slope) <= -options_.curvature * start_.slope;
  }

  /// Narrows an interval whose `low` end is the best point known that decreases f enough, and that
  /// holds a point with the strong Wolfe conditions.
  std::optional<double> zoom(Probe low, Probe high) {
    while (left_ > 0 && std::abs(high.step - low.step) > 1e-14 * std::max(low.step, high.step)) {
      const Probe probe = evaluate(interpolate(low, high));
      if (!decreases(probe) || probe.value >= low.value) {
        high = probe;
      } else {
        if (flat(probe)) return probe.value;
        if (probe.slope * (high.step - low.step) >= 0) high = low;
        low = probe;
      }
    }
    return settle(low);
  }

  /// The minimum of the cubic through both ends; the middle where that is not known or too near to
  /// an end.
  static double interpolate(const Probe& a, const Probe& b) noexcept {
    const double width = b.step - a.step;
    const double middle = a.step + 0.5 * width;
    // The edge of the domain is near: stay well inside.
    if (!std::isfinite(b.value)) return a.step + 0.1 * width;
    const double d1 = a.slope + b.slope - 3 * (a.value - b.value) / (a.step - b.step);
    const double square = d1 * d1 - a.slope * b.slope;
    if (!(square >= 0)) return middle;
    const double d2 = std::copysign(std::sqrt(square), width);
    const double step = b.step - width * (b.slope + d2 - d1) / (b.slope - a.slope + 2 * d2);
    const double position = (step - a.step) / width;
    return position >= 0.05 && position <= 0.95 ? step : middle;
  }

  /// Takes a point that decreases f enough but is not flat enough; the origin is no such point.
  std::optional<double> settle(const Probe& p) {
    if (p.step == 0) return std::nullopt;
    return current_ == p.step ? p.value : evaluate(p.step).value;
  }

  const Lbfgs& options_;
  ObjectiveRef f_;
  std::vector<double> x_;
  std::vector<double> gradient_;
  std::span<const double> origin_;
  std::span<const double> direction_;
  Probe start_;
  double current_ = 0;
  Index left_ = 0;
  Index evaluations_ = 0;
};

/// The last steps s = Δx and y = Δgradient, and the product of the inverse Hessian that they imply
/// with a vector (two-loop recursion). Steps are kept as floats: a model of the curvature needs no
/// more, and the history is most of what a large problem holds.
class InverseHessian {
 public:
  InverseHessian(Index history, std::size_t n)
      : n_(n), pairs_(std::size_t(history)), weight_(std::size_t(history)) {}

  bool empty() const noexcept { return count_ == 0; }
  void clear() noexcept { count_ = 0; }

  void add(std::span<const double> x, std::span<const double> x_next, std::span<const double> g,
           std::span<const double> g_next) {
    double sy = 0;
    double yy = 0;
    for (std::size_t i = 0; i < n_; ++i) {
      const double y = double(float(g_next[i] - g[i]));
      sy = std::fma(double(float(x_next[i] - x[i])), y, sy);
      yy = std::fma(y, y, yy);
    }
    // Without positive curvature the pair would spoil definiteness; the oldest one stays.
    if (!(sy > std::numeric_limits<double>::epsilon() * yy)) return;

    Pair& pair = pairs_[std::size_t(next_)];
    pair.s.resize(n_);
    pair.y.resize(n_);
    for (std::size_t i = 0; i < n_; ++i) {
      pair.s[i] = float(x_next[i] - x[i]);
      pair.y[i] = float(g_next[i] - g[i]);
    }
    pair.inverse_sy = 1 / sy;
    scale_ = sy / yy;
    next_ = (next_ + 1) % Index(pairs_.size());
    count_ = std::min(count_ + 1, Index(pairs_.size()));
  }

  /// direction ← −H g.
  void descend(std::span<const double> g, std::span<double> direction) {
    for (std::size_t i = 0; i < n_; ++i) direction[i] = -g[i];
    if (count_ == 0) return;

    for (Index k = 0; k < count_; ++k) {  // newest first
      const Pair& pair = recent(k);
      weight_[std::size_t(k)] = pair.inverse_sy * dot(std::span<const float>(pair.s), direction);
      add_scaled(direction, -weight_[std::size_t(k)], pair.y);
    }
    for (double& d : direction) d *= scale_;
    for (Index k = count_ - 1; k >= 0; --k) {
      const Pair& pair = recent(k);
      add_scaled(direction,
                 weight_[std::size_t(k)] -
                     pair.inverse_sy * dot(std::span<const float>(pair.y), direction),
                 pair.s);
    }
  }

 private:
  struct Pair {
    std::vector<float> s;
    std::vector<float> y;
    double inverse_sy = 0;
  };
  const Pair& recent(Index k) const noexcept {
    const Index size = Index(pairs_.size());
    return pairs_[std::size_t((next_ - 1 - k + 2 * size) % size)];
  }
  static void add_scaled(std::span<double> to, double factor,
                         std::span<const float> from) noexcept {
    for (std::size_t i = 0; i < to.size(); ++i) to[i] += factor * double(from[i]);
  }

  std::size_t n_;
  std::vector<Pair> pairs_;
  std::vector<double> weight_;
  double scale_ = 1;
  Index next_ = 0;
  Index count_ = 0;
};

}  // namespace detail

inline std::optional<Error> Lbfgs::fault() const {
  if (history < 1)
    return Error(ErrorCode::invalid_argument,
                 message("lbfgs: history is ", history, ", must be positive"));
  if (max_iterations < 0)
    return Error(ErrorCode::invalid_argument,
                 message("lbfgs: max_iterations is ", max_iterations, ", must not be negative"));
  if (max_search < 1)
    return Error(ErrorCode::invalid_argument,
                 message("lbfgs: max_search is ", max_search, ", must be positive"));
  if (!(0 < sufficient_decrease && sufficient_decrease < curvature && curvature < 1))
    return Error(ErrorCode::invalid_argument,
                 message("lbfgs: sufficient_decrease ", sufficient_decrease, " and curvature ",
                         curvature, " must satisfy 0 < sufficient_decrease < curvature < 1"));
  return detail::stopping_fault(tolerance, window, gradient_tolerance);
}

inline Minimum Lbfgs::minimize(ObjectiveRef f, std::vector<double> x0) const {
  check(fault());

  const std::size_t n = x0.size();
  std::vector<double> gradient(n);
  std::vector<double> direction(n);
  Minimum best{.x = std::move(x0), .evaluations = 1};
  best.value = f(best.x, gradient);
  if (!std::isfinite(best.value) ||
      !std::isfinite(detail::dot(std::span<const double>(gradient), gradient)))
    return best;

  detail::LineSearch line(*this, f, n);
  detail::InverseHessian hessian(history, n);
  detail::GainWindow gain(tolerance, window);
  while (best.iterations < max_iterations) {
    if (detail::max_magnitude(gradient) <= gradient_tolerance || gain.exhausted(best.value)) {
      best.converged = true;
      break;
    }

    hessian.descend(gradient, direction);
    double slope = detail::dot(std::span<const double>(gradient), direction);
    if (!(slope < 0)) {
      hessian.clear();
      hessian.descend(gradient, direction);
      slope = detail::dot(std::span<const double>(gradient), direction);
    }

    // Without curvature nothing is known of the scale: a first step of unit length, or shorter.
    const double first = hessian.empty() ? std::min(1.0, 1.0 / std::sqrt(-slope)) : 1.0;
    const auto value = line.search(best.x, direction, best.value, slope, first);
    if (!value) {
      // Where not even steepest descent goes down, the precision of f is exhausted.
      if (hessian.empty()) break;
      hessian.clear();
      continue;
    }

    hessian.add(best.x, line.x(), gradient, line.gradient());
    best.x = line.x();
    gradient = line.gradient();
    best.value = *value;
    ++best.iterations;
  }
  best.evaluations += line.evaluations();
  return best;
}

}  // namespace cafeq
