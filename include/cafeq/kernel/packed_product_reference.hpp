/// The meaning of PackedProduct, bit by bit of the codes and in double.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "cafeq/kernel/code_words.hpp"

namespace cafeq::kernel {

/// Σ_j (scale c_j + offset) x_j for one row of W; scales() as PackedProduct::multiply_rows() takes
/// them.
template <class Scales>
double packed_product_reference(const PackedRows& W, Index row, const Scales& scales,
                                std::span<const float> x) {
  std::vector<float> scale(std::size_t(W.groups())), offset(scale.size());
  scales(row, 0.0f, scale.data(), offset.data());
  double sum = 0;
  for (Index j = 0; j < W.cols; ++j) {
    unsigned code = 0;
    for (int b = 0; b < W.bits; ++b) {
      const Index bit = j * W.bits + b;
      code |= ((W.data[row * W.row_bytes + bit / 8] >> (bit % 8)) & 1u) << b;
    }
    const auto g = std::size_t(j / W.group);
    sum += (double(scale[g]) * code + double(offset[g])) * double(x[std::size_t(j)]);
  }
  return sum;
}

}  // namespace cafeq::kernel
