#include "cafeq/transform/hadamard.hpp"

#include <bit>

#include "laws.hpp"
#include "support/golden.hpp"

using namespace cafeq;
using namespace cafeq::test;

namespace {

Hadamard fit(const TransformSpec auto& spec, Index n) {
  const Matrix<float> W(1, n);
  return fit_transform(spec, W.view());
}

// diag(signs) · (H_m ⊗ H_{2^p}) / √n, entry by entry.
Matrix<double> definition(const Hadamard& t) {
  Matrix<double> M(t.dim(), t.dim());
  for (const auto& run : t.runs()) {
    const auto core = hadamard_core(run.order);
    const Index q = run.size / run.order;
    for (Index b = 0; b < run.count; ++b)
      for (Index i = 0; i < run.size; ++i)
        for (Index j = 0; j < run.size; ++j) {
          const double sylvester = std::popcount(std::size_t((i % q) & (j % q))) % 2 == 0 ? 1 : -1;
          const Index o = run.offset + b * run.size;
          M(o + i, o + j) = double(t.signs().entries()[std::size_t(o + i)]) *
                            double(core(i / q, j / q)) * sylvester / std::sqrt(double(run.size));
        }
  }
  return M;
}

}  // namespace

TEST_CASE("Hadamard: golden values") {
  const auto g = golden("hadamard.json");
  const auto y = golden_matrix(g["y"]);
  const auto x = golden_matrix(g["x"]);
  const Hadamard t(Signs(g["sign"].get<std::vector<float>>()));
  auto mine = x;
  apply_right(t, mine.view());
  CHECK(max_difference(mine.view(), y.view()) < 1e-11);
  auto single = to_matrix<float>(x.view());
  apply_right(t, single.view());
  CHECK(max_difference(single.view(), y.view()) < 2e-6);
  CHECK(t.storage_bits() == 16);
}

TEST_CASE("Hadamard obeys the laws and is what its definition says") {
  for (const Index n : sweep<Index>({0, 1, 2, 7, 12, 17, 24, 33, 36, 64, 92, 129, 172, 192, 320},
                                    {0, 1, 2, 7, 12, 17, 24, 33, 36, 64})) {
    const auto t = fit(RandomizedHadamard{1}, n);
    check_laws(t);
    CHECK(max_difference(to_dense<double>(t), definition(t)) < 1e-14);
    CHECK(t.storage_bits() == 64);
  }
}

TEST_CASE("block Hadamard obeys the laws and is what its definition says") {
  for (const auto& [n, block] : sweep<std::pair<Index, Index>>(
           {{64, 64}, {172, 128}, {130, 4}, {96, 12}, {100, 48}, {7, 64}, {50, 7}},
           {{64, 64}, {44, 32}, {30, 4}, {36, 12}, {7, 64}, {50, 7}})) {
    const auto t = fit(BlockHadamard{block, 2}, n);
    check_laws(t);
    CHECK(max_difference(to_dense<double>(t), definition(t)) < 1e-14);
  }
  const auto uneven = fit(BlockHadamard{128}, 172);
  REQUIRE(uneven.runs().size() == 4);
  CHECK(uneven.runs()[1].offset == 128);
  CHECK(uneven.runs()[1].size == 32);
  CHECK(uneven.runs()[3].size == 4);
  CHECK(fit(BlockHadamard{64}, 4096).runs().size() == 1);
  CHECK(fit(BlockHadamard{64}, 4096).runs()[0].count == 64);
  CHECK(BlockHadamard{}.block == 64);
}

TEST_CASE("widths of language models") {
  for (const Index n : sweep<Index>({2304, 2560, 3072, 3584, 5120, 9216, 11008, 14336, 4096},
                                    {2304, 2560, 3584, 11008, 4096})) {
    INFO("width " << n);
    const auto t = fit(RandomizedHadamard{3}, n);
    REQUIRE(t.runs().size() == 1);
    CHECK(t.runs()[0].size == n);
    check_round_trip(t);
    // A spike spreads evenly.
    Matrix<double> spike(1, n);
    spike(0, n / 3) = 1;
    t.apply(spike.view());
    CHECK(max_magnitude(spike.view()) == Approx(1 / std::sqrt(double(n))));
  }
  const auto no_factor = fit(RandomizedHadamard{3}, 13696);
  REQUIRE(no_factor.runs().size() == 1);
  CHECK(no_factor.runs()[0].size == 128);
  CHECK(no_factor.runs()[0].count == 107);
  check_round_trip(no_factor);
}

TEST_CASE("a Hadamard transform is a function of its seed, and tames outliers") {
  const auto W = heavy_tailed(64, 512, 1, 8);
  const auto a = RandomizedHadamard{1}.fit(W.view());
  CHECK(a.signs().entries() == RandomizedHadamard{1}.fit(W.view()).signs().entries());
  CHECK(a.signs().entries() != RandomizedHadamard{2}.fit(W.view()).signs().entries());
  auto X = W;
  apply_right(a, X.view());
  CHECK(squared_norm(X.view()) == Approx(squared_norm(W.view())));
  CHECK(max_magnitude(X.view()) < 0.5 * max_magnitude(W.view()));
}

TEST_CASE("Hadamard: wrong arguments") {
  check_error([] { fit(BlockHadamard{0}, 8); }, ErrorCode::invalid_argument, "block is 0");
  const Index short_of[] = {4, 2};
  check_error([&] { Hadamard(Signs(8, 0), short_of); }, ErrorCode::invalid_shape,
              "cover 6 of dimension 8");
  const Index negative[] = {-4};
  check_error([&] { Hadamard(Signs(4, 0), negative); }, ErrorCode::invalid_argument, "size -4");
}

TEST_CASE("Hadamard: specs say what is wrong with them") {
  CHECK_FALSE(fault_of(RandomizedHadamard{}, 3, 7));
  CHECK_FALSE(fault_of(BlockHadamard{.block = 16}, 3, 7));
  for (const Index block : {0, -4}) {
    const auto fault = fault_of(BlockHadamard{.block = block}, 3, 7);
    REQUIRE(fault);
    CHECK(fault->code() == ErrorCode::invalid_argument);
    CHECK(fault->message() == message("BlockHadamard: block is ", block, ", must be at least 1"));
  }
  CHECK_FALSE(fault_of(Hadamard(Signs(8, 0)), 3, 8));
  CHECK(fault_of(Hadamard(Signs(8, 0)), 8, 3)->message() ==
        "transform: dimension 8 does not fit 3 columns");
}
