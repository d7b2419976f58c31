/// How much a model loses by an error in each of its matrices: what tells which of them need more
/// bits. No data: the texts are the model's own.
///
/// A matrix W gets Gaussian noise E of a small share t of its energy, ‖E‖² = t ‖W‖². The loss is
/// KL(model ‖ model with that) of the next token, in nats, the mean of all tokens of the texts. It
/// grows with t, so that the sensitivity α = KL / t is kept: an error that has ρ times the effect
/// on the layer's outputs that noise of all of W's energy has costs α ρ.
#pragma once

#include <algorithm>
#include <cmath>
#include <functional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "cafeq/core/rng.hpp"
#include "cafeq/io/sensitivities_file.hpp"
#include "cafeq/model/fingerprint.hpp"
#include "cafeq/model/load_matrix.hpp"
#include "cafeq/run/run_options.hpp"
#include "evaluate.hpp"
#include "load.hpp"
#include "own_metric.hpp"

namespace engine {

struct SensitivityOptions {
  Index count = 2, length = 128;  ///< texts, and tokens in each
  double energy = 0.02;           ///< t
  std::uint64_t seed = 0;         ///< of texts and noise
};

namespace detail {

/// W + E; the same for any number of threads.
inline Matrix<float> with_noise(Matrix<float> W, double energy, std::uint64_t seed,
                                std::uint64_t number, cafeq::ExecutorRef threads) {
  double squares = 0;
  for (Index i = 0; i < W.size(); ++i) squares += double(W.data()[i]) * double(W.data()[i]);
  const double deviation = std::sqrt(energy * squares / double(W.size()));
  const cafeq::CounterRng rng(seed, number);
  threads.parallel_for(W.size(), 4096, [&](Index begin, Index end, Index) {
    for (Index i = begin; i < end; ++i)
      W.data()[i] += float(deviation * rng.normal(std::uint64_t(i)));
  });
  return W;
}

/// Logits of all states, and log Σ exp of each row of them.
struct Predictions {
  Predictions(const Transformer& transformer, View<const float> states)
      : logits(states.rows, transformer.model().config.vocabulary), sums(std::size_t(states.rows)) {
    transformer.logits(states, logits.view());
    transformer.threads().parallel_for(states.rows, 4, [&](Index begin, Index end, Index) {
      for (; begin < end; ++begin)
        sums[std::size_t(begin)] = finite(kernels().log_sum_exp(logits.row(begin)));
    });
  }
  /// The mean of KL(this ‖ other).
  double divergence(const Predictions& other, cafeq::ExecutorRef threads) const {
    std::vector<double> each(sums.size());
    threads.parallel_for(Index(each.size()), 4, [&](Index begin, Index end, Index) {
      for (; begin < end; ++begin) {
        const auto i = std::size_t(begin);
        each[i] = kernels().divergence(logits.row(begin), sums[i], other.logits.row(begin),
                                       other.sums[i]);
      }
    });
    return mean_of(each).value;
  }

  Matrix<float> logits;
  std::vector<double> sums;
};

}  // namespace detail

/// The matrices of the layers, the embedding and the head, which costs nothing where the embedding
/// takes its place.
inline std::vector<cafeq::MatrixRole> matrices_to_disturb(const cafeq::ModelFile& file) {
  auto matrices = matrices_of_layers(file);
  for (auto& matrix : cafeq::find_roles(file.tensors(), file.config()).matrices)
    if (matrix.layer < 0 &&
        (matrix.role == cafeq::Role::embedding || matrix.role == cafeq::Role::unembedding))
      matrices.push_back(std::move(matrix));
  return matrices;
}

/// Those of all of these matrices, of the file that the transformer's model is from. `done` is told
/// of each. Time: for each matrix a pass from its layer on. Memory: the states that each layer
/// takes in, and logits of all tokens twice.
inline cafeq::Sensitivities sensitivities(const cafeq::ModelFile& file,
                                          const Transformer& transformer,
                                          std::span<const Tokens> texts,
                                          const SensitivityOptions& options,
                                          const std::function<void()>& done = {}) {
  const cafeq::ExecutorRef threads = transformer.threads();
  std::vector<Text> fresh(texts.size());
  std::vector<Part> parts;
  for (std::size_t i = 0; i < texts.size(); ++i) parts.push_back({&fresh[i], texts[i]});
  const auto begin_again = [&] { std::ranges::fill(fresh, Text()); };

  std::vector<Matrix<float>> states(transformer.model().layers.size());
  const Matrix<float> clean = transformer.forward(
      parts, [&](Index layer, const Matrix<float>& x) { states[std::size_t(layer)] = x; });
  const detail::Predictions expected(transformer, clean.view());

  std::vector<cafeq::Sensitivity> found;
  for (const cafeq::MatrixRole& matrix : matrices_to_disturb(file)) {
    const cafeq::MatrixPlace& place = matrix.place;
    const Matrix<float> W = detail::with_noise(load_matrix(file, place, threads), options.energy,
                                               options.seed, found.size() + 2, threads);
    file.release(place.tensor);
    const Model noisy = with_weights(transformer.model(), matrix, W.view());
    const Transformer other(noisy, threads);
    begin_again();
    const auto after = [&] {
      if (matrix.role == cafeq::Role::unembedding) return clean;
      if (matrix.layer < 0) return other.forward(parts);
      return other.forward_from(matrix.layer, states[std::size_t(matrix.layer)], parts);
    };
    const Matrix<float> h = after();
    const double loss = expected.divergence(detail::Predictions(other, h.view()), threads);
    found.push_back({place.tensor, place.slice, place.begin, place.out, loss / options.energy});
    if (done) done();
  }
  return cafeq::Sensitivities(std::move(found), cafeq::fingerprint_of(file));
}

/// Writes the file, with how it was made.
inline void write_sensitivities(const std::string& path, const cafeq::Sensitivities& found,
                                const SensitivityOptions& options) {
  auto json = to_json(found);
  json["texts"] = options.count;
  json["tokens"] = options.length;
  json["energy"] = options.energy;
  json["seed"] = options.seed;
  cafeq::write_file(path, json.dump(1) + "\n");
}

namespace detail {

/// About what it takes, in bytes, beside the model: states of all layers, and logits twice.
inline Index memory_of(const cafeq::ModelFile& file, const SensitivityOptions& options) {
  const cafeq::ModelConfig& c = file.config();
  const Index tokens = options.count * options.length;
  return memory_of(file, MetricTexts{.count = options.count, .length = options.length}) +
         Index(sizeof(float)) * tokens * (c.layers * c.hidden + 2 * c.vocabulary);
}

}  // namespace detail

/// For a run that quantizes a model which this engine knows, as metric_maker().
inline cafeq::SensitivityMaker sensitivity_maker(const std::string& path,
                                                 const SensitivityOptions& options,
                                                 cafeq::ExecutorRef threads,
                                                 const std::string& tokenizer = {}) {
  const cafeq::ModelFile file(path);
  check_model(file);
  const Token begin = first_token(file, tokenizer);
  cafeq::SensitivityMaker maker{
      .description = cafeq::message("noise of ", options.energy, " on ", options.count, " x ",
                                    options.length, " tokens, seed ", options.seed),
      .memory = detail::memory_of(file, options)};
  maker.make = [=](const std::string& to, const cafeq::RunProgress& progress) {
    const Engine engine(path, threads);
    const MetricTexts wanted{
        .count = options.count, .length = options.length, .seed = options.seed};
    const double tokens = double(wanted.count * (wanted.length_in(engine.model.config) - 1));
    double written = 0, tried = 0;
    const auto texts = metric_texts(engine.transformer, begin, wanted, [&] {
      if (progress) progress("writing short texts", ++written, tokens);
    });
    const double matrices = double(matrices_to_disturb(engine.file).size());
    const auto found = sensitivities(engine.file, engine.transformer, texts, options, [&] {
      if (progress) progress("disturbing matrices", ++tried, matrices);
    });
    write_sensitivities(to, found, options);
  };
  return maker;
}

}  // namespace engine
