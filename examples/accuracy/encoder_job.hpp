/// The sentence encoder's job: every matrix by every recipe, every pair, the embeddings that come
/// out, and a file of the quantized tensors.
#pragma once

#include <algorithm>
#include <bit>
#include <chrono>
#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "accuracy/encoder_result.hpp"
#include "cafeq/cafeq.hpp"
#include "cafeq/io/quantized_file.hpp"
#include "encoder/model.hpp"
#include "encoder/sentences.hpp"
#include "support/progress_bar.hpp"

namespace cafeq::example {

struct JobOptions {
  Index threads = Index(std::max(1u, std::thread::hardware_concurrency()));
  std::vector<int> bits{2, 3, 4};
  std::vector<std::string> only;  ///< names of matrices and pairs; empty for all
  Index paper_steps = 3000;       ///< of Adam in the published recipe; 0 leaves it out
  std::uint64_t seed = 0;
};

/// Raises unless the file holds exactly what `quantized` decodes to.
template <Transform T, ScalarQuantizer Q>
void check_stored(const QuantizedFileReader& file, const std::string& name,
                  const Quantized<T, Q>& quantized) {
  const auto reloaded = file.load_as<T, Q>(name);
  Matrix<float> before(quantized.rows(), quantized.cols());
  Matrix<float> after(quantized.rows(), quantized.cols());
  quantized.dequantize(before);
  reloaded.dequantize(after);
  for (Index i = 0; i < before.size(); ++i)
    if (std::bit_cast<std::uint32_t>(before.data()[i]) !=
        std::bit_cast<std::uint32_t>(after.data()[i]))
      raise(ErrorCode::corrupt, message(name, ": row ", i / before.cols(), ", column ",
                                        i % before.cols(), " changed on the way through the file"));
}

class Job {
 public:
  Job(SentenceModel model, JobOptions options)
      : model_(std::move(model)), options_(std::move(options)), executor_(options_.threads) {
    results_.model = model_.name;
    results_.threads = options_.threads;
    for (const auto& [name, matrix] : model_.weights.matrices()) names_.push_back(name);
    for (std::size_t l = 0; l < model_.weights.layers.size(); ++l)
      for (const char* kind : {"value_output", "query_key"})
        pair_names_.push_back(message("layer", l, ".", kind));
    for (const std::string& name : options_.only)
      if (std::find(names_.begin(), names_.end(), name) == names_.end() &&
          std::find(pair_names_.begin(), pair_names_.end(), name) == pair_names_.end())
        raise(ErrorCode::invalid_argument, message("--only: the model has no ", name));
  }

  const Results& run() {
    double total = 0;
    for (const auto& [name, matrix] : model_.weights.matrices())
      if (chosen(name)) total += work_of(*matrix) * double(options_.bits.size());
    for (const std::string& name : pair_names_)
      if (chosen(name)) total += pair_work * double(options_.bits.size());
    {
      ProgressBar bar("quantizing", total);
      progress_ = &bar;
      for (const int bits : options_.bits) {
        if (bits == 2) run_bits<2>();
        else if (bits == 3) run_bits<3>();
        else run_bits<4>();
      }
      progress_ = nullptr;
    }
    std::stable_sort(
        results_.matrices.begin(), results_.matrices.end(),
        [this](const auto& a, const auto& b) { return position(a.name) < position(b.name); });
    std::stable_sort(results_.pairs.begin(), results_.pairs.end(),
                     [](const auto& a, const auto& b) { return a.name < b.name; });
    return results_;
  }

  /// Writes the learned and fast results, everything that inference needs of them.
  void save(const std::string& path) const { store_.write(path); }
  /// Reloads every one of them and compares what it decodes to, bit for bit; raises at the first
  /// difference.
  void verify(const std::string& path) const {
    const QuantizedFileReader file(path);
    for (const auto& check : checks_) check(file);
  }
  Index stored_count() const noexcept { return Index(checks_.size()); }

 private:
  // Rough costs of a weight in one run over all recipes, and of a pair, for the progress bar.
  static constexpr double plain_work = 10, learned_work = 60, paper_work = 0.1, pair_work = 5e7;

  double work_of(const Matrix<float>& W) const {
    return double(W.size()) *
           (plain_work + learned_work + paper_work * double(options_.paper_steps));
  }
  bool chosen(const std::string& name) const {
    return options_.only.empty() ||
           std::find(options_.only.begin(), options_.only.end(), name) != options_.only.end();
  }
  std::ptrdiff_t position(const std::string& name) const {
    return std::find(names_.begin(), names_.end(), name) - names_.begin();
  }

  /// A copy of the model whose matrices are replaced one by one, and the bits they take.
  struct Variant {
    std::string recipe;
    EncoderWeights weights;
    double bits = 0;
    double count = 0;
  };

  template <int Bits>
  void run_bits() {
    const bool whole = options_.only.empty();
    std::map<std::string, Variant> variants;
    if (whole)
      for (const char* recipe : {"rtn", "fast", "learned"})
        variants.emplace(recipe, Variant{recipe, model_.weights});
    for (const auto& [name, matrix] : model_.weights.matrices())
      if (chosen(name)) run_matrix<Bits>(name, *matrix, variants);
    for (std::size_t l = 0; l < model_.weights.layers.size(); ++l)
      run_pairs<Bits>(l, message("layer", l));
    if (whole) compare_embeddings(variants, Bits);
  }

  template <int Bits>
  void run_matrix(const std::string& name, const Matrix<float>& W,
                  std::map<std::string, Variant>& variants) {
    const auto replace = [&](const char* recipe, const auto& quantized) {
      const auto variant = variants.find(recipe);
      if (variant == variants.end()) return;
      quantized.dequantize(variant->second.weights.matrix(name), executor_);
      variant->second.bits += double(quantized.storage_bits());
      variant->second.count += double(W.size());
    };
    const auto row = measure(name, "rtn", "affine", W, recipes::rtn<Bits>{}, 0);
    const double rtn_row = row.error(W, executor_);
    const auto group = measure(name, "rtn", "affine", W, recipes::rtn<Bits>{.group = 64}, 0);
    const double rtn_group = group.error(W, executor_);
    replace("rtn", group);
    measure(name, "mse", "affine", W, recipes::mse<Bits>{}, rtn_row);
    measure(name, "hadamard", "affine", W, recipes::hadamard<Bits>{.seed = options_.seed}, rtn_row);
    measure(name, "fast", "affine", W, recipes::fast<Bits>{.group = per_row, .seed = options_.seed},
            rtn_row);
    measure(name, "fast", "midrise", W, recipes::fast<Bits, Midrise<Bits>>{.seed = options_.seed},
            rtn_group);
    const auto fast =
        measure(name, "fast", "affine", W, recipes::fast<Bits>{.seed = options_.seed}, rtn_group);
    replace("fast", fast);
    keep(message(name, ".fast", Bits), fast);
    progress_->advance(double(W.size()) * plain_work);

    const auto learned = measure(name, "learned", "midrise", W,
                                 recipes::learned<Bits>{.seed = options_.seed}, rtn_row);
    replace("learned", learned);
    keep(message(name, ".learned", Bits), learned);
    progress_->advance(double(W.size()) * learned_work);

    if (options_.paper_steps > 0) run_paper<Bits>(name, W, rtn_row);
    progress_->advance(double(W.size()) * paper_work * double(options_.paper_steps));
  }

  /// The published recipe, whose transform does not depend on the bits: it is learned once a
  /// matrix, and its time counts at all bits.
  template <int Bits>
  void run_paper(const std::string& name, const Matrix<float>& W, double rtn_error) {
    const auto pipeline =
        recipes::paper<Bits>{.steps = options_.paper_steps, .seed = options_.seed}.pipeline(
            W.rows(), W.cols());
    auto learned = paper_transforms_.find(name);
    if (learned == paper_transforms_.end()) {
      const double start = ProgressBar::steady_seconds();
      auto transform = pipeline.transform.fit(W.view(), executor_);
      const double seconds = ProgressBar::steady_seconds() - start;
      results_.seconds += seconds;
      learned = paper_transforms_.emplace(name, std::pair(std::move(transform), seconds)).first;
    }
    measure(name, "paper", "midrise", W,
            Pipeline{learned->second.first, pipeline.quantizer, pipeline.rounder}, rtn_error);
    results_.matrices.back().seconds += learned->second.second;
  }

  /// Quantizes, takes the time, notes the result. rtn_error 0: this is the RTN that others are
  /// compared with.
  template <class Recipe>
  auto measure(const std::string& name, const char* recipe_name, const char* grid,
               const Matrix<float>& W, const Recipe& recipe, double rtn_error) {
    const double start = ProgressBar::steady_seconds();
    auto quantized = quantize(W, recipe, executor_);
    const double seconds = ProgressBar::steady_seconds() - start;
    results_.seconds += seconds;
    const double error = quantized.error(W, executor_);
    results_.matrices.push_back({name, W.rows(), W.cols(), recipe_name, grid,
                                 quantized.quantizer().group, int(quantized.quantizer().bits),
                                 quantized.bits_per_weight(), error,
                                 rtn_error > 0 ? rtn_error : error, seconds});
    return quantized;
  }

  template <class Q>
  void keep(const std::string& name, const Q& quantized) {
    store_.add(name, quantized);
    checks_.push_back([name, quantized](const QuantizedFileReader& file) {
      check_stored(file, name, quantized);
    });
  }

  template <int Bits>
  void run_pairs(std::size_t number, const std::string& layer_name) {
    EncoderLayer& layer = model_.weights.layers[number];
    const Index width = layer.width();
    const HeadLayout layout{.head_dim = layer.head_dim(), .heads = EncoderLayer::heads};
    const auto rows = [&](Index which) {
      return layer.qkv.weight.view().row_block(which * width, width);
    };
    const auto bias = [&](Index which) {
      return VectorView<const float>{layer.qkv.bias.data() + which * width, width, 1};
    };
    const VectorView<const float> output_bias{layer.o.bias.data(), Index(layer.o.bias.size()), 1};
    const recipes::mse<Bits, Midrise<Bits>> plain{};
    const recipes::learned<Bits> learned{.seed = options_.seed};
    const auto note = [&](const std::string& name, const char* kind, auto&& quantize_by) {
      if (!chosen(name)) return;
      const double start = ProgressBar::steady_seconds();
      const auto quantized = quantize_by(learned);
      const double seconds = ProgressBar::steady_seconds() - start;
      results_.seconds += seconds;
      results_.pairs.push_back({name, kind, Bits, quantized.error(), quantize_by(plain).error(),
                                quantized.nearest_error(), seconds});
      progress_->advance(pair_work);
    };
    note(layer_name + ".value_output", "value_output", [&](const auto& recipe) {
      return quantize_value_output(rows(2), layer.o.weight, layout, recipe,
                                   {.value_bias = bias(2), .output_bias = output_bias}, executor_);
    });
    note(layer_name + ".query_key", "query_key", [&](const auto& recipe) {
      return quantize_query_key(rows(0), rows(1), layout, recipe,
                                {.query_bias = bias(0), .key_bias = bias(1)}, executor_);
    });
  }

  void compare_embeddings(std::map<std::string, Variant>& variants, int bits) {
    const auto tokens = model_.tokenize_all(sentences);
    if (reference_.empty()) reference_ = encode_all(model_.weights, tokens, executor_);
    for (const char* recipe : {"rtn", "fast", "learned"}) {
      const Variant& variant = variants.at(recipe);
      const Matrix<float> embeddings = encode_all(variant.weights, tokens, executor_);
      EmbeddingResult result{recipe, bits, variant.bits / variant.count, 0, 1};
      for (Index i = 0; i < embeddings.rows(); ++i) {
        const double c = cosine(reference_.row(i), embeddings.row(i));
        result.mean_cosine += c / double(embeddings.rows());
        result.min_cosine = std::min(result.min_cosine, c);
      }
      results_.embedding.push_back(result);
    }
  }

  SentenceModel model_;
  JobOptions options_;
  ThreadPool executor_;
  Results results_;
  std::vector<std::string> names_;
  std::vector<std::string> pair_names_;
  std::map<std::string, std::pair<BlockDiagonal, double>>
      paper_transforms_;  // and the seconds they took
  Matrix<float> reference_;
  ProgressBar* progress_ = nullptr;
  QuantizedFileWriter store_;
  std::vector<std::function<void(const QuantizedFileReader&)>> checks_;
};

}  // namespace cafeq::example
