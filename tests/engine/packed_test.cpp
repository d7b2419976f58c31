#include "engine/packed.hpp"

#include "support/catch.hpp"
#include "support/random.hpp"

TEST_CASE("The engine's packed weights are multiplied as their dequantized ones are") {
  const auto W = cafeq::test::heavy_tailed(40, 64, 1, 0, 1000);
  engine::Matrix weights(40, 64), x(3, 64);
  std::copy_n(W.data(), W.size(), weights.values.begin());
  const auto activations = cafeq::test::gaussian<float>(3, 64, 2);
  std::copy_n(activations.data(), activations.size(), x.values.begin());
  const engine::Threads threads(2);
  engine::Matrix hat(40, 64);
  cafeq::quantize(engine::view(weights), cafeq::recipes::fast<4>{}, threads)
      .dequantize(engine::view(hat));
  const auto packed = engine::quantizers.at("fast4")(weights, threads).multiply(x, threads),
             floats = engine::Linear(hat).multiply(x, threads);
  REQUIRE(packed.values.size() == 120);
  for (std::size_t i = 0; i < packed.values.size(); ++i)
    CHECK(double(packed.values[i]) == Approx(double(floats.values[i])).epsilon(2e-4).margin(1e-2));
  CHECK(engine::quantizers.at("none") == nullptr);
}

TEST_CASE("What a loop's body throws reaches the caller of the engine's threads") {
  const engine::Threads threads(3);
  CHECK_THROWS_AS(threads.parallel_for(30, 1,
                                       [](std::size_t begin, std::size_t, std::size_t) {
                                         if (begin == 17) throw 17;
                                       }),
                  int);
}
