// The search for scales on one group, and what a scale costs it.
#pragma once
#include "cafeq/quant/scale_refinement.hpp"

namespace cafeq::test {

template <class Levels>
double error_at(std::span<const float> x, const Levels& levels, detail::ScaleOffset at) {
  double error = 0;
  kernel::squared_errors(x, levels, std::span<const detail::ScaleOffset>(&at, 1), {&error, 1});
  return error;
}

template <class Levels>
detail::ScaleOffset refined(std::span<const float> x, const Levels& levels,
                            detail::ScaleOffset from, int rounds = detail::refinement_rounds) {
  ScaleOffsets at;
  at.scale[0] = from.scale;
  at.offset[0] = from.offset;
  const detail::Each<float> pivot{from.offset};
  detail::refine_scales({x, Index(x.size()), pivot.data()}, levels, at, nullptr, rounds);
  return {at.scale[0], at.offset[0]};
}

}  // namespace cafeq::test
