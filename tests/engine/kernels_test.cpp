#include "engine/kernels.hpp"

#include "cafeq/cafeq.hpp"
#include "support/catch.hpp"
#include "support/random.hpp"

TEST_CASE("The engine's packed weights are multiplied as their dequantized ones are") {
  const auto W = cafeq::test::heavy_tailed(40, 64, 1, 0, 1000);
  engine::Matrix weights(40, 64), x(3, 64);
  std::copy_n(W.data(), W.size(), weights.values.begin());
  const auto activations = cafeq::test::gaussian<float>(3, 64, 2);
  std::copy_n(activations.data(), activations.size(), x.values.begin());
  cafeq::ThreadPool threads(2);
  const auto hat = std::make_shared<engine::Matrix>(40, 64);
  cafeq::quantize(W, cafeq::recipes::fast<4>{}, threads)
      .dequantize(cafeq::as_view(hat->values.data(), 40, 64));
  const auto packed = engine::kernels().packed("fast4", weights, threads)(x, threads),
             floats = engine::kernels().plain(hat)(x, threads);
  REQUIRE(packed.values.size() == 120);
  for (std::size_t i = 0; i < packed.values.size(); ++i)
    CHECK(double(packed.values[i]) == Approx(double(floats.values[i])).epsilon(2e-4).margin(1e-2));
}

TEST_CASE("Every quantizer packs weights of the engine") {
  engine::Matrix weights(32, 64), x(1, 64);
  const auto W = cafeq::test::gaussian<float>(32, 64, 3);
  std::copy_n(W.data(), W.size(), weights.values.begin());
  std::ranges::fill(x.values, 1.0f);
  const auto exact =
      engine::kernels().plain(std::make_shared<const engine::Matrix>(weights))(x, {});
  for (const std::string_view how : engine::quantizers) {
    if (how == "none") continue;
    const auto y = engine::kernels().packed(how, weights, {})(x, {});
    double error = 0, norm = 0;
    for (std::size_t i = 0; i < 32; ++i) {
      error += std::pow(double(y.values[i]) - double(exact.values[i]), 2);
      norm += std::pow(double(exact.values[i]), 2);
    }
    INFO(how);
    CHECK(error < 0.1 * norm);
    CHECK(error > 0);
  }
}
