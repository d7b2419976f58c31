/// AnyQuantized: a quantized matrix whose quantizer and transform are known when the program runs,
/// such as one from a file.
#pragma once

#include <type_traits>
#include <utility>
#include <variant>

#include "cafeq/pipeline/quantized.hpp"
#include "cafeq/quant/affine.hpp"
#include "cafeq/quant/joint_codes.hpp"
#include "cafeq/quant/midrise.hpp"
#include "cafeq/transform/any_transform.hpp"
#include "cafeq/trellis/trellis.hpp"

namespace cafeq {

namespace detail {

/// A list of types.
template <class... T>
struct TypeList {
  template <template <class...> class Template>
  using Apply = Template<T...>;
  template <template <class> class Template>
  using Map = TypeList<Template<T>...>;

  template <class U>
  static constexpr bool contains = (std::is_same_v<T, U> || ...);

  /// f(std::type_identity<Type>) for each of them until one returns true.
  template <class F>
  static bool any_of(F&& f) {
    return (f(std::type_identity<T>{}) || ...);
  }
};

}  // namespace detail

/// The quantizers that files and programs choose at run time, bits and all. A new one is a line
/// here.
using RuntimeQuantizers = detail::TypeList<Affine<>, Midrise<>, Trellis>;

/// Stands for one of RuntimeQuantizers in the type of a result.
class AnyQuantizer {
 public:
  using Variant = RuntimeQuantizers::Apply<std::variant>;

  template <class Q>
    requires RuntimeQuantizers::contains<Q>
  AnyQuantizer(Q quantizer)  // NOLINT(google-explicit-constructor)
      : quantizer_(std::move(quantizer)) {}

  /// f(quantizer), with its own type.
  template <class F>
  decltype(auto) visit(F&& f) const {
    return std::visit(std::forward<F>(f), quantizer_);
  }

  /// How their codes are multiplied: runtime/any_linear.hpp.
  class Product;

 private:
  Variant quantizer_;
};

/// The codes of one of them.
template <>
class Codes<AnyQuantizer> {
 public:
  using Variant = RuntimeQuantizers::Map<Codes>::Apply<std::variant>;

  template <class Q>
    requires RuntimeQuantizers::contains<Q>
  Codes(Codes<Q> codes)  // NOLINT(google-explicit-constructor)
      : codes_(std::move(codes)) {}

  /// f(codes), with their own type.
  template <class F>
  decltype(auto) visit(F&& f) const {
    return std::visit(std::forward<F>(f), codes_);
  }

  Index rows() const {
    return visit([](const auto& codes) { return codes.rows(); });
  }
  Index cols() const {
    return visit([](const auto& codes) { return codes.cols(); });
  }
  std::int64_t storage_bits() const {
    return visit([](const auto& codes) { return codes.storage_bits(); });
  }
  AnyQuantizer quantizer() const {
    return visit([](const auto& codes) { return AnyQuantizer(codes.quantizer()); });
  }
  void decode_rows(Index begin, View<float> out) const {
    visit([&](const auto& codes) { codes.decode_rows(begin, out); });
  }

 private:
  Variant codes_;
};

/// Holds what the recipes make with bits chosen at run time.
using AnyQuantized = Quantized<AnyTransform, AnyQuantizer>;

}  // namespace cafeq
