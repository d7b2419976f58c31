#include "cafeq/kernel/round_lines.hpp"

#include <algorithm>
#include <cstring>
#include <vector>

#include "support/catch.hpp"
#include "support/random.hpp"

using namespace cafeq;

namespace {

#if defined(__FMA__) || defined(__ARM_FEATURE_FMA)
constexpr bool fused = true;
#else
constexpr bool fused = false;
#endif

bool same_bits(const Matrix<float>& a, const Matrix<float>& b) {
  return a.size() == b.size() &&
         (a.size() == 0 ||
          std::memcmp(a.data(), b.data(), sizeof(float) * std::size_t(a.size())) == 0);
}

/// But for the sign of zeros.
bool same_values(const Matrix<float>& a, const Matrix<float>& b) {
  return std::equal(a.data(), a.data() + a.size(), b.data(), b.data() + b.size());
}

/// n lines of m lanes, each lane with a grid of its own for every two lines. `exact`: numbers of so
/// few bits that no sum is ever rounded, so that machines without fused multiply-adds must agree
/// too.
struct Problem {
  Matrix<float> X, coupling, T, E, change;
  Matrix<float> fields;
  std::vector<kernel::LaneGrid> grids;
  std::vector<std::uint8_t> codes;

  Problem(Index n, Index m, bool exact)
      : X(n, m),
        coupling(n, n),
        T(n, m),
        E(n, m),
        change(n, m),
        fields(5 * ceil_div(n, 2), m),
        codes(std::size_t(n * m)) {
    const CounterRng rng(std::uint64_t(100 * n + m));
    std::uint64_t at = 0;
    const auto draw = [&](double step) {
      const double x = 4 * rng.uniform(at++) - 2;
      return float(exact ? std::nearbyint(x / step) * step : x);
    };
    for (Index i = 0; i < X.size(); ++i) {
      X.data()[i] = 4 * draw(0.25);
      T.data()[i] = exact ? X.data()[i] + draw(0.25) : X.data()[i] + draw(0);
      E.data()[i] = draw(0.25);
    }
    for (Index i = 0; i < coupling.size(); ++i) coupling.data()[i] = 0.5f * draw(0.5);
    for (Index i = 0; i < n; ++i) coupling(i, i) = exact ? 2.0f : 1.7f;
    for (Index g = 0; g < ceil_div(n, 2); ++g)
      for (Index l = 0; l < m; ++l) {
        const float scale =
            l % 11 == 3 ? 0.0f : (exact ? (l % 2 ? 0.5f : 1.0f) : float(0.3 + rng.uniform(at++)));
        fields(5 * g, l) = scale;
        fields(5 * g + 1, l) = kernel::inverse_scale(scale);
        fields(5 * g + 2, l) = l % 3 == 0 ? 0.0f : draw(0.25);
        fields(5 * g + 3, l) = float(-int(l % 5));
        fields(5 * g + 4, l) = float(3 + l % 4);
      }
    for (Index j = 0; j < n; ++j) {
      const Index f = 5 * (j / 2);
      grids.push_back({fields.row(f).data(), fields.row(f + 1).data(), fields.row(f + 2).data(),
                       fields.row(f + 3).data(), fields.row(f + 4).data()});
    }
  }
  Problem(const Problem&) = delete;
  kernel::LineBatch batch() {
    return {std::as_const(X).view(),
            std::as_const(coupling).view(),
            std::as_const(T).view(),
            E.view(),
            grids.data(),
            codes.data(),
            X.cols()};
  }
};

template <bool Half>
void check_against_reference(Index n, Index m, bool exact) {
  INFO(n << " lines of " << m << ", half " << Half);
  Problem a(n, m, exact), b(n, m, exact);
  kernel::feed_back<Half>(a.batch());
  kernel::feed_back_reference<Half>(b.batch());
  CHECK(same_bits(a.E, b.E));
  CHECK(a.codes == b.codes);
  kernel::descend<Half>(a.batch(), a.change.view());
  kernel::descend_reference<Half>(b.batch(), b.change.view());
  CHECK(same_bits(a.E, b.E));
  CHECK(same_bits(a.change, b.change));
  CHECK(a.codes == b.codes);
  // Errors follow from the codes alone, but for the sign of a zero: a step of −0 has the code of 0.
  Matrix<float> e(n, m), e_reference(n, m);
  for (Index j = 0; j < n; ++j) {
    kernel::code_errors<Half>(a.X.row(j).data(), a.codes.data() + j * m, a.grids[std::size_t(j)],
                              e.row(j).data(), m);
    kernel::code_errors_reference<Half>(a.X.row(j).data(), a.codes.data() + j * m,
                                        a.grids[std::size_t(j)], e_reference.row(j).data(), m);
  }
  CHECK(same_bits(e_reference, e));
  if (exact || fused) CHECK(same_values(e, a.E));
}

}  // namespace

TEST_CASE("Batches of lines are rounded as the reference rounds them") {
  for (const Index n : {1, 2, 7, 15, 16})
    for (const Index m : {16, 32, 48, 80}) {
      check_against_reference<true>(n, m, true);
      check_against_reference<false>(n, m, true);
      if (!fused) continue;
      check_against_reference<true>(n, m, false);
      check_against_reference<false>(n, m, false);
    }
}

TEST_CASE("The codes are those of UniformLevels") {
  const Index m = 64;
  Problem p(1, m, false);
  const auto levels = kernel::UniformLevels<true, true>{-4, 3};
  for (Index l = 0; l < m; ++l) p.fields(3, l) = levels.low, p.fields(4, l) = levels.high;
  kernel::feed_back<true>(p.batch());
  for (Index l = 0; l < m; ++l) {
    const std::uint8_t code = levels.code((p.T(0, l) - p.fields(2, l)) * p.fields(1, l));
    REQUIRE(int(p.codes[std::size_t(l)]) == int(code));
    REQUIRE(
        p.E(0, l) ==
        Approx(p.X(0, l) - (p.fields(0, l) * levels.level(code) + p.fields(2, l))).margin(1e-5));
  }
}
