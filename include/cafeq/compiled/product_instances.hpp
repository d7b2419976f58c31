/// In cafeq::compiled: products with the packed codes of grids.
#pragma once

#include "cafeq/compiled/instance.hpp"
#include "cafeq/product/grid_product.hpp"
#include "cafeq/quant/affine.hpp"
#include "cafeq/quant/midrise.hpp"

namespace cafeq {

#define CAFEQ_PRODUCT(Q) CAFEQ_INSTANCE class GridProduct<Q>;

CAFEQ_EACH_BITS(CAFEQ_PRODUCT, Affine)
CAFEQ_EACH_BITS(CAFEQ_PRODUCT, Midrise)

}  // namespace cafeq
