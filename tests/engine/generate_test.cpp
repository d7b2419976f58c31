#include "engine/generate.hpp"

#include "support/catch.hpp"
#include "tiny_model.hpp"

using namespace engine;
using namespace engine::test;

namespace {

std::vector<Tokens> continued(std::vector<Tokens> texts, const GenerateOptions& options) {
  const Model model = tiny_model().model();
  generate(Transformer(model, {}), texts, options);
  return texts;
}

}  // namespace

TEST_CASE("greedy continuation takes the most likely token each time") {
  const Model model = tiny_model().model();
  Tokens expected{1, 5};
  for (int i = 0; i < 6; ++i) {
    const Matrix<float> all = logits_of(model, expected);
    expected.push_back(most_likely(all.row(all.rows() - 1)));
  }
  CHECK(continued({{1, 5}}, {.tokens = 6, .temperature = 0}) == std::vector<Tokens>{expected});
}

TEST_CASE("what becomes of a text does not depend on the others, nor on where it stands") {
  const GenerateOptions options{.tokens = 5, .seed = 3};
  const auto together = continued({{1}, {2, 3, 4}, {1}}, options);
  for (const Tokens& text : together) CHECK(text.size() >= 6);
  CHECK(together[0] != together[2]);  // seeds differ
  CHECK(continued({{1}}, options)[0] == together[0]);
  CHECK(continued({{2, 3, 4}}, {.tokens = 5, .seed = 4})[0] == together[1]);
}

TEST_CASE("texts end at a token that ends them, and where the context does") {
  const auto free = continued({{1, 5}}, {.tokens = 6, .temperature = 0})[0];
  const Token end = free[4];
  const auto at = std::ranges::find(free.begin() + 2, free.end(), end);
  CHECK(continued({{1, 5}}, {.tokens = 6, .temperature = 0, .ends = {end}})[0] ==
        Tokens(free.begin(), at));
  CHECK(continued({{1, 5}}, {.tokens = 100, .temperature = 0})[0].size() == 20);
  CHECK(continued({{1, 5}}, {.tokens = 0})[0] == Tokens{1, 5});
}
