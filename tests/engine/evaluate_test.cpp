#include "engine/evaluate.hpp"

#include "support/catch.hpp"
#include "support/error_of.hpp"
#include "tiny_model.hpp"

using namespace engine;
using namespace engine::test;
using cafeq::test::error_of;

namespace {

/// log p of every token that may follow.
std::vector<double> log_probabilities(const Model& model, std::span<const Token> before) {
  const Matrix<float> all = logits_of(model, {before.begin(), before.end()});
  const auto last = all.row(all.rows() - 1);
  double sum = 0;
  for (const float logit : last) sum += std::exp(double(logit));
  std::vector<double> result;
  for (const float logit : last) result.push_back(double(logit) - std::log(sum));
  return result;
}

const std::vector<Tokens> texts{{1, 4, 7, 2}, {}, {1}, {1, 9}};

}  // namespace

TEST_CASE("every token but the first of each text is predicted once") {
  const Model model = tiny_model().model();
  const Transformer transformer(model, {});
  Index told = 0;
  const auto found = surprises(transformer, texts, [&](Index tokens) { told += tokens; });
  std::vector<double> expected;
  for (const Tokens& text : texts)
    for (std::size_t n = 1; n < text.size(); ++n)
      expected.push_back(-log_probabilities(model, std::span(text).first(n))[text[n]]);
  REQUIRE(found.size() == 4);
  CHECK(told == 4);
  for (std::size_t i = 0; i < 4; ++i) CHECK(found[i] == Approx(expected[i]).epsilon(1e-5));
  CHECK(perplexity_of(found).value ==
        Approx(std::exp((expected[0] + expected[1] + expected[2] + expected[3]) / 4)));

  CHECK_THAT(error_of([&] { surprises(transformer, {{1, 11}}); }).message(), Contains("11"));
  CHECK_THAT(error_of([&] { surprises(transformer, {{1}, {}}); }).message(),
             Contains("fewer than two"));
}

TEST_CASE("a comparison is that of the two distributions at every token") {
  auto c = tiny_config();
  c.logit_softcap = 2;
  const Model model = tiny_model().model(), other = tiny_model(c).model();
  cafeq::ThreadPool threads(2);
  const Transformer transformer(model, threads), changed(other, threads);
  const Reference reference(transformer, texts);
  CHECK(reference.size() == 4);
  const Comparison found = reference.compare(changed, threads);
  std::size_t i = 0;
  for (const Tokens& text : texts)
    for (std::size_t n = 1; n < text.size(); ++n, ++i) {
      const auto p = log_probabilities(model, std::span(text).first(n)),
                 q = log_probabilities(other, std::span(text).first(n));
      double kl = 0;
      for (std::size_t v = 0; v < p.size(); ++v) kl += std::exp(p[v]) * (p[v] - q[v]);
      CHECK(found.divergences[i] == Approx(kl).margin(1e-5));
      CHECK(found.surprises[i] == Approx(-q[text[n]]).epsilon(1e-5));
      CHECK(found.reference_surprises[i] == Approx(-p[text[n]]).epsilon(1e-5));
      CHECK(found.same_top[i] == 1);  // caps keep the order
    }
  REQUIRE(i == 4);

  const Comparison same = reference.compare(transformer, threads);
  for (const double kl : same.divergences) CHECK(kl == Approx(0).margin(1e-9));

  auto larger = tiny_config();
  larger.vocabulary = 12;
  const Model more = tiny_model(larger).model();
  CHECK_THAT(error_of([&] { reference.compare(Transformer(more, {}), {}); }).message(),
             Contains("one has 11 tokens, the other 12"));
}

TEST_CASE("means, their standard errors, and quantiles") {
  const std::vector<double> x{1, 2, 3, 6};
  CHECK(mean_of(x).value == 3);
  CHECK(mean_of(x).error == Approx(std::sqrt(14.0 / 3 / 4)));
  CHECK(mean_of(std::vector<double>{5}).error == 0);
  std::vector<double> many(1000);
  for (std::size_t i = 0; i < many.size(); ++i) many[i] = double((i * 37) % 1000);
  CHECK(quantile(many, .99) == 990);
  CHECK(quantile({4}, .99) == 4);
}
