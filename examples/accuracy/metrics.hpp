/// Metrics of a model's inputs and what errors in its matrices cost, each made once.
#pragma once

#include <Eigen/Core>
#include <filesystem>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "engine/own_metric.hpp"
#include "engine/sensitivities.hpp"

namespace cafeq::accuracy {

/// Files of Grams and of sensitivities, which are removed again.
class Metrics {
 public:
  static constexpr const char* own = "own text";
  static constexpr const char* own_diagonal = "own text, diagonal";
  static constexpr const char* random = "random tokens";
  static constexpr const char* data = "data";

  /// Keeps references to model and file.
  Metrics(const ModelFile& file, const engine::Model& model, std::string directory,
          std::vector<engine::Tokens> texts, engine::Token begin, ExecutorRef threads)
      : file_(file),
        transformer_(model, threads),
        directory_(std::move(directory)),
        texts_(std::move(texts)),
        begin_(begin) {}
  Metrics(const Metrics&) = delete;
  Metrics& operator=(const Metrics&) = delete;
  ~Metrics() {
    std::error_code ignored;
    for (const auto& [key, path] : paths_) std::filesystem::remove(path, ignored);
  }

  bool has_data() const { return !texts_.empty(); }
  std::vector<std::string> names() const {
    std::vector<std::string> all{own, own_diagonal, random};
    if (has_data()) all.push_back(data);
    return all;
  }
  const std::string& path(const std::string& name, std::uint64_t seed) {
    const auto [found, is_new] = paths_.try_emplace({name, name == data ? 0 : seed});
    std::string& path = found->second;
    if (!is_new) return path;
    path = message(directory_, "/metric-", paths_.size());
    engine::MetricTexts wanted{.random = name == random, .seed = 10'000 + 1'000 * seed};
    if (name == own_diagonal) wanted.kind = GramKind::diagonal;
    engine::write_metric(path, file_, transformer_, texts_for(name, wanted), wanted);
    return path;
  }
  /// Sensitivities on texts that the model writes.
  const std::string& sensitivities(std::uint64_t seed) {
    const auto [found, is_new] = paths_.try_emplace({"sensitivities", seed});
    std::string& path = found->second;
    if (!is_new) return path;
    path = message(directory_, "/sensitivities-", seed);
    const engine::SensitivityOptions options{.seed = 20'000 + 1'000 * seed};
    const auto texts = engine::metric_texts(
        transformer_, begin_,
        {.count = options.count, .length = options.length, .seed = options.seed});
    engine::write_sensitivities(path, engine::sensitivities(file_, transformer_, texts, options),
                                options);
    return path;
  }

 private:
  /// What the model writes, once for both kinds of sums.
  const std::vector<engine::Tokens>& texts_for(const std::string& name,
                                               const engine::MetricTexts& wanted) {
    if (name == data) return texts_;
    auto& texts = written_[{wanted.random, wanted.seed}];
    if (texts.empty()) texts = engine::metric_texts(transformer_, begin_, wanted);
    return texts;
  }

  const ModelFile& file_;
  engine::Transformer transformer_;
  std::string directory_;
  std::vector<engine::Tokens> texts_;
  engine::Token begin_;
  std::map<std::pair<bool, std::uint64_t>, std::vector<engine::Tokens>> written_;
  std::map<std::pair<std::string, std::uint64_t>, std::string> paths_;
};

/// Σ x xᵀ of what a matrix reads.
inline Eigen::MatrixXf gram_of(const GramFile& file, const std::string& matrix) {
  const GramEntry* input = file.find(matrix);
  if (input == nullptr)
    raise(ErrorCode::invalid_argument, message(file.path(), ": has no inputs of ", matrix));
  const InputGram gram = file.load(*input);
  Eigen::MatrixXf result(gram.dim(), gram.dim());
  for (Index i = 0; i < gram.dim(); ++i)
    for (Index j = 0; j < gram.dim(); ++j) result(i, j) = float(gram.product(i, j));
  return result;
}

}  // namespace cafeq::accuracy
