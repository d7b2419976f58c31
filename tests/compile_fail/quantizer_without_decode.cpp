// A quantizer that can only encode.
// expect: ScalarQuantizer
#include <cstdint>
#include <span>

#include "cafeq/quant/encoding.hpp"

struct Signs {
  struct Params {};
  static constexpr int bits = 1;
  cafeq::Index group = cafeq::per_row;
  Params fit(std::span<const float>) const { return {}; }
  std::uint8_t encode(float x, const Params&) const { return x < 0 ? 1 : 0; }
#if !defined(CAFEQ_MISUSE)
  float decode(std::uint8_t code, const Params&) const { return code == 1 ? -1.0f : 1.0f; }
#endif
};

int main() { return int(cafeq::Encoding<Signs>(Signs{}, 2, 2).rows()) - 2; }
