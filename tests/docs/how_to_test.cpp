// The code of the pages in docs/how-to/ but for those on pairs.
#include <Eigen/Core>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <numeric>
#include <vector>

#include "cafeq/cafeq.hpp"
#include "cafeq/loss/reconstruction.hpp"
#include "support/catch.hpp"
#include "support/random.hpp"

// [error_handler]
void on_quantization_error(const cafeq::Error& error) {
  std::fprintf(stderr, "quantization failed: %s\n", error.what());
  std::exit(EXIT_FAILURE);  // a handler must not return
}
// [error_handler end]

namespace {

/// What std::mdspan of rank 2 looks like.
struct Mdspan {
  float* data;
  std::array<std::size_t, 2> sizes;

  static constexpr std::size_t rank() noexcept { return 2; }
  float* data_handle() const noexcept { return data; }
  std::size_t extent(std::size_t d) const noexcept { return sizes[d]; }
  std::size_t stride(std::size_t d) const noexcept { return d == 0 ? sizes[1] : 1; }
};

}  // namespace

TEST_CASE("docs: error handler") {
  // [set_error_handler]
  cafeq::set_error_handler(on_quantization_error);
  // [set_error_handler end]
  CHECK(cafeq::set_error_handler(nullptr) == on_quantization_error);
}

TEST_CASE("docs: any matrix") {
  const cafeq::Index out = 6, in = 10;
  std::vector<float> values(std::size_t(out * 16));
  std::iota(values.begin(), values.end(), -40.0f);
  float* pointer = values.data();
  const cafeq::recipes::fast<4> recipe{.group = cafeq::per_row};

  // [pointer]
  const auto dense = cafeq::as_view(pointer, out, in);       // row-major, rows next to each other
  const auto padded = cafeq::as_view(pointer, out, in, 16);  // 16 elements from one row to the next
  const auto column_major =
      cafeq::as_view(pointer, out, in, 1, out);  // row stride 1, column stride out
  const auto slice = padded.block(2, 4, 3, 6);   // rows 2 … 4, columns 4 … 9
  const auto turned = padded.transposed();       // [in, out], the same elements
  // [pointer end]
  CHECK(dense(1, 0) == values[10]);
  CHECK(padded(1, 0) == values[16]);
  CHECK(column_major(1, 2) == values[13]);
  CHECK(slice(0, 0) == values[36]);
  CHECK(slice(2, 5) == values[4 * 16 + 9]);
  CHECK(turned(3, 1) == padded(1, 3));
  CHECK(cafeq::quantize(slice, recipe).cols() == 6);

  // [span]
  std::span<float> elements(values);
  const auto rows_of_16 =
      cafeq::as_view(elements, 16);  // raises invalid_shape where the size is no multiple of 16
  // [span end]
  CHECK(rows_of_16.rows == 6);

  // [eigen]
  Eigen::MatrixXf W = Eigen::MatrixXf::Random(64, 96);        // column-major
  const auto q = cafeq::quantize(W, recipe);                  // out = rows(), in = cols()
  const auto part = cafeq::quantize(W.leftCols(48), recipe);  // a block is a view
  Eigen::Map<Eigen::MatrixXf> map(W.data(), 64, 96);          // as is a map
  q.dequantize(map);                                          // written in place
  // [eigen end]
  CHECK(part.cols() == 48);
  CHECK(q.error(W) < 1e-12);

  Mdspan span{pointer, {6, 16}};
  // [mdspan]
  const auto from_span = cafeq::quantize(span, recipe);  // std::mdspan or Kokkos::mdspan of rank 2
  // [mdspan end]
  CHECK(from_span.rows() == 6);

  const auto floats = cafeq::test::gaussian(out, in, 1);
  std::vector<std::uint16_t> stored;
  for (cafeq::Index i = 0; i < floats.size(); ++i)
    stored.push_back(cafeq::bf16(floats.data()[i]).bits);
  std::vector<cafeq::bf16> brain;
  for (const auto b : stored) brain.push_back(cafeq::bf16::from_bits(b));
  const cafeq::bf16* checkpoint = brain.data();
  // [element_types]
  const auto from_bf16 = cafeq::quantize(cafeq::as_view(checkpoint, out, in),
                                         recipe);  // checkpoint: const cafeq::bf16*
  cafeq::Matrix<cafeq::fp16> halves(out, in);
  from_bf16.dequantize(halves);  // converted as it is written
  // [element_types end]
  CHECK(from_bf16.error(halves) < 1e-6);
}

TEST_CASE("docs: thread pool") {
  const auto W = cafeq::test::heavy_tailed(96, 64, 2);
  // [thread_pool]
  cafeq::ThreadPool pool(2);  // the calling thread and one more
  const auto q = cafeq::quantize(W, cafeq::recipes::fast<4>{}, pool);
  // [thread_pool end]
  const auto alone = cafeq::quantize(W, cafeq::recipes::fast<4>{});
  CHECK(std::equal(q.codes().packed().bytes().begin(), q.codes().packed().bytes().end(),
                   alone.codes().packed().bytes().begin()));
}

TEST_CASE("docs: smallest") {
  const auto W = cafeq::test::heavy_tailed(96, 64, 2);
  cafeq::ThreadPool pool(2);
  std::vector<float> x(64, 1), y(96);
  // [smallest]
  const auto q =
      cafeq::quantize(W, cafeq::recipes::smallest{.bits = 3.25}, pool);  // everything counted
  const cafeq::Linear layer(q);
  layer.multiply(x, y, pool);
  // [smallest end]
  CHECK(q.bits_per_weight() <= 3.25);
  CHECK(q.error(W) < 0.02);
  cafeq::Matrix<float> hat(96, 64);
  q.dequantize(hat);
  CHECK(double(y[5]) ==
        Approx(std::accumulate(hat.row(5).begin(), hat.row(5).end(), 0.0)).margin(1e-3));
}

TEST_CASE("docs: a Hessian") {
  const cafeq::Index in = 128;
  const auto W = cafeq::test::gaussian(64, in, 3, 0.02);
  auto activations = cafeq::test::gaussian(400, in, 4);
  for (cafeq::Index i = 0; i < 400; ++i)  // channels that go together, as activations do
    for (cafeq::Index j = 1; j < in; ++j) activations(i, j) += 0.9f * activations(i, j - 1);

  // [hessian]
  // H = XᵀX for activations X [samples, in], in fp64, and a ridge of 1 % of its mean diagonal.
  cafeq::Matrix<double> H = cafeq::kernel::gram<float>(activations.view());
  double mean = 0;
  for (cafeq::Index j = 0; j < in; ++j) mean += H(j, j) / double(in);
  for (cafeq::Index j = 0; j < in; ++j) H(j, j) += 0.01 * mean;
  // [hessian end]
  const auto metric = cafeq::Metric::dense(H);

  // [gptq]
  // Weights in the units that grids with 16-bit scales expect: a largest magnitude in [2^12, 2^13).
  const int exponent = cafeq::floor_log2(cafeq::largest_magnitude(W.view())) - 12;
  auto X = cafeq::to_matrix<float>(W.view());
  for (float& x : std::span(X.data(), std::size_t(X.size()))) x = std::ldexp(x, -exponent);

  const auto encoding =
      cafeq::round(cafeq::ErrorFeedback{}, X.view(), cafeq::Affine<3>{.group = 64},
                   cafeq::Metric::dense(H), cafeq::Side::input);
  const cafeq::Quantized q(encoding.pack(), cafeq::Identity::Fitted{in}, cafeq::Side::input,
                           exponent);
  // [gptq end]
  const auto nearest = cafeq::quantize(W, cafeq::recipes::mse<3>{.group = 64});

  // [hessian_error]
  cafeq::Matrix<float> restored(W.rows(), W.cols());
  q.dequantize(restored);
  const double error = cafeq::relative_error(W, restored, cafeq::Metric::dense(H),
                                             cafeq::Side::input);  // tr(E H Eᵀ) / tr(W H Wᵀ)
  // [hessian_error end]
  nearest.dequantize(restored);
  CHECK(error < 0.7 * cafeq::relative_error(W, restored, metric, cafeq::Side::input));
  CHECK(q.bits_per_weight() == Approx(3 + 32.0 / 64 + 16.0 / (64 * 128)));

  // [gptq_rotated]
  const auto M = cafeq::fit_transform(cafeq::RandomizedHadamard{}, X.view());
  cafeq::apply_right(M, X.view());  // X M
  cafeq::apply_right(M, H.view(), cafeq::Op::inverse_transpose);
  cafeq::apply_left(M, H.view(), cafeq::Op::inverse);  // M⁻¹ H M⁻ᵀ
  const auto rotated = cafeq::round(cafeq::ErrorFeedback{}, X.view(),
                                    cafeq::Midrise<3>{.group = 64}, cafeq::Metric::dense(H));
  const cafeq::Quantized r(rotated.pack(), M, cafeq::Side::input, exponent);
  // [gptq_rotated end]
  r.dequantize(restored);
  const double in_metric = cafeq::relative_error(W, restored, metric, cafeq::Side::input);
  const auto plain =
      cafeq::Pipeline{cafeq::RandomizedHadamard{}, cafeq::Midrise<3>{.group = 64}}.quantize(W);
  plain.dequantize(restored);
  CHECK(in_metric < 0.7 * cafeq::relative_error(W, restored, metric, cafeq::Side::input));
}
