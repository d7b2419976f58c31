/// NormalFloat of 4 bits: T. Dettmers et al., "QLoRA: Efficient Finetuning of Quantized LLMs",
/// 2023.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <string>

#include "cafeq/core/matrix.hpp"

namespace cafeq::accuracy::peers {

/// The nearest of 16 values for each weight over the largest of its block, which is kept in fp16.
struct Nf4 {
  Index block = 64;

  std::string name() const { return message("NF4 g", block); }
  double bits_per_weight(Index, Index) const { return 4 + 16.0 / double(block); }

  Matrix<float> operator()(View<const float> W) const {
    constexpr std::array<float, 16> values{-1.0f,
                                           -0.6961928009986877f,
                                           -0.5250730514526367f,
                                           -0.39491748809814453f,
                                           -0.28444138169288635f,
                                           -0.18477343022823334f,
                                           -0.09105003625154495f,
                                           0.0f,
                                           0.07958029955625534f,
                                           0.16093020141124725f,
                                           0.24611230194568634f,
                                           0.33791524171829224f,
                                           0.44070982933044434f,
                                           0.5626170039176941f,
                                           0.7229568362236023f,
                                           1.0f};
    Matrix<float> result(W.rows, W.cols);
    for (Index i = 0; i < W.rows; ++i)
      for (Index begin = 0; begin < W.cols; begin += block) {
        const auto w =
            W.row(i).subspan(std::size_t(begin), std::size_t(std::min(block, W.cols - begin)));
        float most = 0;
        for (const float x : w) most = std::max(most, std::abs(x));
        const float scale = float(fp16(most));
        std::transform(w.begin(), w.end(), result.row(i).begin() + begin, [&](float x) {
          if (scale == 0) return 0.0f;
          return scale * *std::min_element(values.begin(), values.end(), [&](float a, float b) {
                   return std::abs(x / scale - a) < std::abs(x / scale - b);
                 });
        });
      }
    return result;
  }
};

}  // namespace cafeq::accuracy::peers
