#include "cafeq/transform/diagonal.hpp"

#include <limits>
#include <numeric>

#include "laws.hpp"

using namespace cafeq;
using namespace cafeq::test;

namespace {

std::vector<double> random_entries(Index n) {
  std::vector<double> d(static_cast<std::size_t>(n));
  const CounterRng rng(3);
  for (std::size_t j = 0; j < d.size(); ++j) d[j] = std::exp(rng.normal(j)) * double(rng.sign(j));
  return d;
}

std::vector<Index> random_order(Index n) {
  std::vector<Index> order(static_cast<std::size_t>(n));
  std::iota(order.begin(), order.end(), Index(0));
  const CounterRng rng(4);
  for (std::size_t j = order.size(); j > 1; --j) std::swap(order[j - 1], order[rng.below(j, j)]);
  return order;
}

}  // namespace

TEST_CASE("diagonal, signs and permutation obey the laws") {
  for (const Index n : {0, 1, 2, 7, 12, 17, 33, 64, 129}) {
    check_laws(Diagonal(random_entries(n)));
    check_laws(Signs(n, 5));
    check_laws(Permutation(random_order(n)));
  }
  check_round_trip(Diagonal(random_entries(2304)));
  check_round_trip(Permutation(random_order(2304)));
}

TEST_CASE("a diagonal applies what it stores: halves times one power of two") {
  const std::vector<double> d{1e-3, -0.7, 3.14159265, 40000.0, 1e5, 1e-12};
  const Diagonal t(d);
  CHECK(t.storage_bits() == 16 * 6);
  CHECK_FALSE(t.is_orthogonal());
  for (std::size_t j = 0; j < 5; ++j) {
    CHECK(double(t.entries()[j]) == Approx(d[j]).epsilon(0x1p-10));
    const float scaled =
        std::ldexp(t.entries()[j], -2);  // the largest entry, 1e5, lands in [2^14, 2^15)
    CHECK(float(fp16(scaled)) == scaled);
  }
  CHECK(t.entries()[5] == std::ldexp(1.0f, -22));  // the smallest half, not zero
  const Diagonal again(std::vector<double>(t.entries().begin(), t.entries().end()));
  CHECK(again.entries() == t.entries());
  CHECK(Diagonal({1, -1, 1}).is_orthogonal());
  CHECK_FALSE(Diagonal({1, -1, 0.5}).is_orthogonal());
  CHECK(Diagonal({1e-30, 2e-30}).entries()[0] == Approx(1e-30).epsilon(1e-3));

  Matrix<float> X(1, 2);
  X(0, 0) = X(0, 1) = 3;
  Diagonal({2, -4}).apply(X.view());
  CHECK(X(0, 0) == 6);
  CHECK(X(0, 1) == -12);
}

TEST_CASE("a diagonal that cannot be inverted names its index") {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const double infinity = std::numeric_limits<double>::infinity();
  for (const double bad : {0.0, nan, infinity, 1e300, 1e-300})
    check_error([&] { Diagonal({1, 2, bad}); }, ErrorCode::singular, "entry 2");
}

TEST_CASE("signs come from the seed alone and count what is stored") {
  const Signs a(1000, 1), b(1000, 1), c(1000, 2), longer(2000, 1);
  CHECK(a.entries() == b.entries());
  CHECK(a.entries() != c.entries());
  CHECK(std::equal(a.entries().begin(), a.entries().end(), longer.entries().begin()));
  CHECK(std::abs(std::accumulate(a.entries().begin(), a.entries().end(), 0.0f)) < 130);
  CHECK(a.storage_bits() == 64);
  CHECK(Signs(std::vector<float>{1, -1, -1}).storage_bits() == 3);
  const auto W = gaussian<float>(2, 1000, 1);
  CHECK(RandomSigns{1}.fit(W.view()).entries() == a.entries());
  check_error([] { Signs(std::vector<float>{1, 0.5f}); }, ErrorCode::invalid_argument, "entry 1");
  check_error([] { Signs(-1, 0); }, ErrorCode::invalid_shape, "dim");
}

TEST_CASE("a permutation gathers columns and rejects what is none") {
  const Permutation p({2, 0, 1});
  Matrix<float> X(1, 3);
  for (Index j = 0; j < 3; ++j) X(0, j) = float(j);
  p.apply(X.view());
  CHECK(X(0, 0) == 2);
  CHECK(X(0, 1) == 0);
  CHECK(X(0, 2) == 1);
  CHECK(p.storage_bits() == 3 * 2);
  CHECK(Permutation(random_order(4096)).storage_bits() == 4096 * 12);
  CHECK(Permutation(random_order(4097)).storage_bits() == 4097 * 13);
  CHECK(Permutation(random_order(1)).storage_bits() == 0);
  check_error([] { Permutation({0, 2}); }, ErrorCode::invalid_argument, "order[1]");
  check_error([] { Permutation({0, -1}); }, ErrorCode::invalid_argument, "order[1]");
  check_error([] { Permutation({1, 0, 1}); }, ErrorCode::invalid_argument, "order[2] repeats 1");
}
