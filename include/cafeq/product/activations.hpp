/// Activations as products with packed codes read them.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>
#include <variant>

#include "cafeq/kernel/packed_product.hpp"
#include "cafeq/quant/grid.hpp"

namespace cafeq {

enum class ActivationPrecision {
  fp32,  ///< as they are; under a trellis rounded to int16, one step a vector
  int8,  ///< rounded to −127 … 127 steps of absmax/127, one step for every `group` entries: a third
         ///< of the time
};

struct ActivationFormat {
  ActivationPrecision precision = ActivationPrecision::fp32;
  Index group = 128;  ///< entries that share a step (int8), per_row for one step a vector; under a
                      ///< trellis always 64
};

/// Activations with a transform undone, laid out for packed codes: made by Linear::prepare(), read
/// by every Linear whose weights carry the same transform.
class Activations {
 public:
  using Packed =
      std::variant<kernel::PackedActivations<float>, kernel::PackedActivations<std::int8_t>>;

  /// X [n, dim], the transform undone already, for weights of `bits` bits.
  template <class Arch = DefaultArch>
  Activations(View<const float> X, int bits, ActivationFormat format) {
    if (format.group < 0)
      raise(ErrorCode::invalid_argument,
            message("activations: group is ", format.group, ", must be positive or per_row"));
    const Index group = std::max<Index>(1, format.group == per_row ? X.cols : format.group);
    format_ = format;
    if (format.precision == ActivationPrecision::fp32)
      packed_.emplace<kernel::PackedActivations<float>>(X, bits);
    else packed_.emplace<kernel::PackedActivations<std::int8_t>>(X, bits, group);
  }

  Index count() const noexcept { return values().rows; }
  Index dim() const noexcept { return values().cols; }
  ActivationFormat format() const noexcept { return format_; }
  /// What the weights are multiplied by: the transformed activations, rounded where they are int8.
  View<const float> values() const noexcept {
    return std::visit([](const auto& x) { return x.values(); }, packed_);
  }
  /// As the kernels read them.
  const Packed& packed() const noexcept { return packed_; }

 private:
  ActivationFormat format_;
  Packed packed_;
};

}  // namespace cafeq
