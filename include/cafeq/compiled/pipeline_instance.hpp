/// What cafeq::compiled contains of a pipeline.
#pragma once

#include <optional>
#include <type_traits>
#include <utility>

#include "cafeq/compiled/instance.hpp"
#include "cafeq/pipeline/pipeline.hpp"
#include "cafeq/runtime/linear.hpp"

namespace cafeq::compiled {

template <class R>
using PipelineOf =
    std::remove_cvref_t<decltype(std::declval<const R&>().pipeline(Index(), Index()))>;

template <class P>
using QuantizedBy = decltype(std::declval<const P&>().quantize(View<const float>()));
template <class P>
using QuantizerOf = decltype(P::quantizer);
template <class P>
using TransformOf = FittedTransform<decltype(P::transform)>;

}  // namespace cafeq::compiled

/// A pipeline for weights of element type E.
#define CAFEQ_PIPELINE_FOR(P, E)                                                                   \
  CAFEQ_INSTANCE Result<compiled::QuantizedBy<P>> P::try_quantize_view(View<const E>, ExecutorRef) \
      const;

#define CAFEQ_PIPELINE(P)                                           \
  CAFEQ_INSTANCE std::optional<Error> P::fault(Index, Index) const; \
  CAFEQ_PIPELINE_FOR(P, float)                                      \
  CAFEQ_PIPELINE_FOR(P, double)                                     \
  CAFEQ_PIPELINE_FOR(P, fp16)                                       \
  CAFEQ_PIPELINE_FOR(P, bf16)

/// What its results do with weights of element type E. Some pipelines have the same results.
#define CAFEQ_RESULT_FOR(R, E)                                        \
  CAFEQ_INSTANCE void R::dequantize_view(View<E>, ExecutorRef) const; \
  CAFEQ_INSTANCE ErrorAndNorm R::compare_view(View<const E>, const Metric*, ExecutorRef) const;

#define CAFEQ_RESULT(R)       \
  CAFEQ_RESULT_FOR(R, float)  \
  CAFEQ_RESULT_FOR(R, double) \
  CAFEQ_RESULT_FOR(R, fp16)   \
  CAFEQ_RESULT_FOR(R, bf16)

#define CAFEQ_PIPELINE_AND_RESULT(P)     \
  CAFEQ_PIPELINE(P)                      \
  CAFEQ_RESULT(compiled::QuantizedBy<P>) \
  CAFEQ_INSTANCE class Linear<compiled::TransformOf<P>, compiled::QuantizerOf<P>>;

#define CAFEQ_RECIPE(R) CAFEQ_PIPELINE(compiled::PipelineOf<R>)
#define CAFEQ_RECIPE_AND_RESULT(R) CAFEQ_PIPELINE_AND_RESULT(compiled::PipelineOf<R>)
