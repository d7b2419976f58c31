/// What keeps two matrices that meet from being quantized together, found before any work is done.
#pragma once

#include <optional>
#include <string_view>

#include "cafeq/pair/query_key.hpp"
#include "cafeq/pair/value_output.hpp"
#include "cafeq/pipeline/recipe.hpp"

namespace cafeq {

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

/// An output projection has its heads on the input side, a value projection on the output side.
template <class T, class U>
PairShape value_output_shape(View<T> value, View<U> output) noexcept {
  return {.first_lines = output.cols,
          .first_length = output.rows,
          .second_lines = value.rows,
          .second_length = value.cols};
}
template <class T, class U>
PairShape query_key_shape(View<T> query, View<U> key) noexcept {
  return {.first_lines = query.rows,
          .first_length = query.cols,
          .second_lines = key.rows,
          .second_length = key.cols};
}

/// What a recipe says of itself, or what its pipeline says.
template <PairRecipe R>
std::optional<Error> pair_recipe_fault(const R& recipe, const PairShape& shape) {
  if constexpr (requires { recipe.pair_fault(shape); })
    if (auto fault = recipe.pair_fault(shape)) return fault;
  return recipe.pair(shape).fault(shape);
}

/// What keeps a bias from being added to what a matrix of `rows` rows computes, if anything.
inline std::optional<Error> finite_bias_fault(VectorView<const float> bias, Index rows,
                                              std::string_view name) {
  if (auto fault = bias_fault(bias, rows, name)) return fault;
  return finite_fault(as_column(bias), name);
}

/// What keeps a value/output pair from being quantized, if anything but values that are not finite,
/// which the pipeline sees as it reads the two.
template <class T, class U, PairRecipe R>
std::optional<Error> value_output_fault(View<T> value, View<U> output, const HeadLayout& layout,
                                        const R& recipe, const ValueOutputOptions& options) {
  if (auto fault = layout.fault()) return fault;
  if (auto fault = layout_fault(value, "Wv")) return fault;
  if (auto fault = layout_fault(output, "Wo")) return fault;
  if (auto fault = layout.second_fault(value.rows, "Wv")) return fault;
  if (auto fault = layout.first_fault(output.cols, "Wo", "columns")) return fault;
  if (auto fault = finite_bias_fault(options.value_bias, value.rows, "value bias")) return fault;
  if (auto fault = finite_bias_fault(options.output_bias, output.rows, "output bias")) return fault;
  // Alternating rounding mixes the channels of a head, so that even M = I would not do here.
  if (options.traits.gated_output)
    return Error(ErrorCode::unsupported,
                 "value/output: the heads' output is gated channel by channel, which does not "
                 "commute with what the pair does");
  if (auto fault = cafeq::value_output_fault(options.traits)) return fault;
  return pair_recipe_fault(recipe, value_output_shape(value, output));
}

/// The same for a query/key pair.
template <class T, class U, PairRecipe R>
std::optional<Error> query_key_fault(View<T> query, View<U> key, const HeadLayout& layout,
                                     const R& recipe, const QueryKeyOptions& options) {
  if (auto fault = layout.fault()) return fault;
  if (auto fault = layout_fault(query, "Wq")) return fault;
  if (auto fault = layout_fault(key, "Wk")) return fault;
  if (auto fault = layout.first_fault(query.rows, "Wq")) return fault;
  if (auto fault = layout.second_fault(key.rows, "Wk")) return fault;
  if (query.cols != key.cols)
    return Error(ErrorCode::invalid_shape,
                 message("Wq has ", query.cols, " columns but Wk has ", key.cols));
  if (auto fault = finite_bias_fault(options.query_bias, query.rows, "query bias")) return fault;
  if (auto fault = finite_bias_fault(options.key_bias, key.rows, "key bias")) return fault;
  if (options.traits.rotary)
    if (auto fault = options.traits.rotary->fault(layout.head_dim)) return fault;
  if (auto fault = cafeq::query_key_fault(options.traits)) return fault;
  return pair_recipe_fault(recipe, query_key_shape(query, key));
}

}  // namespace detail

}  // namespace cafeq
