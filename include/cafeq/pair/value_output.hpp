/// Value and output projections: W_v ← M W_v, W_o ← W_o M⁻¹ for any invertible M per KV head.
///
/// Attention mixes tokens, M mixes the channels of a head, so the two commute and the layer's
/// output stays. The rows of the attention matrix sum to 1, so a value bias adds the constant Σ_h
/// W_o,h b_v,kv(h) to every output.
#pragma once

#include <vector>

#include "cafeq/kernel/gram.hpp"
#include "cafeq/linalg/dense.hpp"
#include "cafeq/loss/error_and_norm.hpp"
#include "cafeq/loss/head_grams.hpp"
#include "cafeq/pair/attention.hpp"
#include "cafeq/pair/head_transform.hpp"

namespace cafeq {

/// Biases of the value [kv_heads · d] and the output projection [out]; leave empty what the model
/// has not.
template <class T>
struct ValueOutputBiases {
  VectorView<T> value{};
  VectorView<T> output{};
};

/// Why a layer takes no M between value and output at all, if so.
inline std::optional<Error> value_output_fault(const AttentionTraits& traits);

/// Why this M between value and output would change the layer, if so. A gate on the output allows a
/// diagonal M.
inline std::optional<Error> value_output_fault(const AttentionTraits& traits,
                                               const HeadTransform& M);

/// Whether a value bias adds the same to every token, so that the output bias can take it.
inline bool value_bias_is_constant(const AttentionTraits& traits) noexcept {
  return traits.rows_sum_to_one && !traits.gated_output && !traits.value_norm &&
         !traits.output_norm && !traits.clipped;
}

/// W_v [kv_heads · d, in] ← M W_v and W_o [out, heads · d] ← W_o M⁻¹ in place. Where the model has
/// both biases and the value's adds a constant, b_o ← b_o + W_o b_v and b_v ← 0; else b_v ← M b_v.
template <MatrixView Value, MatrixView Output>
void transform_value_output(
    Value&& Wv, Output&& Wo, HeadLayout layout, const HeadTransform& M,
    std::type_identity_t<ValueOutputBiases<detail::ElementOf<Value>>> biases = {},
    const AttentionTraits& traits = {}, ExecutorRef executor = {});

/// b_o ← b_o + Σ_h W_o,h b_v,kv(h), b_v ← 0: exact in softmax attention.
template <MatrixView Output, class T>
void fold_value_bias(Output&& Wo, HeadLayout layout, VectorView<T> value_bias,
                     VectorView<T> output_bias, const AttentionTraits& traits = {});

/// For models without an output bias: a value bias for the quantized Ŵ_o under which the constant
/// that the exact pair (W_o, b_v) adds to every output is met in least squares. Head by head,
/// (B̂ᵀB̂)⁻¹B̂ᵀ of what the heads before have left (B̂ the sum of a group's blocks), a few rounds:
/// never worse than a single fit of each. `fitted_bias` enters as the start (b_v in the basis of
/// Ŵ_o; zeros will do). Returns the squared error that is left, relative to the squared norm of the
/// constant.
template <MatrixView Output, MatrixView OutputHat, class T, class U>
double fit_value_bias(Output&& Wo, VectorView<T> value_bias, OutputHat&& Wo_hat,
                      VectorView<U> fitted_bias, HeadLayout layout,
                      const AttentionTraits& traits = {});

namespace detail {

/// Why the output bias cannot take the value bias, if so.
inline std::optional<Error> constant_value_bias_fault(const AttentionTraits& traits) {
  if (value_bias_is_constant(traits)) return std::nullopt;
  return Error(
      ErrorCode::unsupported,
      "value bias: adds no constant to the output where attention rows do not sum to 1, values "
      "or outputs are normalised, gated or clipped");
}

/// B_kv [out, kv_heads · d]: the blocks of W_o that read the same KV head, summed, since the same
/// bias reaches all of them.
template <class T>
Matrix<double> summed_output_blocks(View<T> Wo, const HeadLayout& layout) {
  Matrix<double> sum(Wo.rows, layout.kv_heads * layout.head_dim);
  for (Index o = 0; o < Wo.rows; ++o)
    for (Index j = 0; j < Wo.cols; ++j)
      sum(o, layout.kv_head(j / layout.head_dim) * layout.head_dim + j % layout.head_dim) +=
          double(Wo(o, j));
  return sum;
}

}  // namespace detail

inline std::optional<Error> value_output_fault(const AttentionTraits& traits) {
  const auto unsupported = [](const char* reason) { return Error(ErrorCode::unsupported, reason); };
  if (traits.value_norm)
    return unsupported(
        "value/output: values are normalised after their projection, which does not commute with "
        "M");
  if (traits.output_norm)
    return unsupported(
        "value/output: the heads' output is normalised ahead of the output projection, which does "
        "not commute with M");
  if (traits.clipped)
    return unsupported("value/output: values are clipped, which does not commute with M");
  return std::nullopt;
}

inline std::optional<Error> value_output_fault(const AttentionTraits& traits,
                                               const HeadTransform& M) {
  if (auto fault = value_output_fault(traits)) return fault;
  if (!traits.gated_output || M.is_diagonal()) return std::nullopt;
  return Error(ErrorCode::unsupported,
               "value/output: the heads' output is gated channel by channel, which commutes with a "
               "diagonal M only");
}

template <MatrixView Value, MatrixView Output>
void transform_value_output(
    Value&& Wv, Output&& Wo, HeadLayout layout, const HeadTransform& M,
    std::type_identity_t<ValueOutputBiases<detail::ElementOf<Value>>> biases,
    const AttentionTraits& traits, ExecutorRef executor) {
  const auto value = as_view(Wv);
  const auto output = as_view(Wo);
  check(layout.fault());
  check(detail::same_layout_fault(layout, M.layout()));
  check_view(value, "Wv");
  check_view(output, "Wo");
  check(layout.second_fault(value.rows, "Wv"));
  check(layout.first_fault(output.cols, "Wo", "columns"));
  check(detail::bias_fault(biases.value, value.rows, "value bias"));
  check(detail::bias_fault(biases.output, output.rows, "output bias"));
  check(value_output_fault(traits, M));

  if (biases.value.size > 0) {
    if (biases.output.size > 0 && value_bias_is_constant(traits))
      fold_value_bias(output, layout, biases.value, biases.output, traits);
    else M.apply_second(biases.value);
  }
  M.apply_second(value, executor);
  M.apply_first(output.transposed(), executor);
}

template <MatrixView Output, class T>
void fold_value_bias(Output&& Wo, HeadLayout layout, VectorView<T> value_bias,
                     VectorView<T> output_bias, const AttentionTraits& traits) {
  const auto output = as_view(Wo);
  check(layout.fault());
  check_view(output, "Wo");
  check(layout.first_fault(output.cols, "Wo", "columns"));
  check(layout.second_fault(value_bias.size, "value bias", "entries"));
  if (output_bias.size != output.rows)
    raise(ErrorCode::invalid_shape, message("output bias: ", output_bias.size,
                                            " entries, but Wo has ", output.rows, " rows"));
  check(detail::constant_value_bias_fault(traits));

  const Index d = layout.head_dim;
  for (Index o = 0; o < output.rows; ++o) {
    double sum = double(output_bias[o]);
    for (Index j = 0; j < output.cols; ++j)
      sum = std::fma(double(output(o, j)), double(value_bias[layout.kv_head(j / d) * d + j % d]),
                     sum);
    output_bias[o] = detail::narrow<T>(sum);
  }
  for (Index j = 0; j < value_bias.size; ++j) value_bias[j] = T(0.0f);
}

template <MatrixView Output, MatrixView OutputHat, class T, class U>
double fit_value_bias(Output&& Wo, VectorView<T> value_bias, OutputHat&& Wo_hat,
                      VectorView<U> fitted_bias, HeadLayout layout, const AttentionTraits& traits) {
  const auto exact = as_view(Wo);
  const auto hat = as_view(Wo_hat);
  check(layout.fault());
  check_view(exact, "Wo");
  check_view(hat, "Wo_hat");
  check_same_shape(exact, "Wo", hat, "Wo_hat");
  check(layout.first_fault(exact.cols, "Wo", "columns"));
  check(layout.second_fault(value_bias.size, "value bias", "entries"));
  check(layout.second_fault(fitted_bias.size, "fitted bias", "entries"));
  check(detail::constant_value_bias_fault(traits));

  const Index d = layout.head_dim;
  constexpr int rounds = 4;
  const auto B = detail::summed_output_blocks(hat, layout);
  Matrix<double> bias(value_bias.size, 1);
  Matrix<double> fitted(fitted_bias.size, 1);
  for (Index i = 0; i < bias.rows(); ++i) {
    bias(i, 0) = double(value_bias[i]);
    fitted(i, 0) = double(fitted_bias[i]);
  }

  // What the exact pair adds to every output, and what of it the start does not.
  const auto exact_B = detail::summed_output_blocks(exact, layout);
  auto residual = linalg::product(exact_B.view(), bias.view());  // [out, 1]
  const double norm = detail::inner_product(residual, residual);
  const auto subtract = [&](View<const double> block, View<const double> step) {
    const auto change = linalg::product(block, step);
    for (Index o = 0; o < residual.rows(); ++o) residual(o, 0) -= change(o, 0);
  };
  subtract(B.view(), fitted.view());

  // The Gram matrices of the blocks, for the least-squares steps.
  std::vector<Matrix<double>> grams;
  for (Index kv = 0; kv < layout.kv_heads; ++kv) {
    auto G = kernel::gram<double>(B.view().col_block(kv * d, d));
    linalg::add_ridge(G, 1e-6);
    grams.push_back(std::move(G));
  }

  for (int round = 0; round < rounds; ++round)
    for (Index kv = 0; kv < layout.kv_heads; ++kv) {
      const auto block = B.view().col_block(kv * d, d);
      const auto projection = linalg::product(block.transposed(), residual.view());  // B̂ᵀ r
      const auto step = linalg::solve_spd(grams[std::size_t(kv)].view(), projection.view());
      if (!step)
        raise(ErrorCode::not_positive_definite,
              message("Wo_hat: the Gram matrix of KV head ", kv, " is not positive definite"));
      subtract(block, step->view());
      for (Index i = 0; i < d; ++i) fitted(kv * d + i, 0) += (*step)(i, 0);
    }

  copy(fitted.view(), detail::as_column(fitted_bias));
  const double error = detail::inner_product(residual, residual);
  return norm > 0 ? error / norm : error;
}

}  // namespace cafeq
