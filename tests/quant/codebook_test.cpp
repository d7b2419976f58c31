#include "cafeq/quant/codebook.hpp"

#include "laws.hpp"

using namespace cafeq;

static_assert(LinearGrid<Codebook>);
static_assert(std::is_trivially_copyable_v<Codebook>);

namespace {

Codebook dense_table(Index size) {
  std::vector<float> levels(static_cast<std::size_t>(size));
  for (Index k = 0; k < size; ++k)
    levels[std::size_t(k)] = float(k * k) / float(size) - 0.3f * float(size);
  return {.levels = LevelTable(std::span<const float>(levels))};
}

}  // namespace

TEST_CASE("codebooks obey the laws of a linear grid") {
  test::check_laws(nf4());
  test::check_laws(nf3());
  test::check_laws(lloyd_max_gaussian<2>());
  test::check_laws(lloyd_max_gaussian<4>());
  test::check_laws(Codebook{.levels = {-1, 0, 1}});
  test::check_laws(dense_table(40));
  test::check_laws(dense_table(256));
}

TEST_CASE("bits follow the size of the table") {
  CHECK(Codebook{}.bits == 1);
  CHECK(Codebook{.levels = {-1, 0, 1}}.bits == 2);
  CHECK(dense_table(16).bits == 4);
  CHECK(dense_table(17).bits == 5);
  CHECK(dense_table(256).bits == 8);
  CHECK(nf4().bits == 4);
  CHECK(nf3().bits == 3);
  const Codebook three{.levels = {-1, 0, 1}};
  CHECK(three.level(3) == 1);  // a code that no weight gets
}

TEST_CASE("NF4 is the published table under absmax") {
  const Codebook q = nf4();
  CHECK(q.group == 64);
  CHECK(q.level(7) == 0);
  CHECK(q.level(0) == -1);
  CHECK(q.level(15) == 1);
  const std::vector<float> x{-8, 4, 0, 1.3f};
  const auto p = q.fit(x);
  CHECK(q.scale(p) == 8);
  CHECK(q.encode(-8, p) == 0);
  CHECK(q.encode(4, p) == 12);  // .5 lies between .4407 and .5626, nearer to the first
  CHECK(q.encode(0, p) == 7);
  CHECK(q.decode(12, p) == 8 * 0.44070982933044434f);
}

TEST_CASE(
    "Lloyd-Max tables reach the scalar bound of a Gaussian and are fixed points of Lloyd's "
    "iteration") {
  const auto W = test::gaussian<float>(16, 4096, 5, 700.0);
  const auto X = std::as_const(W).view();
  const double e2 = test::matrix_error(lloyd_max_gaussian<2>(), X),
               e3 = test::matrix_error(lloyd_max_gaussian<3>(), X),
               e4 = test::matrix_error(lloyd_max_gaussian<4>(), X);
  CHECK(e2 == Approx(0.11748).epsilon(0.02));
  CHECK(e3 == Approx(0.03455).epsilon(0.02));
  CHECK(e4 == Approx(0.009501).epsilon(0.02));
  const auto check_centroids = [](const Codebook& q, double error) {
    const auto density = [](double t) {
      return std::exp(-t * t / 2) / std::sqrt(2 * 3.14159265358979323846);
    };
    const auto tail = [](double t) { return 0.5 * std::erfc(t / std::sqrt(2.0)); };
    double explained = 0;
    const int n = 1 << q.bits;
    for (int k = 0; k < n; ++k) {
      const double level = double(q.level(std::uint8_t(k)));
      const double a = k > 0 ? 0.5 * (level + double(q.level(std::uint8_t(k - 1)))) : -40;
      const double b = k + 1 < n ? 0.5 * (level + double(q.level(std::uint8_t(k + 1)))) : 40;
      const double mass = tail(a) - tail(b);
      CHECK((density(a) - density(b)) / mass == Approx(level).epsilon(1e-6));
      explained += mass * level * level;
    }
    CHECK(1 - explained == Approx(error).epsilon(1e-4));
  };
  check_centroids(lloyd_max_gaussian<2>(), 0.117482);
  check_centroids(lloyd_max_gaussian<3>(), 0.0345478);
  check_centroids(lloyd_max_gaussian<4>(), 0.00950101);
}

TEST_CASE("the scale search helps NF4 and NF3") {
  const auto W = test::gaussian<float>(16, 1024, 6, 700.0);
  const auto X = std::as_const(W).view();
  CHECK(test::matrix_error(nf4(), X) == Approx(0.0084).epsilon(0.04));
  CHECK(test::matrix_error(nf4(64, ScaleSearch::mse), X) == Approx(0.0073).epsilon(0.04));
  CHECK(test::matrix_error(nf3(64, ScaleSearch::mse), X) < 0.85 * test::matrix_error(nf3(), X));
}

TEST_CASE(
    "a codebook says what is wrong with its table and its bits, and raises it only if asked") {
  const auto fault = [](const Codebook& q) { return fault_of(q, 4, 4); };
  CHECK_FALSE(fault(Codebook{}));
  CHECK_FALSE(fault(nf4()));
  CHECK_FALSE(fault(dense_table(256)));
  CHECK_THAT(fault(Codebook{.levels = {-1, 0, 1}, .bits = 3})->message(),
             Contains("codebook: bits is 3"));
  CHECK_THAT(fault(Codebook{.levels = {1}})->message(), Contains("levels: 1"));
  CHECK_THAT(fault(dense_table(257))->message(), Contains("levels: 257"));
  CHECK(fault(Codebook{.levels = {0, INFINITY}})->code() == ErrorCode::non_finite);
#if CAFEQ_EXCEPTIONS
  CHECK_THROWS_AS(check(Codebook{.levels = {0, 0}}, 4, 4), Error);
#endif
}
