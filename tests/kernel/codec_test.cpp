#include "cafeq/kernel/codec.hpp"

#include <array>
#include <vector>

#include "support/catch.hpp"
#include "support/random.hpp"

using namespace cafeq;
using kernel::ScaleOffset;

namespace {

using Integers = kernel::UniformLevels<true, false>;
using Halves = kernel::UniformLevels<false, true>;
using Signed = kernel::UniformLevels<false, false>;

const std::array<ScaleOffset, 9> scale_offsets{ScaleOffset{0.7f, -2.1f},
                                               {0.4f, 0},
                                               {0.2f, -1},
                                               {1.5f, 3},
                                               {0.1f, 0.5f},
                                               {0, 0.3f},
                                               {3e-6f, 0},
                                               {100, -50},
                                               {0.33f, -0.9f}};

template <class Levels>
void check_kernels(const Levels& levels) {
  const auto data = test::gaussian<float>(1, 9000, 7);
  for (const Index n : {0, 1, 7, 16, 17, 33, 64, 129, 4096, 4099, 8300}) {
    const auto x = data.row(0).subspan(1, std::size_t(n));
    CAPTURE(n);
    for (const ScaleOffset at : scale_offsets) {
      std::vector<std::uint8_t> codes(std::size_t(n) + 1, 250), reference(codes);
      kernel::encode(x, levels, at, std::span(codes).first(std::size_t(n)));
      kernel::encode_reference(x, levels, at, std::span(reference).first(std::size_t(n)));
      CHECK(codes == reference);  // the last element too: nothing is written past the end
    }
  }
}

}  // namespace

TEST_CASE("kernels equal their references for every uniform grid") {
  check_kernels(Integers{0, 7});
  check_kernels(Integers{0, 255});
  check_kernels(Halves{-2, 1});
  check_kernels(Halves{-128, 127});
  check_kernels(Signed{-4, 3});
}

TEST_CASE("ties, ends and what is no number") {
  const std::vector<float> x{-0.5f, 0.5f,   1.5f,     2.5f,      3.5f,
                             99.0f, -99.0f, INFINITY, -INFINITY, std::nanf("")};
  std::vector<std::uint8_t> codes(x.size());
  kernel::encode(x, Integers{0, 7}, ScaleOffset{1, 0}, codes);
  CHECK(codes == std::vector<std::uint8_t>{0, 0, 2, 2, 4, 7, 0, 7, 0, 0});
  const std::vector<float> whole{-3, -2, -1, -0.0f, 0, 1, 2};
  codes.resize(whole.size());
  kernel::encode(whole, Halves{-2, 1}, ScaleOffset{1, 0},
                 codes);  // level k + 1/2 holds k <= u < k + 1
  CHECK(codes == std::vector<std::uint8_t>{0, 0, 1, 2, 2, 3, 3});
  kernel::encode(whole, Signed{-2, 1}, ScaleOffset{-1, 0}, codes);
  CHECK(codes == std::vector<std::uint8_t>{3, 3, 3, 2, 2, 1, 0});
  kernel::encode(whole, Signed{-2, 1}, ScaleOffset{0, 0}, codes);
  CHECK(codes == std::vector<std::uint8_t>(whole.size(), 2));
  for (const float v : x) {
    std::uint8_t vector_code = 0, scalar_code = 0;
    kernel::encode({&v, 1}, Halves{-2, 1}, ScaleOffset{1, 0}, {&vector_code, 1});
    kernel::encode_reference({&v, 1}, Halves{-2, 1}, ScaleOffset{1, 0}, {&scalar_code, 1});
    CHECK(vector_code == scalar_code);
  }
}
