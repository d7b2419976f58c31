/// Everything but the file formats (include what you need from cafeq/io).
#pragma once

#include "cafeq/loss/reconstruction.hpp"
#include "cafeq/pair/gated_mlp.hpp"
#include "cafeq/pipeline/quantize.hpp"
#include "cafeq/pipeline/quantize_pair.hpp"
#include "cafeq/quant/codebook.hpp"
#include "cafeq/quant/microfloat.hpp"
#include "cafeq/rounding/coordinate_descent.hpp"
#include "cafeq/runtime/linear.hpp"
#include "cafeq/transform/diagonal.hpp"
#include "cafeq/transform/rotation.hpp"
