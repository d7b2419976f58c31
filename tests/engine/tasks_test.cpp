#include "accuracy/tasks.hpp"

#include <cmath>

#include "small_vocabularies.hpp"
#include "support/catch.hpp"
#include "tiny_model.hpp"

using namespace engine;
using namespace engine::test;
using namespace cafeq::accuracy;
using cafeq::ErrorCode;
using cafeq::test::error_of;

namespace {

Model model_of_bytes() {
  cafeq::ModelConfig config = tiny_config();
  config.vocabulary = 280;
  config.context = 100;
  return tiny_model(config).model();
}

/// A continuation by itself, behind all of its context.
cafeq::accuracy::detail::Likelihood one_by_one(const Model& model, const Tokens& context,
                                               const Tokens& tokens) {
  Tokens text = context;
  text.insert(text.end(), tokens.begin(), tokens.end());
  const Matrix<float> logits = logits_of(model, text);
  cafeq::accuracy::detail::Likelihood result;
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    const auto row = logits.row(Index(context.size() + i) - 1);
    double sum = 0;
    for (const float x : row) sum += std::exp(double(x));
    result.log += double(row[tokens[i]]) - std::log(sum);
    result.greedy = result.greedy && most_likely(row) == tokens[i];
  }
  return result;
}

/// A context's continuation that the model takes for the most likely one.
Tokens greedy(const Model& model, Tokens context, std::size_t count) {
  Tokens tokens;
  for (std::size_t i = 0; i < count; ++i) {
    const Matrix<float> logits = logits_of(model, context);
    tokens.push_back(most_likely(logits.row(logits.rows() - 1)));
    context.push_back(tokens.back());
  }
  return tokens;
}

}  // namespace

TEST_CASE("continuations are as likely together, their context read once, as one by one") {
  const Model model = model_of_bytes();
  const std::vector<Question> questions{
      {.contexts = {{5, 6, 7}}, .choices = {{0, {8}, 1}, {0, {9, 10, 11}, 1}, {0, {12, 8}, 1}}},
      {.contexts = {{20}, {21, 22}}, .choices = {{0, {30, 31}, 1}, {1, {30, 31}, 1}}},
      {.contexts = {{50, 51, 52}}, .choices = {{0, greedy(model, {50, 51, 52}, 2), 1}}}};
  const auto found = cafeq::accuracy::detail::likelihoods(Transformer(model, {}), questions);
  REQUIRE(found.size() == 6);
  std::size_t at = 0;
  for (const Question& question : questions)
    for (const Choice& choice : question.choices) {
      const auto alone = one_by_one(model, question.contexts[choice.context], choice.tokens);
      CHECK(found[at].log == Approx(alone.log).epsilon(1e-5));
      CHECK(found[at].greedy == alone.greedy);
      ++at;
    }
  CHECK(found.back().greedy);
  CHECK(!found[1].greedy);
}

TEST_CASE("an answer is right by its likelihood, by that per byte, or token by token") {
  const Model model = model_of_bytes();
  const Transformer transformer(model, {});
  const Tokens context{5, 6, 7}, best = greedy(model, context, 1);
  const double likely = one_by_one(model, context, best).log,
               other = one_by_one(model, context, {8}).log;
  REQUIRE(likely > other);
  // The unlikely one has more bytes than its likelihood is worse.
  const Choice short_one{0, best, 1}, long_one{0, {8}, 2 * other / likely};
  const auto answer = [&](Scoring scoring, std::size_t right) {
    return answers(transformer, {"a task", scoring, {{{context}, {short_one, long_one}, right}}});
  };
  CHECK(answer(Scoring::whole, 0) == std::vector<double>{1});
  CHECK(answer(Scoring::whole, 1) == std::vector<double>{0});
  CHECK(answer(Scoring::per_byte, 0) == std::vector<double>{0});
  CHECK(answer(Scoring::per_byte, 1) == std::vector<double>{1});

  const auto last_word = [&](const Tokens& tokens) {
    return answers(transformer, {"words", Scoring::greedy, {{{context}, {{0, tokens, 1}}, 0}}});
  };
  CHECK(last_word(greedy(model, context, 3)) == std::vector<double>{1});
  CHECK(last_word({best[0], Token(best[0] == 8 ? 9 : 8), 8}) == std::vector<double>{0});
}

TEST_CASE("many questions are answered in portions, in order") {
  const Model model = model_of_bytes();
  const Transformer transformer(model, {});
  Task task{"a task"};
  std::vector<double> expected;
  for (Token t = 0; t < 40; ++t) {
    task.questions.push_back(
        {{Tokens(30, t), Tokens(2, t)}, {{0, {t + 1}, 1}, {1, {t + 2, t + 3}, 1}}, t % 2});
    const auto alone = answers(transformer, {"one", Scoring::whole, {task.questions.back()}});
    expected.push_back(alone.at(0));
  }
  int answered = 0;
  CHECK(answers(transformer, task, [&] { ++answered; }) == expected);
  CHECK(answered == 40);
  CHECK(std::ranges::count(expected, 1.0) > 0);
  CHECK(std::ranges::count(expected, 0.0) > 0);
}

TEST_CASE("questions come from files in the forms that they have, evenly spread") {
  const Tokenizer tokenizer(byte_level());
  const TemporaryDirectory directory;
  directory.write("arc_easy.jsonl",
                  R"({"query": "Question: why", "choices": ["a", "bcd"], "gold": 1})"
                  "\n"
                  R"({"query": "Question: what\n", "choices": ["e", "f", "g"], "gold": 0})");
  directory.write("winogrande.jsonl",
                  R"({"context_options": ["ab", "cd"], "continuation": "fg.", "gold": 1})"
                  "\n");
  directory.write("lambada_openai.jsonl", R"({"context": "ab", "continuation": "cd"})"
                                          "\n");
  std::string endings;
  for (int i = 0; i < 10; ++i)
    endings += cafeq::message("context ", i, "\n", i % 4, "\na\nb\nc\nd\n");
  directory.write("hellaswag_val_full.txt", endings);

  const auto tasks = read_tasks(directory / "", 5, tokenizer);
  REQUIRE(tasks.size() == 4);
  CHECK(tasks[0].name == "ARC-e");
  REQUIRE(tasks[0].questions.size() == 2);
  const auto text = [&](const Tokens& tokens) { return tokenizer.decode(tokens); };
  const Question& arc = tasks[0].questions[0];
  REQUIRE(arc.contexts.size() == 1);
  CHECK(text(arc.contexts[0]) == "Question: why\nAnswer:");
  CHECK(arc.contexts[0].front() == 268);
  CHECK(text(arc.choices[1].tokens) == " bcd");
  CHECK(arc.choices[1].bytes == 3);
  CHECK(arc.choices[1].tokens.front() != 268);
  CHECK(arc.right == 1);
  CHECK(text(tasks[0].questions[1].contexts[0]) == "Question: what\nAnswer:");

  CHECK(tasks[1].name == "HellaSwag");
  CHECK(tasks[1].scoring == Scoring::per_byte);
  REQUIRE(tasks[1].questions.size() == 5);
  CHECK(text(tasks[1].questions[3].contexts[0]) == "context 6");
  CHECK(tasks[1].questions[3].right == 2);
  CHECK(tasks[1].questions[3].choices.size() == 4);

  const Question& wino = tasks[2].questions[0];
  CHECK(text(wino.contexts[1]) == "cd");
  REQUIRE(wino.choices.size() == 2);
  CHECK(wino.choices[1].context == 1);
  CHECK(text(wino.choices[1].tokens) == " fg.");
  CHECK(tasks[3].scoring == Scoring::greedy);
  CHECK(text(tasks[3].questions[0].choices[0].tokens) == " cd");
  CHECK(read_tasks(directory / "", 0, tokenizer)[1].questions.size() == 10);
}

TEST_CASE("files that hold no questions are named") {
  const Tokenizer tokenizer(byte_level());
  const auto message_of = [&](const char* file, const std::string& content) {
    const TemporaryDirectory directory;
    directory.write(file, content);
    const auto error = error_of([&] { read_tasks(directory / "", 0, tokenizer); });
    CHECK(error.code() == ErrorCode::corrupt);
    return error.message();
  };
  CHECK_THAT(message_of("piqa.jsonl", "{}\n"), Contains("piqa.jsonl, line 1: is no question"));
  CHECK_THAT(message_of("piqa.jsonl", "{\"query\""), Contains("piqa.jsonl, line 1"));
  CHECK_THAT(message_of("piqa.jsonl", R"({"query": "q", "choices": ["a"], "gold": 1})"),
             Contains("no choice 1"));
  CHECK_THAT(message_of("hellaswag_val_full.txt", "a\n4\nb\nc\nd\ne\n"),
             Contains("line 2: is not the number of an ending"));
  CHECK_THAT(message_of("hellaswag_val_full.txt", "a\n1\nb\n"), Contains("no multiple of six"));
}
