#include <functional>
#include <span>

#include "cafeq/core/view.hpp"
#include "cafeq/simd/dispatch.hpp"

using Layer = std::function<void(std::span<const float> x, std::span<float> y)>;

/// What the program calls of layers.cpp.
struct Layers {
  Layer (*pack)(cafeq::View<const float> W);
  double (*loss)(cafeq::View<const float> W);
};
