/// Gives the steps of a plan different bits so that a mean is met from below.
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "cafeq/model/allocate.hpp"
#include "cafeq/model/quantize_model.hpp"

namespace cafeq {

namespace detail {

/// Some rows of W, evenly spread.
inline Matrix<float> sample_rows(const Matrix<float>& W, Index count) {
  const Index n = std::min(count, W.rows());
  Matrix<float> sample(n, W.cols());
  for (Index i = 0; i < n; ++i) {
    const auto row = W.row(i * W.rows() / n);
    std::copy(row.begin(), row.end(), sample.view().row(i).begin());
  }
  return sample;
}

}  // namespace detail

/// Raises invalid_argument where even the fewest bits are above `target`: the mean bits of all quantized weights, everything counted.
///
/// What a matrix would cost at each number of bits is measured on 64 of its rows by the fast recipe: its relative error times its weights. What is
/// minimised is the sum, by marginal gains. Reads every matrix once.
template <ModelReader R>
void allocate_plan(Plan& plan, const R& reader, double target, ExecutorRef executor = {}) {
  constexpr Index sampled_rows = 64;
  std::vector<std::vector<Choice>> choices(plan.steps.size());
  std::vector<std::vector<BitChoice>> costs(plan.steps.size());
  double weights = 0;
  for (std::size_t s = 0; s < plan.steps.size(); ++s) {
    const Step& step = plan.steps[s];
    weights += double(plan.weights(step));
    for (int bits = 2; bits <= 8; ++bits) {
      choices[s].push_back(step.choice);
      choices[s].back().bits = bits;
      costs[s].push_back({plan.storage(step, choices[s].back()), 0});
    }
    for (const std::size_t m : step.matrices) {
      const Matrix<float> sample = detail::sample_rows(load_matrix(reader, plan.place(m), executor), sampled_rows);
      reader.release(plan.place(m).tensor);
      const double size = double(plan.place(m).out) * double(plan.place(m).in);
      for (std::size_t c = 0; c < choices[s].size(); ++c) {
        const recipes::fast<> recipe{.bits = choices[s][c].bits, .group = choices[s][c].group, .seed = choices[s][c].seed};
        costs[s][c].error += size * quantize(sample, recipe, executor).error(sample, executor);
      }
    }
  }
  const Allocation found = allocate_bits(costs, std::int64_t(std::floor(target * weights)));
  if (!found.fits)
    raise(ErrorCode::invalid_argument, message("target bits: ", target, " are fewer than the ", double(found.storage) / weights, " that two bits take with scales and transforms"));
  for (std::size_t s = 0; s < plan.steps.size(); ++s) plan.steps[s].choice = choices[s][found.choice[s]];
}

}  // namespace cafeq
