/// In cafeq::compiled: the recipe `paper`.
#pragma once

#include "cafeq/compiled/pipeline_instance.hpp"
#include "cafeq/pipeline/recipes/paper.hpp"

namespace cafeq {

// The results are those of `learned`.
CAFEQ_EACH_BITS(CAFEQ_RECIPE, recipes::paper)

}  // namespace cafeq
