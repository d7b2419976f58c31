/// AnyRecipe: how one matrix of a model, or two that meet, are quantized, known when the program
/// runs.
///
///   const AnyRecipe recipe = recipes::fast<>{.bits = 4};   // any NamedRecipe
///   recipe->quantize(W, executor);
/// Plans hold one a step and ask it everything: what it will store, what it does in words, how it
/// would look with other bits. The recipe and its pipelines answer.
#pragma once

#include <array>
#include <cmath>
#include <memory>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "cafeq/model/recipe_model.hpp"
#include "cafeq/pipeline/quantize.hpp"
#include "cafeq/pipeline/quantize_pair.hpp"

namespace cafeq::detail {

/// A quantizer in a few words: "affine4 g64", "trellis3.0625 row8".
template <Quantizer Q>
std::string quantizer_text(const Q& q) {
  if constexpr (requires { q.text(); }) return q.text();
  else if (q.group == per_row) return message(Q::name, int(q.bits), " row");
  else if (q.group == per_tensor) return message(Q::name, int(q.bits), " tensor");
  else return message(Q::name, int(q.bits), " g", Index(q.group));
}

/// The number that an option holds, whatever its type.
template <class T>
OptionValue option_value(const T& member) {
  if constexpr (std::is_floating_point_v<T>) return double(member);
  else if constexpr (std::is_same_v<T, std::uint64_t>) return member;
  else return std::int64_t(member);
}

template <NamedRecipe R>
std::vector<RecipeOption> options_of(const R& recipe) {
  std::vector<RecipeOption> options;
  R::options(recipe, [&](std::string_view name, const auto& member) {
    options.push_back({std::string(name), option_value(member)});
  });
  return options;
}

inline PairShape shape_of(std::span<const PairedMatrix, 2> pair) noexcept {
  const auto lines = [](const PairedMatrix& m) {
    return m.inner == Side::output ? m.rows : m.cols;
  };
  const auto length = [](const PairedMatrix& m) {
    return m.inner == Side::output ? m.cols : m.rows;
  };
  return {.first_lines = lines(pair[0]),
          .first_length = length(pair[0]),
          .second_lines = lines(pair[1]),
          .second_length = length(pair[1])};
}

/// Both matrices of a pair by a recipe that rounds them together; stored(q) is the form in which
/// one is kept.
template <PairRecipe R, class Stored>
EncodedPair quantize_together(const R& recipe, PairWeights& weights, const PairRole& pair,
                              ExecutorRef executor, Stored&& stored) {
  const auto& [first, second] = weights.W;
  if (pair.kind == PairKind::value_output) {
    const ValueOutputOptions options{.value_bias = weights.bias_view(1),
                                     .output_bias = weights.bias_view(0),
                                     .traits = pair.attention};
    const auto q = quantize_value_output(second, first, pair.layout, recipe, options, executor);
    return {{stored(q.output()), stored(q.value())}, {q.output_bias(), q.value_bias()}, q.error()};
  }
  const QueryKeyOptions options{.query_bias = weights.bias_view(0),
                                .key_bias = weights.bias_view(1),
                                .traits = pair.attention};
  const auto q = quantize_query_key(first, second, pair.layout, recipe, options, executor);
  return {{stored(q.query()), stored(q.key())}, {q.query_bias(), q.key_bias()}, q.error()};
}

/// A recipe as it works in a metric of the inputs.
template <class R>
concept HasMetricPipeline = requires(const R& recipe) { recipe.metric_pipeline(Index(), Index()); };

template <HasMetricPipeline R>
struct InMetric {
  static constexpr std::string_view name = R::name;
  static constexpr std::string_view description = R::description;
  static constexpr double work = R::work;

  R recipe;

  auto pipeline(Index rows, Index cols) const { return recipe.metric_pipeline(rows, cols); }
  std::optional<Error> fault(Index rows, Index cols) const { return fault_of(recipe, rows, cols); }
  std::string transform(Index rows, Index cols) const { return recipe.transform(rows, cols); }
  PairAdvice pair_advice(Index) const {
    return {.why = "each is rounded in the metric of its own inputs", .always = true};
  }
  auto trial() const {
    if constexpr (requires { recipe.trial(); }) return recipe.trial();
    else return recipe;
  }
  auto with_bits(double mean) const
    requires requires { recipe.with_bits(mean); }
  {
    return InMetric{recipe.with_bits(mean)};
  }
  template <class Self, class F>
  static void options(Self& self, F&& f) {
    R::options(self.recipe, f);
  }
};

template <class R>
inline constexpr bool is_in_metric = false;
template <class R>
inline constexpr bool is_in_metric<InMetric<R>> = true;

template <NamedRecipe R>
class RecipeModelOf final : public RecipeModel {
 public:
  explicit RecipeModelOf(R recipe) : recipe_(std::move(recipe)) {
    if constexpr (requires { recipe_.or_least; }) recipe_.or_least = true;
  }
  const R& recipe() const noexcept { return recipe_; }

  std::string_view name() const override { return R::name; }
  std::vector<RecipeOption> options() const override { return options_of(recipe_); }
  std::optional<Error> fault() const override {
    constexpr Index usual = 1024;
    return detail::recipe_fault(recipe_, usual, usual);
  }

  std::string grid(Index rows, Index cols) const override {
    return quantizer_text(recipe_.pipeline(rows, cols).quantizer);
  }
  std::string transform(Index rows, Index cols) const override {
    return recipe_.transform(rows, cols);
  }
  std::int64_t storage_bits(Index rows, Index cols) const override {
    return recipe_.pipeline(rows, cols).storage_bits(rows, cols);
  }
  QuantizedMatrix quantize(const Matrix<float>& W, ExecutorRef executor) const override {
    return with_error(cafeq::quantize(W, recipe_, executor), W, executor);
  }
  QuantizedMatrix quantize(const Matrix<float>& W, const Metric& metric,
                           ExecutorRef executor) const override {
    if constexpr (is_in_metric<R>)
      return with_error(cafeq::quantize(W, recipe_, metric, executor), W, executor);
    else return quantize(W, executor);
  }
  std::optional<AnyRecipe> in_metric() const override {
    if constexpr (HasMetricPipeline<R>) return AnyRecipe(InMetric<R>{recipe_});
    else return std::nullopt;
  }

  PairAdvice advice(Index head_dim, std::span<const PairedMatrix, 2>) const override {
    return recipe_.pair_advice(head_dim);
  }
  std::array<std::string, 2> grids(std::span<const PairedMatrix, 2> pair) const override {
    std::array<std::string, 2> texts;
    for_each_quantizer(pair, [&](std::size_t i, const auto& q) { texts[i] = quantizer_text(q); });
    return texts;
  }
  std::array<std::int64_t, 2> storage_bits(std::span<const PairedMatrix, 2> pair) const override {
    std::array<std::int64_t, 2> bits{};
    for_each_quantizer(pair, [&]<class Q>(std::size_t i, const Q& q) {
      bits[i] = Codes<Q>::storage_bits(q, pair[i].rows, pair[i].cols) +
                Quantized<Identity::Fitted, Q>::exponent_bits;
    });
    return bits;
  }
  EncodedPair quantize(PairWeights weights, const PairRole& pair,
                       ExecutorRef executor) const override {
    if constexpr (PairRecipe<R>) {
      return quantize_together(recipe_, weights, pair, executor, [](const auto& quantized) {
        return EncodedMatrix(AnyQuantized(quantized));
      });
    } else {
      raise_no_pair();
    }
  }

  std::vector<AnyRecipe> alternatives(std::span<const Index>) const override {
    std::vector<AnyRecipe> all;
    for (int bits = 2; bits <= 8; ++bits) {
      R other = recipe_;
      bool has_bits = false;
      R::options(other, [&](std::string_view name, auto& member) {
        using Member = std::remove_cvref_t<decltype(member)>;
        if constexpr (std::is_constructible_v<Member, int> &&
                      std::is_assignable_v<decltype(member), Member>)
          if (name == "bits") member = Member(bits), has_bits = true;
      });
      if (has_bits) all.emplace_back(other);
    }
    if (all.empty()) all.emplace_back(recipe_);
    return all;
  }
  std::optional<AnyRecipe> with_bits(double bits) const override {
    if constexpr (requires { recipe_.with_bits(bits); }) return AnyRecipe(recipe_.with_bits(bits));
    else return std::nullopt;
  }
  double trial_error(const Matrix<float>& rows, ExecutorRef executor) const override {
    if constexpr (requires { recipe_.trial(); })
      return cafeq::quantize(rows, recipe_.trial(), executor).error(rows, executor);
    else return cafeq::quantize(rows, recipe_, executor).error(rows, executor);
  }
  double trial_error(const Matrix<float>& rows, const Metric& metric,
                     ExecutorRef executor) const override {
    if constexpr (is_in_metric<R> && requires { recipe_.trial(); })
      return error_as_noise(rows, cafeq::quantize(rows, recipe_.trial(), metric, executor), metric,
                            executor);
    else return RecipeModel::trial_error(rows, metric, executor);
  }
  double code_bits(Index rows, Index cols) const override {
    const auto quantizer = recipe_.pipeline(rows, cols).quantizer;
    if constexpr (requires { quantizer.rate.bits(); }) return quantizer.rate.bits();
    else return double(quantizer.bits);
  }
  PairTransform pair_transform() const override {
    if constexpr (PairRecipe<R>) return recipe_.pair(PairShape{}).transform;
    else if (recipe_.pair_advice(least_head_dim).form == PairForm::balanced)
      return PairTransform::balanced;
    else return PairTransform::none;
  }
  double work() const override { return R::work; }

 private:
  template <class Quantized>
  static QuantizedMatrix with_error(Quantized quantized, const Matrix<float>& W,
                                    ExecutorRef executor) {
    static_assert(std::is_constructible_v<AnyQuantized, Quantized>,
                  "cafeq: a plan's recipe quantizes by RuntimeQuantizers, bits chosen at run time, "
                  "behind a transform that AnyTransform holds");
    const auto [error, norm] = quantized.error_and_norm(W, executor);
    const double unit = std::ldexp(1.0, 2 * quantized.exponent());
    return {AnyQuantized(std::move(quantized)), error * unit, norm * unit};
  }
  [[noreturn]] static void raise_no_pair() {
    raise(ErrorCode::invalid_argument,
          message("no recipe that rounds two matrices together is named ", R::name));
  }

  /// f(number, quantizer) with the quantizer of each matrix, as it is rounded.
  template <class F>
  void for_each_quantizer(std::span<const PairedMatrix, 2> pair, F&& f) const {
    if constexpr (PairRecipe<R>) {
      const auto quantizer = recipe_.pair(shape_of(pair)).quantizer;
      for (std::size_t i = 0; i < 2; ++i) f(i, for_lines(quantizer, pair[i].inner));
    } else {
      raise_no_pair();
    }
  }

  R recipe_;
};

}  // namespace cafeq::detail

namespace cafeq {

template <NamedRecipe R>
AnyRecipe::AnyRecipe(R recipe)
    : model_(std::make_shared<detail::RecipeModelOf<R>>(std::move(recipe))),
      type_(&process_wide::type_tag<R>) {}

template <class R>
const R* AnyRecipe::as() const noexcept {
  if (type_ != &process_wide::type_tag<R>) return nullptr;
  if constexpr (std::is_base_of_v<RecipeModel, R>) return static_cast<const R*>(model_.get());
  else return &static_cast<const detail::RecipeModelOf<R>*>(model_.get())->recipe();
}

}  // namespace cafeq
