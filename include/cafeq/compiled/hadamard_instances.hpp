/// In cafeq::compiled: Hadamards and rounding to nearest.
#pragma once

#include "cafeq/compiled/pipeline_instance.hpp"
#include "cafeq/pipeline/recipes/hadamard_only.hpp"
#include "cafeq/quant/midrise.hpp"

namespace cafeq {

CAFEQ_EACH_BITS(CAFEQ_RECIPE_AND_RESULT, recipes::hadamard)

namespace compiled {
template <class Q>
using BlockHadamardNearest = Pipeline<BlockHadamard, Q, Nearest>;
template <int Bits = runtime_bits>
using BlockHadamardAffine = BlockHadamardNearest<Affine<Bits>>;
template <int Bits = runtime_bits>
using BlockHadamardMidrise = BlockHadamardNearest<Midrise<Bits>>;
}  // namespace compiled

CAFEQ_EACH_BITS(CAFEQ_PIPELINE, compiled::BlockHadamardAffine)
CAFEQ_EACH_BITS(CAFEQ_PIPELINE_AND_RESULT, compiled::BlockHadamardMidrise)

}  // namespace cafeq
