#include "engine/sample.hpp"

#include <cmath>

#include "support/catch.hpp"
#include "support/error_of.hpp"

using namespace engine;

namespace {

/// How often each token is drawn.
std::vector<double> shares(Sampler sampler, const std::vector<float>& logits, int draws = 20000) {
  std::vector<double> result(logits.size());
  for (int i = 0; i < draws; ++i) result[sampler(logits)] += 1.0 / draws;
  return result;
}

const std::vector<float> logits{std::log(0.1f), std::log(0.4f), std::log(0.3f), std::log(0.2f)};

}  // namespace

TEST_CASE("temperature 0 takes the most likely token, the first among equals") {
  CHECK(Sampler(0, 1, 1)(logits) == 1);
  CHECK(Sampler(0, 1, 1)(std::vector<float>{1, 3, 2, 3}) == 1);
}

TEST_CASE("tokens are drawn by their probability") {
  const auto plain = shares(Sampler(1, 1, 1), logits);
  const double expected[] = {0.1, 0.4, 0.3, 0.2};
  for (std::size_t i = 0; i < 4; ++i) CHECK(plain[i] == Approx(expected[i]).margin(0.015));
  const auto sharp = shares(Sampler(0.5, 1, 1), logits);  // probabilities go with their squares
  for (std::size_t i = 0; i < 4; ++i)
    CHECK(sharp[i] == Approx(expected[i] * expected[i] / 0.3).margin(0.015));
}

TEST_CASE("top-p keeps the fewest tokens that reach it") {
  const auto three = shares(Sampler(1, 0.75, 1), logits);
  CHECK(three[0] == 0);
  CHECK(three[3] == Approx(0.2 / 0.9).margin(0.015));
  const auto two = shares(Sampler(1, 0.65, 1), logits);
  CHECK(two[3] == 0);
  CHECK(two[1] == Approx(0.4 / 0.7).margin(0.015));
  CHECK(shares(Sampler(1, 0, 1), logits)[1] == Approx(1));
}

TEST_CASE("a seed gives the same draws, another one others") {
  const auto draws = [](std::uint64_t seed) {
    Sampler sampler(1, 1, seed);
    std::vector<Token> result;
    for (int i = 0; i < 50; ++i) result.push_back(sampler(logits));
    return result;
  };
  CHECK(draws(1) == draws(1));
  CHECK(draws(1) != draws(2));
}

TEST_CASE("logits that are not finite are refused") {
  CHECK_THAT(cafeq::test::error_of([] {
               Sampler(1, 1, 1)(std::vector<float>{1, std::nanf("")});
             }).message(),
             Contains("not finite"));
}
