// interop-models: makes the models that scripts/interop runs in llama.cpp and in the example
// engine, and turns them into each other.
#include <CLI/CLI.hpp>
#include <array>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "cafeq/core/rng.hpp"
#include "cafeq/io/model_file.hpp"
#include "cafeq/model/quantize_model.hpp"
#include "support/program.hpp"

namespace {

using namespace cafeq;

struct Name {
  std::string_view checkpoint, gguf, transformers;
};
constexpr std::array names{Name{"tok_embeddings", "token_embd", "model.embed_tokens"},
                           Name{"norm", "output_norm", "model.norm"},
                           Name{"output", "output", "lm_head"},
                           Name{"layers.", "blk.", "model.layers."},
                           Name{"attention_norm", "attn_norm", "input_layernorm"},
                           Name{"attention.wq", "attn_q", "self_attn.q_proj"},
                           Name{"attention.wk", "attn_k", "self_attn.k_proj"},
                           Name{"attention.wv", "attn_v", "self_attn.v_proj"},
                           Name{"attention.wo", "attn_output", "self_attn.o_proj"},
                           Name{"ffn_norm", "ffn_norm", "post_attention_layernorm"},
                           Name{"feed_forward.w1", "ffn_gate", "mlp.gate_proj"},
                           Name{"feed_forward.w2", "ffn_down", "mlp.down_proj"},
                           Name{"feed_forward.w3", "ffn_up", "mlp.up_proj"}};

std::string_view translated(std::string_view part, std::string_view Name::* scheme) {
  for (const Name& name : names)
    if (name.checkpoint == part) return name.*scheme;
  raise(ErrorCode::invalid_argument, message("no tensor is named ", part));
}

/// "layers.3.attention.wq.weight" in another scheme.
std::string translate(std::string_view name, std::string_view Name::* scheme) {
  constexpr std::string_view layers = "layers.", weight = ".weight";
  name.remove_suffix(weight.size());
  if (!name.starts_with(layers)) return message(translated(name, scheme), weight);
  name.remove_prefix(layers.size());
  const std::size_t dot = name.find('.');
  return message(translated(layers, scheme), name.substr(0, dot), ".",
                 translated(name.substr(dot + 1), scheme), weight);
}

bool is_rotary_table(std::string_view name) { return name.starts_with("freq_cis"); }

/// Random weights, a few of them large, of a model that is sure enough of its predictions for
/// errors to show, but not so sure that what llama.cpp loses by rounding activations to 8 bits is
/// all that shows.
void generate(const std::string& path, const Llama2cHeader& header, std::uint64_t seed) {
  Llama2cWriter writer(path, header);
  detail::for_each_llama2c_tensor(
      header, [&](const std::string& name, const std::vector<Index>& shape, Index) {
        const CounterRng value(seed, stream_of(name)), luck(~seed, stream_of(name));
        const bool norm = shape.size() == 1;
        const double gain = name == "output.weight"           ? 2
                            : name == "tok_embeddings.weight" ? std::sqrt(double(header.hidden))
                                                              : 1;
        std::vector<float> weights(std::size_t(*element_count(shape)));
        for (std::size_t i = 0; i < weights.size(); ++i) {
          const double x = value.normal(i) * (luck.below(i, 100) == 0 ? 4 : 1);
          weights[i] = float(norm ? 1 + 0.1 * x : gain * x / std::sqrt(double(shape.back())));
        }
        writer.write(name, std::as_bytes(std::span(weights)));
      });
  writer.commit();
}

/// A GGUF file's weights, dequantized by the library.
void read_back(const std::string& from, const std::string& to) {
  const ModelFile model(from);
  const ModelConfig& config = model.config();
  Llama2cHeader header{.hidden = config.hidden,
                       .intermediate = config.intermediate,
                       .layers = config.layers,
                       .heads = config.heads,
                       .kv_heads = config.kv_heads,
                       .vocabulary = config.vocabulary,
                       .context = config.context};
  header.tied_embeddings =
      std::none_of(model.tensors().begin(), model.tensors().end(),
                   [](const TensorInfo& t) { return t.name == "output.weight"; });
  Llama2cWriter writer(to, header);
  detail::for_each_llama2c_tensor(
      header, [&](const std::string& name, const std::vector<Index>&, Index bytes) {
        std::vector<float> weights(std::size_t(bytes) / sizeof(float));
        if (!is_rotary_table(name)) {
          const std::string in_file = translate(name, &Name::gguf);
          const LoadedTensor tensor = model.load(in_file);
          detail::with_elements(tensor.view, in_file, [&](auto elements) {
            std::copy(elements.begin(), elements.end(), weights.begin());
          });
        }
        writer.write(name, std::as_bytes(std::span(weights)));
      });
  writer.commit();
}

/// Rows of each head: all that are rotated as x, then all that are rotated as y.
std::vector<float> half_split(std::span<const float> rows, Index cols, Index head_dim) {
  std::vector<float> result(rows.size());
  for (Index i = 0; i < Index(rows.size()) / cols; ++i) {
    const Index head = i / head_dim, j = i % head_dim;
    const auto row = rows.subspan(std::size_t(i * cols), std::size_t(cols));
    std::copy(row.begin(), row.end(),
              result.begin() + (head * head_dim + j % 2 * (head_dim / 2) + j / 2) * cols);
  }
  return result;
}

/// A directory of transformers with the weights of a checkpoint, in bf16 if that is wanted.
/// `changes` go into its config.json. Qwen2's biases are zero.
void write_hugging_face(const std::string& from, const std::string& directory, bool bf16_elements,
                        const std::string& changes) {
  const Llama2cReader checkpoint(from);
  const Llama2cHeader& h = checkpoint.header();
  detail::Json config{{"model_type", "llama"},
                      {"hidden_size", h.hidden},
                      {"intermediate_size", h.intermediate},
                      {"num_hidden_layers", h.layers},
                      {"num_attention_heads", h.heads},
                      {"num_key_value_heads", h.kv_heads},
                      {"vocab_size", h.vocabulary},
                      {"max_position_embeddings", h.context},
                      {"rms_norm_eps", 1e-5},
                      {"rope_theta", 10000.0},
                      {"hidden_act", "silu"},
                      {"tie_word_embeddings", h.tied_embeddings}};
  config.update(detail::parse_json(changes, "--config"));

  TensorMap tensors;
  const auto add = [&](const std::string& name, const std::vector<Index>& shape,
                       const std::vector<float>& values) {
    const auto as = [&](const auto& elements) {
      const auto bytes = std::as_bytes(std::span(elements));
      tensors.emplace(name,
                      Tensor{scalar_type_of<typename std::decay_t<decltype(elements)>::value_type>,
                             shape,
                             {bytes.begin(), bytes.end()}});
    };
    if (bf16_elements) as(std::vector<bf16>(values.begin(), values.end()));
    else as(values);
  };
  for (const Llama2cTensor& tensor : checkpoint.tensors()) {
    if (is_rotary_table(tensor.name)) continue;
    const std::string name = translate(tensor.name, &Name::transformers);
    const auto values = tensor.view.values<float>(tensor.name);
    const bool rotated = name.find("q_proj") != name.npos || name.find("k_proj") != name.npos;
    add(name, tensor.view.shape,
        rotated ? half_split(values, tensor.view.shape.back(), h.head_dim())
                : std::vector<float>(values.begin(), values.end()));
    if (config["model_type"] != "qwen2" || !(rotated || name.find("v_proj") != name.npos)) continue;
    add(name.substr(0, name.rfind('.')) + ".bias", {tensor.view.shape.front()},
        std::vector<float>(std::size_t(tensor.view.shape.front())));
  }
  TensorViewMap views;
  for (const auto& [name, tensor] : tensors) views.emplace(name, tensor.view());
  std::filesystem::create_directories(directory);
  write_safetensors(directory + "/model.safetensors", views);
  write_file(directory + "/config.json", config.dump(2));
}

int run(int argc, char** argv) {
  std::string from, to, changes = "{}";
  Llama2cHeader header{.hidden = 256,
                       .intermediate = 512,
                       .layers = 3,
                       .heads = 4,
                       .kv_heads = 2,
                       .vocabulary = 512,
                       .context = 256};
  header.tied_embeddings = false;
  std::uint64_t seed = 0;
  bool bf16_elements = false;

  CLI::App app{"Makes models, and turns them into each other."};
  app.require_subcommand(1);
  CLI::App* const making =
      app.add_subcommand("generate", "A llama2.c checkpoint with random weights.");
  making->add_option("TO", to)->required();
  making->add_option("--seed", seed);
  making->callback([&] { generate(to, header, seed); });
  CLI::App* const reading = app.add_subcommand(
      "read-back", "A llama2.c checkpoint with the dequantized weights of a GGUF file.");
  reading->add_option("FROM", from)->required();
  reading->add_option("TO", to)->required();
  reading->callback([&] { read_back(from, to); });
  CLI::App* const splitting = app.add_subcommand(
      "hugging-face", "A directory of transformers with the weights of a llama2.c checkpoint.");
  splitting->add_option("FROM", from)->required();
  splitting->add_option("TO", to)->required();
  splitting->add_option("--config", changes, "what config.json is to say instead, as JSON");
  splitting->add_flag("--bf16", bf16_elements);
  splitting->callback([&] { write_hugging_face(from, to, bf16_elements, changes); });
  CLI11_PARSE(app, argc, argv);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  return cafeq::example::run_program("interop-models", run, argc, argv);
}
