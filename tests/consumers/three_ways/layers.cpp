#include "layers.hpp"

#include "cafeq/cafeq.hpp"

namespace {

Layer pack(cafeq::View<const float> W) {
  const cafeq::Linear layer(cafeq::quantize(W, cafeq::recipes::fast<4>{}));
  return [layer](std::span<const float> x, std::span<float> y) { layer.multiply(x, y); };
}

double loss(cafeq::View<const float> W) {
  return cafeq::quantize(W, cafeq::recipes::fast<4>{}).error(W);
}

}  // namespace

template <>
constinit const Layers cafeq::Dispatched<Layers>::table{.pack = pack, .loss = loss};
