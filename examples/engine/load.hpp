/// A model from its file: safetensors, GGUF, llama2.c, or what cafeq-quantize writes.
///
/// The library knows what each tensor is, whatever its name and however it is packed; here stand
/// the names of norms, and what is run.
#pragma once

#include <algorithm>
#include <array>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "cafeq/io/model_file.hpp"
#include "cafeq/model/find_roles.hpp"
#include "cafeq/model/load_matrix.hpp"
#include "model.hpp"
#include "packed.hpp"

namespace engine {

/// What multiplies by a matrix of a layer; none where it is to be in floats.
using MakeProduct = std::function<Product(const cafeq::MatrixPlace& place)>;

namespace detail {

using cafeq::ErrorCode;
using cafeq::message;
using cafeq::Role;

inline constexpr std::array<std::string_view, 9> architectures{
    "llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3", "gemma3_text", "phi3"};

/// Norms as a family of models calls them. Empty: it has none.
struct NormNames {
  std::string_view layer;  ///< what stands ahead of a layer's number
  std::string_view attention, query, key, post_attention, mlp, post_mlp, last;
};
inline constexpr NormNames gguf_norms{"blk.",          "attn_norm",           "attn_q_norm",
                                      "attn_k_norm",   "post_attention_norm", "ffn_norm",
                                      "post_ffw_norm", "output_norm"};
inline constexpr NormNames meta_norms{"layers.", "attention_norm", "", "",
                                      "",        "ffn_norm",       "", "norm"};
inline constexpr NormNames transformers_norms{"layers.",
                                              "input_layernorm",
                                              "self_attn.q_norm",
                                              "self_attn.k_norm",
                                              "",
                                              "post_attention_layernorm",
                                              "",
                                              "norm"};
/// Gemma 2 and 3, which normalise what a layer adds, too.
inline constexpr NormNames sandwich_norms{"layers.",
                                          "input_layernorm",
                                          "self_attn.q_norm",
                                          "self_attn.k_norm",
                                          "post_attention_layernorm",
                                          "pre_feedforward_layernorm",
                                          "post_feedforward_layernorm",
                                          "norm"};

template <cafeq::ModelReader Reader>
class Loader {
 public:
  Loader(const Reader& file, std::string name, cafeq::ExecutorRef threads, MakeProduct make = {});
  Model load();
  /// Raises where it is nothing that is run, as far as the configuration and the embedding tell.
  void check() {
    check_config();
    find_names();
  }

 private:
  [[noreturn]] void refuse(std::string_view problem) const {
    raise(ErrorCode::unsupported, message(name_, ": ", problem));
  }
  [[noreturn]] void fail(std::string_view problem) const {
    raise(ErrorCode::corrupt, message(name_, ": ", problem));
  }
  void check_config() const;
  void find_names();
  bool has(const std::string& tensor) const { return tensors_.contains(tensor); }

  Norm norm(const std::string& name, Index size) const;
  Norm layer_norm(Index layer, std::string_view name, Index size) const {
    return name.empty() ? Norm() : norm(message(names_.layer, layer, ".", name), size);
  }
  const cafeq::MatrixRole* find(Role role, Index layer) const;
  Linear linear(Role role, Index layer, Index out, Index in) const;
  Product product(const cafeq::MatrixPlace& place) const;
  Layer layer(Index number) const;

  const Reader& file_;
  std::string name_;  // for messages
  const cafeq::ModelConfig& config_;
  cafeq::ExecutorRef threads_;
  MakeProduct make_;
  cafeq::ModelRoles roles_;
  std::map<std::string, const cafeq::TensorInfo*> tensors_;
  std::string prefix_;  // of all names
  NormNames names_{};
};

template <cafeq::ModelReader Reader>
Loader<Reader>::Loader(const Reader& file, std::string name, cafeq::ExecutorRef threads,
                       MakeProduct make)
    : file_(file),
      name_(std::move(name)),
      config_(file.config()),
      threads_(threads),
      make_(std::move(make)),
      roles_(cafeq::find_roles(file.tensors(), file.config())) {
  for (const cafeq::TensorInfo& tensor : file.tensors()) tensors_.emplace(tensor.name, &tensor);
}

template <cafeq::ModelReader Reader>
void Loader<Reader>::check_config() const {
  if (std::ranges::find(architectures, config_.architecture) == architectures.end()) {
    std::string known;
    for (const std::string_view name : architectures) known += message(" ", name);
    refuse(config_.architecture.empty()
               ? message("no configuration says what it is; a directory needs config.json")
               : message("architecture ", config_.architecture, " is not run; what is:", known));
  }
  if (config_.experts > 0) refuse("mixtures of experts are not run");
  const std::pair<const char*, Index> sizes[] = {{"layers", config_.layers},
                                                 {"hidden size", config_.hidden},
                                                 {"intermediate size", config_.intermediate},
                                                 {"heads", config_.heads},
                                                 {"head size", config_.head_dim}};
  for (const auto& [name, size] : sizes)
    if (size <= 0) fail(message("does not say its ", name));
  if (!config_.attention.rotary || config_.attention.rotary->pairs() == 0)
    refuse("layers without rotary positions are not run");
  if (const auto fault = config_.attention.rotary->fault(config_.head_dim)) fail(fault->message());
  if (!config_.rope_scaling_doubt.empty()) refuse(config_.rope_scaling_doubt);
  if (!config_.mlp.gated || (config_.mlp.activation != cafeq::Activation::silu &&
                             config_.mlp.activation != cafeq::Activation::gelu))
    refuse("of MLPs only those with a gate by SiLU or GELU are run");
}

/// What stands ahead of all names is what stands ahead of the embedding's.
template <cafeq::ModelReader Reader>
void Loader<Reader>::find_names() {
  const cafeq::MatrixRole* embedding = find(Role::embedding, -1);
  if (embedding == nullptr) refuse("has no embedding of tokens");
  const std::string& name = embedding->place.tensor;
  for (const auto& [own, norms] : {std::pair("token_embd.weight", &gguf_norms),
                                   std::pair("tok_embeddings.weight", &meta_norms),
                                   std::pair("embed_tokens.weight", &transformers_norms)})
    if (name.ends_with(own)) {
      prefix_ = name.substr(0, name.size() - std::string_view(own).size());
      names_ = *norms;
    }
  if (names_.layer.empty()) refuse(message("its embedding has the unknown name ", name));
  if (has(message(prefix_, "layers.0.pre_feedforward_layernorm.weight"))) names_ = sandwich_norms;
}

/// None where the model has no tensor of that name.
template <cafeq::ModelReader Reader>
Norm Loader<Reader>::norm(const std::string& name, Index size) const {
  const std::string tensor = message(prefix_, name, ".weight");
  if (!has(tensor)) return {};
  const cafeq::LoadedTensor loaded = file_.load(tensor);
  Norm gains;
  cafeq::detail::with_elements(loaded.view, tensor, [&](auto elements) {
    for (const auto gain : elements) gains.push_back(float(gain) + float(config_.norm_offset));
  });
  if (Index(gains.size()) != size)
    fail(message(tensor, " has ", gains.size(), " entries, expected ", size));
  return gains;
}

template <cafeq::ModelReader Reader>
const cafeq::MatrixRole* Loader<Reader>::find(Role role, Index layer) const {
  const auto found = std::ranges::find_if(roles_.matrices, [&](const cafeq::MatrixRole& matrix) {
    return matrix.role == role && matrix.layer == layer;
  });
  return found == roles_.matrices.end() ? nullptr : &*found;
}

template <cafeq::ModelReader Reader>
Linear Loader<Reader>::linear(Role role, Index layer, Index out, Index in) const {
  const cafeq::MatrixRole* matrix = find(role, layer);
  const std::string which = layer < 0 ? "" : message(" of layer ", layer);
  if (matrix == nullptr) fail(message("has no ", name_of(role), which));
  if (matrix->place.out != out || matrix->place.in != in)
    fail(message("the ", name_of(role), which, " is ", matrix->place.out, " x ", matrix->place.in,
                 ", its configuration says ", out, " x ", in));

  Product multiply;
  if (layer >= 0 && make_) multiply = make_(matrix->place);
  if (!multiply) multiply = product(matrix->place);
  Linear linear{out, std::move(multiply), load_bias(file_, *matrix)};
  file_.release(matrix->place.tensor);
  return linear;
}

template <cafeq::ModelReader Reader>
Product Loader<Reader>::product(const cafeq::MatrixPlace& place) const {
  const Matrix<float> W = load_matrix(file_, place, threads_);
  return kernels().dense(kernels().pack(W.view()));
}

template <cafeq::ModelReader Reader>
Layer Loader<Reader>::layer(Index number) const {
  const Index hidden = config_.hidden, head_dim = config_.head_dim,
              queries = config_.heads * head_dim, keys = config_.kv_heads * head_dim;
  const auto norm = [&](std::string_view name, Index size) {
    return layer_norm(number, name, size);
  };
  const auto weights = [&](Role role, Index out, Index in) {
    return linear(role, number, out, in);
  };
  Layer layer{
      .attention_norm = norm(names_.attention, hidden),
      .query_key_value = {weights(Role::query, queries, hidden), weights(Role::key, keys, hidden),
                          weights(Role::value, keys, hidden)},
      .query_norm = norm(names_.query, head_dim),
      .key_norm = norm(names_.key, head_dim),
      .output = {weights(Role::output, hidden, queries)},
      .post_attention_norm = norm(names_.post_attention, hidden),
      .mlp_norm = norm(names_.mlp, hidden),
      .gate_up = {weights(Role::gate, config_.intermediate, hidden),
                  weights(Role::up, config_.intermediate, hidden)},
      .down = {weights(Role::down, hidden, config_.intermediate)},
      .post_mlp_norm = norm(names_.post_mlp, hidden)};
  if (layer.attention_norm.empty() || layer.mlp_norm.empty())
    fail(message("layer ", number, " has no ",
                 layer.attention_norm.empty() ? names_.attention : names_.mlp));
  return layer;
}

template <cafeq::ModelReader Reader>
Model Loader<Reader>::load() {
  check();
  Model model{
      .config = config_, .embedding = {}, .norm = norm(std::string(names_.last), config_.hidden)};
  if (model.norm.empty()) fail(message("has no ", prefix_, names_.last));
  if (model.config.rope_base == 0) model.config.rope_base = 10000;  // where the file does not say

  const cafeq::MatrixPlace& embedding = find(Role::embedding, -1)->place;
  model.config.vocabulary = embedding.out;
  const Matrix<float> E = load_matrix(file_, embedding, threads_);
  model.embedding = kernels().pack(E.view());
  for (Index l = 0; l < config_.layers; ++l) model.layers.push_back(layer(l));
  model.own_head = find(Role::unembedding, -1) != nullptr && !config_.tied_embeddings;
  model.head = model.own_head
                   ? linear(Role::unembedding, -1, embedding.out, config_.hidden)
                   : Linear{.out = embedding.out, .multiply = kernels().dense(model.embedding)};
  return model;
}

}  // namespace detail

/// The matrices of a model's layers.
inline std::vector<cafeq::MatrixRole> matrices_of_layers(const cafeq::ModelFile& file) {
  auto matrices = cafeq::find_roles(file.tensors(), file.config()).matrices;
  std::erase_if(matrices, [](const cafeq::MatrixRole& matrix) {
    return matrix.layer < 0 || matrix.role > cafeq::Role::down;
  });
  return matrices;
}

/// Weights of layers as `make` makes them, all else in floats. Raises unsupported for what is not
/// run, corrupt where tensors are missing or of other shapes than the configuration says.
inline Model load_model(const cafeq::ModelFile& file, cafeq::ExecutorRef threads = {},
                        MakeProduct make = {}) {
  return detail::Loader(file, file.path(), threads, std::move(make)).load();
}
/// `form` says what becomes of the weights of the layers: stored_weights, float_weights or one of
/// `quantizers`.
inline Model load_model(const cafeq::ModelFile& file, std::string_view form,
                        cafeq::ExecutorRef threads = {}) {
  if (form == float_weights) return load_model(file, threads);
  const auto* packed = file.as<cafeq::QuantizedModelReader>();
  return load_model(file, threads, [&](const cafeq::MatrixPlace& place) -> Product {
    if (form == stored_weights) {
      if (packed == nullptr) return {};
      const auto W = packed->load_quantized(place);
      return W ? packed_weights().packed(*W) : Product();
    }
    const Matrix<float> W = load_matrix(file, place, threads);
    return packed_weights().quantize(form, W.view(), threads);
  });
}
/// Raises where load_model() would refuse the model, without reading its weights.
inline void check_model(const cafeq::ModelFile& file) {
  detail::Loader(file, file.path(), {}).check();
}
/// The same from anything that reads a model, which `name` names in messages.
template <cafeq::ModelReader Reader>
Model load_model(const Reader& reader, const std::string& name, cafeq::ExecutorRef threads) {
  return detail::Loader(reader, name, threads).load();
}

}  // namespace engine
