/// Logarithmic scales: one byte or less for each line of a joint quantizer.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "cafeq/core/numeric.hpp"

namespace cafeq {

/// One scale a line: exp(base − step·code), base and step two halves of the matrix; the last code
/// is 0.
class LineScales {
 public:
  /// Lines whose scale is e^-12 of the largest or less count too little to widen the steps for.
  static constexpr float longest_range = 12;

  LineScales() = default;
  LineScales(int bits, float base, float step, std::vector<std::uint8_t> codes)
      : bits_(bits), base_(base), step_(step), codes_(std::move(codes)) {}
  /// The nearest to `values`, which are not negative; steps as small as they allow.
  LineScales(int bits, std::span<const float> values, float room = 1)
      : bits_(bits), codes_(values.size()) {
    float largest = 0;
    for (const float v : values) largest = std::max(largest, room * v);
    if (largest > 0) {
      const float floor = largest * std::exp(-longest_range);
      float least = largest;
      for (const float v : values)
        if (v / room >= floor) least = std::min(least, v / room);
      base_ = float(fp16(std::log(largest)));
      step_ = float(fp16(std::max(0.0f, base_ - std::log(least)) / float(zero() - 1)));
    }
    for (std::size_t i = 0; i < values.size(); ++i) set(Index(i), values[i]);
  }

  int bits() const noexcept { return bits_; }
  float base() const noexcept { return base_; }
  float step() const noexcept { return step_; }
  std::span<const std::uint8_t> codes() const noexcept { return codes_; }
  float operator[](Index line) const noexcept {
    const int code = codes_[std::size_t(line)];
    return code == zero() ? 0 : float(std::exp(double(base_) - double(step_) * code));
  }

  /// The nearest code to a value, which is not negative. One that is nearer to 0 than to the least
  /// scale is 0: the codes were searched for its own size.
  void set(Index line, float value) noexcept {
    const double below = value > 0 ? double(base_) - std::log(double(value)) : 0;
    const double code = step_ > 0 ? std::round(below / double(step_)) : 0;
    const bool vanishes = !(value > 0) || below > double(step_) * (zero() - 1) + std::log(2.0);
    codes_[std::size_t(line)] =
        std::uint8_t(vanishes ? zero() : int(std::clamp(code, 0.0, double(zero() - 1))));
  }

  static constexpr std::int64_t storage_bits(int bits, Index lines) noexcept {
    return 32 + 8 * ceil_div(lines * bits, Index(8));
  }

 private:
  int zero() const noexcept { return (1 << bits_) - 1; }

  int bits_ = 8;
  float base_ = 0;
  float step_ = 0;
  std::vector<std::uint8_t> codes_;
};

}  // namespace cafeq
