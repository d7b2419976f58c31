/// Scaled rotary positions in GGUF files: fields of their metadata, or tensors of factors that
/// divide each frequency.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstring>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "cafeq/io/gguf_fields.hpp"
#include "cafeq/io/gguf_file.hpp"
#include "cafeq/io/gguf_metadata.hpp"
#include "cafeq/io/rope_scaling.hpp"
#include "cafeq/model/model.hpp"

namespace cafeq::detail {

/// How many tokens a text had before anything was scaled.
inline Index original_context(const ModelConfig& config, const GgufConfig& fields) {
  const Index original = fields.count("rope.scaling.original_context_length", size_limit);
  return original > 0 ? original : config.context;
}

/// Reads what the fields say of it.
inline void read_rope_scaling(ModelConfig& config, const GgufConfig& fields) {
  if (!config.attention.rotary) return;
  const Index dims = config.attention.rotary->dims;
  RopeScaling& scaling = config.rope_scaling;
  scaling.magnitude = fields.number("rope.scaling.attn_factor", 1);

  const std::string_view type = fields.text("rope.scaling.type").value_or("linear");
  const double old_factor = fields.number("rope.scale_linear"),
               factor = fields.number("rope.scaling.factor", old_factor);
  if (type == "none" || type == "longrope" || factor == 0) return;
  if (type == "linear") {
    if (factor != 1) scaling.factors.assign(std::size_t(dims / 2), factor);
  } else if (type == "yarn") {
    scaling.factors = rope_factors(
        dims, config.rope_base,
        YarnScaling{.factor = factor, .original = double(original_context(config, fields))});
    scaling.magnitude *= yarn_magnitude(factor);
  } else {
    config.rope_scaling_doubt = message("rotary positions scaled by ", type,
                                        " are not known; linear, yarn and longrope are");
  }
}

/// The factors of a tensor times those that the fields say; none where there is no such tensor.
/// Raises corrupt unless there is one above 0 for each rotation.
inline std::vector<double> rope_factors_in(const GgufReader& file, std::string_view name,
                                           const ModelConfig& config) {
  const GgufTensor* tensor = file.find(name);
  if (tensor == nullptr) return {};
  const Index pairs = config.attention.rotary->pairs();
  std::vector<float> stored(std::size_t(std::max<Index>(pairs, 0)));
  const bool fits =
      tensor->type == GgufType::f32 && tensor->data.size() == stored.size() * sizeof(float);
  if (fits) std::memcpy(stored.data(), tensor->data.data(), tensor->data.size());
  if (!fits || !std::all_of(stored.begin(), stored.end(),
                            [](float factor) { return factor > 0 && std::isfinite(factor); }))
    raise(ErrorCode::corrupt,
          message("tensor ", name, " must be ", pairs, " factors above 0 as F32"));
  std::vector<double> factors(stored.begin(), stored.end());
  const std::vector<double>& fields = config.rope_scaling.factors;
  for (std::size_t i = 0; i < fields.size(); ++i) factors[i] *= fields[i];
  return factors;
}

/// Reads what the tensors say of it.
inline void read_rope_factors(ModelConfig& config, const GgufConfig& fields,
                              const GgufReader& file) {
  if (!config.attention.rotary) return;
  RopeScaling& scaling = config.rope_scaling;
  std::vector<double> always = rope_factors_in(file, "rope_freqs.weight", config),
                      up_to = rope_factors_in(file, "rope_factors_short.weight", config),
                      beyond = rope_factors_in(file, "rope_factors_long.weight", config);
  if (!always.empty()) scaling.factors = std::move(always);
  else if (!up_to.empty() && !beyond.empty()) {
    scaling.factors = std::move(up_to);
    scaling.long_factors = std::move(beyond);
    scaling.original_context = original_context(config, fields);
  }
}

/// Adds the scaling of `config` to the metadata. Where GGUF says it by a tensor of factors instead,
/// returns these; else nothing. Raises unsupported, naming the model's `path`, for what is not
/// written.
inline std::vector<float> add_rope_scaling(GgufMetadata& metadata, const std::string& path,
                                           const ModelConfig& config,
                                           std::string_view architecture) {
  const RopeScaling& scaling = config.rope_scaling;
  if (!config.rope_scaling_doubt.empty())
    raise(ErrorCode::unsupported, message(path, ": ", config.rope_scaling_doubt));
  if (!scaling.long_factors.empty() || scaling.magnitude != 1)
    raise(ErrorCode::unsupported,
          message(path,
                  ": rotary positions scaled by yarn or longrope are not written as GGUF; "
                  "linear and llama3 are"));
  const std::vector<double>& factors = scaling.factors;
  if (factors.empty()) return {};
  if (std::all_of(factors.begin(), factors.end(), [&](double f) { return f == factors[0]; })) {
    metadata.add(message(architecture, ".rope.scaling.type"), GgufValue("linear"));
    metadata.add(message(architecture, ".rope.scaling.factor"), GgufValue(float(factors[0])));
    return {};
  }
  if (architecture != "llama")
    raise(ErrorCode::unsupported, message(path,
                                          ": scales rotary positions by a factor each, which "
                                          "llama.cpp does not for ",
                                          architecture));
  return {factors.begin(), factors.end()};
}

}  // namespace cafeq::detail
