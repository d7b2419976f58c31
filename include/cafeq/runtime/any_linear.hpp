/// AnyLinear: Linear for a matrix whose grid, bits and transform are known when the program runs,
/// such as one from a file.
#pragma once

#include <type_traits>
#include <utility>
#include <variant>

#include "cafeq/pipeline/any_quantized.hpp"
#include "cafeq/runtime/trellis_linear.hpp"

namespace cafeq {

class AnyLinear {
 public:
  explicit AnyLinear(AnyQuantized weights, ActivationFormat format = {})
      : linear_(weights.visit([&]<Transform T, class Q>(const Quantized<T, Q>& q) {
          return Variant(Linear<T, Q>(q, format));
        })) {}

  /// f(linear), with its own type: for prepare(), which layers with one transform share, and all
  /// else that Linear has.
  template <class F>
  decltype(auto) visit(F&& f) const {
    return std::visit(std::forward<F>(f), linear_);
  }
  Index in() const {
    return visit([](const auto& linear) { return linear.in(); });
  }
  Index out() const {
    return visit([](const auto& linear) { return linear.out(); });
  }
  /// y ← Ŵ x, see Linear::multiply().
  template <class X, class Y>
  void multiply(X&& x, Y&& y, ExecutorRef executor = {}) const {
    visit([&](const auto& linear) { linear.multiply(x, y, executor); });
  }
  /// Y ← X Ŵᵀ, see Linear::multiply_batch().
  void multiply_batch(View<const float> X, View<float> Y, ExecutorRef executor = {}) const {
    visit([&](const auto& linear) { linear.multiply_batch(X, Y, executor); });
  }

 private:
  template <class V>
  struct LinearOf;
  template <class... Q>
  struct LinearOf<std::variant<Q...>> {
    template <class T>
    struct One;
    template <Transform T, class G>
    struct One<Quantized<T, G>> {
      using type = Linear<T, G>;
    };
    using type = std::variant<typename One<Q>::type...>;
  };
  using Variant = typename LinearOf<AnyQuantized::Variant>::type;

  Variant linear_;
};

}  // namespace cafeq
