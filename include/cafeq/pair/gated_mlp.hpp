/// Up and down projections of an MLP, and the gain of a norm: what may change without changing the
/// output.
///
/// down(act(gate x) ∘ (up x)): channels are multiplied, never mixed, so M is diagonal (any sign),
/// W_up ← D W_up, W_down ← W_down D⁻¹, and all three matrices may be permuted together. An MLP
/// without a gate, down(act(up x)), allows a positive D where act is positively homogeneous, and
/// permutations otherwise. In the canonical form this is one head of dimension 1 a channel:
/// channel_layout().
#pragma once

#include <algorithm>
#include <cmath>
#include <initializer_list>
#include <numeric>
#include <optional>
#include <span>
#include <vector>

#include "cafeq/pair/balance.hpp"

namespace cafeq {

enum class Activation { relu, leaky_relu, gelu, silu, other };

/// What an MLP does between its matrices. The default is the gated MLP of Llama.
struct MlpTraits {
  bool gated = true;
  Activation activation = Activation::silu;
  bool inner_norm = false;  ///< hidden channels are normalised ahead of the down projection
};

/// Why an MLP takes no scales between up and down at all, if so.
inline std::optional<Error> up_down_refusal(const MlpTraits& traits) {
  const auto refuse = [](const char* reason) { return Error(ErrorCode::unsupported, reason); };
  if (traits.inner_norm)
    return refuse(
        "up/down: hidden channels are normalised ahead of the down projection, which scales would "
        "change");
  if (!traits.gated && traits.activation != Activation::relu &&
      traits.activation != Activation::leaky_relu)
    return refuse(
        "up/down: without a gate, only an activation with act(s x) = s act(x) allows scales; "
        "permutations stay possible");
  return std::nullopt;
}

/// Raises `unsupported`, with the reason, where the scales would change the MLP.
inline void check_up_down(const MlpTraits& traits, const HeadTransform& scales) {
  if (auto refusal = up_down_refusal(traits)) raise(*refusal);
  if (traits.gated) return;
  for (Index c = 0; c < scales.layout().kv_heads; ++c)
    if (!(scales.matrix(c)(0, 0) > 0))
      raise(ErrorCode::unsupported, message("up/down: scale ", c, " is ", scales.matrix(c)(0, 0),
                                            ", but without a gate scales must be positive"));
}

/// The scales that give row c of W_up and column c of W_down equal norms: √(‖column‖ / ‖row‖).
template <MatrixView Up, MatrixView Down>
HeadTransform balance_up_down(Up&& up, Down&& down, ExecutorRef executor = {}) {
  const auto u = as_view(up);
  const auto d = as_view(down);
  channel_layout(u.rows).check_first(d.cols, "down", "columns");
  return balance_diagonal(d.transposed(), u, channel_layout(u.rows), executor);
}

/// W_up [channels, in] ← D W_up, its bias alike, W_down [out, channels] ← W_down D⁻¹, in place. The
/// gate and the other biases stay.
template <MatrixView Up, MatrixView Down>
void transform_up_down(Up&& up, Down&& down, const HeadTransform& scales,
                       std::type_identity_t<VectorView<detail::ElementOf<Up>>> up_bias = {},
                       const MlpTraits& traits = {}, ExecutorRef executor = {}) {
  const auto u = as_view(up);
  const auto d = as_view(down);
  check_view(u, "up");
  check_view(d, "down");
  const HeadLayout layout = channel_layout(u.rows);
  layout.check();
  detail::check_same_layout(layout, scales.layout());
  layout.check_first(d.cols, "down", "columns");
  detail::check_bias(up_bias, u.rows, "up bias");
  check_up_down(traits, scales);
  scales.apply_second(u, executor);
  scales.apply_first(d.transposed(), executor);
  if (up_bias.data != nullptr) scales.apply_second(up_bias);
}

/// F ← rows of F in the given order: new row i is old row order[i]. For W_down pass the transposed
/// view, for a bias as_view() of one column.
template <class T>
void permute_rows(View<T> F, std::span<const Index> order);

/// Permutes the channels between up (and gate, unless its view is empty) and down; exact for every
/// activation. Biases of up and gate and the gain of an inner norm follow by permute_rows().
template <MatrixView Gate, MatrixView Up, MatrixView Down>
void permute_channels(Gate&& gate, Up&& up, Down&& down, std::span<const Index> order) {
  const auto g = as_view(gate);
  const auto u = as_view(up);
  const auto d = as_view(down);
  if (!g.empty() && g.rows != u.rows)
    raise(ErrorCode::invalid_shape, message("gate: ", g.rows, " rows, but up has ", u.rows));
  if (d.cols != u.rows)
    raise(ErrorCode::invalid_shape,
          message("down: ", d.cols, " columns, but up has ", u.rows, " rows"));
  permute_rows(u, order);  // checks the order before anything is written
  permute_rows(d.transposed(), order);
  if (!g.empty()) permute_rows(g, order);
}

/// Channels by descending norm of their column in W_down: groups along W_down's inputs then hold
/// weights of like size.
template <MatrixView Down>
std::vector<Index> order_by_column_norm(Down&& down, ExecutorRef executor = {}) {
  const auto d = as_view(down);
  check_view(d, "down");
  const auto norms = detail::squared_row_norms(d.transposed(), executor);
  std::vector<Index> order(norms.size());
  std::iota(order.begin(), order.end(), Index(0));
  std::stable_sort(order.begin(), order.end(),
                   [&](Index a, Index b) { return norms[std::size_t(a)] > norms[std::size_t(b)]; });
  return order;
}

/// A norm as y = (offset + gain) ∘ normalised(x) + bias. offset is 1 for models that store the
/// gain's distance from 1 (Gemma).
template <class T>
struct NormGain {
  VectorView<T> gain;
  VectorView<T> bias{};  ///< LayerNorm's; empty for RMSNorm
  float offset = 0.0f;
};

/// A matrix that reads a norm's output, with its own bias if it has one.
template <class T>
struct NormReader {
  View<T> weight;
  VectorView<T> bias{};
};

/// Folds gain and bias of a norm into every matrix that reads it: W ← W diag(offset + gain), b ← b
/// + W·(norm's bias), after which the norm is plain. All readers of the norm must be given. A norm
/// bias that is not zero needs a bias in each reader.
template <class T>
void fold_norm_gain(NormGain<T> norm, std::span<const NormReader<T>> readers);

template <class T>
void fold_norm_gain(NormGain<T> norm, std::initializer_list<NormReader<T>> readers) {
  fold_norm_gain(norm, std::span<const NormReader<T>>(readers.begin(), readers.size()));
}

namespace detail {

inline void check_permutation(std::span<const Index> order, Index size) {
  if (Index(order.size()) != size)
    raise(ErrorCode::invalid_shape,
          message("order: ", order.size(), " entries for ", size, " channels"));
  std::vector<char> seen(order.size(), 0);
  for (std::size_t i = 0; i < order.size(); ++i) {
    if (order[i] < 0 || order[i] >= size || seen[std::size_t(order[i])] != 0)
      raise(ErrorCode::invalid_argument, message("order: entry ", i, " is ", order[i],
                                                 ", not a permutation of ", size, " channels"));
    seen[std::size_t(order[i])] = 1;
  }
}

}  // namespace detail

template <class T>
void permute_rows(View<T> F, std::span<const Index> order) {
  check_view(F, "rows");
  detail::check_permutation(order, F.rows);
  constexpr Index step = 64;
  Matrix<T> before(F.rows, std::min(step, F.cols));
  for (Index j = 0; j < F.cols; j += step) {
    const auto panel = F.col_block(j, std::min(step, F.cols - j));
    const auto old = before.view().col_block(0, panel.cols);
    copy(panel, old);
    for (Index i = 0; i < F.rows; ++i)
      for (Index c = 0; c < panel.cols; ++c) panel(i, c) = old(order[std::size_t(i)], c);
  }
}

template <class T>
void fold_norm_gain(NormGain<T> norm, std::span<const NormReader<T>> readers) {
  const Index n = norm.gain.size;
  if (norm.bias.data != nullptr && norm.bias.size != n)
    raise(ErrorCode::invalid_shape,
          message("norm bias: ", norm.bias.size, " entries, but the gain has ", n));
  bool has_bias = false;
  if (norm.bias.data != nullptr)
    for (Index j = 0; j < n; ++j) has_bias = has_bias || double(norm.bias[j]) != 0.0;
  for (std::size_t r = 0; r < readers.size(); ++r) {
    const auto& [weight, bias] = readers[r];
    check_view(weight, "reader");
    if (weight.cols != n)
      raise(ErrorCode::invalid_shape,
            message("reader ", r, ": ", weight.cols, " columns, but the gain has ", n, " entries"));
    detail::check_bias(bias, weight.rows, message("reader ", r, " bias"));
    if (has_bias && bias.data == nullptr)
      raise(ErrorCode::unsupported, message("reader ", r, ": has no bias to take the norm's"));
  }
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
  for (Index j = 0; j < n; ++j) {
    norm.gain[j] = detail::narrow<T>(1.0 - double(norm.offset));
    if (norm.bias.data != nullptr) norm.bias[j] = detail::narrow<T>(0.0);
  }
}

}  // namespace cafeq
