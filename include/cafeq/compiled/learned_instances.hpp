/// In cafeq::compiled: the recipe `learned`.
#pragma once

#include "cafeq/compiled/pipeline_instance.hpp"
#include "cafeq/pipeline/recipes/learned.hpp"

namespace cafeq {

CAFEQ_EACH_BITS(CAFEQ_RECIPE_AND_RESULT, recipes::learned)

}  // namespace cafeq
