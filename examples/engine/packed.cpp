#include "packed.hpp"

#include <memory>
#include <utility>

#include "cafeq/cafeq.hpp"
#include "cafeq/runtime/any_linear.hpp"

namespace engine {
namespace {

using cafeq::ExecutorRef;

template <cafeq::Transform T, class Q>
Product product_of(cafeq::Quantized<T, Q> W) {
  const auto linear = std::make_shared<const cafeq::Linear<T, Q>>(std::move(W));
  return [linear](View<const float> X, View<float> Y, ExecutorRef threads) {
    linear->multiply_batch(X, Y, threads);
  };
}

Product packed(const cafeq::AnyQuantized& W) { return product_of(W); }

template <class Recipe>
Product quantized(View<const float> W, ExecutorRef threads) {
  return product_of(cafeq::quantize(W, Recipe{}, threads));
}

Product quantize(std::string_view quantizer, View<const float> W, ExecutorRef threads) {
  if (quantizer == "fast3") return quantized<cafeq::recipes::fast<3>>(W, threads);
  if (quantizer == "fast4") return quantized<cafeq::recipes::fast<4>>(W, threads);
  if (quantizer == "learned3") return quantized<cafeq::recipes::learned<3>>(W, threads);
  return quantized<cafeq::recipes::smallest>(W, threads);
}

}  // namespace
}  // namespace engine

template <>
constinit const engine::PackedWeights cafeq::Dispatched<engine::PackedWeights>::table{
    .packed = engine::packed, .quantize = engine::quantize};
