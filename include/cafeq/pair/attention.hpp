/// What an attention layer does between its matrices: AttentionTraits and Rotary. Which transforms
/// of its pairs are exact follows from it.
#pragma once

#include <optional>
#include <utility>

#include "cafeq/core/error.hpp"
#include "cafeq/core/numeric.hpp"

namespace cafeq {

/// Rotary position embedding: in each head the first `dims` coordinates are rotated in pairs, the
/// others pass.
struct Rotary {
  enum class Pairing {
    half_split,   ///< (i, i + dims/2): Llama in the layout of transformers, GPT-NeoX
    interleaved,  ///< (2i, 2i + 1): Llama's own layout, GPT-J
  };
  Index dims = 0;
  Pairing pairing = Pairing::half_split;

  Index pairs() const noexcept { return dims / 2; }
  std::pair<Index, Index> pair(Index i) const noexcept {
    return pairing == Pairing::interleaved ? std::pair{2 * i, 2 * i + 1}
                                           : std::pair{i, i + dims / 2};
  }
  /// What is wrong with these dimensions for heads of head_dim.
  std::optional<Error> fault(Index head_dim) const {
    if (dims >= 0 && dims % 2 == 0 && dims <= head_dim) return std::nullopt;
    return Error(
        ErrorCode::invalid_argument,
        message("rotary: dims is ", dims, ", must be even and at most head_dim (", head_dim, ")"));
  }
};

/// What an attention layer does between its matrices. The default is plain softmax attention
/// without rotary positions.
struct AttentionTraits {
  std::optional<Rotary> rotary = std::nullopt;
  bool qk_norm =
      false;  ///< queries or keys are normalised after their projection (Qwen3, Gemma 3, OLMo 2)
  bool value_norm = false;    ///< values are normalised after their projection
  bool gated_output = false;  ///< the heads' output is multiplied by a gate, channel by channel,
                              ///< ahead of the output projection
  bool output_norm =
      false;  ///< the heads' output is normalised ahead of the output projection (sub-LayerNorm)
  bool clipped = false;         ///< queries, keys and values are clamped (MPT, DBRX)
  bool rows_sum_to_one = true;  ///< false with attention sinks or an off-by-one softmax
};

}  // namespace cafeq
