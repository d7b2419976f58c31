// What rounders and pairs choose with GGUF's quantizers is what blocks of GGUF hold.
#include "cafeq/quant/gguf.hpp"

#include <algorithm>

#include "cafeq/pipeline/pair_pipeline.hpp"
#include "cafeq/rounding/error_feedback.hpp"
#include "support/catch.hpp"
#include "support/random.hpp"

using namespace cafeq;

namespace {

/// The rows of a result, written as blocks with 2^exponent in their halves, decode to the weights
/// that it stands for.
template <class Q>
void check_blocks(const Quantized<Identity::Fitted, Q>& result) {
  using Block = GgufBlock<Q>;
  Matrix<float> expected(result.rows(), result.cols());
  result.dequantize(expected);
  std::vector<std::uint8_t> codes(std::size_t(result.cols()));
  std::vector<float> row(codes.size());
  std::vector<std::byte> bytes(std::size_t(*gguf_row_bytes(Block::type, result.cols())));
  const std::size_t groups = codes.size() / std::size_t(Block::group);
  for (Index i = 0; i < result.rows(); ++i) {
    result.codes().packed().unpack_row(i, codes);
    gguf::write_row(result.quantizer(), codes,
                    result.codes().params().subspan(std::size_t(i) * groups, groups), bytes,
                    result.exponent());
    gguf::dequantize_row(Block::type, bytes, row);
    REQUIRE(std::equal(row.begin(), row.end(), expected.row(i).begin()));
  }
}

template <class Q>
Quantized<Identity::Fitted, Q> packed(const Encoding<Q>& encoding, int exponent) {
  return {encoding.pack(), {encoding.cols()}, Side::input, exponent};
}

/// The same grid, but weight by weight.
template <class Q>
struct OneByOne : Q {
  using Levels = void;
};

template <class Q>
double metric_error(const Encoding<Q>& encoding, View<const float> X, View<const double> H) {
  Matrix<float> E(X.rows, X.cols);
  encoding.decode(E.view());
  double sum = 0;
  for (Index r = 0; r < X.rows; ++r) {
    for (Index j = 0; j < X.cols; ++j) E(r, j) -= X(r, j);
    for (Index i = 0; i < X.cols; ++i)
      for (Index j = 0; j < X.cols; ++j) sum += double(E(r, i)) * H(i, j) * double(E(r, j));
  }
  return sum;
}

}  // namespace

TEST_CASE("the exponent of a result goes into the halves of its blocks") {
  const auto X = test::heavy_tailed(3, 512, 4, 3, 500);
  for (const auto& info : gguf_types) {
    if (info.weights == 1) continue;
    gguf::with_quantizer(info.type, [&](const auto& q) {
      CAPTURE(info.name);
      Encoding<std::remove_cvref_t<decltype(q)>> encoding(q, X.rows(), X.cols());
      encoding.fit(X.view());
      encoding.encode(X.view());
      for (const int exponent : {0, 2, -8}) check_blocks(packed(encoding, exponent));
    });
  }
}

TEST_CASE("error feedback and its refits work on GGUF's quantizers") {
  const auto X = test::heavy_tailed(6, 256, 5, 2, 1000);
  const auto A = test::gaussian<float>(300, 256, 6);
  const auto H = kernel::gram<float>(A.view());
  const Metric metric = Metric::dense(H);
  const auto check = [&](const auto& q) {
    using Q = std::remove_cvref_t<decltype(q)>;
    Encoding<Q> encoding(q, X.rows(), X.cols());
    Encoding<OneByOne<Q>> one_by_one({q}, X.rows(), X.cols());
    encoding.fit(X.view());
    encoding.encode(X.view());
    one_by_one.fit(X.view());
    const double nearest = metric_error(encoding, X.view(), H.view());
    ErrorFeedback{}.round(X.view(), metric, Side::input, encoding);
    ErrorFeedback{}.round(X.view(), metric, Side::input, one_by_one);
    CHECK(metric_error(encoding, X.view(), H.view()) < 0.8 * nearest);
    for (Index i = 0; i < X.rows(); ++i)
      REQUIRE(std::equal(encoding.codes(i).begin(), encoding.codes(i).end(),
                         one_by_one.codes(i).begin()));
    check_blocks(packed(encoding, -3));
  };
  check(gguf::iq4_nl);
  check(gguf::q3_k);
  check(gguf::q4_k);
}

TEST_CASE("pairs are rounded with GGUF's quantizers") {
  const HeadLayout layout{.head_dim = 32, .heads = 8, .kv_heads = 8};
  const auto Wo = test::gaussian<float>(16, 256, 7), Wv = test::gaussian<float>(256, 256, 8);
  const PairPipeline<AffineK<4, 32, 6>> pipeline{.transform = PairTransform::balanced,
                                                 .alternations = 1};
  const auto pair = pipeline.quantize(PairInput{Wo.view(), Side::input},
                                      PairInput{Wv.view(), Side::output}, layout);
  CHECK(pair.error < 0.9 * pair.nearest_error);
  check_blocks(pair.first);
  check_blocks(pair.second);
}
