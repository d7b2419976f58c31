#include "cafeq/pipeline/pair_pipeline.hpp"

#include "cafeq/core/thread_pool.hpp"
#include "cafeq/quant/affine.hpp"
#include "cafeq/quant/midrise.hpp"
#include "pair/attention.hpp"
#include "pipeline/dequantized.hpp"
#include "support/catch.hpp"
#include "support/error_of.hpp"

using namespace cafeq;
using namespace cafeq::test;

namespace {

const HeadLayout grouped{.head_dim = 8, .heads = 4, .kv_heads = 2};

View<const float> inner_first(const Matrix<float>& W, Side inner) {
  return inner == Side::output ? W.view() : W.view().transposed();
}

/// Two matrices as a model stores them, with the inner dimension on either side of the first, and
/// skewed heads.
struct Pair {
  HeadLayout layout;
  Side side;
  Matrix<float> first, second;

  Pair(HeadLayout l, Side s, std::uint64_t seed = 3)
      : layout(l),
        side(s),
        first(s == Side::input ? gaussian<float>(40, l.heads * l.head_dim, seed)
                               : gaussian<float>(l.heads * l.head_dim, 40, seed)),
        second(gaussian<float>(l.kv_heads * l.head_dim, 33, seed + 1)) {
    for (Index i = 0; i < second.rows(); ++i)
      for (float& w : second.row(i)) w *= std::pow(0.7f, float(i % l.head_dim));
  }
  template <class P>
  auto quantize(const P& pipeline, ExecutorRef executor = {},
                const std::optional<Rotary>& rotary = {}) const {
    return pipeline.quantize(PairInput{first.view(), side}, PairInput{second.view(), Side::output},
                             layout, rotary, executor);
  }
  /// The error of the product by the definition.
  template <class R>
  double error_of(const R& rounded) const {
    const auto a = dequantized(rounded.first);
    const auto b = dequantized(rounded.second);
    return dense_pair_error(inner_first(first, side), second.view(), inner_first(a, side),
                            std::as_const(b).view(), layout);
  }
};

std::vector<Pair> pairs() {
  std::vector<Pair> all;
  for (const Side side : {Side::input, Side::output})
    for (const HeadLayout& layout : {HeadLayout{.head_dim = 16, .heads = 2}, grouped,
                                     HeadLayout{.head_dim = 7, .heads = 3, .kv_heads = 1}})
      all.emplace_back(layout, side);
  return all;
}

using Learned = PairPipeline<Midrise<3>>;

}  // namespace

TEST_CASE("The errors are those of the product of what is stored") {
  for (const Pair& pair : pairs())
    for (const PairTransform transform :
         {PairTransform::none, PairTransform::balanced, PairTransform::learned}) {
      INFO(pair.layout.heads << " heads, " << pair.layout.kv_heads << " KV heads, side "
                             << int(pair.side) << ", transform " << int(transform));
      const Learned pipeline{.transform = transform, .alternations = 3};
      const auto rounded = pair.quantize(pipeline);
      CHECK(rounded.error == Approx(pair.error_of(rounded)).epsilon(1e-3));
      CHECK(rounded.error <= rounded.nearest_error);
      auto plain = pipeline;
      plain.alternations = 0;
      const auto nearest = pair.quantize(plain);
      CHECK(nearest.error == nearest.nearest_error);
      CHECK(nearest.nearest_error == rounded.nearest_error);
      CHECK(nearest.error == Approx(pair.error_of(nearest)).epsilon(1e-3));
    }
}

TEST_CASE("Better transforms round better, and alternating is better than nearest") {
  double none = 0, balanced = 0, learned = 0, alternated = 0;
  for (const Pair& pair : pairs()) {
    none += pair.quantize(Learned{.transform = PairTransform::none, .alternations = 0}).error;
    balanced +=
        pair.quantize(Learned{.transform = PairTransform::balanced, .alternations = 0}).error;
    const auto full = pair.quantize(Learned{});
    learned += full.nearest_error;
    alternated += full.error;
  }
  CHECK(balanced < 0.9 * none);
  CHECK(learned < 0.9 * balanced);
  CHECK(alternated < 0.85 * learned);
}

TEST_CASE("At 8 bits what is stored is M W and W M⁻¹") {
  for (const Pair& pair : pairs())
    for (const PairTransform transform :
         {PairTransform::none, PairTransform::balanced, PairTransform::learned}) {
      const auto rounded =
          pair.quantize(PairPipeline<Midrise<8>>{.transform = transform, .alternations = 0});
      auto first = pair.first;
      auto second = pair.second;
      rounded.transform.apply_first(pair.side == Side::output ? first.view()
                                                              : first.view().transposed());
      rounded.transform.apply_second(second.view());
      const auto first_hat = dequantized(rounded.first);
      const auto second_hat = dequantized(rounded.second);
      CHECK(relative_error<float, float>(first.view(), first_hat.view()) < 1e-3);
      CHECK(relative_error<float, float>(second.view(), second_hat.view()) < 1e-3);
      if (transform == PairTransform::none)
        for (Index kv = 0; kv < pair.layout.kv_heads; ++kv)
          for (Index i = 0; i < pair.layout.head_dim; ++i)
            for (Index j = 0; j < pair.layout.head_dim; ++j)
              CHECK(rounded.transform.matrix(kv)(i, j) == (i == j ? 1 : 0));
    }
}

TEST_CASE("The transform costs nothing: codes, scales and one exponent a matrix") {
  const Pair pair(grouped, Side::input);
  const auto rows = pair.quantize(Learned{.alternations = 1});
  CHECK(rows.first.storage_bits() == 40 * 32 * 3 + 40 * 16 + 16);
  CHECK(rows.second.storage_bits() == 16 * 13 * 8 + 16 * 16 + 16);  // 99 bits a row take 13 bytes
  const auto groups =
      pair.quantize(PairPipeline<Affine<4>>{.quantizer = {.group = 16}, .alternations = 1});
  CHECK(groups.first.storage_bits() == 40 * 32 * 4 + 40 * 2 * 32 + 16);
  CHECK(groups.second.storage_bits() == 16 * 17 * 8 + 16 * 3 * 32 + 16);
  CHECK(groups.error < rows.error);
}

TEST_CASE("The better start is kept: a pair that is easy as it is stays as it is") {
  // ±1 in every entry: one bit would do, and any rotation spoils that.
  Pair pair({.head_dim = 8, .heads = 2}, Side::input);
  for (Matrix<float>* m : {&pair.first, &pair.second})
    for (Index i = 0; i < m->size(); ++i) m->data()[i] = m->data()[i] < 0 ? -1.0f : 1.0f;
  CHECK(pair.quantize(Learned{.transform = PairTransform::balanced, .alternations = 0}).error >
        1e-2);
  CHECK(pair.quantize(Learned{}).error < 1e-6);
}

TEST_CASE("Rotary positions: M commutes, and rounding is to nearest") {
  const Pair pair(grouped, Side::output);
  const Rotary rotary{.dims = 8};
  const auto rounded = pair.quantize(Learned{}, {}, rotary);
  CHECK(rounded.error == rounded.nearest_error);
  CHECK(commutes(rounded.transform, rotary));
  CHECK(rounded.error == Approx(pair.error_of(rounded)).epsilon(1e-3));
  const auto plain = pair.quantize(Learned{.transform = PairTransform::none}, {}, rotary);
  for (Index i = 0; i < 8; ++i) CHECK(plain.transform.matrix(1)(i, i) == 1);
  CHECK(plain.error ==
        pair.quantize(Learned{.transform = PairTransform::none, .alternations = 0}).error);
  CHECK(rounded.error < plain.error * 1.02);
}

TEST_CASE("Any view and element type, and any power of two as a scale") {
  const Pair pair(grouped, Side::input);
  const Learned pipeline{.optimizer = {.max_iterations = 5}, .alternations = 2};
  const auto expected = pair.quantize(pipeline);
  const auto transposed = to_matrix<float>(pair.first.view().transposed());
  const auto wide = to_matrix<double>(pair.second.view());
  const auto other = pipeline.quantize(PairInput{transposed.view().transposed(), Side::input},
                                       PairInput{wide.view(), Side::output}, grouped);
  CHECK(other.error == expected.error);
  CHECK(std::equal(other.first.codes().packed().bytes().begin(),
                   other.first.codes().packed().bytes().end(),
                   expected.first.codes().packed().bytes().begin()));

  auto scaled = pair;
  for (Index i = 0; i < scaled.first.size(); ++i) scaled.first.data()[i] *= 0x1p-90f;
  for (Index i = 0; i < scaled.second.size(); ++i) scaled.second.data()[i] *= 0x1p+80f;
  const auto extreme = scaled.quantize(pipeline);
  CHECK(extreme.error == Approx(expected.error).epsilon(1e-6));
  CHECK(scaled.error_of(extreme) == Approx(expected.error).epsilon(1e-3));
}

TEST_CASE("Threads change nothing, the seed does") {
  const Pair pair(grouped, Side::input);
  Learned pipeline{.alternations = 2};
  const auto expected = pair.quantize(pipeline);
  for (const Index threads : {1, 2, 3}) {
    ThreadPool pool(threads);
    const auto rounded = pair.quantize(pipeline, pool);
    CHECK(rounded.error == expected.error);
    CHECK(std::equal(rounded.second.codes().packed().bytes().begin(),
                     rounded.second.codes().packed().bytes().end(),
                     expected.second.codes().packed().bytes().begin()));
  }
  pipeline.transform = PairTransform::balanced;
  const double before = pair.quantize(pipeline).error;
  pipeline.seed = 17;
  CHECK(pair.quantize(pipeline).error != before);
}

TEST_CASE("Bad members and factors are named") {
  const Pair pair(grouped, Side::input);
  const auto refused = [&](const auto& pipeline) {
    return error_of([&] { pair.quantize(pipeline); }).message();
  };
  CHECK_THAT(refused(Learned{.alternations = -1}), Contains("alternations is -1"));
  CHECK_THAT(refused(Learned{.quantizer = {.group = -7}}), Contains("group is -7"));
  CHECK_THAT(refused(Learned{.surrogate = {.p = 5}}), Contains("p is 5"));
  const PairInput first{pair.first.view(), Side::output};  // its heads lie on the other side
  const PairInput second{pair.second.view(), Side::output};
  CHECK_THAT(error_of([&] { Learned{}.quantize(first, second, grouped); }).message(),
             Contains("first: 40 rows"));
}
