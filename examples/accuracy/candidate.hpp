/// What is judged: ways to make a smaller model of a given one.
#pragma once

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "accuracy/metrics.hpp"
#include "accuracy/overlay.hpp"
#include "accuracy/peers/gptq.hpp"
#include "accuracy/peers/higgs.hpp"
#include "accuracy/peers/hqq.hpp"
#include "accuracy/peers/nf4.hpp"
#include "accuracy/peers/sinq.hpp"
#include "cafeq/io/json.hpp"
#include "cafeq/pipeline/recipes.hpp"
#include "cafeq/run/model_run.hpp"
#include "engine/load.hpp"
#include "support/progress_bar.hpp"
#if CAFEQ_COMPILED
#include "cafeq/compiled/run_instances.hpp"
#endif

namespace cafeq::accuracy {

/// What has become of a model.
struct Made {
  engine::Model model;
  double bits_per_weight = 0;  ///< of the matrices of its layers, everything counted
  double file_bytes = 0;
  double seconds = 0;                   ///< to make it
  std::optional<double> expected_kl{};  ///< what the plan has said
};

struct Candidate {
  std::string part;    ///< "recipes", "metric", "bits", "gguf", "peers", "files"
  std::string recipe;  ///< as tables call it
  std::function<Made()> make;
  std::optional<std::uint64_t> seed{};
  std::string metric = "none";  ///< where that of rounding errors comes from
  bool tasks = false;           ///< whether it answers tasks too
};

/// The model that is quantized, and what that takes.
struct Workshop {
  const ModelFile& file;
  std::string directory;  ///< for files that are removed again
  ExecutorRef threads;

  /// The matrices of its layers.
  std::vector<MatrixRole> matrices() const { return engine::matrices_of_layers(file); }
};

namespace detail {

/// A file that is removed again.
struct Removed {
  std::string path;
  ~Removed() {
    std::error_code ignored;
    std::filesystem::remove_all(path, ignored);
  }
};

/// Bits of the tensors with a model's matrices, for each of their weights: of those that a plan has
/// steps for what these will store, of all others what the file does.
inline double stored_bits(const ModelFile& file, const Plan* plan = nullptr) {
  double bits = plan ? double(plan->storage_bits()) : 0;
  double weights = plan ? double(plan->weights()) : 0;
  const auto is_kept = [&](const std::string& tensor) {
    return !plan || std::any_of(plan->kept.begin(), plan->kept.end(),
                                [&](const KeptTensor& kept) { return kept.tensor == tensor; });
  };
  std::set<std::string> counted;
  for (const MatrixRole& matrix : Workshop{file, {}, {}}.matrices())
    if (is_kept(matrix.place.tensor) && counted.insert(matrix.place.tensor).second)
      for (const TensorInfo& tensor : file.tensors())
        if (tensor.name == matrix.place.tensor) {
          bits += 8 * double(tensor.bytes);
          weights += double(element_count(tensor.shape).value_or(0));
        }
  return bits / weights;
}

/// As cafeq-quantize does it.
inline Made make_by_run(const Workshop& shop, RunOptions options) {
  const Removed output{shop.directory + "/quantized"};
  options.input = shop.file.path();
  options.output = output.path;
  options.overwrite = true;
  options.start = PartStore::Start::anew;  // whatever a run has left that was ended
  const ModelRun run(std::move(options), shop.threads);
  const RunSummary summary = run.quantize();
  const ModelFile quantized(output.path);
  return {engine::load_model(quantized, shop.threads), stored_bits(shop.file, &run.plan()),
          double(summary.bytes_after), summary.seconds, run.plan().expected_loss()};
}

inline Made make_of_file(const Workshop& shop, const std::string& path, double seconds) {
  const ModelFile file(path);
  return {engine::load_model(file, shop.threads), stored_bits(file), double(file.file_bytes()),
          seconds};
}

/// By what makes floats of the weights of a matrix: quantize(W, role). Its file is that of the
/// model with other bits in the layers.
template <class Peer, class F>
Made make_by_peer(const Workshop& shop, const Peer& peer, F&& quantize) {
  const double start = example::ProgressBar::steady_seconds();
  const auto matrices = shop.matrices();
  std::vector<Matrix<float>> results(matrices.size());
  shop.threads.parallel_for(Index(matrices.size()), 1, [&](Index begin, Index end, Index) {
    for (auto m = std::size_t(begin); m < std::size_t(end); ++m)
      results[m] = quantize(load_matrix(shop.file, matrices[m].place), matrices[m]);
  });
  const double seconds = example::ProgressBar::steady_seconds() - start;
  Overlay overlay(shop.file);
  double bits = 0, weights = 0;
  for (std::size_t m = 0; m < matrices.size(); ++m) {
    const MatrixPlace& place = matrices[m].place;
    const double size = double(place.out * place.in);
    bits += peer.bits_per_weight(place.out, place.in) * size;
    weights += size;
    overlay.replace(place, std::as_const(results[m]).view());
    results[m] = {};
  }
  return {engine::load_model(overlay, shop.file.path(), shop.threads), bits / weights,
          double(shop.file.file_bytes()) + (bits - stored_bits(shop.file) * weights) / 8, seconds};
}

}  // namespace detail

/// The recipes of this library. Those with random rotations take `seeds` of them, from 0 on.
inline std::vector<Candidate> by_recipes(const Workshop& shop, std::uint64_t seeds) {
  std::vector<Candidate> all;
  const auto add = [&](std::string name, const AnyRecipe& recipe,
                       std::optional<std::uint64_t> seed = {}) {
    all.push_back({.part = "recipes",
                   .recipe = std::move(name),
                   .make =
                       [shop, recipe] {
                         RunOptions options;
                         options.plan.recipe = recipe;
                         return detail::make_by_run(shop, std::move(options));
                       },
                   .seed = seed});
  };
  for (const int bits : {2, 3, 4}) {
    add("`rtn` affine g64", recipes::rtn<>{.bits = bits, .group = 64});
    for (std::uint64_t seed = 0; seed < seeds; ++seed) {
      add("`fast` affine g64", recipes::fast<>{.bits = bits, .seed = seed}, seed);
      add("`learned` midrise row", recipes::learned<>{.bits = bits, .seed = seed}, seed);
      add("`smallest`", recipes::smallest{.bits = bits + 0.1, .seed = seed}, seed);
      all.back().tasks = seed == 0;
    }
  }
  return all;
}

/// The same in metrics of the inputs: of texts that the model writes, of random tokens, and of
/// data.
inline std::vector<Candidate> in_metrics(const Workshop& shop,
                                         const std::shared_ptr<Metrics>& metrics,
                                         std::uint64_t seeds) {
  std::vector<Candidate> all;
  const auto add = [&](std::string name, RunOptions options, const std::string& metric,
                       std::uint64_t seed) {
    const bool tasks = name == "`smallest`" && metric == Metrics::own && seed == 0;
    all.push_back({.part = "metric",
                   .recipe = std::move(name),
                   .make =
                       [shop, options, metrics, metric, seed] {
                         RunOptions in_metric = options;
                         in_metric.metric = metrics->path(metric, seed);
                         return detail::make_by_run(shop, std::move(in_metric));
                       },
                   .seed = seed,
                   .metric = metric,
                   .tasks = tasks});
  };
  for (const std::string& metric : metrics->names())
    for (std::uint64_t seed = 0; seed < seeds; ++seed) {
      for (const double bits : {2.2, 3.2, 4.2}) {
        RunOptions options;
        options.plan.recipe = recipes::smallest{.seed = seed};
        options.target_bits = bits;
        add("`smallest`", options, metric, seed);
      }
      for (const int bits : {3, 4}) {
        RunOptions options;
        options.plan.recipe = recipes::fast<>{.bits = bits, .seed = seed};
        add("`fast` affine g64", options, metric, seed);
        options.plan.recipe = recipes::mse<>{.bits = bits, .group = 64};
        add("`mse` affine g64", options, metric, seed);
      }
      RunOptions options;
      options.plan.recipe = recipes::learned<>{.bits = 3, .seed = seed};
      add("`learned` midrise row", options, metric, seed);
      for (const GgufTypeInfo& info : gguf_types) {
        if (info.weights == 1 || metric != Metrics::own) continue;
        RunOptions blocks;
        blocks.format = RunFormat::gguf;
        blocks.type = info.type;
        add(message("gguf:", info.name), blocks, metric, seed);
      }
    }
  return all;
}

/// In those metrics, with the bits of a target where errors cost most.
inline std::vector<Candidate> by_sensitivity(const Workshop& shop,
                                             const std::shared_ptr<Metrics>& metrics,
                                             std::uint64_t seeds) {
  std::vector<Candidate> all;
  const auto add = [&](std::string name, RunOptions options, double bits, const std::string& metric,
                       std::uint64_t seed) {
    options.target_bits = bits;
    const bool tasks =
        options.format == RunFormat::quantized && metric == Metrics::own && seed == 0;
    all.push_back({.part = "bits",
                   .recipe = name + " by sensitivity",
                   .make =
                       [shop, options, metrics, metric, seed] {
                         RunOptions spread = options;
                         spread.metric = metrics->path(metric, seed);
                         spread.sensitivities = metrics->sensitivities(seed);
                         return detail::make_by_run(shop, std::move(spread));
                       },
                   .seed = seed,
                   .metric = metric,
                   .tasks = tasks});
  };
  for (std::uint64_t seed = 0; seed < seeds; ++seed) {
    RunOptions options;
    options.plan.recipe = recipes::smallest{.seed = seed};
    for (const double bits : {1.6, 1.8, 2.3, 2.7, 3.2, 4.2})
      add("`smallest`", options, bits, Metrics::own, seed);
    if (metrics->has_data())
      for (const double bits : {2.3, 2.7, 3.2, 4.2})
        add("`smallest`", options, bits, Metrics::data, seed);
    options.plan.recipe = recipes::fast<>{.seed = seed};
    for (const double bits : {3.5, 4.5}) add("`fast`", options, bits, Metrics::own, seed);
    RunOptions blocks;
    blocks.format = RunFormat::gguf;
    for (const double bits : {4.25, 4.5, 5.0}) add("gguf types", blocks, bits, Metrics::own, seed);
  }
  return all;
}

/// This library's quantizers of GGUF's types.
inline std::vector<Candidate> by_types(const Workshop& shop) {
  std::vector<Candidate> all;
  for (const GgufTypeInfo& info : gguf_types)
    if (info.weights > 1)
      all.push_back(
          {.part = "gguf", .recipe = message("gguf:", info.name), .make = [shop, type = info.type] {
             RunOptions options;
             options.format = RunFormat::gguf;
             options.type = type;
             return detail::make_by_run(shop, std::move(options));
           }});
  return all;
}

/// Methods of others, in short code of ours. GPTQ has data to see what the layers take in.
inline std::vector<Candidate> by_peers(const Workshop& shop,
                                       const std::shared_ptr<Metrics>& metrics) {
  std::vector<Candidate> all;
  const auto add = [&](const auto& peer) {
    all.push_back({.part = "peers", .recipe = peer.name(), .make = [shop, peer] {
                     return detail::make_by_peer(
                         shop, peer,
                         [&](const Matrix<float>& W, const MatrixRole&) { return peer(W.view()); });
                   }});
  };
  for (const int bits : {2, 3, 4}) {
    add(peers::Hqq{.bits = bits});
    add(peers::Sinq{.bits = bits});
  }
  add(peers::Higgs<2>{});
  add(peers::Higgs<3>{});
  add(peers::Higgs<4>{});
  add(peers::Nf4{});
  if (!metrics->has_data()) return all;

  for (const int bits : {2, 3, 4}) {
    const peers::Gptq peer{.bits = bits};
    all.push_back({.part = "peers",
                   .recipe = peer.name(),
                   .make =
                       [shop, peer, metrics] {
                         const GramFile inputs(metrics->path(Metrics::data, 0));
                         return detail::make_by_peer(
                             shop, peer, [&](const Matrix<float>& W, const MatrixRole& matrix) {
                               return peer(W.view(), gram_of(inputs, matrix.place.tensor));
                             });
                       },
                   .metric = Metrics::data});
  }
  return all;
}

/// Models that are there already: a JSON list of {"recipe", "file", "seconds"}.
inline std::vector<Candidate> by_files(const Workshop& shop, const std::string& list) {
  std::vector<Candidate> all;
  try {
    for (const auto& item : cafeq::detail::read_json(list))
      all.push_back({.part = "files",
                     .recipe = item.at("recipe").get<std::string>(),
                     .make = [shop, file = item.at("file").get<std::string>(),
                              seconds = item.at("seconds").get<double>()] {
                       return detail::make_of_file(shop, file, seconds);
                     }});
  } catch (const cafeq::detail::Json::exception& error) {
    raise(ErrorCode::corrupt, message(list, ": is no list of models: ", error.what()));
  }
  return all;
}

}  // namespace cafeq::accuracy
