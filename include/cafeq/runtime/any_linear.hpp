/// AnyLinear: Linear for a matrix whose quantizer and transform are known when the program runs,
/// such as one from a file.
#pragma once

#include <type_traits>
#include <utility>
#include <variant>

#include "cafeq/pipeline/any_quantized.hpp"
#include "cafeq/runtime/linear.hpp"
#include "cafeq/trellis/multiply.hpp"

namespace cafeq {

/// The products of the quantizers that AnyQuantizer stands for.
class AnyQuantizer::Product {
 public:
  explicit Product(const Codes<AnyQuantizer>& codes)
      : product_(
            codes.visit([]<class Q>(const Codes<Q>& own) { return Variant(ProductOf<Q>(own)); })) {}

  Activations arrange(const Codes<AnyQuantizer>& codes, View<const float> X,
                      ActivationFormat format) const {
    return codes.visit(
        [&]<class Q>(const Codes<Q>& own) { return of<Q>().arrange(own, X, format); });
  }
  void multiply(const Codes<AnyQuantizer>& codes, const Activations& x, ActivationFormat format,
                PowerOfTwo unit, View<float> Y, ExecutorRef executor) const {
    codes.visit(
        [&]<class Q>(const Codes<Q>& own) { of<Q>().multiply(own, x, format, unit, Y, executor); });
  }

 private:
  using Variant = RuntimeQuantizers::Map<ProductOf>::Apply<std::variant>;

  template <class Q>
  const ProductOf<Q>& of() const {
    return *std::get_if<ProductOf<Q>>(&product_);
  }

  Variant product_;
};

/// Undoes whichever transform it is as Linear undoes that one.
template <>
class UndoTransform<AnyTransform> {
 public:
  UndoTransform(const AnyTransform& transform, Side side)
      : undo_(transform.visit(
            [&]<Transform T>(const T& own) { return Variant(UndoTransform<T>(own, side)); })) {}

  void operator()(const AnyTransform& transform, View<float> X, ExecutorRef executor) const {
    transform.visit([&]<Transform T>(const T& own) {
      (*std::get_if<UndoTransform<T>>(&undo_))(own, X, executor);
    });
  }

 private:
  template <class... T>
  static std::variant<UndoTransform<T>...> undo_of(const std::variant<T...>&);
  using Variant = decltype(undo_of(std::declval<AnyTransform::Variant>()));

  Variant undo_;
};

using AnyLinear = Linear<AnyTransform, AnyQuantizer>;

}  // namespace cafeq
