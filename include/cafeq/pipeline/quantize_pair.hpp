/// quantize_value_output() and quantize_query_key(): two matrices that meet in an attention layer,
/// by a recipe.
#pragma once

#include <optional>
#include <vector>

#include "cafeq/pair/value_output.hpp"
#include "cafeq/pipeline/pair_pipeline.hpp"
#include "cafeq/pipeline/quantize.hpp"

namespace cafeq {

/// Something with pair(): the PairPipeline for two matrices that meet; or, where that depends on
/// their shapes, with pair(first_lines, first_length, second_lines, second_length), lines being
/// entries of the shared dimension.
template <class R>
concept PairRecipe =
    requires(const R& r) { r.pair(); } || requires(const R& r, Index n) { r.pair(n, n, n, n); };

namespace detail {
template <PairRecipe R>
auto pair_pipeline(const R& recipe, Index first_lines, Index first_length, Index second_lines,
                   Index second_length) {
  if constexpr (requires { recipe.pair(); }) return recipe.pair();
  else return recipe.pair(first_lines, first_length, second_lines, second_length);
}
}  // namespace detail

template <class R>
using PairQuantizerOf = std::remove_cvref_t<
    decltype(detail::pair_pipeline(std::declval<const R&>(), 1, 1, 1, 1).quantizer)>;

/// Biases and habits of the layer around a value/output pair.
struct ValueOutputOptions {
  VectorView<const float> value_bias{};   ///< [kv_heads · head_dim]; empty if the model has none
  VectorView<const float> output_bias{};  ///< [out]; empty if the model has none
  AttentionTraits traits{};
};

struct QueryKeyOptions {
  VectorView<const float> query_bias{};  ///< [heads · head_dim]; empty if the model has none
  VectorView<const float> key_bias{};    ///< [kv_heads · head_dim]; empty if the model has none
  AttentionTraits traits{};
};

namespace detail {

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

inline std::vector<float> copy_bias(VectorView<const float> bias) {
  std::vector<float> result;
  for (Index i = 0; i < bias.size; ++i) result.push_back(bias[i]);
  return result;
}
inline VectorView<float> bias_view(std::vector<float>& bias) noexcept {
  return {bias.empty() ? nullptr : bias.data(), Index(bias.size()), 1};
}

inline std::optional<Error> bias_fault(VectorView<const float> bias, Index size,
                                       std::string_view name) {
  if (bias.size == 0) return std::nullopt;
  if (bias.data == nullptr)
    return Error(ErrorCode::invalid_stride, message(name, ": no data for ", bias.size, " entries"));
  if (bias.size != size)
    return Error(ErrorCode::invalid_shape,
                 message(name, ": ", bias.size, " entries, but the matrix has ", size, " rows"));
  return finite_fault(View<const float>{bias.data, bias.size, 1, bias.stride, 1}, name);
}

/// What keeps a value/output pair from being quantized, if anything.
template <class T, class U>
std::optional<Error> value_output_fault(View<T> value, View<U> output, const HeadLayout& layout,
                                        VectorView<const float> value_bias,
                                        VectorView<const float> output_bias,
                                        const AttentionTraits& traits) {
  if (auto fault = layout.fault()) return fault;
  if (auto fault = weights_fault(value, "Wv")) return fault;
  if (auto fault = weights_fault(output, "Wo")) return fault;
  if (auto fault = layout.second_fault(value.rows, "Wv")) return fault;
  if (auto fault = layout.first_fault(output.cols, "Wo", "columns")) return fault;
  if (auto fault = bias_fault(value_bias, value.rows, "value bias")) return fault;
  if (auto fault = bias_fault(output_bias, output.rows, "output bias")) return fault;
  // Alternating rounding mixes the channels of a head, so that even M = I would not do here.
  if (traits.gated_output)
    return Error(ErrorCode::unsupported,
                 "value/output: the heads' output is gated channel by channel, which does not "
                 "commute with what the pair does");
  return value_output_refusal(traits);
}

/// What keeps a query/key pair from being quantized, if anything.
template <class T, class U>
std::optional<Error> query_key_fault(View<T> query, View<U> key, const HeadLayout& layout,
                                     VectorView<const float> query_bias,
                                     VectorView<const float> key_bias,
                                     const AttentionTraits& traits) {
  if (auto fault = layout.fault()) return fault;
  if (auto fault = weights_fault(query, "Wq")) return fault;
  if (auto fault = weights_fault(key, "Wk")) return fault;
  if (auto fault = layout.first_fault(query.rows, "Wq")) return fault;
  if (auto fault = layout.second_fault(key.rows, "Wk")) return fault;
  if (query.cols != key.cols)
    return Error(ErrorCode::invalid_shape,
                 message("Wq has ", query.cols, " columns but Wk has ", key.cols));
  if (auto fault = bias_fault(query_bias, query.rows, "query bias")) return fault;
  if (auto fault = bias_fault(key_bias, key.rows, "key bias")) return fault;
  if (traits.rotary)
    if (auto fault = traits.rotary->fault(layout.head_dim)) return fault;
  return query_key_refusal(traits);
}

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

/// Quantizes W_v [kv_heads · head_dim, in] and W_o [out, heads · head_dim] so that the error of
/// their products, head by head, is small (CafeQ, arXiv 2511.19705: a dual transform, then
/// alternating rounding). One M serves all query heads of a group. A value bias moves into the
/// output bias, which is exact; where the model has no output bias the value bias is fitted to what
/// the quantized W_o makes of it. Raises for wrong layouts, values that are not finite, and layers
/// for which the method is not exact.
template <MatrixView Value, MatrixView Output, PairRecipe R>
auto quantize_value_output(Value&& Wv, Output&& Wo, const HeadLayout& layout, const R& recipe,
                           const ValueOutputOptions& options = {}, ExecutorRef executor = {}) {
  const auto value = as_view(Wv);
  const auto output = as_view(Wo);
  if (auto fault = detail::value_output_fault(value, output, layout, options.value_bias,
                                              options.output_bias, options.traits))
    raise(*fault);
  const auto pipeline =
      detail::pair_pipeline(recipe, output.cols, output.rows, value.rows, value.cols);
  auto rounded = pipeline.quantize(PairInput{output, Side::input}, PairInput{value, Side::output},
                                   layout, {}, executor);
  check_value_output(options.traits, rounded.transform);
  std::vector<float> value_bias = detail::copy_bias(options.value_bias);
  std::vector<float> output_bias = detail::copy_bias(options.output_bias);
  if (!value_bias.empty()) {
    if (!output_bias.empty() && value_bias_is_constant(options.traits)) {
      fold_value_bias(output, layout, detail::bias_view(value_bias), detail::bias_view(output_bias),
                      options.traits);
    } else {
      rounded.transform.apply_second(detail::bias_view(value_bias));
      if (output_bias.empty() && value_bias_is_constant(options.traits)) {
        Matrix<float> hat(output.rows, output.cols);
        rounded.first.dequantize(hat, executor);
        fit_value_bias(output, options.value_bias, hat, detail::bias_view(value_bias), layout,
                       options.traits);
      }
    }
  }
  return QuantizedValueOutput<PairQuantizerOf<R>>(std::move(rounded), std::move(value_bias),
                                                  std::move(output_bias));
}

/// Quantizes W_q [heads · head_dim, in] and W_k [kv_heads · head_dim, in] so that the error of the
/// scores' bilinear forms is small. With rotary positions (options.traits) M is restricted to what
/// commutes with them. Raises as quantize_value_output() does.
template <MatrixView Query, MatrixView Key, PairRecipe R>
auto quantize_query_key(Query&& Wq, Key&& Wk, const HeadLayout& layout, const R& recipe,
                        const QueryKeyOptions& options = {}, ExecutorRef executor = {}) {
  const auto query = as_view(Wq);
  const auto key = as_view(Wk);
  if (auto fault = detail::query_key_fault(query, key, layout, options.query_bias, options.key_bias,
                                           options.traits))
    raise(*fault);
  const auto pipeline = detail::pair_pipeline(recipe, query.rows, query.cols, key.rows, key.cols);
  auto rounded = pipeline.quantize(PairInput{query, Side::output}, PairInput{key, Side::output},
                                   layout, options.traits.rotary, executor);
  check_query_key(options.traits, rounded.transform);
  std::vector<float> query_bias = detail::copy_bias(options.query_bias);
  std::vector<float> key_bias = detail::copy_bias(options.key_bias);
  if (!query_bias.empty()) rounded.transform.apply_first(detail::bias_view(query_bias));
  if (!key_bias.empty()) rounded.transform.apply_second(detail::bias_view(key_bias));
  return QuantizedQueryKey<PairQuantizerOf<R>>(std::move(rounded), std::move(query_bias),
                                               std::move(key_bias));
}

/// quantize_value_output() for callers without exceptions.
template <MatrixView Value, MatrixView Output, PairRecipe R>
auto try_quantize_value_output(Value&& Wv, Output&& Wo, const HeadLayout& layout, const R& recipe,
                               const ValueOutputOptions& options = {}, ExecutorRef executor = {})
    -> Result<decltype(quantize_value_output(Wv, Wo, layout, recipe, options, executor))> {
  if (auto fault = detail::value_output_fault(as_view(Wv), as_view(Wo), layout, options.value_bias,
                                              options.output_bias, options.traits))
    return *fault;
  return catch_error(
      [&] { return quantize_value_output(Wv, Wo, layout, recipe, options, executor); });
}

/// quantize_query_key() for callers without exceptions.
template <MatrixView Query, MatrixView Key, PairRecipe R>
auto try_quantize_query_key(Query&& Wq, Key&& Wk, const HeadLayout& layout, const R& recipe,
                            const QueryKeyOptions& options = {}, ExecutorRef executor = {})
    -> Result<decltype(quantize_query_key(Wq, Wk, layout, recipe, options, executor))> {
  if (auto fault = detail::query_key_fault(as_view(Wq), as_view(Wk), layout, options.query_bias,
                                           options.key_bias, options.traits))
    return *fault;
  return catch_error([&] { return quantize_query_key(Wq, Wk, layout, recipe, options, executor); });
}

}  // namespace cafeq
