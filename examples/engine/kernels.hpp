/// What takes the time, compiled for each architecture (kernels.cpp) and chosen when the program
/// runs.
#pragma once

#include <array>
#include <memory>
#include <string_view>

#include "cafeq/simd/dispatch.hpp"
#include "matrix.hpp"

namespace engine {

struct Kernels {
  /// a · b
  float (*dot)(const float* a, const float* b, std::size_t n);
  /// Weights as they are; they may serve elsewhere too.
  Linear (*plain)(std::shared_ptr<const Matrix> weights);
  /// Weights that are quantized now, and multiplied as they are packed. `how` is one of
  /// `quantizers`, but not "none".
  Linear (*packed)(std::string_view how, const Matrix& weights, cafeq::ExecutorRef threads);
};

inline const Kernels& kernels() {
  static const Kernels& best = cafeq::dispatched<Kernels>();
  return best;
}

/// What weights can become.
inline constexpr std::array<std::string_view, 5> quantizers{
    "none", "fast3", "fast4", "learned3", "smallest3"};  // 3.25 bits, everything counted

inline float dot(const float* a, const float* b, std::size_t n) { return kernels().dot(a, b, n); }

}  // namespace engine
