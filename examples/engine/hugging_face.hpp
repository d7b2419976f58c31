/// Directories as transformers writes them: config.json, and weights in one or several safetensors
/// files.
#pragma once

#include <algorithm>
#include <bit>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "file.hpp"

namespace engine {

/// A 64-bit length, a JSON header of that many bytes that says where each tensor lies, and the
/// tensors.
class SafetensorsFile {
 public:
  explicit SafetensorsFile(const std::string& path);
  /// A vector has one row.
  Matrix read(const std::string& name, std::size_t rows, std::size_t cols) const;

 private:
  File file_;
  Json header_;
  std::uint64_t data_ = 0;  // where the tensors begin
};

inline float from_bf16(std::uint16_t bits) {
  return std::bit_cast<float>(std::uint32_t(bits) << 16);
}

inline float from_fp16(std::uint16_t bits) {
  const std::uint32_t sign = (bits & 0x8000u) << 16, rest = (bits & 0x7fffu) << 13;
  if (rest >= 0x7c00u << 13)
    return std::bit_cast<float>(sign | 0x7f800000u | rest);  // infinite, or not a number
  return std::bit_cast<float>(sign |
                              std::bit_cast<std::uint32_t>(std::bit_cast<float>(rest) * 0x1p112f));
}

inline SafetensorsFile::SafetensorsFile(const std::string& path) : file_(path) {
  std::uint64_t length = 0;
  file_.read(0, &length, sizeof length);
  if (length > file_.size() - sizeof length)
    fail(path + ": a header of " + std::to_string(length) + " bytes in a file of " +
         std::to_string(file_.size()));
  std::string text(length, '\0');
  file_.read(sizeof length, text.data(), text.size());
  header_ = Json::parse(text, nullptr, false);
  if (!header_.is_object()) fail(path + ": its header is not a JSON object");
  data_ = sizeof length + length;
}

inline Matrix SafetensorsFile::read(const std::string& name, std::size_t rows,
                                    std::size_t cols) const {
  const auto refuse = [&](const std::string& why) {
    fail(file_.path() + ": " + name + ": " + why);
  };
  const auto entry = header_.find(name);
  if (entry == header_.end()) refuse("missing");
  std::string type;
  std::vector<std::uint64_t> shape, offsets;
  try {
    type = entry->at("dtype").get<std::string>();
    shape = entry->at("shape").get<std::vector<std::uint64_t>>();
    offsets = entry->at("data_offsets").get<std::vector<std::uint64_t>>();
  } catch (const Json::exception& error) {
    refuse(error.what());
  }
  const bool vector = rows == 1 && shape.size() == 1;
  if (vector ? shape[0] != cols : shape != std::vector<std::uint64_t>{rows, cols})
    refuse("has shape " + Json(shape).dump() + ", expected [" + std::to_string(rows) + "," +
           std::to_string(cols) + "]");
  if (type != "F32" && type != "BF16" && type != "F16")
    refuse("has type " + type + ", only F32, BF16 and F16 are known");
  const std::uint64_t bytes = rows * cols * (type == "F32" ? 4 : 2);
  if (offsets.size() != 2 || offsets[0] > file_.size() || offsets[1] != offsets[0] + bytes ||
      data_ + offsets[1] > file_.size())
    refuse("its " + std::to_string(bytes) + " bytes are said to lie at " + Json(offsets).dump() +
           " of " + std::to_string(file_.size() - data_));

  Matrix matrix(rows, cols);
  if (type == "F32") {
    file_.read(data_ + offsets[0], matrix.values.data(), bytes);
  } else {
    std::vector<std::uint16_t> halves(rows * cols);
    file_.read(data_ + offsets[0], halves.data(), bytes);
    for (std::size_t i = 0; i < halves.size(); ++i)
      matrix.values[i] = type == "BF16" ? from_bf16(halves[i]) : from_fp16(halves[i]);
  }
  return matrix;
}

namespace detail {

template <class T>
T member(const Json& json, const char* key) {
  try {
    return json.at(key).get<T>();
  } catch (const Json::exception& error) {
    fail(std::string(key) + ": " + error.what());
  }
}

/// `otherwise` where it is missing or null.
template <class T>
T member(const Json& json, const char* key, const T& otherwise) {
  return json.contains(key) && !json[key].is_null() ? member<T>(json, key) : otherwise;
}

inline std::optional<RopeScaling> parse_rope_scaling(const Json& rope) {
  const auto type =
      member<std::string>(rope, "rope_type", member<std::string>(rope, "type", "default"));
  if (type == "default") return std::nullopt;
  if (type != "llama3")
    fail("rotary positions are scaled by the method '" + type + "', only llama3 is known");
  return RopeScaling{.factor = member<double>(rope, "factor"),
                     .low_frequency_factor = member<double>(rope, "low_freq_factor"),
                     .high_frequency_factor = member<double>(rope, "high_freq_factor"),
                     .original_context = member<double>(rope, "original_max_position_embeddings")};
}

inline Config parse_config(const Json& json) {
  const auto type = member<std::string>(json, "model_type", "");
  if (type != "llama" && type != "mistral")
    fail("architecture '" + type + "' is not known, only llama and mistral are");
  if (member(json, "attention_bias", false) || member(json, "mlp_bias", false))
    fail("layers with biases are not known");
  const auto activation = member<std::string>(json, "hidden_act", "silu");
  if (activation != "silu") fail("activation '" + activation + "' is not known, only silu is");

  Config config{.dim = member<std::size_t>(json, "hidden_size"),
                .hidden = member<std::size_t>(json, "intermediate_size"),
                .layers = member<std::size_t>(json, "num_hidden_layers"),
                .heads = member<std::size_t>(json, "num_attention_heads"),
                .vocabulary = member<std::size_t>(json, "vocab_size"),
                .context = member<std::size_t>(json, "max_position_embeddings", 2048),
                .norm_epsilon = member(json, "rms_norm_eps", 1e-6f),
                .rope_base = member(json, "rope_theta", 10000.0),
                .tied_embeddings = member(json, "tie_word_embeddings", false)};
  config.kv_heads = member(json, "num_key_value_heads", config.heads);
  config.head_dim = member(json, "head_dim", config.heads > 0 ? config.dim / config.heads : 0);
  // The engine attends to all positions, which is the same as long as they fit the window.
  config.context = std::min(config.context, member(json, "sliding_window", config.context));
  for (const char* key : {"rope_scaling", "rope_parameters"}) {
    const auto rope = member(json, key, Json::object());
    config.rope_base = member(rope, "rope_theta", config.rope_base);
    if (!rope.empty()) config.rope_scaling = parse_rope_scaling(rope);
  }
  const auto end = member(json, "eos_token_id", Json::array());
  config.end = end.is_array() ? end.get<std::vector<Token>>() : std::vector{end.get<Token>()};
  check_config(config);
  return config;
}

}  // namespace detail

inline Checkpoint open_hugging_face(const std::string& directory) {
  const Config config = read_json(directory + "/config.json", detail::parse_config);
  const std::string index_path = directory + "/model.safetensors.index.json";
  const bool sharded = std::filesystem::exists(index_path);
  std::map<std::string, std::string> file_of;  // of each tensor
  if (sharded)
    file_of = read_json(index_path, [](const Json& json) {
      return json.at("weight_map").get<decltype(file_of)>();
    });
  const auto files = std::make_shared<std::map<std::string, SafetensorsFile>>();
  return {config, [=](const std::string& name, std::size_t rows, std::size_t cols) {
            if (sharded && !file_of.contains(name)) fail(index_path + ": " + name + ": missing");
            const std::string file = sharded ? file_of.at(name) : "model.safetensors";
            return files->try_emplace(file, directory + "/" + file)
                .first->second.read(name, rows, cols);
          }};
}

}  // namespace engine
