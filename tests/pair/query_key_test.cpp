#include "cafeq/pair/query_key.hpp"

#include "attention.hpp"
#include "support/catch.hpp"

using namespace cafeq;
using namespace cafeq::test;

namespace {

void transform(Attention& a, const HeadTransform& M, const AttentionTraits& traits = {}) {
  transform_query_key(a.Wq, a.Wk, a.layout, M, {.query = vec(a.bq), .key = vec(a.bk)}, traits);
}

const std::vector<Rotary>& rotaries() {
  static const std::vector<Rotary> all{{8, Rotary::Pairing::half_split},
                                       {8, Rotary::Pairing::interleaved},
                                       {4, Rotary::Pairing::half_split},
                                       {4, Rotary::Pairing::interleaved},
                                       {2, Rotary::Pairing::half_split}};
  return all;
}

const std::vector<HeadLayout>& wide_layouts() {
  static const std::vector<HeadLayout> all{{.head_dim = 8, .heads = 4},
                                           {.head_dim = 8, .heads = 4, .kv_heads = 2},
                                           {.head_dim = 9, .heads = 3, .kv_heads = 1}};
  return all;
}

}  // namespace

TEST_CASE("scores without rotary positions allow any M", "[query_key]") {
  const auto X = gaussian<double>(6, 9, 100);
  for (const HeadLayout layout : layouts()) {
    const Attention exact(layout, 9, 11, 1);
    Attention moved = exact;
    transform(moved, HeadTransform(layout, random_stack(layout, 5)));
    CHECK(distance(exact(X), moved(X)) < 1e-5);
    moved.Wk = exact.Wk;
    CHECK(distance(exact(X), moved(X)) > 1e-3);
    moved = exact;
    transform_query_key(moved.Wq, moved.Wk, layout,
                        HeadTransform(layout, random_stack(layout, 5)));  // biases forgotten
    CHECK(distance(exact(X), moved(X)) > 1e-3);
  }
}

TEST_CASE("rotary scores allow what commutes with the rotation", "[query_key]") {
  const auto X = gaussian<double>(7, 9, 100);
  for (const HeadLayout layout : wide_layouts())
    for (const Rotary& rotary : rotaries()) {
      const Attention exact(layout, 9, 11, 1);
      const HeadTransform any(layout, random_stack(layout, 5));
      const AttentionTraits traits{.rotary = rotary};
      for (const auto& M : {project_to_commuting(any, rotary),
                            balance_commuting(exact.Wq.view(), exact.Wk.view(), layout, rotary)}) {
        CHECK(commutes(M, rotary));
        CHECK_FALSE(M.is_diagonal());
        Attention moved = exact;
        transform(moved, M, traits);
        CHECK(distance(exact(X, rotary), moved(X, rotary)) < 1e-5);
        CHECK(relative_error<float, float>(exact.Wk.view(), moved.Wk.view()) > 1e-2);
      }
      // Any other M would change the scores, and is refused.
      Attention moved = exact;
      transform(moved, any);
      CHECK(distance(exact(X), moved(X)) < 1e-5);
      CHECK(distance(exact(X, rotary), moved(X, rotary)) > 1e-3);
      CHECK_FALSE(commutes(any, rotary));
      CHECK(raises(ErrorCode::unsupported, "does not commute with the rotary embedding",
                   [&] { transform(moved, any, traits); }));
    }
}

TEST_CASE("the pairing matters", "[query_key]") {
  const HeadLayout layout{.head_dim = 8, .heads = 2};
  const HeadTransform any(layout, random_stack(layout, 5));
  const Rotary halves{8, Rotary::Pairing::half_split}, neighbours{8, Rotary::Pairing::interleaved};
  const auto M = project_to_commuting(any, halves);
  CHECK(commutes(M, halves));
  CHECK_FALSE(commutes(M, neighbours));
}

TEST_CASE("projecting twice is projecting once, and never singular", "[query_key]") {
  const HeadLayout layout{.head_dim = 8, .heads = 2};
  const Rotary rotary{6, Rotary::Pairing::interleaved};
  const auto once = project_to_commuting(HeadTransform(layout, random_stack(layout, 5)), rotary);
  const auto twice = project_to_commuting(once, rotary);
  for (Index kv = 0; kv < 2; ++kv)
    CHECK(relative_error<double, double>(once.matrix(kv), twice.matrix(kv)) == 0.0);
  Matrix<double> reversal(16, 8);  // anti-diagonal: pairs average to zero
  for (Index i = 0; i < 16; ++i) reversal(i, 7 - i % 8) = 1.0;
  const auto projected = project_to_commuting(HeadTransform(layout, reversal), rotary);
  CHECK(commutes(projected, rotary));
  CHECK(projected.is_diagonal());
}

TEST_CASE("the commuting balance has equal norms and the best angle", "[query_key]") {
  const HeadLayout layout{.head_dim = 6, .heads = 4, .kv_heads = 2};
  const Rotary rotary{4, Rotary::Pairing::half_split};
  auto q = gaussian<double>(24, 20, 1, 5.0), k = gaussian<double>(12, 30, 2);
  for (Index j = 0; j < 30; ++j)
    k(0, j) = 3 * k(2, j) + 0.1 * k(0, j);  // a pair with a strong direction
  for (Index h = 0; h < 2; ++h)
    for (Index j = 0; j < 20; ++j) q(6 * h, j) = 2 * q(6 * h + 2, j) + 0.3 * q(6 * h, j);
  const auto M = balance_commuting(q.view(), k.view(), layout, rotary);
  auto f = q, s = k;
  M.apply_first(f.view());
  M.apply_second(s.view());
  CHECK(pair_error(q, k, f, s, layout) < 1e-14);
  const auto grams = detail::pair_grams(f.view(), s.view(), layout, {});
  for (std::size_t kv = 0; kv < 2; ++kv) {
    const auto &G1 = grams.first[kv], &G2 = grams.second[kv];
    for (Index p = 0; p < 2; ++p) {
      const Index i = rotary.pair(p).first, j = rotary.pair(p).second;
      CHECK(G1(i, i) + G1(j, j) == Approx(G2(i, i) + G2(j, j)));
      const double best = G1(i, i) * G2(i, i) + G1(j, j) * G2(j, j);
      for (int step = 1; step < 12; ++step) {
        const double c = std::cos(step * 0.2618), n = std::sin(step * 0.2618);
        const auto turned = [&](const Matrix<double>& G) {
          return std::pair{c * c * G(i, i) - 2 * c * n * G(i, j) + n * n * G(j, j),
                           n * n * G(i, i) + 2 * c * n * G(i, j) + c * c * G(j, j)};
        };
        const auto [a1, b1] = turned(G1);
        const auto [a2, b2] = turned(G2);
        CHECK(a1 * a2 + b1 * b2 >= best * (1 - 1e-12));
      }
    }
    CHECK(G1(4, 4) == Approx(G2(4, 4)));
    CHECK(G1(4, 5) == Approx(0).margin(1e-9 * G1(4, 4)));
  }
}

TEST_CASE("zero heads and whole heads without rotation", "[query_key]") {
  const HeadLayout layout{.head_dim = 4, .heads = 2};
  const Matrix<float> zero(8, 5);
  for (const Rotary rotary : {Rotary{.dims = 0}, Rotary{.dims = 2}, Rotary{.dims = 4}})
    CHECK(commutes(balance_commuting(zero.view(), zero.view(), layout, rotary), rotary));
  CHECK(commutes(HeadTransform(layout, random_stack(layout, 1)), Rotary{.dims = 0}));
}

TEST_CASE("query and key that are normalised or clipped, and wrong shapes", "[query_key]") {
  const HeadLayout layout{.head_dim = 4, .heads = 4, .kv_heads = 2};
  Attention a(layout, 5, 6, 1);
  const HeadTransform M(layout);
  std::vector<float> wrong_bias(3);
  Matrix<float> wrong(5, 5);
  CHECK(raises(ErrorCode::unsupported, "normalised", [&] { transform(a, M, {.qk_norm = true}); }));
  CHECK(raises(ErrorCode::unsupported, "clipped", [&] { transform(a, M, {.clipped = true}); }));
  CHECK(raises(ErrorCode::invalid_shape, "Wq: 5 rows",
               [&] { transform_query_key(wrong, a.Wk, layout, M); }));
  CHECK(raises(ErrorCode::invalid_shape, "Wk: 5 rows",
               [&] { transform_query_key(a.Wq, wrong, layout, M); }));
  CHECK(raises(ErrorCode::invalid_shape, "query bias: 3",
               [&] { transform_query_key(a.Wq, a.Wk, layout, M, {.query = vec(wrong_bias)}); }));
  CHECK(raises(ErrorCode::invalid_shape, "key bias: 3",
               [&] { transform_query_key(a.Wq, a.Wk, layout, M, {.key = vec(wrong_bias)}); }));
  CHECK(raises(ErrorCode::invalid_argument, "dims is 6",
               [&] { transform(a, M, {.rotary = Rotary{.dims = 6}}); }));
}

TEST_CASE("what keeps a query and a key projection from taking an M", "[query_key]") {
  const HeadLayout layout{.head_dim = 4, .heads = 4, .kv_heads = 2};
  const HeadTransform dense(layout, random_stack(layout, 5)), identity(layout);
  CHECK_FALSE(query_key_fault(AttentionTraits{}));
  CHECK_FALSE(query_key_fault(AttentionTraits{}, dense));
  const AttentionTraits rotary{.rotary = Rotary{.dims = 4}};
  CHECK_FALSE(query_key_fault(rotary, identity));
  CHECK(query_key_fault(rotary, dense)->code() == ErrorCode::unsupported);
  CHECK_THAT(query_key_fault(rotary, dense)->message(), Contains("does not commute"));
  CHECK(query_key_fault(AttentionTraits{.rotary = Rotary{.dims = 3}}, identity)->code() ==
        ErrorCode::invalid_argument);
  for (const AttentionTraits& traits :
       {AttentionTraits{.qk_norm = true}, AttentionTraits{.clipped = true}})
    CHECK(query_key_fault(traits)->code() == ErrorCode::unsupported);
}
