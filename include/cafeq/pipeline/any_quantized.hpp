/// AnyQuantized: a quantized matrix whose grid, bits and transform are known when the program runs.
#pragma once

#include <type_traits>
#include <utility>
#include <variant>

#include "cafeq/pipeline/quantized.hpp"
#include "cafeq/pipeline/trellis_pipeline.hpp"
#include "cafeq/quant/affine.hpp"
#include "cafeq/quant/midrise.hpp"
#include "cafeq/transform/block_diagonal.hpp"
#include "cafeq/transform/compose.hpp"
#include "cafeq/transform/hadamard.hpp"

namespace cafeq {

/// What the recipes fit: nothing (one matrix of a pair), dual scaling with a Hadamard (`fast`), a
/// learned block-diagonal M (`learned`, `paper`), a Hadamard alone (`smallest`).
using ScaledHadamard = Composed<Diagonal, Hadamard>;

/// Holds what the recipes make with bits chosen at run time, by either grid, or as trellis codes.
class AnyQuantized {
 public:
  using Variant =
      std::variant<Quantized<Identity::Fitted, Affine<>>, Quantized<Identity::Fitted, Midrise<>>,
                   Quantized<ScaledHadamard, Affine<>>, Quantized<ScaledHadamard, Midrise<>>,
                   Quantized<BlockDiagonal, Affine<>>, Quantized<BlockDiagonal, Midrise<>>,
                   Quantized<Hadamard, Trellis>, Quantized<Identity::Fitted, Trellis>>;

  template <Transform T, class Q>
    requires std::is_constructible_v<Variant, Quantized<T, Q>>
  AnyQuantized(Quantized<T, Q> quantized) : quantized_(std::move(quantized)) {}

  /// f(quantized), with its own type.
  template <class F>
  decltype(auto) visit(F&& f) const {
    return std::visit(std::forward<F>(f), quantized_);
  }

  Index rows() const {
    return visit([](const auto& q) { return q.rows(); });
  }
  Index cols() const {
    return visit([](const auto& q) { return q.cols(); });
  }
  std::int64_t storage_bits() const {
    return visit([](const auto& q) { return q.storage_bits(); });
  }
  double bits_per_weight() const {
    return visit([](const auto& q) { return q.bits_per_weight(); });
  }
  template <MatrixView M>
  void dequantize(M&& out, ExecutorRef executor = {}) const {
    visit([&](const auto& q) { q.dequantize(out, executor); });
  }
  template <MatrixView M>
  double error(M&& W, ExecutorRef executor = {}) const {
    return visit([&](const auto& q) { return q.error(W, executor); });
  }

 private:
  Variant quantized_;
};

}  // namespace cafeq
