/// In cafeq::compiled: the recipes of whole models.
#pragma once

#include "cafeq/compiled/instances.hpp"
#include "cafeq/model/quantize_model.hpp"
#include "cafeq/model/standard_recipes.hpp"

namespace cafeq {

CAFEQ_INSTANCE AnyRecipe::AnyRecipe(recipes::rtn<>);
CAFEQ_INSTANCE AnyRecipe::AnyRecipe(recipes::mse<>);
CAFEQ_INSTANCE AnyRecipe::AnyRecipe(recipes::fast<>);
CAFEQ_INSTANCE AnyRecipe::AnyRecipe(recipes::learned<>);
CAFEQ_INSTANCE AnyRecipe::AnyRecipe(recipes::paper<>);
CAFEQ_INSTANCE AnyRecipe::AnyRecipe(recipes::smallest);

namespace detail {
CAFEQ_INSTANCE void balance_pair<DefaultArch>(PairWeights&, const PairRole&, ExecutorRef);
}  // namespace detail

CAFEQ_RESULT(AnyQuantized)

}  // namespace cafeq
