/// Scaled rotary positions, with which a model takes a longer context than it was first trained
/// for, as GGUF has them.
#pragma once

#include <algorithm>
#include <cmath>
#include <numbers>
#include <string>
#include <string_view>
#include <vector>

#include "cafeq/io/gguf_metadata.hpp"
#include "cafeq/io/json.hpp"
#include "cafeq/io/json_config.hpp"
#include "cafeq/model/model.hpp"

namespace cafeq::detail {

/// How Llama 3.1 scales its rotary positions. A rotation takes 2π base^(i/head_dim) positions for a
/// turn, i = 0, 2, …: it is slowed down by `factor` where that is more than original / low, left
/// alone where it is less than original / high, and in between one goes over into the other.
struct Llama3Scaling {
  double factor;
  double low;       ///< low_freq_factor
  double high;      ///< high_freq_factor
  double original;  ///< original_max_position_embeddings
};

/// The numbers by which llama.cpp divides the frequency of each rotation.
inline std::vector<float> rope_factors(const ModelConfig& config, const Llama3Scaling& scaling) {
  std::vector<float> factors;
  for (Index i = 0; i < config.head_dim; i += 2) {
    const double turn =
        2 * std::numbers::pi * std::pow(config.rope_base, double(i) / double(config.head_dim));
    const double kept = std::clamp(
        (scaling.original / turn - scaling.low) / (scaling.high - scaling.low), 0.0, 1.0);
    factors.push_back(float(1 / ((1 - kept) / scaling.factor + kept)));
  }
  return factors;
}

/// Reads how the config.json at `path` scales rotary positions, and adds it to the metadata. Where
/// GGUF says it by a tensor of factors instead, returns these; else nothing. Raises corrupt where
/// numbers are missing, unsupported for other kinds of scaling.
inline std::vector<float> add_rope_scaling(GgufMetadata& metadata, const std::string& path,
                                           const ModelConfig& config,
                                           std::string_view architecture) {
  const Json root = read_json(path);
  const JsonConfig json(root, path);
  for (const char* member : {"rope_scaling", "rope_parameters"}) {
    const JsonConfig rope = json.object(member);
    const std::string type = rope.text({"rope_type", "type"}).value_or("default");
    if (type == "default") continue;

    const auto number = [&](const char* name) {
      const auto value = rope.number({name});
      if (!value || *value == 0)
        raise(ErrorCode::corrupt, message(path, ": ", member, ": does not say ", name));
      return *value;
    };
    if (type == "linear") {
      metadata.add(message(architecture, ".rope.scaling.type"), GgufValue("linear"));
      metadata.add(message(architecture, ".rope.scaling.factor"),
                   GgufValue(float(number("factor"))));
      return {};
    }
    if (type == "llama3")
      return rope_factors(config, {.factor = number("factor"),
                                   .low = number("low_freq_factor"),
                                   .high = number("high_freq_factor"),
                                   .original = number("original_max_position_embeddings")});
    raise(ErrorCode::unsupported, message(path, ": rotary positions scaled by ", type,
                                          " are not written as GGUF; linear and llama3 are"));
  }
  return {};
}

}  // namespace cafeq::detail
