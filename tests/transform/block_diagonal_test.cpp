#include "cafeq/transform/block_diagonal.hpp"

#include <limits>

#include "cafeq/transform/blocks.hpp"
#include "laws.hpp"
#include "support/allocations.hpp"

using namespace cafeq;
using namespace cafeq::test;

namespace {

constexpr InversePrecision all_precisions[] = {InversePrecision::fp32, InversePrecision::fp16,
                                               InversePrecision::int8};

// Well-conditioned: identity plus noise.
std::vector<Matrix<double>> general_blocks(const std::vector<Index>& sizes, double scale = 1) {
  std::vector<Matrix<double>> blocks;
  for (const Index n : sizes) {
    auto A = gaussian<double>(n, n, std::uint64_t(100 + n), 0.3 * scale / std::sqrt(double(n)));
    for (Index i = 0; i < n; ++i) A(i, i) += scale;
    blocks.push_back(std::move(A));
  }
  return blocks;
}

std::vector<Matrix<double>> orthogonal_blocks(const std::vector<Index>& sizes) {
  std::vector<Matrix<double>> blocks;
  for (const Index n : sizes)
    blocks.push_back(linalg::random_orthogonal(n, CounterRng(std::uint64_t(n))));
  return blocks;
}

double rounding_of(InversePrecision p) {
  return p == InversePrecision::fp32 ? 1e-6 : (p == InversePrecision::fp16 ? 2e-3 : 3e-2);
}

}  // namespace

TEST_CASE("block-diagonal transforms obey the laws in every precision") {
  for (const auto precision : all_precisions) {
    for (const auto& sizes : sweep<std::vector<Index>>(
             {{}, {1}, {2}, {7}, {12}, {17}, {33}, {64}, {129}, {64, 64, 33, 1}},
             {{}, {1}, {7}, {17}, {33, 16, 1}})) {
      check_laws(BlockDiagonal::from_forward(general_blocks(sizes), precision));
      check_laws(BlockDiagonal::from_inverse(general_blocks(sizes), precision));
    }
    const Index dim = sanitized ? 43 : 172, block = sanitized ? 16 : 64;
    check_laws(BlockDiagonal::orthogonal(orthogonal_blocks(uneven_blocks(dim, block)), precision),
               rounding_of(precision));
  }
  check_round_trip(
      BlockDiagonal::from_inverse(general_blocks(uneven_blocks(sanitized ? 330 : 2304, 64))));
}

TEST_CASE("the transform undoes exactly what is stored") {
  for (const auto precision : all_precisions) {
    const auto N = general_blocks({40, 8}, 37.0);
    const auto t = BlockDiagonal::from_inverse(N, precision);
    CHECK(t.blocks()[1].offset == 40);
    CHECK(t.precision() == precision);
    for (Index b = 0; b < 2; ++b) {
      const auto& stored = t.inverse(b);
      const double tolerance = precision == InversePrecision::fp32
                                   ? 4e-6
                                   : (precision == InversePrecision::fp16 ? 3e-2 : 0.3);
      CHECK(max_difference(stored.view(), N[std::size_t(b)].view()) < tolerance);
      CHECK(max_difference(stored.view(), N[std::size_t(b)].view()) >
            tolerance / 1e3);  // it was rounded
      const auto product = linalg::product(t.blocks()[std::size_t(b)].M.view(), stored.view());
      CHECK(max_difference(product.view(), identity_matrix<double>(stored.rows())) < 1e-13);
    }
    // Storing what is stored changes nothing.
    std::vector<Matrix<double>> again;
    for (const auto& block : t.blocks()) again.push_back(block.N);
    const auto u = BlockDiagonal::from_inverse(again, precision);
    CHECK(same_bits(u.inverse(0), t.inverse(0)));
  }
}

TEST_CASE("int8 keeps codes and one exponent a column") {
  auto blocks = general_blocks({33, 8});
  for (Index i = 0; i < 33; ++i) blocks[0](i, 4) *= 1e-6;  // a weak channel keeps its precision
  const auto t = BlockDiagonal::from_inverse(blocks, InversePrecision::int8);
  const auto stored = t.int8_inverse();
  REQUIRE(stored.blocks.size() == 2);
  for (Index j = 0; j < 33; ++j) {
    int largest = 0;
    const double scale =
        std::exp2(stored.base - double(stored.blocks[0].exponents[std::size_t(j)]) / 8);
    for (Index i = 0; i < 33; ++i) {
      const int code = stored.blocks[0].codes[std::size_t(i * 33 + j)];
      largest = std::max(largest, std::abs(code));
      REQUIRE(code * scale == Approx(t.inverse(0)(i, j)).epsilon(1e-14).margin(0));
      REQUIRE(std::abs(t.inverse(0)(i, j) - blocks[0](i, j)) <= 0.500001 * scale);
    }
    CHECK(largest >= 117);  // next to nothing of the eight bits is idle
    CHECK(largest <= 127);
  }
  const auto again = BlockDiagonal::from_int8(stored);
  CHECK(same_bits(again.inverse(0), t.inverse(0)));
  CHECK(same_bits(again.inverse(1), t.inverse(1)));
  auto broken = stored;
  broken.blocks[1].codes.pop_back();
  CHECK_THROWS_AS(BlockDiagonal::from_int8(broken), Error);
  CHECK_THROWS_AS(
      BlockDiagonal::from_inverse(general_blocks({3}), InversePrecision::fp32).int8_inverse(),
      Error);
}

TEST_CASE("storage counts entries and column exponents") {
  const std::vector<Index> sizes{64, 64, 32};
  CHECK(BlockDiagonal::from_inverse(general_blocks(sizes), InversePrecision::fp32).storage_bits() ==
        32 * (64 * 64 * 2 + 32 * 32));
  CHECK(BlockDiagonal::from_inverse(general_blocks(sizes), InversePrecision::fp16).storage_bits() ==
        16 * (64 * 64 * 2 + 32 * 32));
  CHECK(BlockDiagonal::from_inverse(general_blocks(sizes), InversePrecision::int8).storage_bits() ==
        8 * (64 * 64 * 2 + 32 * 32) + 8 * 160 + 16);
}

TEST_CASE("the metric is what an error of X costs in W") {
  const auto t = BlockDiagonal::from_inverse(general_blocks({7, 12}));
  const auto E = gaussian<double>(5, 19, 8);
  auto in_w = E;
  t.apply(in_w.view(), Op::inverse);
  const auto metric = t.metric();
  REQUIRE(metric.dim() == 19);
  double cost = 0;
  for (const auto& block : metric.blocks()) {
    REQUIRE(block.is_dense());
    for (Index r = 0; r < 5; ++r)
      for (Index i = 0; i < block.size; ++i)
        for (Index j = 0; j < block.size; ++j)
          cost += E(r, block.offset + i) * block.dense(i, j) * E(r, block.offset + j);
  }
  CHECK(cost == Approx(squared_norm(in_w.view())).epsilon(1e-12));
  const auto q = BlockDiagonal::orthogonal(orthogonal_blocks({16, 16}));
  CHECK(q.is_orthogonal());
  CHECK(q.metric().is_identity());
  CHECK(q.metric().dim() == 32);
  CHECK_FALSE(t.is_orthogonal());
}

TEST_CASE(
    "rows of a panel come out as in the whole matrix, and a workspace that has grown is enough") {
  const auto t = BlockDiagonal::from_inverse(general_blocks({64, 33, 7}));
  const auto X = gaussian<float>(130, 104, 12);
  for (const Op op : all_ops) {
    auto whole = X;
    t.apply(whole.view(), op);
    auto parts = X;
    Workspace workspace;
    t.apply(parts.view().row_block(0, 17), op, workspace);
    CHECK(allocations_of([&] { t.apply(parts.view().row_block(17, 113), op, workspace); }) == 0);
    CHECK(same_bits(parts, whole));
    auto columns = to_matrix<float>(X.view().transposed());
    t.apply(columns.view().transposed(), op, workspace);
    CHECK(same_bits(columns.view().transposed(), whole.view()));
  }
}

TEST_CASE("blocks that make no transform are refused") {
  auto singular = general_blocks({4, 5});
  for (Index j = 0; j < 5; ++j) singular[1](3, j) = singular[1](2, j);
  check_error([&] { BlockDiagonal::from_inverse(singular); }, ErrorCode::singular, "block 1");
  check_error([&] { BlockDiagonal::from_forward(singular); }, ErrorCode::singular, "block 1");
  auto bad = general_blocks({4});
  bad[0](2, 1) = std::numeric_limits<double>::quiet_NaN();
  check_error([&] { BlockDiagonal::from_forward(bad); }, ErrorCode::non_finite, "row 2, column 1");
  std::vector<Matrix<double>> oblong;
  oblong.emplace_back(3, 4);
  check_error([&] { BlockDiagonal::from_forward(oblong); }, ErrorCode::invalid_shape, "3 x 4");
  check_error([&] { BlockDiagonal::orthogonal(general_blocks({6})); }, ErrorCode::invalid_argument,
              "not orthogonal");
  std::vector<Matrix<double>> zero;
  zero.emplace_back(3, 3);
  for (const auto precision : all_precisions)
    check_error([&] { BlockDiagonal::from_inverse(zero, precision); }, ErrorCode::singular,
                "block 0");
}
