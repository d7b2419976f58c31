/// quantize_value_output() and quantize_query_key(): two matrices that meet in an attention layer,
/// by a recipe.
#pragma once

#include <type_traits>
#include <utility>
#include <vector>

#include "cafeq/pipeline/pair_faults.hpp"

namespace cafeq {

namespace detail {

template <class R>
using PairQuantizerOf =
    std::remove_cvref_t<decltype(std::declval<const R&>().pair(PairShape{}).quantizer)>;

/// What the two results have in common.
template <class Q>
class QuantizedPair {
 public:
  explicit QuantizedPair(RoundedPair<Q> pair) : pair_(std::move(pair)) {}

  /// M of each KV head.
  const HeadTransform& transform() const noexcept { return pair_.transform; }
  /// Σ_h ‖P_h − P̂_h‖² / Σ_h ‖P_h‖² of the products that the layer computes, in fp64.
  double error() const noexcept { return pair_.error; }
  /// The same by M and rounding to nearest, without alternating.
  double nearest_error() const noexcept { return pair_.nearest_error; }
  /// Of both matrices together, everything counted; the transform costs nothing.
  double bits_per_weight() const {
    const auto& a = pair_.first;
    const auto& b = pair_.second;
    return double(a.storage_bits() + b.storage_bits()) /
           (double(a.rows()) * double(a.cols()) + double(b.rows()) * double(b.cols()));
  }

 protected:
  RoundedPair<Q> pair_;
};

}  // namespace detail

/// A value and an output projection. Replace both matrices and both biases together.
template <class Q>
class QuantizedValueOutput : public detail::QuantizedPair<Q> {
 public:
  QuantizedValueOutput(RoundedPair<Q> pair, std::vector<float> value_bias,
                       std::vector<float> output_bias)
      : detail::QuantizedPair<Q>(std::move(pair)),
        value_bias_(std::move(value_bias)),
        output_bias_(std::move(output_bias)) {}

  const Quantized<Identity::Fitted, Q>& value() const noexcept { return this->pair_.second; }
  const Quantized<Identity::Fitted, Q>& output() const noexcept { return this->pair_.first; }
  /// Empty where the model has none; zeros where the output bias took it.
  const std::vector<float>& value_bias() const noexcept { return value_bias_; }
  const std::vector<float>& output_bias() const noexcept { return output_bias_; }

 private:
  std::vector<float> value_bias_;
  std::vector<float> output_bias_;
};

/// A query and a key projection. Replace both matrices and both biases together.
template <class Q>
class QuantizedQueryKey : public detail::QuantizedPair<Q> {
 public:
  QuantizedQueryKey(RoundedPair<Q> pair, std::vector<float> query_bias, std::vector<float> key_bias)
      : detail::QuantizedPair<Q>(std::move(pair)),
        query_bias_(std::move(query_bias)),
        key_bias_(std::move(key_bias)) {}

  const Quantized<Identity::Fitted, Q>& query() const noexcept { return this->pair_.first; }
  const Quantized<Identity::Fitted, Q>& key() const noexcept { return this->pair_.second; }
  const std::vector<float>& query_bias() const noexcept { return query_bias_; }
  const std::vector<float>& key_bias() const noexcept { return key_bias_; }

 private:
  std::vector<float> query_bias_;
  std::vector<float> key_bias_;
};

namespace detail {

/// The biases of the rounded pair: the value bias moves into the output bias, or into the basis of
/// the quantized W_o, where it is fitted if there is no output bias.
template <class T, class Q>
QuantizedValueOutput<Q> with_biases(RoundedPair<Q> rounded, View<T> output,
                                    const HeadLayout& layout, const ValueOutputOptions& options,
                                    ExecutorRef executor) {
  const bool is_constant = value_bias_is_constant(options.traits);
  std::vector<float> value_bias = copy_bias(options.value_bias);
  std::vector<float> output_bias = copy_bias(options.output_bias);

  if (!value_bias.empty() && !output_bias.empty() && is_constant) {
    fold_value_bias(output, layout, bias_view(value_bias), bias_view(output_bias), options.traits);
  } else if (!value_bias.empty()) {
    rounded.transform.apply_second(bias_view(value_bias));
    if (output_bias.empty() && is_constant) {
      Matrix<float> hat(output.rows, output.cols);
      rounded.first.dequantize(hat, executor);
      fit_value_bias(output, options.value_bias, hat, bias_view(value_bias), layout,
                     options.traits);
    }
  }
  return {std::move(rounded), std::move(value_bias), std::move(output_bias)};
}

template <class Q>
QuantizedQueryKey<Q> with_biases(RoundedPair<Q> rounded, const QueryKeyOptions& options) {
  std::vector<float> query_bias = copy_bias(options.query_bias);
  std::vector<float> key_bias = copy_bias(options.key_bias);
  if (!query_bias.empty()) rounded.transform.apply_first(bias_view(query_bias));
  if (!key_bias.empty()) rounded.transform.apply_second(bias_view(key_bias));
  return {std::move(rounded), std::move(query_bias), std::move(key_bias)};
}

}  // namespace detail

/// quantize_value_output() for callers without exceptions. Wrong members of the recipe, wrong
/// layouts and biases, layers for which the method is not exact and values that are not finite come
/// back as an Error before any work is done; PairPipeline::try_quantize() names the little that
/// only the work finds.
template <MatrixView Value, MatrixView Output, PairRecipe R>
Result<QuantizedValueOutput<detail::PairQuantizerOf<R>>> try_quantize_value_output(
    Value&& Wv, Output&& Wo, const HeadLayout& layout, const R& recipe,
    const ValueOutputOptions& options = {}, ExecutorRef executor = {}) {
  const auto value = as_view(Wv);
  const auto output = as_view(Wo);
  if (auto fault = detail::value_output_fault(value, output, layout, recipe, options))
    return *fault;

  auto rounded = recipe.pair(detail::value_output_shape(value, output))
                     .try_quantize(PairInput{output, Side::input, "Wo"},
                                   PairInput{value, Side::output, "Wv"}, layout, {}, executor);
  if (!rounded) return rounded.error();
  return catch_error([&] {
    return detail::with_biases(std::move(rounded).value(), output.as_const(), layout, options,
                               executor);
  });
}

/// Quantizes W_v [kv_heads · head_dim, in] and W_o [out, heads · head_dim] so that the error of
/// their products, head by head, is small (CafeQ, arXiv 2511.19705: a dual transform, then
/// alternating rounding). One M serves all query heads of a group. A value bias moves into the
/// output bias, which is exact; where the model has no output bias the value bias is fitted to what
/// the quantized W_o makes of it. Raises what try_quantize_value_output() returns.
template <MatrixView Value, MatrixView Output, PairRecipe R>
auto quantize_value_output(Value&& Wv, Output&& Wo, const HeadLayout& layout, const R& recipe,
                           const ValueOutputOptions& options = {}, ExecutorRef executor = {}) {
  return try_quantize_value_output(Wv, Wo, layout, recipe, options, executor).value();
}

/// quantize_query_key() for callers without exceptions, as try_quantize_value_output() is.
template <MatrixView Query, MatrixView Key, PairRecipe R>
Result<QuantizedQueryKey<detail::PairQuantizerOf<R>>> try_quantize_query_key(
    Query&& Wq, Key&& Wk, const HeadLayout& layout, const R& recipe,
    const QueryKeyOptions& options = {}, ExecutorRef executor = {}) {
  const auto query = as_view(Wq);
  const auto key = as_view(Wk);
  if (auto fault = detail::query_key_fault(query, key, layout, recipe, options)) return *fault;

  auto rounded =
      recipe.pair(detail::query_key_shape(query, key))
          .try_quantize(PairInput{query, Side::output, "Wq"}, PairInput{key, Side::output, "Wk"},
                        layout, options.traits.rotary, executor);
  if (!rounded) return rounded.error();
  return catch_error([&] {
    check(query_key_fault(options.traits, rounded.value().transform));
    return detail::with_biases(std::move(rounded).value(), options);
  });
}

/// Quantizes W_q [heads · head_dim, in] and W_k [kv_heads · head_dim, in] so that the error of the
/// scores' bilinear forms is small. With rotary positions (options.traits) M is restricted to what
/// commutes with them. Raises what try_quantize_query_key() returns.
template <MatrixView Query, MatrixView Key, PairRecipe R>
auto quantize_query_key(Query&& Wq, Key&& Wk, const HeadLayout& layout, const R& recipe,
                        const QueryKeyOptions& options = {}, ExecutorRef executor = {}) {
  return try_quantize_query_key(Wq, Wk, layout, recipe, options, executor).value();
}

}  // namespace cafeq
