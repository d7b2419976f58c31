// generate-model: a model of the Llama architecture with random weights, as a directory of Hugging
// Face, to try the tool on.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <numbers>
#include <string>
#include <vector>

#include "cafeq/core/rng.hpp"
#include "cafeq/core/thread_pool.hpp"
#include "cafeq/io/sharded_safetensors.hpp"
#include "support/program.hpp"

namespace {

using namespace cafeq;

struct Options {
  std::string directory;
  Index hidden = 2048, intermediate = 5632, layers = 22, heads = 32, kv_heads = 4,
        vocabulary = 32000;
  std::uint64_t seed = 0;
  bool fp32 = false;
  Index shard_bytes = 1'000'000'000;
};

std::string config_of(const Options& o) {
  const detail::Json config{{"architectures", {"LlamaForCausalLM"}},
                            {"model_type", "llama"},
                            {"hidden_act", "silu"},
                            {"hidden_size", o.hidden},
                            {"intermediate_size", o.intermediate},
                            {"max_position_embeddings", 2048},
                            {"num_attention_heads", o.heads},
                            {"num_hidden_layers", o.layers},
                            {"num_key_value_heads", o.kv_heads},
                            {"rms_norm_eps", 1e-5},
                            {"rope_theta", 10000.0},
                            {"tie_word_embeddings", false},
                            {"torch_dtype", o.fp32 ? "float32" : "bfloat16"},
                            {"vocab_size", o.vocabulary}};
  return config.dump(2) + "\n";
}

std::vector<SafetensorsEntry> entries_of(const Options& o) {
  std::vector<SafetensorsEntry> entries;
  const auto add = [&](const std::string& name, std::vector<Index> shape) {
    entries.push_back(
        {name + ".weight", o.fp32 ? ScalarType::f32 : ScalarType::bf16, std::move(shape)});
  };
  const Index kv_width = o.hidden / o.heads * o.kv_heads;
  add("model.embed_tokens", {o.vocabulary, o.hidden});
  for (Index l = 0; l < o.layers; ++l) {
    const std::string layer = message("model.layers.", l, ".");
    add(layer + "self_attn.q_proj", {o.hidden, o.hidden});
    add(layer + "self_attn.k_proj", {kv_width, o.hidden});
    add(layer + "self_attn.v_proj", {kv_width, o.hidden});
    add(layer + "self_attn.o_proj", {o.hidden, o.hidden});
    add(layer + "mlp.gate_proj", {o.intermediate, o.hidden});
    add(layer + "mlp.up_proj", {o.intermediate, o.hidden});
    add(layer + "mlp.down_proj", {o.hidden, o.intermediate});
    add(layer + "input_layernorm", {o.hidden});
    add(layer + "post_attention_layernorm", {o.hidden});
  }
  add("model.norm", {o.hidden});
  add("lm_head", {o.vocabulary, o.hidden});
  return entries;
}

/// Student's t with 4 degrees of freedom, times 0.02: its value at each of 2^16 quantiles. W. T.
/// Shaw, "Sampling Student's T distribution", 2006.
std::vector<bf16> heavy_tailed_quantiles() {
  std::vector<bf16> values;
  for (int i = 0; i < 1 << 16; ++i) {
    const double p = (i + 0.5) / (1 << 16);
    const double a = std::sqrt(4 * p * (1 - p));
    const double t = 2 * std::sqrt(std::cos(std::acos(a) / 3) / a - 1);
    values.emplace_back(float(p < 0.5 ? -0.02 * t : 0.02 * t));
  }
  return values;
}

void write_model(const Options& o) {
  ThreadPool executor;
  const auto quantiles = heavy_tailed_quantiles();
  const auto entries = entries_of(o);
  ShardedSafetensorsWriter writer(o.directory, entries, {{"format", "pt"}}, o.shard_bytes);
  std::vector<bf16> weights;
  for (const auto& [name, type, shape] : entries) {
    weights.assign(std::size_t(*element_count(shape)), bf16(1.0f));
    if (shape.size() > 1) {
      const CounterRng rng(o.seed, stream_of(name));
      executor.parallel_for(Index(weights.size()), 1 << 16, [&](Index begin, Index end, Index) {
        for (Index i = begin; i < end; i += 8) {
          const auto random = rng.block(std::uint64_t(i));
          for (Index k = 0; k < std::min<Index>(8, end - i); ++k)
            weights[std::size_t(i + k)] =
                quantiles[random[std::size_t(k / 2)] >> (k % 2 * 16) & 0xffff];
        }
      });
    }
    if (o.fp32) {
      const std::vector<float> wide(weights.begin(), weights.end());
      writer.write(name, std::as_bytes(std::span(wide)));
    } else {
      writer.write(name, std::as_bytes(std::span(weights)));
    }
  }
  AtomicFile config(o.directory + "/config.json");
  const std::string text = config_of(o);
  config.write(std::as_bytes(std::span(text)));
  writer.commit();
  config.commit();
}

int run(int argc, char** argv) {
  Options options;
  CLI::App app{"Writes a Llama model with random, heavy-tailed weights."};
  app.add_option("DIRECTORY", options.directory, "where to; must exist")
      ->required()
      ->check(CLI::ExistingDirectory);
  const auto size = [&](const char* name, Index& value) {
    app.add_option(name, value)->check(CLI::Range(1, 1 << 20))->capture_default_str();
  };
  size("--hidden", options.hidden);
  size("--intermediate", options.intermediate);
  size("--layers", options.layers);
  size("--heads", options.heads);
  size("--kv-heads", options.kv_heads);
  size("--vocabulary", options.vocabulary);
  app.add_flag("--fp32", options.fp32, "numbers of bf16 as fp32");
  app.add_option("--seed", options.seed)->capture_default_str();
  app.add_option("--shard-bytes", options.shard_bytes, "most in a file")->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  write_model(options);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  return cafeq::example::run_program("generate-model", run, argc, argv);
}
