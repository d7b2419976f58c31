/// Multiple-choice questions and last words, answered without an example, as lm-evaluation-harness
/// has them: the answer is the continuation that the model gives the highest probability.
///
///   ARC easy, WinoGrande            by the probability of the whole continuation
///   ARC challenge, HellaSwag, PIQA  by that per byte ("acc_norm")
///   LAMBADA                         right where each token of the last word is the most likely one
/// In WinoGrande's questions what is compared is one ending behind two beginnings.
#pragma once

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "cafeq/io/file.hpp"
#include "cafeq/io/json.hpp"
#include "engine/evaluate.hpp"
#include "engine/texts.hpp"

namespace cafeq::accuracy {

using engine::Token;
using engine::Tokens;

struct Choice {
  std::size_t context;  ///< which of the question's
  Tokens tokens;
  double bytes;
};

struct Question {
  std::vector<Tokens> contexts;
  std::vector<Choice> choices;
  std::size_t right = 0;
};

enum class Scoring { whole, per_byte, greedy };

struct Task {
  std::string name;
  Scoring scoring = Scoring::whole;
  std::vector<Question> questions{};
};

namespace detail {

/// As it stands in a file.
struct RawQuestion {
  std::vector<std::string> contexts, endings;  ///< one of either, or one of both
  std::size_t right = 0;
};

inline RawQuestion read_question(const cafeq::detail::Json& line) {
  const auto text = [&](const char* name) { return line.at(name).get<std::string>(); };
  const auto texts = [&](const char* name) {
    return line.at(name).get<std::vector<std::string>>();
  };
  const auto gold = [&] { return line.at("gold").get<std::size_t>(); };
  if (line.contains("context_options"))
    return {texts("context_options"), {text("continuation")}, gold()};
  if (line.contains("context")) return {{text("context")}, {text("continuation")}, 0};
  std::string query = text("query");
  query.erase(query.find_last_not_of('\n') + 1);
  return {{query + "\nAnswer:"}, texts("choices"), gold()};
}

/// A JSON object a line.
inline std::vector<RawQuestion> read_json_lines(std::string_view content, const std::string& path) {
  std::vector<RawQuestion> all;
  while (!content.empty()) {
    const std::string_view line = content.substr(0, content.find('\n'));
    content.remove_prefix(std::min(content.size(), line.size() + 1));
    const std::string what = message(path, ", line ", all.size() + 1);
    try {
      all.push_back(read_question(cafeq::detail::parse_json(line, what)));
    } catch (const cafeq::detail::Json::exception& error) {
      raise(ErrorCode::corrupt, message(what, ": is no question: ", error.what()));
    }
  }
  return all;
}

/// Six lines a question: the context, the number of the right ending, four endings.
inline std::vector<RawQuestion> read_six_lines(std::string_view content, const std::string& path) {
  std::vector<RawQuestion> all;
  std::vector<std::string> lines;
  while (!content.empty()) {
    lines.emplace_back(content.substr(0, content.find('\n')));
    content.remove_prefix(std::min(content.size(), lines.back().size() + 1));
    if (lines.size() < 6) continue;
    if (lines[1].size() != 1 || lines[1][0] < '0' || lines[1][0] > '3')
      raise(ErrorCode::corrupt,
            message(path, ", line ", 6 * all.size() + 2, ": is not the number of an ending"));
    all.push_back({{lines[0]}, {lines.begin() + 2, lines.end()}, std::size_t(lines[1][0] - '0')});
    lines.clear();
  }
  if (!lines.empty())
    raise(ErrorCode::corrupt, message(path, ": its lines are no multiple of six"));
  return all;
}

inline Question tokenized(const RawQuestion& raw, const engine::Tokenizer& tokenizer,
                          const std::string& path) {
  Question question{.contexts = {}, .choices = {}, .right = raw.right};
  for (const std::string& context : raw.contexts)
    question.contexts.push_back(tokenizer.encode(context, false));
  const std::size_t count = std::max(raw.contexts.size(), raw.endings.size());
  for (std::size_t i = 0; i < count; ++i) {
    const std::string& ending = raw.endings[raw.endings.size() > 1 ? i : 0];
    question.choices.push_back({raw.contexts.size() > 1 ? i : 0,
                                engine::detail::bare(tokenizer, " " + ending),
                                double(ending.size())});
  }
  for (const auto* tokens : {&question.contexts.front(), &question.choices.front().tokens})
    if (tokens->empty()) raise(ErrorCode::corrupt, message(path, ": a question has no text"));
  if (question.right >= question.choices.size())
    raise(ErrorCode::corrupt, message(path, ": a question has no choice ", question.right));
  return question;
}

}  // namespace detail

/// Those of the tasks that are in a directory, `count` questions of each, evenly spread (0: all).
/// Files: arc_easy.jsonl, arc_challenge.jsonl, piqa.jsonl, winogrande.jsonl, lambada_openai.jsonl,
/// hellaswag_val_full.txt.
inline std::vector<Task> read_tasks(const std::string& directory, Index count,
                                    const engine::Tokenizer& tokenizer) {
  struct Source {
    const char *name, *file;
    Scoring scoring;
  };
  constexpr Source sources[]{{"ARC-e", "arc_easy.jsonl", Scoring::whole},
                             {"ARC-c", "arc_challenge.jsonl", Scoring::per_byte},
                             {"HellaSwag", "hellaswag_val_full.txt", Scoring::per_byte},
                             {"PIQA", "piqa.jsonl", Scoring::per_byte},
                             {"WinoGrande", "winogrande.jsonl", Scoring::whole},
                             {"LAMBADA", "lambada_openai.jsonl", Scoring::greedy}};
  std::vector<Task> tasks;
  for (const auto& [name, file, scoring] : sources) {
    const std::string path = message(directory, "/", file);
    if (!std::filesystem::exists(path)) continue;
    const auto bytes = read_file(path);
    const std::string_view content(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    const auto raw = path.ends_with(".txt") ? detail::read_six_lines(content, path)
                                            : detail::read_json_lines(content, path);
    Task task{.name = name, .scoring = scoring};
    const std::size_t all = raw.size(),
                      wanted = count == 0 ? all : std::min(all, std::size_t(count));
    for (std::size_t i = 0; i < wanted; ++i)
      task.questions.push_back(detail::tokenized(raw[i * all / wanted], tokenizer, path));
    tasks.push_back(std::move(task));
  }
  return tasks;
}

namespace detail {

/// What a model makes of a continuation.
struct Likelihood {
  double log = 0;
  bool greedy = true;  ///< whether each of its tokens is the most likely one
};

/// Of every choice of the questions, in order. What questions begin with is read once.
inline std::vector<Likelihood> likelihoods(const engine::Transformer& transformer,
                                           std::span<const Question> questions) {
  std::vector<engine::Text> begun, going;
  std::vector<engine::Part> parts;
  for (const Question& question : questions) begun.resize(begun.size() + question.contexts.size());
  for (std::size_t at = 0; const Question& question : questions)
    for (const Tokens& context : question.contexts) parts.push_back({&begun[at++], context});
  const Matrix<float> first = transformer.forward(parts);

  // The state behind each context, and what goes on there.
  struct Going {
    Index state;
    const Choice* choice;
  };
  std::vector<Going> all;
  Index row = -1;
  for (std::size_t at = 0; const Question& question : questions) {
    std::vector<Index> last;
    for (const Tokens& context : question.contexts) last.push_back(row += Index(context.size()));
    for (const Choice& choice : question.choices) {
      all.push_back({last[choice.context], &choice});
      going.push_back(begun[at + choice.context]);
    }
    at += question.contexts.size();
  }
  parts.clear();
  for (std::size_t i = 0; i < all.size(); ++i) {
    const Tokens& tokens = all[i].choice->tokens;
    if (tokens.size() > 1) parts.push_back({&going[i], std::span(tokens).first(tokens.size() - 1)});
  }
  const Matrix<float> next = parts.empty() ? Matrix<float>() : transformer.forward(parts);

  // Token by token: the state that it is predicted from.
  struct Predicted {
    std::size_t choice;
    std::span<const float> state;
    Token token;
  };
  std::vector<Predicted> tokens;
  row = 0;
  for (std::size_t c = 0; c < all.size(); ++c)
    for (std::size_t i = 0; i < all[c].choice->tokens.size(); ++i)
      tokens.push_back(
          {c, i == 0 ? first.row(all[c].state) : next.row(row++), all[c].choice->tokens[i]});

  std::vector<Likelihood> result(all.size());
  engine::detail::Logits logits;
  Matrix<float> states(engine::detail::Logits::rows, first.cols());
  for (std::size_t begin = 0; begin < tokens.size(); begin += std::size_t(states.rows())) {
    const Index count = std::min(states.rows(), Index(tokens.size() - begin));
    for (Index i = 0; i < count; ++i)
      std::ranges::copy(tokens[begin + std::size_t(i)].state, states.row(i).begin());
    const auto found = logits(transformer, states.view().row_block(0, count));
    for (Index i = 0; i < count; ++i) {
      const auto& [choice, state, token] = tokens[begin + std::size_t(i)];
      const auto scores = found.row(i);
      auto& [log, greedy] = result[choice];
      log += engine::detail::finite(double(scores[token]) - engine::kernels().log_sum_exp(scores));
      greedy = greedy && engine::most_likely(scores) == token;
    }
  }
  return result;
}

inline bool is_right(const Question& question, Scoring scoring,
                     std::span<const Likelihood> likelihoods) {
  if (scoring == Scoring::greedy) return likelihoods.front().greedy;
  std::vector<double> scores;
  for (std::size_t i = 0; i < question.choices.size(); ++i)
    scores.push_back(likelihoods[i].log /
                     (scoring == Scoring::per_byte ? question.choices[i].bytes : 1));
  return std::size_t(std::ranges::max_element(scores) - scores.begin()) == question.right;
}

}  // namespace detail

/// For each question of a task 1 where the answer is right, else 0.
inline std::vector<double> answers(const engine::Transformer& transformer, const Task& task,
                                   const std::function<void()>& answered = {}) {
  constexpr std::size_t tokens_at_once = 512;
  std::vector<double> result;
  for (std::size_t begin = 0, end = 0; begin < task.questions.size(); begin = end) {
    for (std::size_t tokens = 0; end < task.questions.size() && tokens < tokens_at_once; ++end)
      for (const Tokens& context : task.questions[end].contexts) tokens += context.size();
    const auto some = std::span(task.questions).subspan(begin, end - begin);
    const auto found = detail::likelihoods(transformer, some);
    for (std::size_t at = 0; const Question& question : some) {
      result.push_back(detail::is_right(question, task.scoring, std::span(found).subspan(at)));
      at += question.choices.size();
      if (answered) answered();
    }
  }
  return result;
}

}  // namespace cafeq::accuracy
