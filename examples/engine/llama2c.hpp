/// Checkpoints of llama2.c (version 0): seven 32-bit integers, then every tensor in fp32, those of
/// one kind for all layers together.
#pragma once

#include <array>
#include <cstdlib>
#include <map>
#include <memory>
#include <string>

#include "file.hpp"

namespace engine {

inline Checkpoint open_llama2c(const std::string& path) {
  const auto file = std::make_shared<const File>(path);
  std::array<std::int32_t, 7> header{};
  file->read(0, header.data(), sizeof header);
  if (header[0] == 0x616b3432)
    fail(path + ": a llama2.c checkpoint of version " + std::to_string(header[1]) +
         ", only version 0 is known");
  const auto size = [&](std::size_t i) { return std::size_t(header[i]); };
  Config config{.dim = size(0),
                .hidden = size(1),
                .layers = size(2),
                .heads = size(3),
                .kv_heads = size(4),
                .vocabulary = std::size_t(std::abs(std::int64_t(header[5]))),
                .context = size(6)};
  config.head_dim = config.heads > 0 ? config.dim / config.heads : 0;
  config.rope_interleaved = true;
  config.tied_embeddings = header[5] > 0;
  config.end = {1, 2};  // texts follow one another with a start token between them
  in_file(path, [&] { check_config(config); });

  // Where each tensor begins.
  std::map<std::string, std::uint64_t> offsets;
  std::uint64_t offset = sizeof header;
  const auto next = [&](const std::string& name, std::size_t rows, std::size_t cols) {
    offsets[name + ".weight"] = offset;
    offset += std::uint64_t(rows) * cols * sizeof(float);
    if (offset > file->size())
      fail(path + ": ends within " + name + ", after " + std::to_string(file->size()) + " bytes");
  };
  const auto next_of_all_layers = [&](const std::string& name, std::size_t rows, std::size_t cols) {
    for (std::size_t l = 0; l < config.layers; ++l)
      next("model.layers." + std::to_string(l) + "." + name, rows, cols);
  };
  const std::size_t queries = config.heads * config.head_dim,
                    keys = config.kv_heads * config.head_dim;
  next("model.embed_tokens", config.vocabulary, config.dim);
  next_of_all_layers("input_layernorm", 1, config.dim);
  next_of_all_layers("self_attn.q_proj", queries, config.dim);
  next_of_all_layers("self_attn.k_proj", keys, config.dim);
  next_of_all_layers("self_attn.v_proj", keys, config.dim);
  next_of_all_layers("self_attn.o_proj", config.dim, queries);
  next_of_all_layers("post_attention_layernorm", 1, config.dim);
  next_of_all_layers("mlp.gate_proj", config.hidden, config.dim);
  next_of_all_layers("mlp.down_proj", config.dim, config.hidden);
  next_of_all_layers("mlp.up_proj", config.hidden, config.dim);
  next("model.norm", 1, config.dim);
  // These are cosines and sines, which the engine computes itself.
  next("rotations", config.context, config.head_dim);
  if (!config.tied_embeddings) next("lm_head", config.vocabulary, config.dim);
  if (offset != file->size())
    fail(path + ": has " + std::to_string(file->size() - offset) +
         " bytes more than a checkpoint of its sizes");

  return {config, [file, offsets](const std::string& name, std::size_t rows, std::size_t cols) {
            Matrix matrix(rows, cols);
            file->read(offsets.at(name), matrix.values.data(),
                       matrix.values.size() * sizeof(float));
            return matrix;
          }};
}

}  // namespace engine
