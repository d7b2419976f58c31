// The smallest joint quantizer: two weights at a time are one of sixteen points of a table.
#pragma once
#include <cmath>

#include "cafeq/quant/joint.hpp"

namespace cafeq::test {

/// Eight points on each of two rings, for pairs of weights of unit mean square; 2 bits a weight.
struct Rings {
  static constexpr std::string_view name = "rings";
  static float point(unsigned p, unsigned coordinate) {
    const float angle = 0.3926991f * float(2 * p + p / 8), radius = p < 8 ? 0.75f : 1.7f;
    return radius * (coordinate == 0 ? std::cos(angle) : std::sin(angle));
  }

  int scale_bits = 8;
  Sequence sequence = Sequence::rows;

  bool operator==(const Rings&) const = default;
  static Index chunk_bits(Index n) { return 4 * ceil_div(n, Index(2)); }
  template <class Self, class F>
  static void fields(Self&, F&&) {}  // nothing else to store

  struct Encoder {
    explicit Encoder(const Rings&) {}
    void encode(std::span<const float> x, std::span<std::uint8_t> chunk) const {
      for (std::uint8_t& byte : chunk) byte = 0;
      for (std::size_t i = 0; i < x.size(); i += 2) {
        const float second = i + 1 < x.size() ? x[i + 1] : 0;
        const auto distance = [&](unsigned p) {
          return std::hypot(x[i] - point(p, 0), second - point(p, 1));
        };
        unsigned best = 0;
        for (unsigned p = 1; p < 16; ++p)
          if (distance(p) < distance(best)) best = p;
        chunk[i / 4] = std::uint8_t(chunk[i / 4] | best << (i % 4 == 0 ? 4 : 0));
      }
    }
  };
  struct Decoder {
    using Level = float;
    explicit Decoder(const Rings&) {}
    static float unit() { return 1; }
    static void levels(const std::uint8_t* chunk, Index first, std::span<float> out) {
      for (std::size_t j = 0, i = std::size_t(first); j < out.size(); ++j, ++i)
        out[j] = point(chunk[i / 4] >> (i % 4 < 2 ? 4 : 0) & 15, i % 2);
    }
  };
};
static_assert(JointQuantizer<Rings>);

}  // namespace cafeq::test
