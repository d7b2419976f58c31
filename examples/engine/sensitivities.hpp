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
#include "cafeq/io/json.hpp"
#include "cafeq/model/fingerprint.hpp"
#include "cafeq/model/load_matrix.hpp"
#include "evaluate.hpp"
#include "load.hpp"

namespace engine {

struct SensitivityOptions {
  Index count = 2, length = 128;  ///< texts, and tokens in each
  double energy = 0.02;           ///< t
  std::uint64_t seed = 0;         ///< of texts and noise
};

struct Sensitivity {
  cafeq::MatrixPlace place;
  double value = 0;  ///< α, nats a token
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

/// Those of all matrices of the layers, of the file that the transformer's model is from. `done` is
/// told of each. Time: for each matrix a pass from its layer on. Memory: the states that each layer
/// takes in, and logits of all tokens twice.
inline std::vector<Sensitivity> sensitivities(const cafeq::ModelFile& file,
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

  std::vector<Sensitivity> found;
  for (const cafeq::MatrixRole& matrix : matrices_of_layers(file)) {
    const Matrix<float> W =
        detail::with_noise(load_matrix(file, matrix.place, threads), options.energy, options.seed,
                           found.size() + 2, threads);
    file.release(matrix.place.tensor);
    const auto layer = std::size_t(matrix.layer);
    Model noisy = transformer.model();  // shares its weights
    linear_of(noisy.layers[layer], matrix.role).multiply =
        kernels().dense(kernels().pack(W.view()));
    const Transformer other(noisy, threads);
    begin_again();
    const Matrix<float> h = other.forward_from(matrix.layer, states[layer], parts);
    const double loss = expected.divergence(detail::Predictions(other, h.view()), threads);
    found.push_back({matrix.place, loss / options.energy});
    if (done) done();
  }
  return found;
}

/// As a JSON object: what they are of, and a list with a tensor, its rows and α each.
inline nlohmann::ordered_json to_json(std::span<const Sensitivity> found,
                                      const cafeq::ModelFile& file,
                                      const SensitivityOptions& options) {
  nlohmann::ordered_json json{{"format", "cafeq sensitivities"},
                              {"version", 1},
                              {"model", cafeq::fingerprint_of(file)},
                              {"texts", options.count},
                              {"tokens", options.length},
                              {"energy", options.energy},
                              {"seed", options.seed}};
  auto& list = json["matrices"] = nlohmann::ordered_json::array();
  for (const auto& [place, value] : found)
    list.push_back({{"tensor", place.tensor},
                    {"first_row", place.begin},
                    {"rows", place.out},
                    {"sensitivity", value}});
  return json;
}

}  // namespace engine
