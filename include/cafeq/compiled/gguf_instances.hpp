/// In cafeq::compiled: GGUF's types.
#pragma once

#include "cafeq/compiled/instances.hpp"
#include "cafeq/io/gguf_recipe.hpp"

namespace cafeq {

namespace gguf {
CAFEQ_INSTANCE void quantize_row<DefaultArch>(GgufType, std::span<const float>,
                                              std::span<std::byte>);
CAFEQ_INSTANCE void dequantize_row<DefaultArch>(GgufType, std::span<const std::byte>,
                                                std::span<float>);
}  // namespace gguf

namespace detail {
CAFEQ_INSTANCE QuantizedMatrix quantize_to_gguf<DefaultArch>(const Matrix<float>&, GgufType,
                                                             ExecutorRef);
CAFEQ_INSTANCE QuantizedMatrix quantize_to_gguf<DefaultArch>(const Matrix<float>&, GgufType,
                                                             const Metric&, ExecutorRef);
CAFEQ_INSTANCE EncodedPair quantize_together_to_gguf<DefaultArch>(GgufType, PairTransform,
                                                                  std::uint64_t, PairWeights&,
                                                                  const PairRole&, ExecutorRef);
}  // namespace detail

}  // namespace cafeq
