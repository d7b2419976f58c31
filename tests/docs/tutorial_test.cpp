// The code of docs/tutorial.md. A page shows what stands between `[name]` and `[name end]`;
// check_snippets.cmake compares the two.

// [include]
#include "cafeq/cafeq.hpp"
// [include end]

#include <string>
#include <vector>

#include "support/build.hpp"
#include "support/catch.hpp"
#include "support/random.hpp"

namespace {

/// What a result says of one row, without the library's own decoding.
template <class Q>
float decode_by_hand(const Q& q, cafeq::Index i, cafeq::Index j) {
  // [decode]
  std::vector<std::uint8_t> codes(std::size_t(q.cols()));
  q.codes().packed().unpack_row(i, codes);  // q.codes().packed().row(i): the packed bytes
  const auto& params = q.codes().params()[std::size_t(
      q.codes().grouping().index(i, j))];  // of the group that holds column j
  const float x = std::ldexp(q.quantizer().decode(codes[std::size_t(j)], params),
                             q.exponent());  // an entry of 2^exponent · X̂ = Ŵ M
  // [decode end]
  return x;
}

}  // namespace

TEST_CASE("docs: tutorial, one matrix") {
  const cafeq::Index out = 256, in = cafeq::test::sanitized ? 256 : 512;
  const auto generated = cafeq::test::heavy_tailed(out, in, 1);
  const float* weights = generated.data();

  // [view]
  // weights: out rows of in floats, wherever the engine keeps them. Nothing is copied.
  const cafeq::View<const float> W = cafeq::as_view(weights, out, in);
  // [view end]

  // [quantize]
  const auto q = cafeq::quantize(W, cafeq::recipes::fast<4>{});
  const double error = q.error(W);          // |W - Ŵ|² / |W|², summed in fp64
  const double bits = q.bits_per_weight();  // everything that inference must store
  // [quantize end]
  CHECK(error < 0.01);
  CHECK(bits ==
        Approx(4 + 32.0 / 64 + 16.0 / 256 + (64.0 + 16.0) / double(256 * in)).epsilon(1e-12));
  CHECK(bits == Approx(4.563).margin(cafeq::test::sanitized ? 1e-3 : 5e-4));

  // [dequantize]
  cafeq::Matrix<float> restored(out, in);
  q.dequantize(restored);
  // [dequantize end]
  CHECK(cafeq::test::relative_error(W, cafeq::View<const float>(restored.view())) ==
        Approx(error).epsilon(1e-3));

  // [learned]
  cafeq::ThreadPool pool;
  const auto learned = cafeq::quantize(W, cafeq::recipes::learned<3>{}, pool);
  // [learned end]
  const auto plain = cafeq::quantize(W, cafeq::recipes::rtn<3>{});
  CHECK(learned.error(W) < 0.5 * plain.error(W));
  CHECK(learned.bits_per_weight() < 3.4);

  // [pipeline]
  const cafeq::Pipeline pipeline{
      cafeq::DualScaling{} * cafeq::RandomizedHadamard{.seed = 1},  // transform
      cafeq::Midrise<4>{.group = 128},                              // grid and granularity
      cafeq::Nearest{}};                                            // rounding
  const auto r = pipeline.quantize(W);
  // [pipeline end]
  CHECK(r.bits_per_weight() ==
        Approx(4 + 16.0 / 128 + 16.0 / 256 + 80.0 / double(256 * in)).epsilon(1e-12));

  std::vector<float> x(std::size_t(in), 0.5f), y(static_cast<std::size_t>(out));
  // [multiply]
  const cafeq::Linear layer{r};
  layer.multiply(x, y, pool);  // y = Ŵ x; x and y are vectors, spans or one-row matrices of floats
  // [multiply end]
  r.dequantize(restored);
  double expected = 0;
  for (cafeq::Index j = 0; j < in; ++j) expected += 0.5 * double(restored(7, j));
  CHECK(double(y[7]) == Approx(expected).epsilon(1e-3).margin(1e-4));

  cafeq::apply_right(r.transform(), restored.view());
  CHECK(decode_by_hand(r, 3, 200) == Approx(restored(3, 200)).epsilon(1e-3).margin(1e-4));

  // [rebuild]
  std::vector<cafeq::Midrise<4>::Params> params(r.codes().params().begin(),
                                                r.codes().params().end());
  const cafeq::Codes codes(r.quantizer(), r.cols(), r.codes().packed(), std::move(params));
  const cafeq::Quantized copy(codes, r.transform(), r.side(), r.exponent());
  // [rebuild end]
  CHECK(copy.error(W) == r.error(W));
}

TEST_CASE("docs: tutorial, a pair") {
  const cafeq::Index hidden = 96;
  auto Wv = cafeq::test::heavy_tailed(64, hidden, 2);
  auto Wo = cafeq::test::heavy_tailed(hidden, 128, 3);

  // [pair]
  const cafeq::HeadLayout layout{
      .head_dim = 32, .heads = 4, .kv_heads = 2};  // Wv [64, hidden], Wo [hidden, 128]
  const auto pair = cafeq::quantize_value_output(Wv, Wo, layout, cafeq::recipes::learned<3>{});
  // [pair end]
  CHECK(pair.error() <= pair.nearest_error());
  CHECK(pair.error() < 0.06);

  // [replace]
  cafeq::dequantize(pair.value(), Wv);
  cafeq::dequantize(pair.output(), Wo);
  // [replace end]
  CHECK(pair.bits_per_weight() ==
        Approx(3 + (16.0 * (64 + 96) + 2 * 16) / (64.0 * 96 + 96.0 * 128)).epsilon(1e-12));
}

TEST_CASE("docs: tutorial, errors") {
  auto W = cafeq::test::gaussian(8, 16, 4);
  W(3, 7) = std::nanf("");
  std::string log;

  // [try]
  const auto result = cafeq::try_quantize(W, cafeq::recipes::fast<4>{});
  if (!result) log = result.error().message();
  // [try end]
  CHECK(log == "W: row 3, column 7 is nan");
  CHECK(result.error().code() == cafeq::ErrorCode::non_finite);

  // [catch]
  try {
    cafeq::quantize(W, cafeq::recipes::fast<4>{});
  } catch (const cafeq::Error& error) {
    if (error.code() == cafeq::ErrorCode::non_finite) log = error.what();
  }
  // [catch end]
  CHECK(log == "W: row 3, column 7 is nan");
}
