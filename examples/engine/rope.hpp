/// Rotary positions: coordinates of queries and keys are turned in pairs, by angles that grow with
/// the position of their token (Su et al., "RoFormer", arXiv 2104.09864).
#pragma once

#include <cmath>
#include <span>
#include <vector>

#include "cafeq/model/model.hpp"
#include "kernels.hpp"

namespace engine {

/// The rotations of one kind of layer.
class Rope {
 public:
  /// Those of most layers, for texts of any length; or those of a long one.
  explicit Rope(const cafeq::ModelConfig& config, bool long_text = false)
      : Rope(*config.attention.rotary, config.rope_base,
             long_text && !config.rope_scaling.long_factors.empty()
                 ? config.rope_scaling.long_factors
                 : config.rope_scaling.factors,
             config.rope_scaling.magnitude) {}
  /// Those of layers with a window, where they have a base of their own.
  static Rope of_window(const cafeq::ModelConfig& config) {
    return Rope(*config.attention.rotary, config.window_rope_base, {}, 1);
  }

  /// Turns each of the heads [head_dim] of a token at a position.
  void operator()(std::span<float> heads, Index head_dim, Index position) const {
    for (Index i = 0; i < rotary_.pairs(); ++i) {
      const double angle = double(position) * frequencies_[std::size_t(i)];
      const float cosine = float(magnitude_ * std::cos(angle)),
                  sine = float(magnitude_ * std::sin(angle));
      const auto [first, second] = rotary_.pair(i);
      for (float* head = heads.data(); head != heads.data() + heads.size(); head += head_dim) {
        const float a = head[first], b = head[second];
        head[first] = a * cosine - b * sine;
        head[second] = a * sine + b * cosine;
      }
    }
  }

 private:
  Rope(cafeq::Rotary rotary, double base, const std::vector<double>& factors, double magnitude)
      : rotary_(rotary), magnitude_(magnitude) {
    for (Index i = 0; i < rotary.pairs(); ++i)
      frequencies_.push_back(std::pow(base, -2.0 * double(i) / double(rotary.dims)) /
                             (factors.empty() ? 1 : factors.at(std::size_t(i))));
  }

  cafeq::Rotary rotary_;
  double magnitude_;
  std::vector<double> frequencies_;  // radians a position, of each pair of coordinates
};

}  // namespace engine
