/// Learns the matrices of a block-diagonal transform: those that make the quantization ranges of W
/// M small.
#pragma once

#include <utility>
#include <vector>

#include "cafeq/core/fault.hpp"
#include "cafeq/linalg/dense.hpp"
#include "cafeq/optimize/objective.hpp"
#include "cafeq/optimize/parametrization.hpp"
#include "cafeq/optimize/range_problem.hpp"

namespace cafeq {

enum class Parametrization {
  orthogonal,  ///< M = M₀ times a rotation: orthogonal where the start is
  general,     ///< any invertible M; the objective then counts ‖M⁻¹‖²
};

namespace detail {

/// What learn_transform() finds.
struct LearnedMatrices {
  std::vector<Matrix<double>> M;
  double value = 0;  ///< the objective at M
  double start = 0;  ///< the objective at the start
  Index iterations = 0;
  Index evaluations = 0;
  bool converged = false;
};

/// Minimises Σ_t log mean R²(W_t blockdiag(M)) (plus the inverse's penalty in the general case)
/// from the start blocks M₀, whose sizes are those of the transform's blocks. Never worse than the
/// start. Where all W_t vanish, the start is returned. The same bits on any number of threads.
template <RangeSurrogate S, Optimizer O>
LearnedMatrices learn_transform(std::vector<RangeTerm> terms, std::vector<Matrix<double>> start,
                                const S& surrogate, Parametrization parametrization,
                                const O& optimizer, ExecutorRef executor = {}) {
  check(fault_of(surrogate));
  check(fault_of(optimizer));
  std::vector<Index> sizes;
  bool nothing_to_learn = true;
  for (std::size_t m = 0; m < start.size(); ++m) {
    if (start[m].rows() != start[m].cols())
      raise(ErrorCode::invalid_shape, message("start: matrix ", m, " is ", start[m].rows(), " x ",
                                              start[m].cols(), ", not square"));
    check_finite(start[m].view(), "start");
    sizes.push_back(start[m].rows());
  }

  for (const RangeTerm& term : terms) nothing_to_learn = nothing_to_learn && term.vanishes();
  RangeProblem<S> problem(std::move(terms), std::move(sizes), surrogate, executor);
  if (nothing_to_learn) return {.M = std::move(start), .converged = true};

  auto M = start;
  auto by_M = start;
  LearnedMatrices result;
  const auto run = [&](auto parameters, bool penalise) {
    const auto objective = [&](std::span<const double> unknowns, std::span<double> gradient) {
      parameters.matrices(unknowns, M);
      double f = problem.evaluate(M, by_M);
      if (penalise) f += problem.inverse_penalty(M, by_M);
      parameters.gradient(by_M, gradient);
      ++result.evaluations;
      if (result.evaluations == 1) result.start = f;
      return f;
    };
    Minimum minimum = optimizer.minimize(ObjectiveRef(objective), parameters.origin());
    parameters.matrices(minimum.x, M);
    result.value = minimum.value;
    result.iterations = minimum.iterations;
    result.converged = minimum.converged;
  };

  if (parametrization == Parametrization::orthogonal) {
    run(CayleyParametrization(std::move(start), executor), false);
  } else {
    for (std::size_t m = 0; m < start.size(); ++m)
      if (!linalg::inverse(start[m].view()))
        raise(ErrorCode::singular, message("start: matrix ", m, " is singular"));
    run(GeneralParametrization(std::move(start)), true);
  }
  result.M = std::move(M);
  return result;
}

}  // namespace detail
}  // namespace cafeq
