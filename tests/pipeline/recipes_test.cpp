#include "cafeq/pipeline/recipes.hpp"

#include "cafeq/core/thread_pool.hpp"
#include "cafeq/pipeline/quantize.hpp"
#include "cafeq/quant/codebook.hpp"
#include "support/allocations.hpp"
#include "support/build.hpp"
#include "support/catch.hpp"
#include "support/random.hpp"

using namespace cafeq;

namespace {

// Limits are those of the published figures plus 5 %.
template <class R>
double error_of(const Matrix<float>& W, const R& recipe) {
  static ThreadPool pool(2);
  return quantize(W, recipe, pool).error(W, pool);
}

bool left_out_when_sanitized() {
  if (test::sanitized) WARN("left out: takes minutes under a sanitizer");
  return test::sanitized;
}

}  // namespace

TEST_CASE("On a Gaussian matrix the fast recipe meets the best uniform grid") {
  if (left_out_when_sanitized()) return;
  const auto W = test::gaussian<float>(256, 512, 1);
  const double slack = 1.05;
  CHECK(error_of(W, recipes::fast<2>{.group = per_row}) < slack * 0.1189);
  CHECK(error_of(W, recipes::fast<3>{.group = per_row}) < slack * 0.0374);
  CHECK(error_of(W, recipes::fast<4>{.group = per_row}) < slack * 0.01154);
  CHECK(error_of(W, recipes::fast<2>{}) < slack * 0.1031);
  CHECK(error_of(W, recipes::fast<3>{}) < slack * 0.0279);
  CHECK(error_of(W, recipes::fast<4>{}) < slack * 0.00687);
  CHECK(error_of(W, recipes::fast<2, Midrise<2>>{}) < slack * 0.1116);
  CHECK(error_of(W, recipes::fast<3, Midrise<3>>{}) < slack * 0.0325);
  CHECK(error_of(W, recipes::fast<4, Midrise<4>>{}) < slack * 0.0086);
}

TEST_CASE("The learned recipe goes below what any scalar grid reaches on a Gaussian") {
  if (left_out_when_sanitized()) return;
  const auto W = test::gaussian<float>(4096, 64, 6);
  const auto q = quantize(W, recipes::learned<3>{.max_block = 64});
  CHECK(q.error(W) < 1.05 * 0.0258);  // [8192, 64], k = 64
  CHECK(q.bits_per_weight() < 3 + 16.0 / 64 + 0.34);
}

TEST_CASE("Recipes in the order of their worth, on heavy tails with outlier channels") {
  if (left_out_when_sanitized()) return;
  const auto W = test::heavy_tailed(768, 256, 2, 4);
  const double rtn = error_of(W, recipes::rtn<3>{});
  const double mse = error_of(W, recipes::mse<3>{});
  const double hadamard = error_of(W, recipes::hadamard<3>{});
  const double fast = error_of(W, recipes::fast<3>{.group = per_row});
  const double paper = error_of(W, recipes::paper<3>{.steps = 300});
  const double learned = error_of(W, recipes::learned<3>{});
  CHECK(mse < 0.7 * rtn);
  CHECK(hadamard < mse);
  CHECK(fast < hadamard);
  CHECK(paper < 0.8 * rtn);
  CHECK(learned < 0.72 * fast);
  CHECK(learned < paper);
}

TEST_CASE("Errors fall with every bit") {
  if (left_out_when_sanitized()) return;
  const auto W = test::heavy_tailed(200, 96, 4, 1);
  double before = 1;
  const auto next = [&](double error) {
    CHECK(error < 0.5 * before);
    before = error;
  };
  next(error_of(W, recipes::fast<2>{}));
  next(error_of(W, recipes::fast<3>{}));
  next(error_of(W, recipes::fast<4>{}));
  next(error_of(W, recipes::fast<5>{}));
  next(error_of(W, recipes::fast<6>{}));
  next(error_of(W, recipes::fast<7>{}));
  next(error_of(W, recipes::fast<8>{}));
}

TEST_CASE(
    "The stored inverse costs at most what the recipe allows, and its int8 rounding next to "
    "nothing") {
  if (left_out_when_sanitized()) return;
  for (const Index rows : {16, 64, 200, 768, 1536}) {
    const Index k = detail::affordable_block(rows, 512, 0.34, 128);
    CHECK(double(8 * k + 8) <= 0.34 * double(rows) + (k == 1 ? 16.0 : 0.0));
    if (k < 128) CHECK(double(8 * 2 * k + 8) > 0.34 * double(rows));
  }
  const auto W = test::heavy_tailed(768, 64, 2, 2);
  const auto pipeline = recipes::learned<4>{}.pipeline(768, 64);
  auto exact = pipeline;
  exact.transform.precision = InversePrecision::fp32;
  const auto q = pipeline.quantize(W);
  CHECK(q.error(W) < 1.01 * exact.quantize(W).error(W));
  CHECK(double(q.transform().storage_bits()) <= 0.34 * 768 * 64);
}

TEST_CASE("Any linear grid can be learned for: groups, offsets, code books") {
  if (left_out_when_sanitized()) return;
  const auto W = test::heavy_tailed(400, 64, 3, 1);
  CHECK(error_of(W, recipes::learned<3>{.group = 32}) <
        0.8 * error_of(W, recipes::fast<3, Midrise<3>>{.group = 32}));
  CHECK(error_of(W, recipes::learned<3, Affine<3>>{}) <
        0.85 * error_of(W, recipes::fast<3>{.group = per_row}));
  CHECK(error_of(W, recipes::learned<2, Symmetric<2>>{}) <
        0.9 * error_of(W, recipes::fast<2, Symmetric<2>>{.group = per_row}));
}

TEST_CASE("Dead input channels, repeated rows and low rank") {
  if (left_out_when_sanitized()) return;
  auto W = test::heavy_tailed(400, 64, 7);
  for (Index i = 0; i < W.rows(); ++i)
    for (const Index dead : {0, 5, 6, 40}) W(i, dead) = 0;
  const auto q = quantize(W, recipes::learned<3>{});
  CHECK(q.error(W) < 0.03);
  Matrix<float> What(400, 64);
  q.dequantize(What);
  for (Index i = 0; i < W.rows(); ++i) CHECK(std::abs(What(i, 5)) < 1e-4f);
  for (Index i = 0; i < W.rows(); ++i)
    for (Index j = 0; j < W.cols(); ++j) W(i, j) = float(i % 7 + 1) * float(j % 5 + 1);  // rank 1
  CHECK(quantize(W, recipes::learned<3>{}).error(W) < 0.02);
}

TEST_CASE("Dead channels at any height, channels twelve decades apart, one weight alone") {
  if (left_out_when_sanitized()) return;
  for (const Index rows : {8, 32, 80, 128, 512}) {
    auto dead = test::gaussian<float>(rows, 128, 1);
    for (Index i = 0; i < rows; ++i)
      for (Index j = 0; j < 128; j += 2) dead(i, j) = 0;
    INFO(rows << " rows");
    CHECK(error_of(dead, recipes::learned<3>{}) < 0.05);
  }
  auto apart = test::gaussian<float>(256, 64, 1);
  for (Index i = 0; i < 256; ++i)
    for (Index j = 0; j < 64; ++j) apart(i, j) *= j < 32 ? 1e-12f : (j == 40 ? 1e12f : 1.0f);
  CHECK(error_of(apart, recipes::learned<3>{}) < 0.05);
  Matrix<float> lone(64, 64);
  lone(3, 5) = 1;
  CHECK(error_of(lone, recipes::learned<3>{}) < 0.05);
}

TEST_CASE("Widths that no block divides") {
  if (left_out_when_sanitized()) return;
  const auto W = test::heavy_tailed(600, 172, 5);
  const auto q = quantize(W, recipes::learned<3>{});
  CHECK(q.transform().blocks().size() > 1);
  CHECK(q.error(W) < 0.8 * error_of(W, recipes::fast<3>{.group = per_row}));
}

TEST_CASE("Small and degenerate matrices") {
  for (const Index rows : {1, 3, 17})
    for (const Index cols : {1, 2, 7, 33}) {
      INFO(rows << " x " << cols);
      const auto W = test::gaussian<float>(rows, cols, 9);
      CHECK(std::isfinite(error_of(W, recipes::fast<4>{})));
      CHECK(error_of(W, recipes::learned<4>{}) < 0.1);
      CHECK(std::isfinite(error_of(W, recipes::paper<4>{.steps = 5})));
      Matrix<float> constant(rows, cols);
      CHECK(error_of(constant, recipes::fast<3>{}) == 0);
      CHECK(error_of(constant, recipes::learned<3>{}) == 0);
      CHECK(error_of(constant, recipes::paper<3>{.steps = 5}) == 0);
      for (Index i = 0; i < constant.size(); ++i) constant.data()[i] = -0.7f;
      CHECK(error_of(constant, recipes::rtn<3>{}) < 1e-6);
      CHECK(error_of(constant, recipes::mse<3>{}) < 1e-6);
      CHECK(error_of(constant, recipes::fast<3>{}) < 1e-6);
      CHECK(error_of(constant, recipes::learned<3>{}) < 1e-6);
    }
}

TEST_CASE("A seed decides everything, and nothing else does") {
  const auto W = test::heavy_tailed(300, 32, 2, 1);
  const auto a = quantize(W, recipes::learned<3>{.seed = 5});
  ThreadPool pool(3);
  const auto b = quantize(W, recipes::learned<3>{.seed = 5}, pool);
  const auto c = quantize(W, recipes::learned<3>{.seed = 6});
  CHECK(a.error(W) == b.error(W));
  CHECK(a.error(W) != c.error(W));
  REQUIRE(a.codes().packed().bytes().size() == b.codes().packed().bytes().size());
  CHECK(std::equal(a.codes().packed().bytes().begin(), a.codes().packed().bytes().end(),
                   b.codes().packed().bytes().begin()));
}

TEST_CASE("The fast recipe reads the weights where they are: hardly any memory beyond the result") {
  const auto W = test::gaussian<float>(384, 1024, 7);
  Matrix<bf16> narrow(384, 1024);
  for (Index i = 0; i < W.size(); ++i) narrow.data()[i] = bf16(W.data()[i]);
  const double bytes = double(W.size()) * sizeof(float);
  CHECK(double(test::scratch_of([&] { return quantize(W, recipes::fast<4>{}); })) < 0.05 * bytes);
  CHECK(double(test::scratch_of([&] { return quantize(narrow, recipes::fast<4>{}); })) <
        0.05 * bytes);
  CHECK(double(test::scratch_of([&] { return quantize(W, recipes::rtn<3>{}); })) < 0.05 * bytes);
}

TEST_CASE("The learned recipe needs at most 1.2 matrices beyond its input and its result") {
  if (left_out_when_sanitized()) return;
  const auto W = test::gaussian<float>(1024, 768, 8);  // k = 32
  const double bytes = double(W.size()) * sizeof(float);
  CHECK(double(test::scratch_of([&] { return quantize(W, recipes::learned<3>{}); })) < 1.2 * bytes);
}

TEST_CASE("bf16 and fp16 weights are quantized as the floats that they stand for") {
  const auto W = test::gaussian<float>(40, 96, 9);
  Matrix<bf16> narrow(40, 96);
  for (Index i = 0; i < W.size(); ++i) narrow.data()[i] = bf16(W.data()[i]);
  const auto wide = to_matrix<float>(narrow.view());
  const auto a = quantize(narrow, recipes::fast<4>{});
  const auto b = quantize(wide, recipes::fast<4>{});
  CHECK(std::equal(a.codes().packed().bytes().begin(), a.codes().packed().bytes().end(),
                   b.codes().packed().bytes().begin(), b.codes().packed().bytes().end()));
  CHECK(a.error(narrow) == b.error(wide));
  // Neither strides nor a power of two change a code.
  Matrix<float> scaled(96, 40);
  for (Index i = 0; i < 40; ++i)
    for (Index j = 0; j < 96; ++j) scaled(j, i) = std::ldexp(wide(i, j), 60);
  const auto c = quantize(scaled.view().transposed(), recipes::fast<4>{});
  CHECK(std::equal(c.codes().packed().bytes().begin(), c.codes().packed().bytes().end(),
                   b.codes().packed().bytes().begin(), b.codes().packed().bytes().end()));
  CHECK(c.exponent() == b.exponent() + 60);
}

TEST_CASE("Bits chosen at run time give what bits of the type give") {
  const auto W = test::heavy_tailed(96, 80, 3, 2);
  const auto check = [&](const auto& of_type, const auto& at_run_time) {
    const auto a = quantize(W, of_type);
    const auto b = quantize(W, at_run_time);
    CHECK(int(a.quantizer().bits) == int(b.quantizer().bits));
    CHECK(std::ranges::equal(a.codes().packed().bytes(), b.codes().packed().bytes()));
    CHECK(a.bits_per_weight() == b.bits_per_weight());
    CHECK(a.error(W) == b.error(W));
  };
  check(recipes::rtn<5>{}, recipes::rtn<>{.bits = 5});
  check(recipes::fast<2>{.group = 32}, recipes::fast<>{.bits = 2, .group = 32});
  check(recipes::fast<8, Midrise<8>>{}, recipes::fast<runtime_bits, Midrise<>>{.bits = 8});
  check(recipes::fast<3, Symmetric<3>>{}, recipes::fast<runtime_bits, Symmetric<>>{.bits = 3});
  check(recipes::fast<3, AffineIntegerZero<3>>{},
        recipes::fast<runtime_bits, AffineIntegerZero<>>{.bits = 3});
  check(recipes::learned<3>{.max_block = 8}, recipes::learned<>{.bits = 3, .max_block = 8});
  check(recipes::paper<4>{.max_block = 8, .steps = 5},
        recipes::paper<>{.bits = 4, .max_block = 8, .steps = 5});
  CHECK(detail::fixed_bits<Midrise<3>>() == 3);
  CHECK(detail::fixed_bits<Midrise<>>() == 0);
  CHECK(detail::fixed_bits<Codebook>() == 0);
  CHECK_THROWS_WITH(quantize(W, recipes::fast<>{.bits = 1}),
                    Catch::Contains("bits is 1, must be 2 to 8"));
  CHECK_THROWS_WITH(quantize(W, recipes::learned<>{.bits = 9}),
                    Catch::Contains("bits is 9, must be"));
}

TEST_CASE("A recipe says beforehand what it will store") {
  for (const auto& [rows, cols] : {std::pair<Index, Index>{40, 172}, {33, 20}, {7, 65}}) {
    const auto W = test::gaussian<float>(rows, cols, 9);
    const auto check = [&](const auto& recipe) {
      CHECK(recipe.pipeline(W.rows(), W.cols()).storage_bits(W.rows(), W.cols()) ==
            quantize(W, recipe).storage_bits());
    };
    check(recipes::rtn<3>{});
    check(recipes::mse<3>{.group = per_tensor});
    check(recipes::hadamard<5>{.group = 64});
    check(recipes::fast<>{.bits = 3, .group = 32});
    check(recipes::learned<>{.bits = 2, .transform_bits = 1, .max_block = 16});
    const Pipeline output{DualScaling{}, AffineIntegerZero<4>{.group = 16}, Nearest{},
                          Side::output};
    CHECK(output.storage_bits(W.rows(), W.cols()) == output.quantize(W).storage_bits());
  }
}
