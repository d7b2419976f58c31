/// AnyTransform: a fitted transform whose kind is known when the program runs.
#pragma once

#include <type_traits>
#include <utility>
#include <variant>

#include "cafeq/transform/block_diagonal.hpp"
#include "cafeq/transform/compose.hpp"
#include "cafeq/transform/hadamard.hpp"

namespace cafeq {

namespace detail {

/// Dual scaling, then a Hadamard.
using ScaledHadamard = Composed<Diagonal, Hadamard>;

}  // namespace detail

/// What the recipes fit: nothing (one matrix of a pair), dual scaling with a Hadamard (`fast`), a
/// learned block-diagonal M (`learned`, `paper`), a Hadamard alone (`smallest`).
class AnyTransform {
 public:
  using Variant = std::variant<Identity::Fitted, detail::ScaledHadamard, BlockDiagonal, Hadamard>;

  template <class T>
    requires(!std::is_same_v<T, AnyTransform>) && Transform<T> &&
            std::is_constructible_v<Variant, T>
  AnyTransform(T transform)  // NOLINT(google-explicit-constructor)
      : transform_(std::move(transform)) {}

  /// f(transform), with its own type.
  template <class F>
  decltype(auto) visit(F&& f) const {
    return std::visit(std::forward<F>(f), transform_);
  }

  Index dim() const {
    return visit([](const auto& t) { return Index(t.dim()); });
  }
  template <class E>
  void apply(View<E> X, Op op) const {
    visit([&](const auto& t) { t.apply(X, op); });
  }
  bool is_orthogonal() const {
    return visit([](const auto& t) { return t.is_orthogonal(); });
  }
  std::int64_t storage_bits() const {
    return visit([](const auto& t) { return std::int64_t(t.storage_bits()); });
  }

 private:
  Variant transform_;
};
static_assert(Transform<AnyTransform>);

}  // namespace cafeq
