#include "cafeq/pair/learn_pair.hpp"

#include "cafeq/core/thread_pool.hpp"
#include "cafeq/optimize/lbfgs.hpp"
#include "cafeq/quant/grid.hpp"
#include "pair/attention.hpp"
#include "support/catch.hpp"
#include "support/error_of.hpp"

using namespace cafeq;
using namespace cafeq::test;

namespace {

std::vector<Matrix<double>> identities(const HeadLayout& layout) {
  return std::vector<Matrix<double>>(std::size_t(layout.kv_heads),
                                     identity_matrix<double>(layout.head_dim));
}

std::vector<Matrix<double>> head_hadamards(const HeadLayout& layout, std::uint64_t seed) {
  return detail::hadamard_blocks(std::vector<Index>(std::size_t(layout.kv_heads), layout.head_dim),
                                 seed);
}

/// Canonical factors with strong channels, so that there is something to spread.
struct Factors {
  Matrix<float> first, second;
  Factors(const HeadLayout& layout, Index n1, Index n2, std::uint64_t seed)
      : first(heavy_tailed(layout.heads * layout.head_dim, n1, seed)),
        second(heavy_tailed(layout.kv_heads * layout.head_dim, n2, seed + 1)) {
    for (Index h = 0; h < layout.heads; ++h)
      for (float& x : first.row(h * layout.head_dim)) x *= 5;
    for (Index h = 0; h < layout.kv_heads; ++h)
      for (float& x : second.row(h * layout.head_dim + layout.head_dim - 1)) x *= 5;
  }
};

/// log mean R² of both factors, by the surrogate itself.
double objective(const Factors& f, const ScaleSets& first_sets, const ScaleSets& second_sets,
                 const PNorm& surrogate) {
  return detail::log_mean_range(surrogate, f.first.view().transposed(), first_sets) +
         detail::log_mean_range(surrogate, f.second.view().transposed(), second_sets);
}

double orthogonality(View<const double> M) {
  const auto P = linalg::product(M, M.transposed());
  double worst = 0;
  for (Index i = 0; i < P.rows(); ++i)
    for (Index j = 0; j < P.cols(); ++j)
      worst = std::max(worst, std::abs(P(i, j) - (i == j ? 1.0 : 0.0)));
  return worst;
}

}  // namespace

TEST_CASE("The scales of a factor lie across it or along it, as the matrix is stored") {
  const auto is = [](ScaleSets sets, ScaleSets::Axis axis, Index group) {
    return sets.axis == axis && sets.group == group;
  };
  // A stored row is a row of the factor, so a column of its transpose.
  CHECK(is(detail::pair_scale_sets(true, per_row), ScaleSets::Axis::column, 0));
  CHECK(is(detail::pair_scale_sets(true, 16), ScaleSets::Axis::column, 16));
  CHECK(is(detail::pair_scale_sets(true, per_tensor), ScaleSets::Axis::column, 0));
  CHECK(is(detail::pair_scale_sets(false, per_row), ScaleSets::Axis::row, 0));
  CHECK(is(detail::pair_scale_sets(false, 16), ScaleSets::Axis::row, 16));
  CHECK(is(detail::pair_scale_sets(false, per_tensor), ScaleSets::Axis::row, 0));
}

TEST_CASE("Rotations become the transform M = Rᵀ of their heads") {
  for (const HeadLayout& layout : layouts()) {
    std::vector<Matrix<double>> R;
    for (Index kv = 0; kv < layout.kv_heads; ++kv)
      R.push_back(linalg::random_orthogonal(layout.head_dim, CounterRng(std::uint64_t(kv) + 1)));
    const auto M = detail::head_rotation(layout, R);
    for (Index kv = 0; kv < layout.kv_heads; ++kv)
      for (Index i = 0; i < layout.head_dim; ++i)
        for (Index j = 0; j < layout.head_dim; ++j) {
          CHECK(M.matrix(kv)(i, j) == R[std::size_t(kv)](j, i));
          CHECK(M.inverse(kv)(i, j) == R[std::size_t(kv)](i, j));
        }
  }
}

TEST_CASE("Each KV head gets a Hadamard of its own, the same for the same seed") {
  const HeadLayout layout{.head_dim = 16, .heads = 4, .kv_heads = 2};
  const auto blocks = head_hadamards(layout, 5);
  const auto again = head_hadamards(layout, 5);
  REQUIRE(blocks.size() == 2);
  for (std::size_t b = 0; b < 2; ++b) {
    CHECK(orthogonality(blocks[b].view()) < 1e-6);
    CHECK(std::equal(blocks[b].data(), blocks[b].data() + 256, again[b].data()));
  }
  CHECK(!std::equal(blocks[0].data(), blocks[0].data() + 256, blocks[1].data()));
}

TEST_CASE("The learned rotation makes both ranges smaller and leaves the product") {
  const HeadLayout grouped{.head_dim = 16, .heads = 4, .kv_heads = 2};
  for (const HeadLayout& layout : {HeadLayout{.head_dim = 16, .heads = 2}, grouped,
                                   HeadLayout{.head_dim = 8, .heads = 3, .kv_heads = 1}})
    for (const Index group : {per_row, Index(8)})
      for (const bool value_output : {true, false}) {
        const ScaleSets first_sets = detail::pair_scale_sets(!value_output, group);
        const ScaleSets second_sets = detail::pair_scale_sets(true, group);
        const Factors plain(layout, 40, 33, 3);
        INFO(layout.heads << " heads, " << layout.kv_heads << " KV heads, group " << group
                          << ", value/output " << value_output);
        for (const bool hadamard : {true, false}) {
          const auto start = hadamard ? head_hadamards(layout, 1) : identities(layout);
          const auto learn = [&](const Lbfgs& optimizer) {
            return detail::learn_head_rotation(plain.first.view(), first_sets, plain.second.view(),
                                               second_sets, layout, start, PNorm{}, optimizer);
          };
          const auto from = learn(Lbfgs{.max_iterations = 0});
          for (Index kv = 0; kv < layout.kv_heads; ++kv)
            for (Index i = 0; i < layout.head_dim; ++i)
              for (Index j = 0; j < layout.head_dim; ++j)
                REQUIRE(from.inverse(kv)(i, j) ==
                        Approx(start[std::size_t(kv)](i, j)).margin(1e-12));
          const auto M = learn(Lbfgs{});
          auto before = plain;
          from.apply_first(before.first.view());
          from.apply_second(before.second.view());
          auto after = plain;
          M.apply_first(after.first.view());
          M.apply_second(after.second.view());
          CHECK(objective(after, first_sets, second_sets, PNorm{}) <
                objective(before, first_sets, second_sets, PNorm{}) - 0.03);
          for (Index kv = 0; kv < layout.kv_heads; ++kv) CHECK(orthogonality(M.matrix(kv)) < 1e-10);
          CHECK(pair_error(plain.first, plain.second, after.first, after.second, layout) < 1e-10);
        }
      }
}

TEST_CASE("Threads and copies change nothing in what a pair learns") {
  const HeadLayout layout{.head_dim = 8, .heads = 4, .kv_heads = 2};
  const Factors f(layout, 40, 33, 7);
  const auto first_transposed = to_matrix<float>(f.first.view().transposed());
  const Lbfgs optimizer{.max_iterations = 10};
  const auto learn = [&](View<const float> first, ExecutorRef executor) {
    return detail::learn_head_rotation(first, ScaleSets::rows(), f.second.view(),
                                       ScaleSets::columns(), layout, head_hadamards(layout, 2),
                                       PNorm{}, optimizer, executor);
  };
  const auto expected = learn(f.first.view(), {});
  const auto equal = [&](const HeadTransform& M) {
    for (Index kv = 0; kv < 2; ++kv)
      for (Index i = 0; i < 8; ++i)
        for (Index j = 0; j < 8; ++j)
          if (M.matrix(kv)(i, j) != expected.matrix(kv)(i, j)) return false;
    return true;
  };
  for (const Index threads : {1, 2, 3}) {
    ThreadPool pool(threads);
    CHECK(equal(learn(f.first.view(), pool)));
  }
  CHECK(equal(learn(first_transposed.view().transposed(), {})));
}

TEST_CASE("Heads of zeros, and factors of nothing but zeros, keep their start") {
  const HeadLayout layout{.head_dim = 8, .heads = 2};
  Factors f(layout, 20, 20, 8);
  for (Matrix<float>* m : {&f.first, &f.second})
    for (Index i = 0; i < 8; ++i)
      for (float& x : m->row(i)) x = 0;
  const auto start = head_hadamards(layout, 2);
  const auto learn = [&](const Matrix<float>& first, const Matrix<float>& second) {
    return detail::learn_head_rotation(first.view(), ScaleSets::rows(), second.view(),
                                       ScaleSets::columns(), layout, start, PNorm{}, Lbfgs{});
  };
  CHECK(orthogonality(learn(f.first, f.second).matrix(0)) < 1e-10);
  const Matrix<float> zero(16, 20);
  const auto same = learn(zero, zero);
  for (Index i = 0; i < 8; ++i) CHECK(same.inverse(1)(i, 3) == start[1](i, 3));
}

TEST_CASE("Factors that do not fit the layout are named") {
  const HeadLayout layout{.head_dim = 8, .heads = 2};
  const auto good = gaussian<float>(16, 10, 1);
  const auto bad = gaussian<float>(15, 10, 1);
  const auto refused = [&](View<const float> first, View<const float> second, HeadLayout l) {
    const auto learn = [&] {
      detail::learn_head_rotation(first, ScaleSets::rows(), second, ScaleSets::columns(), l,
                                  identities(layout), PNorm{}, Lbfgs{});
    };
    return error_of(learn).message();
  };
  CHECK_THAT(refused(bad.view(), good.view(), layout), Contains("first: 15 rows"));
  CHECK_THAT(refused(good.view(), bad.view(), layout), Contains("second: 15 rows"));
  CHECK_THAT(refused(good.view(), good.view(), {.head_dim = 8, .heads = 2, .kv_heads = 0}),
             Contains("kv_heads is 0"));
  auto nan = good;
  nan(3, 4) = std::nanf("");
  CHECK_THAT(refused(good.view(), nan.view(), layout), Contains("second: row 3, column 4"));
}
