#include "cafeq/transform/compose.hpp"

#include "cafeq/core/thread_pool.hpp"
#include "cafeq/transform/block_diagonal.hpp"
#include "cafeq/transform/dual_scaling.hpp"
#include "cafeq/transform/hadamard.hpp"
#include "cafeq/transform/rotation.hpp"
#include "laws.hpp"

using namespace cafeq;
using namespace cafeq::test;

namespace elsewhere {

struct Doubling {  // a host's own transform, in its own namespace
  cafeq::Index dim() const { return 24; }
  template <class E>
  void apply(cafeq::View<E> X, cafeq::Op op) const {
    if (X.cols != 24) cafeq::raise(cafeq::ErrorCode::invalid_shape, "dimension 24");
    const E f = op == cafeq::Op::forward || op == cafeq::Op::transpose ? E(2) : E(0.5);
    for (cafeq::Index i = 0; i < X.rows; ++i)
      for (cafeq::Index j = 0; j < X.cols; ++j) X(i, j) *= f;
  }
  bool is_orthogonal() const { return false; }
  std::int64_t storage_bits() const { return 5; }
};

auto product_found_by_its_arguments() { return cafeq::Signs(24, 1) * Doubling{}; }

}  // namespace elsewhere

namespace {

template <class A, class B>
concept Multiplies = requires(A a, B b) { a* b; };

static_assert(!Multiplies<Matrix<float>, Matrix<float>> && !Multiplies<Signs, float> &&
              !Multiplies<int, Signs>);
static_assert(Multiplies<Signs, Diagonal> && Multiplies<BlockHadamard, Signs> &&
              Multiplies<Identity, DualScaling>);
static_assert(std::is_same_v<decltype(fp16(1) * fp16(2)), float>);

Diagonal ramp(Index n) {
  std::vector<double> d;
  for (Index j = 0; j < n; ++j) d.push_back(1 + double(j) / double(n));
  return Diagonal(std::move(d));
}

}  // namespace

TEST_CASE("products of transforms obey the laws") {
  for (const Index n : {1, 2, 12, 33, 64}) {
    check_laws(ramp(n) * Hadamard(Signs(n, 1)));
    check_laws(Hadamard(Signs(n, 1)) * ramp(n) * Hadamard(Signs(n, 2)));
    check_laws(Signs(n, 3) * Hadamard(Signs(n, 1)));
  }
  check_laws(elsewhere::product_found_by_its_arguments());
}

TEST_CASE("a * b applies a, then b; bits add; orthogonal if both are") {
  const auto a = ramp(12);
  const Hadamard b(Signs(12, 1));
  const auto product = a * b;
  const auto expected = dense_product(to_dense<double>(a), to_dense<double>(b));
  CHECK(max_difference(to_dense<double>(product), expected.view()) < 1e-14);
  CHECK(product.storage_bits() == 16 * 12 + 64);
  CHECK_FALSE(product.is_orthogonal());
  CHECK((b * Signs(12, 2)).is_orthogonal());
  CHECK(product.first().dim() == 12);
  CHECK(product.second().storage_bits() == 64);
  check_error([&] { (void)(a * Signs(13, 1)); }, ErrorCode::invalid_shape, "12 but b has 13");
}

TEST_CASE("specs: b is fitted to what a makes of W") {
  const auto W = heavy_tailed(50, 96, 3, 4);
  const auto spec = BlockHadamard{32, 1} * DualScaling{};
  static_assert(TransformSpec<decltype(spec)> && !Transform<decltype(spec)>);
  const auto fitted = fit_transform(spec, W.view());
  auto X = W;
  apply_right(BlockHadamard{32, 1}.fit(W.view()), X.view());
  CHECK(fitted.second().entries() == DualScaling{}.fit(X.view()).entries());
  CHECK(fitted.second().entries() != DualScaling{}.fit(W.view()).entries());
  check_laws(fitted);

  const auto nested = fit_transform(
      DualScaling{} * RandomizedHadamard{2} * Identity{} * DualScaling{.rounds = 3}, W.view());
  CHECK(nested.dim() == 96);
  CHECK(nested.storage_bits() == 16 * 96 + 64 + 16 * 96);
  check_round_trip(nested);

  const auto mixed = fit_transform(ramp(96) * (BlockHadamard{16} * RandomSigns{1}), W.view());
  CHECK(mixed.storage_bits() == 16 * 96 + 128);
  check_round_trip(mixed);
  check_error([&] { (void)fit_transform(ramp(95) * BlockHadamard{16}, W.view()); },
              ErrorCode::invalid_shape, "95");
}

TEST_CASE("specs read every element type") {
  const auto W = heavy_tailed(50, 96, 3, 4);
  const auto half = to_matrix<bf16>(W.view());
  const auto floats = to_matrix<float>(half.view());
  const auto check = [&](const auto& spec) {
    const auto expected = spec.fit(floats.view());
    const auto fitted = spec.fit(half.view());
    const auto M = to_dense<float>(fitted), N = to_dense<float>(expected);
    CHECK(same_bits(M.view(), N.view()));
  };
  check(DualScaling{} * RandomizedHadamard{2});
  check(RandomSigns{3} * BlockHadamard{32, 1} * DualScaling{});
  check(ramp(96) * RandomRotation{1});  // whose fit() is for floats
}

TEST_CASE("rows run through both transforms in panels, any number of them") {
  const auto product = Signs(1024, 1) * Hadamard(Signs(1024, 2));  // panels of 64 rows
  for (const Index rows : {0, 1, 63, 64, 65, 130}) {
    auto X = gaussian<float>(rows, 1024, 9);
    auto expected = X;
    for (const Op op : all_ops) {
      product.apply(X.view(), op);
      const bool signs_first = op == Op::forward || op == Op::inverse_transpose;
      if (signs_first) product.first().apply(expected.view(), op);
      product.second().apply(expected.view(), op);
      if (!signs_first) product.first().apply(expected.view(), op);
      REQUIRE(same_bits(X.view(), expected.view()));
    }
  }
}

TEST_CASE("fitting is the same on any executor") {
  const auto W = heavy_tailed(300, 192, 4, 4);
  const auto spec = RandomizedHadamard{1} * DualScaling{};
  const auto expected = fit_transform(spec, W.view());
  for (const Index threads : {1, 2, 3}) {
    ThreadPool pool(threads);
    CHECK(fit_transform(spec, W.view(), pool).second().entries() == expected.second().entries());
  }
}

TEST_CASE("a product has the faults of its parts, the first one first") {
  const BlockHadamard broken{.block = 0};
  CHECK_FALSE(fault_of(DualScaling{} * BlockHadamard{16}, 3, 96));
  CHECK_THAT(fault_of(DualScaling{.rounds = -1} * broken, 3, 96)->message(), Contains("rounds"));
  CHECK_THAT(fault_of(DualScaling{} * broken, 3, 96)->message(), Contains("block is 0"));
  CHECK(fault_of(DualScaling{} * Signs(8, 1), 3, 96)->code() == ErrorCode::invalid_shape);
  CHECK(fault_of(Signs(8, 1) * Signs(8, 2), 3, 96)->message() ==
        "transform: dimension 8 does not fit 96 columns");
}
