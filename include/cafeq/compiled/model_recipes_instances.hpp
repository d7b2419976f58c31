/// In cafeq::compiled: the recipes of whole models, and GGUF's types.
#pragma once

#include "cafeq/compiled/instances.hpp"
#include "cafeq/io/gguf_recipe.hpp"
#include "cafeq/model/quantize_model.hpp"
#include "cafeq/model/standard_recipes.hpp"

namespace cafeq {

CAFEQ_INSTANCE AnyRecipe::AnyRecipe(recipes::rtn<>);
CAFEQ_INSTANCE AnyRecipe::AnyRecipe(recipes::fast<>);
CAFEQ_INSTANCE AnyRecipe::AnyRecipe(recipes::learned<>);
CAFEQ_INSTANCE AnyRecipe::AnyRecipe(recipes::paper<>);
CAFEQ_INSTANCE AnyRecipe::AnyRecipe(recipes::smallest);

namespace gguf {
CAFEQ_INSTANCE void quantize_row<DefaultArch>(GgufType, std::span<const float>,
                                              std::span<std::byte>);
CAFEQ_INSTANCE void dequantize_row<DefaultArch>(GgufType, std::span<const std::byte>,
                                                std::span<float>);
}  // namespace gguf

namespace detail {
CAFEQ_INSTANCE void balance_pair<DefaultArch>(PairWeights&, const PairRole&, ExecutorRef);
CAFEQ_INSTANCE QuantizedMatrix quantize_to_gguf<DefaultArch>(const Matrix<float>&, GgufType,
                                                             ExecutorRef);
CAFEQ_INSTANCE EncodedPair quantize_together_to_gguf<DefaultArch>(GgufType, PairTransform,
                                                                  std::uint64_t, PairWeights&,
                                                                  const PairRole&, ExecutorRef);
}  // namespace detail

CAFEQ_RESULT(AnyQuantized)

}  // namespace cafeq
