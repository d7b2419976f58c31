/// How a dimension is covered by blocks.
#pragma once

#include <vector>

#include "cafeq/core/error.hpp"
#include "cafeq/core/numeric.hpp"

namespace cafeq {

/// Sizes of consecutive blocks that cover `dim`: as many of `block` as fit, then of its half, its
/// quarter, …: 172 by 128 is 128 + 32 + 8 + 4.
inline std::vector<Index> uneven_blocks(Index dim, Index block) {
  if (dim < 0) raise(ErrorCode::invalid_shape, message("uneven_blocks: dim is ", dim));
  if (block < 1)
    raise(ErrorCode::invalid_argument,
          message("uneven_blocks: block is ", block, ", must be at least 1"));
  std::vector<Index> sizes;
  for (Index size = block; dim > 0; size /= 2)
    for (; dim >= size; dim -= size) sizes.push_back(size);
  return sizes;
}

}  // namespace cafeq
