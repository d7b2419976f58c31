/// Everything that quantizes matrices and pairs. Models (cafeq/model), files (cafeq/io), GGUF's
/// types (cafeq/quant/gguf.hpp) and results whose type is known only at run time
/// (cafeq/runtime/any_linear.hpp) are included by those who need them.
#pragma once

#include "cafeq/core/thread_pool.hpp"
#include "cafeq/loss/reconstruction.hpp"
#include "cafeq/pair/gated_mlp.hpp"
#include "cafeq/pair/norm_gain.hpp"
#include "cafeq/pipeline/quantize.hpp"
#include "cafeq/pipeline/quantize_pair.hpp"
#include "cafeq/pipeline/recipes.hpp"
#include "cafeq/quant/codebook.hpp"
#include "cafeq/quant/microfloat.hpp"
#include "cafeq/runtime/linear.hpp"
#include "cafeq/transform/diagonal.hpp"
#include "cafeq/transform/rotation.hpp"
#include "cafeq/trellis/multiply.hpp"

#if CAFEQ_COMPILED
#include "cafeq/compiled/instances.hpp"
#endif
