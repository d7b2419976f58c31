/// What takes the time, compiled for each architecture (kernels.cpp) and chosen when the program
/// runs.
#pragma once

#include <functional>
#include <memory>
#include <span>

#include "cafeq/core/executor.hpp"
#include "cafeq/core/matrix.hpp"
#include "cafeq/kernel/panels.hpp"
#include "cafeq/linalg/input_gram.hpp"
#include "cafeq/pair/gated_mlp.hpp"
#include "cafeq/simd/dispatch.hpp"

namespace engine {

using cafeq::Index;
using cafeq::Matrix;
using cafeq::View;

/// Y [n, out] = X [n, in] · Wᵀ for weights W [out, in], whatever they are made of; one activation a
/// row.
using Product = std::function<void(View<const float> X, View<float> Y, cafeq::ExecutorRef threads)>;

/// Wᵀ in floats, laid out for products.
using Panels = cafeq::kernel::PackedMatrix<float>;

/// Heads of queries [n, heads · head_dim], of keys and values [t, kv_heads · head_dim]. The queries
/// are the last n of t tokens, each of which attends to those up to itself: to all, or to the last
/// `window` of them.
struct AttentionShape {
  Index heads, kv_heads, head_dim;
  float scale;
  float softcap = 0;  ///< c: scores s become c tanh(s/c); 0: they stay
  Index window = 0;   ///< 0: all
};

struct Kernels {
  std::shared_ptr<const Panels> (*pack)(View<const float> W);
  Product (*dense)(std::shared_ptr<const Panels> W);
  /// result [n, heads · head_dim] = softmax(scale · q kᵀ) v, head by head.
  void (*attend)(const AttentionShape& shape, View<const float> queries, View<const float> keys,
                 View<const float> values, View<float> result, cafeq::ExecutorRef threads);
  /// y [n, hidden] = activation(g) ⊙ u for rows [g | u].
  void (*gate)(cafeq::Activation activation, View<const float> gate_up, View<float> y,
               cafeq::ExecutorRef threads);
  /// log Σ exp(x).
  double (*log_sum_exp)(std::span<const float> x);
  /// KL(p ‖ q) in nats of the distributions with these logits, whose log_sum_exp() are given.
  double (*divergence)(std::span<const float> p, double p_sum, std::span<const float> q,
                       double q_sum);
  /// Adds inputs, the rows of x.
  void (*add_inputs)(cafeq::InputGram& gram, View<const float> x, cafeq::ExecutorRef threads);
};

inline const Kernels& kernels() {
  static const Kernels& best = cafeq::dispatched<Kernels>();
  return best;
}

}  // namespace engine
