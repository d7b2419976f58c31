#include "cafeq/transform/hadamard_matrix.hpp"

#include <bit>

#include "laws.hpp"

using namespace cafeq;
using namespace cafeq::test;

namespace {

// H Hᵀ = order · I: two rows of signs agree in half of their entries.
bool is_hadamard(const Matrix<float>& H) {
  const Index n = H.rows();
  const std::size_t words = std::size_t((n + 63) / 64);
  std::vector<std::uint64_t> minus(std::size_t(n) * words);
  for (Index i = 0; i < n; ++i)
    for (Index j = 0; j < n; ++j) {
      if (std::abs(H(i, j)) != 1.0f) return false;
      if (H(i, j) < 0)
        minus[std::size_t(i) * words + std::size_t(j / 64)] |= std::uint64_t(1) << (j % 64);
    }
  for (std::size_t a = 0; a < std::size_t(n); ++a)
    for (std::size_t b = 0; b < a; ++b) {
      int different = 0;
      for (std::size_t w = 0; w < words; ++w)
        different += std::popcount(minus[a * words + w] ^ minus[b * words + w]);
      if (2 * different != n) return false;
    }
  return H.cols() == n;
}

}  // namespace

TEST_CASE("every core is a Hadamard matrix") {
  for (Index order = 1; order <= 400; ++order)
    if (detail::has_hadamard_core(order)) {
      INFO("order " << order);
      REQUIRE(is_hadamard(hadamard_core(order)));
    }
  for (const Index order :
       {Index(632), Index(752), Index(844), Index(924), Index(1000), Index(1020)}) {
    INFO("order " << order);
    CHECK(detail::has_hadamard_core(order) == (order != 1000));  // 999 and 499: 499 is 3 modulo 4
    if (detail::has_hadamard_core(order)) CHECK(is_hadamard(hadamard_core(order)));
  }
}

TEST_CASE("the orders that widths of language models need exist") {
  for (const Index order : {12,  20,  28,  36,  40,  44,  52,  60,  68,  76,  84, 92,
                            100, 108, 116, 124, 132, 140, 148, 156, 164, 172, 344}) {
    INFO("order " << order);
    CHECK((detail::has_hadamard_core(order) || detail::has_hadamard_core(order / 2)));
  }
  for (const Index order : {0, 2, 3, 6, 10, 188, 428, 1028}) {
    INFO("order " << order);
    CHECK_FALSE(detail::has_hadamard_core(order));
  }
  check_error([] { (void)hadamard_core(428); }, ErrorCode::unsupported, "428");
}

TEST_CASE("the smallest core of a width") {
  const std::pair<Index, Index> expected[] = {
      {1, 1},       {2, 1},       {4096, 1},   {12, 12},   {24, 12},     {2304, 36},  {2560, 20},
      {3072, 12},   {3584, 28},   {5120, 20},  {9216, 36}, {11008, 172}, {14336, 28}, {4864, 76},
      {18944, 148}, {13824, 108}, {8960, 140}, {172, 172}, {344, 172},   {6016, 752}, {29568, 924},
      {13696, 0},   {7, 0},       {6, 0},      {0, 0},     {236, 0}};
  for (const auto& [size, order] : expected) {
    INFO("size " << size);
    CHECK(detail::hadamard_core_order(size) == order);
  }
}

TEST_CASE("finite fields: squares, also of prime powers") {
  for (const Index q : {3, 5, 7, 9, 13, 25, 27, 49, 121, 125, 343}) {
    INFO("q " << q);
    const cafeq::detail::FiniteField field(q);
    int sum = 0;
    for (Index a = 0; a < q; ++a) sum += field.character(a);
    CHECK(sum == 0);
    CHECK(field.character(0) == 0);
    CHECK(field.character(1) == 1);
    const Index minus_one = field.subtract(0, 1);
    CHECK(field.character(minus_one) == (q % 4 == 1 ? 1 : -1));
    // Σ_a χ(a) χ(a − c) = −1 for c ≠ 0: what Paley's matrices rest on.
    for (Index c = 1; c < q; ++c) {
      int correlation = 0;
      for (Index a = 0; a < q; ++a)
        correlation += field.character(a) * field.character(field.subtract(a, c));
      REQUIRE(correlation == -1);
    }
  }
  CHECK_FALSE(cafeq::detail::as_prime_power(1));
  CHECK_FALSE(cafeq::detail::as_prime_power(45));
  CHECK(cafeq::detail::as_prime_power(343)->exponent == 3);
}
