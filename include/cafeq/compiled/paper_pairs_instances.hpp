/// In cafeq::compiled: pairs by `paper`. The results are those of `learned`.
#pragma once

#include "cafeq/compiled/pairs_instances.hpp"
#include "cafeq/pipeline/recipes/paper.hpp"

namespace cafeq {

CAFEQ_EACH_BITS(CAFEQ_PAIR, recipes::paper)

}  // namespace cafeq
