/// In cafeq::compiled: pairs by `learned` and `smallest`.
#pragma once

#include "cafeq/compiled/pipeline_instance.hpp"
#include "cafeq/pipeline/quantize_pair.hpp"
#include "cafeq/pipeline/recipes.hpp"
#include "cafeq/trellis/multiply.hpp"

namespace cafeq {

namespace compiled {
template <class R>
using PairPipelineOf = std::remove_cvref_t<decltype(std::declval<const R&>().pair(PairShape()))>;
template <class Q>
using PlainQuantized = Quantized<Identity::Fitted, Q>;
}  // namespace compiled

#define CAFEQ_PAIR(R)                                                                             \
  CAFEQ_INSTANCE std::optional<Error> compiled::PairPipelineOf<R>::fault(const PairShape&) const; \
  CAFEQ_INSTANCE RoundedPair<detail::PairQuantizerOf<R>>                                          \
  compiled::PairPipelineOf<R>::quantize_checked(const detail::PairFactors&,                       \
                                                const std::optional<Rotary>&, ExecutorRef) const;

#define CAFEQ_BIASES_FOR(Q, E)                                \
  CAFEQ_INSTANCE QuantizedValueOutput<Q> detail::with_biases( \
      RoundedPair<Q>, View<const E>, const HeadLayout&, const ValueOutputOptions&, ExecutorRef);

/// What pairs in a quantizer have in common, whatever the recipe.
#define CAFEQ_PAIR_RESULT(Q)                        \
  CAFEQ_RESULT(compiled::PlainQuantized<Q>)         \
  CAFEQ_INSTANCE class Linear<Identity::Fitted, Q>; \
  CAFEQ_BIASES_FOR(Q, float)                        \
  CAFEQ_BIASES_FOR(Q, double)                       \
  CAFEQ_BIASES_FOR(Q, fp16)                         \
  CAFEQ_BIASES_FOR(Q, bf16)

CAFEQ_EACH_BITS(CAFEQ_PAIR, recipes::learned)
CAFEQ_EACH_BITS(CAFEQ_PAIR_RESULT, Midrise)
CAFEQ_PAIR(recipes::smallest)
CAFEQ_PAIR_RESULT(Trellis)

}  // namespace cafeq
