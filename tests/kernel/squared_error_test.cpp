#include "cafeq/kernel/squared_error.hpp"

#include <array>
#include <vector>

#include "cafeq/kernel/level_sums.hpp"
#include "support/catch.hpp"
#include "support/random.hpp"

using namespace cafeq;
using kernel::Each;
using kernel::GroupSpan;
using kernel::ScaleOffset;
using kernel::Units;

namespace {

using Integers = kernel::UniformLevels<true, false>;
using Halves = kernel::UniformLevels<false, true>;
using Signed = kernel::UniformLevels<false, false>;

// A grid that is not counted from zero: what code books are to these kernels.
struct Ternary {
  static constexpr bool has_offset = false;
  template <class V>
  V operator()(const V& u) const noexcept {
    return kernel::detail::clamp_level(kernel::detail::round_even(u), -1, 1);
  }
};

bool same(double a, double b) {
#if defined(__FMA__) || defined(__aarch64__)
  return a == b;
#else
  return std::abs(a - b) <= 1e-4 * std::abs(b) + 1e-6;
#endif
}

const std::array<ScaleOffset, 9> candidates{ScaleOffset{0.7f, -2.1f},
                                            {0.4f, 0},
                                            {0.2f, -1},
                                            {1.5f, 3},
                                            {0.1f, 0.5f},
                                            {0, 0.3f},
                                            {3e-3f, 0},
                                            {100, -50},
                                            {0.33f, -0.9f}};

template <class Levels>
Units units_at(const Levels& levels, std::size_t shift) {
  Units units{};
  for (std::size_t g = 0; g < units.inverse.size(); ++g) {
    const ScaleOffset at = candidates[(g + shift) % candidates.size()];
    units.inverse[g] = kernel::inverse_scale(at.scale);
    units.shift[g] = std::fma(-at.offset, units.inverse[g], -kernel::level_bias(levels));
  }
  return units;
}

template <class Levels>
void check_error_kernels(const Levels& levels) {
  const auto data = test::gaussian<float>(1, 9000, 7);
  Each<float> pivot{};
  for (std::size_t g = 0; g < pivot.size(); ++g) pivot[g] = -0.5f * float(g);
  std::array<Units, 6> units{};
  for (std::size_t c = 0; c < units.size(); ++c) units[c] = units_at(levels, c);
  for (const auto& [n, width] : {std::pair<Index, Index>{0, 3},
                                 {1, 1},
                                 {7, 2},
                                 {17, 17},
                                 {33, 16},
                                 {100, 13},
                                 {512, 64},
                                 {500, 64},
                                 {1024, 128},
                                 {4099, 4099},
                                 {8300, 8300},
                                 {8300, 4096}}) {
    const GroupSpan groups{data.row(0).subspan(1, std::size_t(n)), width, pivot.data()};
    if (groups.count() > kernel::groups_at_once) continue;
    CAPTURE(n, width);
    for (std::size_t count = 0; count <= units.size(); ++count) {
      std::array<Each<float>, units.size()> errors{}, expected{};
      const auto some = std::span<const Units>(units).first(count);
      kernel::unit_errors(groups, levels, some, std::span(errors).first(count));
      kernel::unit_errors_reference(groups, levels, some, std::span(expected).first(count));
      bool agree = true;
      for (std::size_t c = 0; c < count; ++c)
        for (std::size_t g = 0; g < std::size_t(groups.count()); ++g)
          agree &= same(double(errors[c][g]), double(expected[c][g]));
      CHECK(agree);
    }
    for (const Units& u : units) {
      const auto sums = kernel::level_sums(groups, levels, u);
      const auto expected = kernel::level_sums_reference(groups, levels, u);
      bool agree = true;
      for (std::size_t g = 0; g < std::size_t(groups.count()); ++g)
        agree &= same(double(sums.level[g]), double(expected.level[g])) &&
                 same(double(sums.level_squares[g]), double(expected.level_squares[g])) &&
                 same(double(sums.product[g]), double(expected.product[g]));
      CHECK(agree);
    }
  }
}

template <class Levels>
double error_of(std::span<const float> x, const Levels& levels, ScaleOffset at) {
  double sum = 0;
  for (const float v : x) {
    const float y = Levels::has_offset ? v - at.offset : v;
    const double r =
        double(y) - double(at.scale) * double(levels(y * kernel::inverse_scale(at.scale)));
    sum += r * r;
  }
  return sum;
}

template <class Levels>
void check_errors(const Levels& levels) {
  const auto data = test::gaussian<float>(1, 9000, 8);
  for (const Index n : {0, 1, 7, 16, 17, 33, 64, 129, 4096, 4099, 8300}) {
    const auto x = data.row(0).subspan(1, std::size_t(n));
    CAPTURE(n);
    std::array<double, candidates.size()> errors{};
    kernel::squared_errors(x, levels, candidates, errors);
    for (std::size_t c = 0; c < candidates.size(); ++c)
      CHECK(errors[c] == Approx(error_of(x, levels, candidates[c])).epsilon(1e-4));
    for (const Index width : {1, 13, 32, 64, 128, 5000}) {
      const GroupSpan groups{
          x.first(std::min(x.size(), std::size_t(width * kernel::groups_at_once))), width};
      if (groups.x.empty() || (width > 4096 && groups.count() > 1)) continue;
      Each<float> scale{}, offset{};
      for (std::size_t g = 0; g < scale.size(); ++g) {
        scale[g] = candidates[g % candidates.size()].scale;
        offset[g] = candidates[g % candidates.size()].offset;
      }
      Each<double> each{};
      kernel::group_errors(groups, levels, scale, offset,
                           std::span(each).first(std::size_t(groups.count())));
      bool agree = true;
      for (std::size_t g = 0; g < std::size_t(groups.count()); ++g) {
        const double expected = error_of(groups.group(Index(g)), levels, {scale[g], offset[g]});
        agree &= std::abs(each[g] - expected) <=
                 1e-4 * expected + 1e-6 * std::max(1.0, double(scale[g]) * double(scale[g]));
      }
      CHECK(agree);
    }
  }
}

}  // namespace

TEST_CASE("errors and sums equal their references for every grid") {
  check_error_kernels(Integers{0, 7});
  check_error_kernels(Integers{0, 255});
  check_error_kernels(Halves{-2, 1});
  check_error_kernels(Halves{-128, 127});
  check_error_kernels(Signed{-4, 3});
  check_error_kernels(Ternary{});
}

TEST_CASE("squared errors are those of the codes, at any scale") {
  check_errors(Integers{0, 7});
  check_errors(Halves{-4, 3});
  check_errors(Signed{-8, 7});
  check_errors(Ternary{});
}

#if XSIMD_WITH_SSE2 && defined(__FMA__)
TEST_CASE("rounding of sums aside, the width of the vectors does not matter") {
  const auto data = test::gaussian<float>(1, 512, 9);
  Units units{};
  units.inverse.fill(3);
  Each<float> wide, narrow;
  kernel::unit_errors({data.row(0), 64}, Halves{-4, 3}, {&units, 1}, {&wide, 1});
  kernel::unit_errors<xsimd::sse2>({data.row(0), 64}, Halves{-4, 3}, {&units, 1}, {&narrow, 1});
  for (std::size_t g = 0; g < 8; ++g) CHECK(narrow[g] == Approx(wide[g]).epsilon(1e-5));
}
#endif
