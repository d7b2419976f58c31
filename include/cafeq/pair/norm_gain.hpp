/// The gain and bias of a norm, folded into the matrices that read its output.
#pragma once

#include <cmath>
#include <initializer_list>
#include <optional>
#include <span>

#include "cafeq/core/fault.hpp"
#include "cafeq/core/view_fault.hpp"
#include "cafeq/pair/bias.hpp"

namespace cafeq {

/// A norm as y = (offset + gain) ∘ normalised(x) + bias. offset is 1 for models that store the
/// gain's distance from 1 (Gemma).
template <class T>
struct NormGain {
  VectorView<T> gain;
  VectorView<T> bias{};  ///< LayerNorm's; empty for RMSNorm
  float offset = 0.0f;
};

namespace detail {

/// A matrix that reads a norm's output, with its own bias if it has one.
template <class T>
struct NormReader {
  View<T> weight;
  VectorView<T> bias{};
};

}  // namespace detail

/// Folds gain and bias of a norm into every matrix that reads it: W ← W diag(offset + gain), b ← b
/// + W·(norm's bias), after which the norm is plain. All readers of the norm must be given. A norm
/// bias that is not zero needs a bias in each reader.
template <class T>
void fold_norm_gain(NormGain<T> norm, std::span<const detail::NormReader<T>> readers);

template <class T>
void fold_norm_gain(NormGain<T> norm, std::initializer_list<detail::NormReader<T>> readers) {
  fold_norm_gain(norm, std::span<const detail::NormReader<T>>(readers.begin(), readers.size()));
}

namespace detail {

/// What keeps a norm from being folded into its readers, if anything.
template <class T>
std::optional<Error> norm_gain_fault(const NormGain<T>& norm,
                                     std::span<const NormReader<T>> readers, bool has_bias) {
  const Index n = norm.gain.size;
  if (norm.bias.size > 0 && norm.bias.size != n)
    return Error(ErrorCode::invalid_shape,
                 message("norm bias: ", norm.bias.size, " entries, but the gain has ", n));

  for (std::size_t r = 0; r < readers.size(); ++r) {
    const auto& [weight, bias] = readers[r];
    if (auto fault = view_fault(weight, "reader")) return fault;
    if (weight.cols != n)
      return Error(ErrorCode::invalid_shape, message("reader ", r, ": ", weight.cols,
                                                     " columns, but the gain has ", n, " entries"));
    if (auto fault = bias_fault(bias, weight.rows, message("reader ", r, " bias"))) return fault;
    if (has_bias && bias.size == 0)
      return Error(ErrorCode::unsupported,
                   message("reader ", r, ": has no bias to take the norm's"));
  }
  return std::nullopt;
}

}  // namespace detail

template <class T>
void fold_norm_gain(NormGain<T> norm, std::span<const detail::NormReader<T>> readers) {
  const Index n = norm.gain.size;
  bool has_bias = false;
  for (Index j = 0; j < norm.bias.size; ++j) has_bias = has_bias || double(norm.bias[j]) != 0.0;
  check(detail::norm_gain_fault(norm, readers, has_bias));

  // A row's bias takes W·(norm's bias) while its weights are still those before the gain.
  for (const auto& [weight, bias] : readers)
    for (Index i = 0; i < weight.rows; ++i) {
      double sum = has_bias ? double(bias[i]) : 0.0;
      for (Index j = 0; j < n; ++j) {
        if (has_bias) sum = std::fma(double(weight(i, j)), double(norm.bias[j]), sum);
        weight(i, j) =
            detail::narrow<T>(double(weight(i, j)) * (double(norm.offset) + double(norm.gain[j])));
      }
      if (has_bias) bias[i] = detail::narrow<T>(sum);
    }

  for (Index j = 0; j < n; ++j) norm.gain[j] = detail::narrow<T>(1.0 - double(norm.offset));
  for (Index j = 0; j < norm.bias.size; ++j) norm.bias[j] = detail::narrow<T>(0.0);
}

}  // namespace cafeq
