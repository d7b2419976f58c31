/// Up and down projections of an MLP: what may change without changing the output.
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
inline std::optional<Error> up_down_fault(const MlpTraits& traits) {
  const auto unsupported = [](const char* reason) { return Error(ErrorCode::unsupported, reason); };
  if (traits.inner_norm)
    return unsupported(
        "up/down: hidden channels are normalised ahead of the down projection, which scales would "
        "change");
  if (!traits.gated && traits.activation != Activation::relu &&
      traits.activation != Activation::leaky_relu)
    return unsupported(
        "up/down: without a gate, only an activation with act(s x) = s act(x) allows scales; "
        "permutations stay possible");
  return std::nullopt;
}

/// Why these scales would change the MLP, if so.
inline std::optional<Error> up_down_fault(const MlpTraits& traits, const HeadTransform& scales) {
  if (auto fault = up_down_fault(traits)) return fault;
  if (traits.gated) return std::nullopt;
  for (Index c = 0; c < scales.layout().kv_heads; ++c)
    if (!(scales.matrix(c)(0, 0) > 0))
      return Error(ErrorCode::unsupported,
                   message("up/down: scale ", c, " is ", scales.matrix(c)(0, 0),
                           ", but without a gate scales must be positive"));
  return std::nullopt;
}

/// The scales that give row c of W_up and column c of W_down equal norms: √(‖column‖ / ‖row‖).
template <MatrixView Up, MatrixView Down>
HeadTransform balance_up_down(Up&& up, Down&& down, ExecutorRef executor = {}) {
  const auto u = as_view(up);
  const auto d = as_view(down);
  check(channel_layout(u.rows).first_fault(d.cols, "down", "columns"));
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
  check(layout.fault());
  check(detail::same_layout_fault(layout, scales.layout()));
  check(layout.first_fault(d.cols, "down", "columns"));
  check(detail::bias_fault(up_bias, u.rows, "up bias"));
  check(up_down_fault(traits, scales));

  scales.apply_second(u, executor);
  scales.apply_first(d.transposed(), executor);
  if (up_bias.size > 0) scales.apply_second(up_bias);
}

namespace detail {

inline std::optional<Error> permutation_fault(std::span<const Index> order, Index size) {
  if (Index(order.size()) != size)
    return Error(ErrorCode::invalid_shape,
                 message("order: ", order.size(), " entries for ", size, " channels"));
  std::vector<char> seen(order.size(), 0);
  for (std::size_t i = 0; i < order.size(); ++i) {
    if (order[i] < 0 || order[i] >= size || seen[std::size_t(order[i])] != 0)
      return Error(ErrorCode::invalid_argument,
                   message("order: entry ", i, " is ", order[i], ", not a permutation of ", size,
                           " channels"));
    seen[std::size_t(order[i])] = 1;
  }
  return std::nullopt;
}

}  // namespace detail

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
  check(detail::permutation_fault(order, u.rows));

  permute_rows(u, order);
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

template <class T>
void permute_rows(View<T> F, std::span<const Index> order) {
  check_view(F, "rows");
  check(detail::permutation_fault(order, F.rows));

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

}  // namespace cafeq
