/// Carries out a plan, job by job: reads the tensors of one, quantizes them, hands the result over,
/// lets the tensors go.
#pragma once

#include <array>
#include <functional>
#include <utility>
#include <vector>

#include "cafeq/model/load_matrix.hpp"
#include "cafeq/model/plan.hpp"
#include "cafeq/pair/query_key.hpp"
#include "cafeq/pair/value_output.hpp"

namespace cafeq {

/// One matrix of a plan, by its number in Plan::roles.
struct MatrixResult {
  std::size_t matrix;
  QuantizedMatrix quantized;  ///< errors where a pair is balanced in its basis
};

/// A bias that a pair has moved: it belongs to the matrix of that number.
struct MovedBias {
  std::size_t matrix;
  std::vector<float> values;
};

/// The relative error of what a pair's matrices do together.
struct PairError {
  std::size_t pair;
  double error;
};

struct JobResult {
  std::vector<MatrixResult> matrices;
  std::vector<MovedBias> biases;
  std::vector<PairError> pairs;
};

namespace detail {

/// The M that balances both factors, applied to them and to their biases: exact, and nothing to
/// undo.
template <class Arch = DefaultArch>
void balance_pair(PairWeights& weights, const PairRole& pair, ExecutorRef executor) {
  const View<float> first = weights.W[0].view(), second = weights.W[1].view();
  if (pair.kind == PairKind::value_output) {
    const HeadTransform M = balance(first.transposed(), second, pair.layout, {}, {}, executor);
    transform_value_output(second, first, pair.layout, M,
                           {weights.bias_view(1), weights.bias_view(0)}, pair.attention, executor);
  } else {
    const auto& rotary = pair.attention.rotary;
    const HeadTransform M =
        rotary ? balance_commuting(first, second, pair.layout, *rotary, {}, executor)
               : balance(first, second, pair.layout, {}, {}, executor);
    transform_query_key(first, second, pair.layout, M, {weights.bias_view(0), weights.bias_view(1)},
                        pair.attention, executor);
  }
}

template <class Arch = DefaultArch>
void quantize_pair(PairWeights weights, const Plan& plan, const Step& step, ExecutorRef executor,
                   JobResult& result) {
  const PairRole& pair = plan.roles.pairs[*step.pair];
  if (plan.is_together(step)) {
    auto [matrices, bias, error] = step.recipe->quantize(std::move(weights), pair, executor);
    for (std::size_t i = 0; i < 2; ++i)
      result.matrices.push_back({step.matrices[i], {std::move(matrices[i])}});
    result.pairs.push_back({*step.pair, error});
    weights.bias = std::move(bias);
  } else {
    balance_pair<Arch>(weights, pair, executor);
    for (std::size_t i = 0; i < 2; ++i)
      result.matrices.push_back({step.matrices[i], step.recipe->quantize(weights.W[i], executor)});
  }
  for (std::size_t i = 0; i < 2; ++i)
    if (!weights.bias[i].empty())
      result.biases.push_back({step.matrices[i], std::move(weights.bias[i])});
}

}  // namespace detail

/// The metric of what a matrix reads; asked for those of steps in one.
using MetricSource = std::function<Metric(const MatrixRole& matrix)>;

/// The results of one job. Memory: those, and of one step at a time the matrices in fp32 with what
/// its recipe takes. Raises invalid_argument where a step wants a metric and there is no source.
template <ModelReader R>
JobResult quantize_job(const R& reader, const Plan& plan, const Job& job, ExecutorRef executor = {},
                       const MetricSource& metric_of = {}) {
  JobResult result;
  for (const std::size_t s : job.steps) {
    const Step& step = plan.steps[s];
    if (step.pair) {
      PairWeights weights;
      for (std::size_t i = 0; i < 2; ++i) {
        weights.W[i] = load_matrix(reader, plan.place(step.matrices[i]), executor);
        weights.bias[i] = load_bias(reader, plan.roles.matrices[step.matrices[i]]);
      }
      detail::quantize_pair(std::move(weights), plan, step, executor, result);
    } else {
      const std::size_t m = step.matrices[0];
      const Matrix<float> W = load_matrix(reader, plan.place(m), executor);
      if (step.in_metric && !metric_of)
        raise(ErrorCode::invalid_argument,
              message(plan.place(m).tensor, ": is planned in a metric, and none is given"));
      result.matrices.push_back(
          {m, step.in_metric ? step.recipe->quantize(W, metric_of(plan.roles.matrices[m]), executor)
                             : step.recipe->quantize(W, executor)});
    }
    for (const std::size_t m : step.matrices) reader.release(plan.place(m).tensor);
  }
  return result;
}

}  // namespace cafeq
