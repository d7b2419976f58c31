/// How a config.json rotates positions: the bases of its frequencies, and their scaling.
///
/// Up to version 4 transformers writes "rope_theta" and "rope_scaling", from version 5 on
/// "rope_parameters" with both; where layers differ these hold an object for each kind of layer.
#pragma once

#include <string>
#include <string_view>

#include "cafeq/io/complete_config.hpp"
#include "cafeq/io/json_members.hpp"
#include "cafeq/io/rope_scaling.hpp"
#include "cafeq/model/architectures.hpp"
#include "cafeq/model/model.hpp"

namespace cafeq::detail {

/// "default" where nothing is scaled.
inline std::string rope_type(const JsonConfig& rope) {
  const std::string type = rope.text({"rope_type", "type"}).value_or("default");
  return type == "su" ? "longrope" : type;  // as Phi-3 called it first
}
/// Whether read_rope_scaling() knows it.
inline bool is_scaling(std::string_view type) noexcept {
  return type == "linear" || type == "llama3" || type == "yarn" || type == "longrope";
}

/// The scaling of that type; `json` is the whole configuration, `rope` its part about it. Raises
/// corrupt where numbers are missing, or where they are not as many as there are rotations.
inline RopeScaling read_rope_scaling(const JsonConfig& rope, std::string_view type,
                                     const ModelConfig& config, const JsonConfig& json) {
  const Index dims = config.attention.rotary->dims;
  const auto required = [&](const char* name) { return rope.required_number(name); };
  // Phi-3 has it beside the scaling.
  constexpr const char* original_name = "original_max_position_embeddings";
  const Index beside = json.count({original_name}, size_limit),
              within = rope.count({original_name}, size_limit),
              original = beside > 0   ? beside
                         : within > 0 ? within
                                      : config.context;
  if (original <= 1 && type != "linear") rope.fail(original_name);
  RopeScaling scaling;
  if (type == "linear") {
    scaling.factors.assign(std::size_t(dims / 2), required("factor"));
  } else if (type == "llama3") {
    scaling.factors = rope_factors(dims, config.rope_base,
                                   Llama3Scaling{.factor = required("factor"),
                                                 .low = required("low_freq_factor"),
                                                 .high = required("high_freq_factor"),
                                                 .original = required(original_name)});
  } else if (type == "yarn") {
    const YarnScaling yarn{.factor = required("factor"),
                           .original = double(original),
                           .fast = rope.number({"beta_fast"}).value_or(32),
                           .slow = rope.number({"beta_slow"}).value_or(1)};
    scaling.factors = rope_factors(dims, config.rope_base, yarn);
    scaling.magnitude = rope.number({"attention_factor"}).value_or(yarn_magnitude(yarn.factor));
  } else {  // longrope
    scaling.factors = rope.required_numbers("short_factor", dims / 2);
    scaling.long_factors = rope.required_numbers("long_factor", dims / 2);
    scaling.original_context = original;
    const double stretch = double(config.context) / double(original),
                 factor = beside > 0 ? stretch : rope.number({"factor"}).value_or(stretch);
    scaling.magnitude =
        rope.number({"attention_factor"}).value_or(longrope_magnitude(factor, double(original)));
  }
  return scaling;
}

/// Reads the bases, and of a known architecture with rotary positions their scaling.
inline void read_rope(ModelConfig& config, const JsonConfig& json,
                      const Architecture* architecture) {
  const JsonConfig parameters = json.object("rope_parameters");
  const JsonConfig written = parameters.empty() ? json.object("rope_scaling") : parameters;
  const JsonConfig full = written.object("full_attention"),
                   windowed = written.object("sliding_attention");
  const JsonConfig& rope = full.empty() ? written : full;

  const auto base = [&](const JsonConfig& where, JsonConfig::Names beside, double otherwise) {
    return where.number({"rope_theta"}).value_or(json.number(beside).value_or(otherwise));
  };
  const bool is_rotary = architecture != nullptr && architecture->rotary;
  config.rope_base =
      base(rope, {"rope_theta", "rotary_emb_base"}, is_rotary ? architecture->rope_base : 0);
  config.window_rope_base =
      base(windowed, {"rope_local_base_freq"}, is_rotary ? architecture->window_rope_base : 0);
  if (!config.attention.rotary || config.attention.rotary->dims == 0) return;

  const std::string type = rope_type(rope);
  if (is_scaling(type)) config.rope_scaling = read_rope_scaling(rope, type, config, json);
  else if (type != "default")
    config.rope_scaling_doubt = message("rotary positions scaled by ", type,
                                        " are not known; linear, llama3, yarn and longrope are");
  if (rope_type(windowed) != "default")
    config.rope_scaling_doubt =
        message("rotary positions of windowed layers are scaled by ", rope_type(windowed));
}

}  // namespace cafeq::detail
