/// ModelConfig from the header of a llama2.c checkpoint.
#pragma once

#include "cafeq/io/complete_config.hpp"
#include "cafeq/io/llama2c.hpp"
#include "cafeq/model/architectures.hpp"
#include "cafeq/model/model.hpp"

namespace cafeq {

/// A Llama with the sizes of the header, and with the constants that llama2.c has in its code.
inline ModelConfig config_from_llama2c(const Llama2cHeader& header) {
  ModelConfig config{.architecture = "llama",
                     .layers = header.layers,
                     .hidden = header.hidden,
                     .intermediate = header.intermediate,
                     .vocabulary = header.vocabulary,
                     .heads = header.heads,
                     .kv_heads = header.kv_heads,
                     .head_dim = header.head_dim(),
                     .context = header.context,
                     .norm_epsilon = 1e-5,
                     .rope_base = 10000,
                     .tied_embeddings = header.tied_embeddings};
  detail::set_traits(config, *detail::find_architecture(config.architecture),
                     Rotary::Pairing::interleaved, config.head_dim);
  return config;
}

}  // namespace cafeq
