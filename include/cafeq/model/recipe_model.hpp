/// RecipeModel: what plans ask of a recipe without knowing its type. Any NamedRecipe has one
/// (cafeq/model/any_recipe.hpp); what writes another library's format brings its own.
#pragma once

#include <array>
#include <concepts>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include "cafeq/loss/reconstruction.hpp"
#include "cafeq/model/encoded_matrix.hpp"
#include "cafeq/model/roles.hpp"
#include "cafeq/pipeline/recipe.hpp"

namespace cafeq {

/// The value of a recipe's option, in the form that its member has.
using OptionValue = std::variant<std::int64_t, std::uint64_t, double>;

/// An option of a recipe by its name: "bits", "group", "seed" …
struct RecipeOption {
  std::string name;
  OptionValue value;

  bool operator==(const RecipeOption&) const = default;
};

/// Two matrices that meet, in floats, in the order of their PairRole; their biases, empty where the
/// model has none.
struct PairWeights {
  std::array<Matrix<float>, 2> W;
  std::array<std::vector<float>, 2> bias;

  VectorView<float> bias_view(std::size_t i) noexcept {
    return {bias[i].empty() ? nullptr : bias[i].data(), Index(bias[i].size()), 1};
  }
};

/// The same, rounded together.
struct EncodedPair {
  std::array<EncodedMatrix, 2> matrices;
  std::array<std::vector<float>, 2> bias;
  double error = 0;  ///< relative, of what the two do together
};

/// One of two matrices that meet: rows, columns, and the side on which it has the shared dimension.
struct PairedMatrix {
  Index rows = 0;
  Index cols = 0;
  Side inner = Side::output;
};

class AnyRecipe;

namespace detail {

/// tr(E H Eᵀ) of what Ŵ is off by, in units of ‖W‖² tr H / cols; 0 of zeros.
template <class Quantized>
double error_as_noise(const Matrix<float>& W, const Quantized& quantized, const Metric& metric,
                      ExecutorRef executor) {
  const Matrix<float> zeros(W.rows(), W.cols());
  Matrix<float> W_hat(W.rows(), W.cols());
  quantized.dequantize(W_hat.view(), executor);
  double trace = 0;
  for (const Metric::Block& block : metric.blocks())
    for (Index i = 0; i < block.size; ++i) trace += block.weight(i);
  const double noise = squared_error(W, zeros, executor) * trace / double(W.cols());
  return noise > 0 ? squared_error(W, W_hat, metric, Side::input, executor) / noise : 0;
}

}  // namespace detail

namespace process_wide {

/// Its address stands for a type, without RTTI.
template <class T>
inline char type_tag = 0;

}  // namespace process_wide

/// What a recipe says and does without its type. `together` are the two matrices of a pair, first
/// and second as in PairRole; where a matrix is one of those it has no transform of its own.
class RecipeModel {
 public:
  virtual ~RecipeModel() = default;

  virtual std::string_view name() const = 0;
  /// All that tells it from other recipes of its name.
  virtual std::vector<RecipeOption> options() const = 0;
  /// What is wrong with its options, if anything.
  virtual std::optional<Error> fault() const = 0;

  // One matrix [rows, cols].
  virtual std::string grid(Index rows, Index cols) const = 0;       ///< in a few words
  virtual std::string transform(Index rows, Index cols) const = 0;  ///< in a few words
  virtual std::string note(Index rows, Index cols) const;  ///< what is unusual for it, if anything
  virtual std::int64_t storage_bits(Index rows, Index cols) const = 0;
  virtual QuantizedMatrix quantize(const Matrix<float>& W, ExecutorRef executor) const = 0;
  /// The same for known inputs; only a recipe that in_metric() has made minds them.
  virtual QuantizedMatrix quantize(const Matrix<float>& W, const Metric&,
                                   ExecutorRef executor) const {
    return quantize(W, executor);
  }

  // Two that meet in heads of so many channels. What follows advice() is for PairForm::together.
  virtual PairAdvice advice(Index head_dim, std::span<const PairedMatrix, 2> together) const = 0;
  virtual std::array<std::string, 2> grids(std::span<const PairedMatrix, 2> together) const = 0;
  virtual std::array<std::int64_t, 2> storage_bits(
      std::span<const PairedMatrix, 2> together) const = 0;
  virtual EncodedPair quantize(PairWeights weights, const PairRole& pair,
                               ExecutorRef executor) const = 0;

  // Variants of itself.
  /// For matrices whose inputs are known; nothing where that makes no difference.
  virtual std::optional<AnyRecipe> in_metric() const;
  /// With other bits, coarsest first, all of them possible for rows of these widths.
  virtual std::vector<AnyRecipe> alternatives(std::span<const Index> cols) const = 0;
  /// With any mean bits a weight, where it has a continuous rate.
  virtual std::optional<AnyRecipe> with_bits(double bits) const = 0;
  /// The relative error of some rows of a matrix by it, or by something cheaper that behaves alike.
  virtual double trial_error(const Matrix<float>& rows, ExecutorRef executor) const = 0;
  /// The same where inputs are known: tr(E H Eᵀ) in units of ‖W‖² tr H / cols, which is what noise
  /// of the energy of W would come to.
  virtual double trial_error(const Matrix<float>& rows, const Metric& metric,
                             ExecutorRef executor) const;
  /// Bits of a weight's code alone, by which errors of a recipe with a continuous rate fall to a
  /// quarter a bit.
  virtual double code_bits(Index rows, Index cols) const {
    return double(storage_bits(rows, cols)) / (double(rows) * double(cols));
  }
  /// Whether all matrices of one tensor must have the same.
  virtual bool is_one_a_tensor() const { return false; }
  /// How two matrices are transformed that it rounds together, or that it balances.
  virtual PairTransform pair_transform() const = 0;
  /// What a weight takes, in units of `fast`.
  virtual double work() const = 0;
};

/// A recipe whose type is not known, by value; cheap to copy.
class AnyRecipe {
 public:
  template <NamedRecipe R>
  AnyRecipe(R recipe);  // NOLINT(google-explicit-constructor)
  /// One that somebody has brought.
  template <std::derived_from<RecipeModel> M>
  explicit AnyRecipe(std::shared_ptr<M> model)
      : model_(std::move(model)), type_(&process_wide::type_tag<std::remove_const_t<M>>) {}

  const RecipeModel* operator->() const noexcept { return model_.get(); }
  const RecipeModel& operator*() const noexcept { return *model_; }
  /// The recipe itself, or the model that somebody has brought, where that is an R, else null.
  template <class R>
  const R* as() const noexcept;

  /// An option by its name; nothing where the recipe has none such.
  std::optional<OptionValue> option(std::string_view name) const {
    for (const RecipeOption& option : model_->options())
      if (option.name == name) return option.value;
    return std::nullopt;
  }
  /// Equal recipes give equal results.
  bool operator==(const AnyRecipe& other) const {
    return type_ == other.type_ && model_->name() == other->name() &&
           model_->options() == other->options();
  }

 private:
  std::shared_ptr<const RecipeModel> model_;
  const void* type_;
};

inline std::string RecipeModel::note(Index, Index) const { return {}; }
inline std::optional<AnyRecipe> RecipeModel::in_metric() const { return std::nullopt; }
inline double RecipeModel::trial_error(const Matrix<float>& rows, const Metric& metric,
                                       ExecutorRef executor) const {
  return detail::error_as_noise(rows, quantize(rows, metric, executor).matrix, metric, executor);
}

}  // namespace cafeq
