/// Weights that are quantized as they are loaded, and multiplied as they are packed.
#pragma once

#include <map>
#include <string>

#include "cafeq/cafeq.hpp"
#include "matrix.hpp"

namespace engine {

auto view(auto& matrix) {
  return cafeq::as_view(matrix.values.data(), cafeq::Index(matrix.rows), cafeq::Index(matrix.cols));
}

template <class Recipe>
Linear quantize(const Matrix& weights, const Threads& threads) {
  const cafeq::Linear packed(cafeq::quantize(view(weights), Recipe{}, threads));
  return Linear([packed](const Matrix& x, const Threads& all) {
    Matrix y(x.rows, std::size_t(packed.out()));
    packed.multiply_batch(view(x), view(y), all);
    return y;
  });
}

/// What weights can become.
inline const std::map<std::string, Linear (*)(const Matrix& weights, const Threads& threads)>
    quantizers{{"none", nullptr},
               {"fast3", quantize<cafeq::recipes::fast<3>>},
               {"fast4", quantize<cafeq::recipes::fast<4>>},
               {"learned3", quantize<cafeq::recipes::learned<3>>},
               {"smallest3", quantize<cafeq::recipes::smallest>}};  // 3.25 bits, everything counted

}  // namespace engine
