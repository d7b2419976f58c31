/// Weights that stay quantized, compiled for each architecture (packed.cpp) as kernels.hpp is.
#pragma once

#include <array>
#include <string_view>

#include "cafeq/pipeline/any_quantized.hpp"
#include "kernels.hpp"

namespace engine {

struct PackedWeights {
  /// Weights that are quantized, multiplied as they are packed.
  Product (*packed)(const cafeq::AnyQuantized& W);
  /// The same for weights that are quantized now, by one of `quantizers`.
  Product (*quantize)(std::string_view quantizer, View<const float> W, cafeq::ExecutorRef threads);
};

inline const PackedWeights& packed_weights() {
  static const PackedWeights& best = cafeq::dispatched<PackedWeights>();
  return best;
}

/// Packed weights as they are stored, all others as floats.
inline constexpr std::string_view stored_weights = "stored";
/// All as floats, which take more memory, and less time where many tokens go together.
inline constexpr std::string_view float_weights = "floats";
/// What weights can be quantized by as they are loaded.
inline constexpr std::array<std::string_view, 4> quantizers{
    "fast3", "fast4", "learned3", "smallest3"};  // 3.25 bits, everything counted

}  // namespace engine
