/// What follows from the numbers of a model's configuration and from its architecture, whatever
/// format the configuration is read from.
#pragma once

#include <cmath>
#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "cafeq/core/error.hpp"
#include "cafeq/core/numeric.hpp"
#include "cafeq/model/architectures.hpp"
#include "cafeq/model/model.hpp"

namespace cafeq::detail {

/// No model has more than these. What a damaged file claims is refused here, ahead of anything that
/// would be computed or allocated from it.
inline constexpr Index count_limit = 1'000'000;      // of layers, heads, experts
inline constexpr Index size_limit = Index(1) << 40;  // of widths, vocabularies, contexts

[[noreturn]] inline void raise_config(std::string_view where, std::string_view name,
                                      std::string_view value, std::string_view expected) {
  raise(ErrorCode::corrupt, message(where, ": ", name, " is ", value, ", must be ", expected));
}
inline std::string count_up_to(Index limit) { return message("a whole number from 0 to ", limit); }

/// Fills in what the numbers of heads say of each other. Raises corrupt, naming `file`, where they
/// contradict each other.
inline void complete_heads(ModelConfig& config, std::string_view file) {
  if (config.kv_heads == 0) config.kv_heads = config.heads;
  if (config.head_dim == 0 && config.heads > 0 && config.hidden % config.heads == 0)
    config.head_dim = config.hidden / config.heads;
  if (config.kv_heads > 0 && config.heads % config.kv_heads != 0)
    raise(ErrorCode::corrupt, message(file, ": ", config.heads, " heads are no multiple of ",
                                      config.kv_heads, " key/value heads"));
}

/// Sets the traits of a known architecture, with `dims` coordinates of each head rotated. A
/// configuration keeps its doubts where the architecture is not known.
inline void set_traits(ModelConfig& config, const Architecture& architecture,
                       std::optional<Rotary::Pairing> pairing, Index dims) {
  config.attention = architecture.attention;
  if (pairing) config.attention.rotary = Rotary{.dims = dims, .pairing = *pairing};
  config.mlp = architecture.mlp;
  if (architecture.scaled_embedding) config.embedding_scale = std::sqrt(double(config.hidden));
  config.attention_doubt.clear();
  config.mlp_doubt = architecture.mlp_doubt;
}

/// Sets a window, which holds in all layers from number `first` on but the last of every `period`
/// (0: in all of them).
inline void set_window(ModelConfig& config, Index window, Index period, Index first = 0) {
  config.window = window;
  config.windowed.clear();
  for (Index layer = 0; window > 0 && layer < config.layers; ++layer)
    config.windowed.push_back(layer >= first && (period == 0 || (layer + 1) % period != 0));
}

}  // namespace cafeq::detail
