/// The sentence encoder of examples/encoder, and how far its embeddings move.
#pragma once

#include <fstream>
#include <iterator>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "accuracy/subject.hpp"
#include "encoder/model.hpp"
#include "encoder/sentences.hpp"

namespace cafeq::example {

/// `count` of the distinct fields that are not the third of their line, evenly spread: sentences of
/// all the kinds that a csv file of STS-B holds. Quoted fields may hold commas, quotes (doubled)
/// and ends of lines.
inline std::vector<std::string> read_sentences(const std::string& path, std::size_t count) {
  std::ifstream file(path);
  const std::string text(std::istreambuf_iterator<char>(file), {});
  std::vector<std::string> all;
  std::set<std::string> seen;
  std::string field;
  bool quoted = false;
  int column = 0;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (c == '"' && quoted && i + 1 < text.size() && text[i + 1] == '"') field += text[++i];
    else if (c == '"') quoted = !quoted;
    else if (quoted || (c != ',' && c != '\n')) field += c;
    else {
      if (column < 2 && seen.insert(field).second) all.push_back(field);
      field.clear();
      column = c == '\n' ? 0 : column + 1;
    }
  }
  std::vector<std::string> chosen;
  for (std::size_t i = 0; i < count && count <= all.size(); ++i)
    chosen.push_back(all[i * (all.size() / count)]);
  return chosen;
}

/// f(name, layer) with the dense layers of a part: those of one transformer layer, and with the
/// first one the projection of the residual.
template <class Weights, class F>
void for_each_dense(Weights& weights, std::size_t part, F&& f) {
  auto& layer = weights.layers[part];
  const std::string prefix = message("layers.", part, ".");
  f(prefix + "attn.Wqkv", layer.qkv);
  f(prefix + "attn.Wo", layer.o);
  f(prefix + "mlp.fc1", layer.ffn1);
  f(prefix + "mlp.fc2", layer.ffn2);
  if (part == 0) f("residual", weights.dense);
}

/// Its nine kernels; embeddings and head stay. Layers are parts of their own, since their heads
/// have different sizes.
inline Subject sentence_encoder(SentenceModel model, const std::vector<std::string>& texts) {
  std::vector<TensorModel> parts;
  for (std::size_t part = 0; part < model.weights.layers.size(); ++part) {
    Tensors tensors;
    for_each_dense(model.weights, part, [&](const std::string& name, const Dense& dense) {
      tensors.emplace(name + ".weight", dense.weight);
      tensors.emplace(name + ".bias",
                      to_matrix<float>(as_view(dense.bias.data(), 1, Index(dense.bias.size()))));
    });
    const EncoderLayer& layer = model.weights.layers[part];
    ModelConfig config;
    config.heads = config.kv_heads = layer.heads;
    config.head_dim = layer.head_dim();
    config.attention_doubt.clear();
    parts.emplace_back(std::move(tensors), std::move(config));
  }

  std::vector<Tokens> tokens;
  for (const std::string& text : texts) tokens.push_back(model.tokenize(text));
  const auto measure = [weights = model.weights, tokens,
                        fp32 = encode_all(model.weights, tokens)](const Tensors& with) {
    EncoderWeights changed = weights;
    for (std::size_t part = 0; part < changed.layers.size(); ++part)
      for_each_dense(changed, part, [&](const std::string& name, Dense& dense) {
        dense.weight = with.at(name + ".weight");
        const auto bias = with.at(name + ".bias").row(0);
        dense.bias.assign(bias.begin(), bias.end());
      });
    const Matrix<float> embeddings = encode_all(changed, tokens);
    double sum = 0;
    for (Index i = 0; i < embeddings.rows(); ++i) sum += cosine(embeddings.row(i), fp32.row(i));
    return Quality{.mean_cosine = sum / double(embeddings.rows())};
  };
  return {"use", std::move(parts), measure};
}

}  // namespace cafeq::example
