#include "cafeq/transform/stored_inverse.hpp"

#include "support/catch.hpp"
#include "support/random.hpp"

using namespace cafeq;

namespace {

/// Blocks with columns of very different size, one of them zero.
std::vector<Matrix<double>> uneven_columns() {
  std::vector<Matrix<double>> blocks;
  for (const Index k : {1, 5, 16}) {
    auto block = test::gaussian<double>(k, k, std::uint64_t(k));
    for (Index i = 0; i < k; ++i)
      for (Index j = 0; j < k; ++j) block(i, j) *= j == 3 ? 0.0 : std::ldexp(1.0, int(j));
    blocks.push_back(std::move(block));
  }
  return blocks;
}

bool same(const std::vector<Matrix<double>>& a, const std::vector<Matrix<double>>& b) {
  for (std::size_t i = 0; i < a.size(); ++i)
    if (!std::equal(a[i].data(), a[i].data() + a[i].size(), b[i].data())) return false;
  return a.size() == b.size();
}

}  // namespace

TEST_CASE("rounding what has been rounded changes nothing", "[transform][stored_inverse]") {
  for (const auto precision :
       {InversePrecision::fp32, InversePrecision::fp16, InversePrecision::int8}) {
    auto once = uneven_columns();
    detail::round_inverse(once, precision);
    CHECK_FALSE(same(once, uneven_columns()));
    auto twice = once;
    detail::round_inverse(twice, precision);
    CHECK(same(once, twice));
  }
}

TEST_CASE("int8 codes are within half a step of an eighth of an octave",
          "[transform][stored_inverse]") {
  const auto blocks = uneven_columns();
  const auto stored = detail::to_int8(blocks);
  const auto restored = detail::from_int8(stored);
  bool close = true;
  for (std::size_t b = 0; b < blocks.size(); ++b)
    for (Index j = 0; j < blocks[b].cols(); ++j) {
      const double largest = largest_magnitude(blocks[b].view().col_block(j, 1));
      for (Index i = 0; i < blocks[b].rows(); ++i)
        close = close && std::abs(restored[b](i, j) - blocks[b](i, j)) <= 0.5 * largest / 116;
    }
  CHECK(close);
}

TEST_CASE("eighths of an octave are powers of two every eighth time",
          "[transform][stored_inverse]") {
  for (const int e : {-17, -8, -1, 0, 1, 7, 8, 30})
    CHECK(detail::eighth_octave(e) == Approx(std::exp2(e / 8.0)).epsilon(1e-15));
  CHECK(detail::eighth_octave(-16) == 0.25);
  for (const double largest : {1e-30, 0.3, 1.0, 127.0, 127.4, 128.0, 1e20}) {
    const int e = detail::int8_exponent(largest);
    CHECK(std::nearbyint(largest / detail::eighth_octave(e)) <= 127);
    CHECK(std::nearbyint(largest / detail::eighth_octave(e - 1)) > 127);
  }
}
