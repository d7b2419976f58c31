/// In cafeq::compiled: the recipe `smallest`.
#pragma once

#include "cafeq/compiled/pipeline_instance.hpp"
#include "cafeq/pipeline/recipes/smallest.hpp"
#include "cafeq/trellis/multiply.hpp"

namespace cafeq {

CAFEQ_RECIPE_AND_RESULT(recipes::smallest)

}  // namespace cafeq
