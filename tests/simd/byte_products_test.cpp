#include "cafeq/simd/byte_products.hpp"

#include <array>

#include "support/architectures.hpp"
#include "support/catch.hpp"

using namespace cafeq;
using test::NarrowArch;

namespace {

template <class Arch, bool Signed>
void check_products() {
  using Products = simd::ByteProducts<Arch, Signed>;
  using I = Batch<std::int32_t, Arch>;
  constexpr std::size_t size = I::size;
  alignas(64) std::array<std::int8_t, 4 * size> a, b;
  std::array<std::int32_t, size> expected{}, found;
  typename Products::Sum sum = Products::zero();
  for (int round = 0; round < 2; ++round) {
    for (std::size_t i = 0; i < a.size(); ++i) {
      a[i] = std::int8_t(Signed ? int((i * 53 + std::size_t(round)) % 129) - 64
                                : int((i * 53 + std::size_t(round)) % 64));
      b[i] = std::int8_t(int((i * 91) % 255) - 127);
      expected[i / 4] += a[i] * b[i];
    }
    sum = Products::add(sum, I::load_aligned(reinterpret_cast<const std::int32_t*>(a.data())),
                        I::load_aligned(reinterpret_cast<const std::int32_t*>(b.data())));
  }
  Products::widen(sum).store_unaligned(found.data());
  CHECK(found == expected);
}

}  // namespace

TEST_CASE("products of bytes in fours") {
  check_products<DefaultArch, false>();
  check_products<DefaultArch, true>();
  check_products<NarrowArch, false>();
  check_products<NarrowArch, true>();
}
