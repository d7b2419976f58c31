/// In cafeq::compiled: recipes without a learned transform.
#pragma once

#include "cafeq/compiled/pipeline_instance.hpp"
#include "cafeq/pipeline/recipes/fast.hpp"
#include "cafeq/pipeline/recipes/mse.hpp"

namespace cafeq {

CAFEQ_EACH_BITS(CAFEQ_RECIPE_AND_RESULT, recipes::fast)
// The pipelines of `rtn` are those of `mse`.
CAFEQ_EACH_BITS(CAFEQ_RECIPE_AND_RESULT, recipes::mse)

}  // namespace cafeq
