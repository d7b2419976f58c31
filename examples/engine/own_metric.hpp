/// The metric of a model's inputs without data: from texts that the model writes itself, or from
/// random tokens.
///
/// All inputs are those of the model as it is, in one pass over its layers. Memory: the model, a
/// state for each token of all texts, and the Grams of one layer.
#pragma once

#include <algorithm>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "cafeq/core/rng.hpp"
#include "cafeq/io/gram_file.hpp"
#include "cafeq/model/find_roles.hpp"
#include "cafeq/model/fingerprint.hpp"
#include "cafeq/run/run_options.hpp"
#include "engine.hpp"
#include "generate.hpp"

namespace engine {

struct MetricTexts {
  bool random = false;             ///< random tokens instead of what the model writes
  Index count = 32, length = 512;  ///< texts, and tokens in each
  std::uint64_t seed = 0;
  cafeq::GramKind kind = cafeq::GramKind::whole;

  /// Tokens in each text of a model, which has a context.
  Index length_in(const cafeq::ModelConfig& config) const {
    return config.context > 0 ? std::min(length, config.context) : length;
  }
};

namespace detail {

using Inputs = std::map<std::pair<Index, cafeq::Role>, cafeq::GramEntry>;

/// What the linear layers of a model read, by layer and first_reader().
inline Inputs inputs_of(const cafeq::ModelFile& file, const MetricTexts& texts) {
  Inputs inputs;
  const Index length = texts.length_in(file.config());
  for (const auto& matrix : cafeq::find_roles(file.tensors(), file.config()).matrices) {
    if (matrix.layer < 0 || matrix.expert >= 0 || matrix.role > cafeq::Role::down) continue;
    auto& input = inputs[{matrix.layer, cafeq::first_reader(matrix.role)}];
    const std::string& name = matrix.place.tensor;
    if (input.name.empty())
      input = {.name = name,
               .dim = matrix.place.in,
               .kind = texts.kind,
               .count = std::int64_t(texts.count * length)};
    else if (input.name != name && std::ranges::find(input.readers, name) == input.readers.end())
      input.readers.push_back(name);
  }
  return inputs;
}

/// About what it takes to run all the texts, in bytes: the model in floats, states, keys and values
/// of all tokens, logits, and the Grams of a layer.
inline Index memory_of(const cafeq::ModelFile& file, const MetricTexts& texts) {
  const cafeq::ModelConfig& c = file.config();
  const Index tokens = texts.count * texts.length;
  Index floats = 0, gram = 0;
  for (const auto& tensor : file.tensors())
    floats += cafeq::element_count(tensor.shape).value_or(0);
  floats += tokens * (c.hidden + (texts.random ? 0 : 2 * c.kv_heads * c.head_dim * c.layers));
  floats += texts.count * c.vocabulary;
  for (const Index n : {c.hidden, c.hidden, c.heads * c.head_dim, c.intermediate})
    gram += texts.kind == cafeq::GramKind::whole ? n * n : n;
  return Index(sizeof(float)) * floats + Index(sizeof(double)) * gram;
}

}  // namespace detail

/// Texts that begin with the vocabulary's first token, or token 0 where it has none.
inline std::vector<Tokens> metric_texts(const Transformer& transformer, Token begin,
                                        const MetricTexts& wanted,
                                        const std::function<void()>& written = {}) {
  std::vector<Tokens> texts(std::size_t(wanted.count), {begin});
  if (!wanted.random) {
    generate(transformer, texts, {.tokens = wanted.length - 1, .seed = wanted.seed},
             [&](std::size_t, Token) {
               if (written) written();
             });
    return texts;
  }
  const cafeq::ModelConfig& config = transformer.model().config;
  const Index length = wanted.length_in(config);
  const cafeq::CounterRng rng(wanted.seed, 1);
  std::uint64_t drawn = 0;
  for (Tokens& text : texts)
    while (Index(text.size()) < length) {
      text.push_back(Token(rng.below(drawn++, std::uint64_t(config.vocabulary))));
      if (written) written();
    }
  return texts;
}

/// Writes the Grams of what the layers of a model read on these texts. `done` is told of each layer
/// that is.
inline void write_metric(const std::string& path, const cafeq::ModelFile& file,
                         const Transformer& transformer, std::span<const Tokens> texts,
                         const MetricTexts& wanted, const std::function<void()>& done = {}) {
  detail::Inputs inputs = detail::inputs_of(file, wanted);
  std::int64_t count = 0;
  for (const Tokens& text : texts) count += std::int64_t(text.size());
  std::vector<cafeq::GramEntry> entries;
  for (auto& [place, input] : inputs) {
    input.count = count;
    entries.push_back(input);
  }
  cafeq::GramFileWriter writer(path, entries, cafeq::fingerprint_of(file));

  std::map<cafeq::Role, cafeq::InputGram> grams;  // of the layer that is at work
  Index at_work = 0;
  const auto watch = [&](Index layer) -> Watch {
    at_work = layer;
    grams.clear();
    return [&](cafeq::Role reader, View<const float> x) {
      const auto input = inputs.find({at_work, reader});
      if (input == inputs.end()) return;
      auto& gram = grams.try_emplace(reader, input->second.dim, wanted.kind).first->second;
      kernels().add_inputs(gram, x, transformer.threads());
    };
  };
  transformer.observe(texts, watch, [&](Index layer) {
    for (const auto& [reader, gram] : grams) writer.write(inputs.at({layer, reader}).name, gram);
    if (done) done();
  });
  writer.commit();
}

/// For a run that quantizes a model which this engine knows; `tokenizer` where the model has none
/// of its own. Nothing is done before the run asks for it. Raises as check_model().
inline cafeq::MetricMaker metric_maker(const std::string& path, const MetricTexts& wanted,
                                       cafeq::ExecutorRef threads,
                                       const std::string& tokenizer = {}) {
  const cafeq::ModelFile file(path);
  check_model(file);
  cafeq::MetricMaker maker;
  for (const auto& [place, input] : detail::inputs_of(file, wanted)) maker.inputs.push_back(input);
  maker.description =
      cafeq::message(wanted.random ? "random tokens, " : "the model's own text, ", wanted.count,
                     " x ", wanted.length, " tokens, seed ", wanted.seed,
                     wanted.kind == cafeq::GramKind::diagonal ? ", diagonal" : "");
  maker.memory = detail::memory_of(file, wanted);
  const Token begin = first_token(file, tokenizer);

  maker.make = [=](const std::string& to, const cafeq::RunProgress& progress) {
    const Engine engine(path, threads);
    const double tokens = double(wanted.count * (wanted.length_in(engine.model.config) - 1));
    double written = 0, layers = 0;
    const auto texts = metric_texts(engine.transformer, begin, wanted, [&] {
      if (progress) progress("writing texts", ++written, tokens);
    });
    write_metric(to, engine.file, engine.transformer, texts, wanted, [&] {
      if (progress) progress("reading them", ++layers, double(engine.model.layers.size()));
    });
  };
  return maker;
}

}  // namespace engine
