// The language model: every way to quantize it, judged one by one.
#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <optional>

#include "accuracy/candidate.hpp"
#include "accuracy/options.hpp"
#include "accuracy/report.hpp"
#include "cafeq/core/thread_pool.hpp"
#include "cafeq/io/json.hpp"
#include "cafeq/io/read_vocabulary.hpp"

namespace cafeq::accuracy {
namespace {

/// What it is judged by, and what methods with data may see.
struct Texts {
  std::vector<Tokens> judged, data;
  std::vector<Task> tasks;
  engine::Token begin = 0;  ///< of texts that the model writes
};

Texts load_texts(const AccuracyOptions& options, const ModelFile& file) {
  if (!options.tokens_json.empty()) {
    const auto all = engine::read_tokens(options.tokens_json);
    return {all, all, {}, 0};
  }
  auto vocabulary = read_vocabulary(file, options.tokenizer);
  if (!vocabulary)
    raise(ErrorCode::invalid_argument,
          message(options.model, ": has no tokenizer of its own; name one by --tokenizer"));
  const engine::Tokenizer tokenizer(std::move(*vocabulary));
  Texts texts;
  if (const auto begin = tokenizer.vocabulary().begin) texts.begin = engine::Token(*begin);
  // As many windows again and more, from the middle of the text, are data.
  constexpr std::size_t data_windows = 16;
  auto all = engine::read_texts(options.text, tokenizer, {.length = options.length});
  const std::size_t count = std::min(all.size(), std::size_t(options.windows));
  texts.judged.assign(all.begin(), all.begin() + std::ptrdiff_t(count));
  for (std::size_t i = std::max(count, all.size() / 2);
       i < all.size() && texts.data.size() < data_windows; ++i)
    texts.data.push_back(std::move(all[i]));
  if (!options.eval.empty() && options.wants("tasks"))
    texts.tasks = read_tasks(options.eval, options.questions, tokenizer);
  return texts;
}

std::vector<Candidate> candidates_of(const AccuracyOptions& options, const Workshop& shop,
                                     const std::shared_ptr<Metrics>& metrics) {
  std::vector<Candidate> all = by_recipes(shop, options.seeds);
  const auto join = [&](std::vector<Candidate> more) {
    std::move(more.begin(), more.end(), std::back_inserter(all));
  };
  join(in_metrics(shop, metrics, options.seeds));
  join(by_sensitivity(shop, metrics, options.seeds));
  join(by_types(shop));
  join(by_peers(shop, metrics));
  if (!options.files.empty()) join(by_files(shop, options.files));
  std::erase_if(all, [&](const Candidate& candidate) {
    return !options.wants_row(candidate.recipe) ||
           (!options.wants(candidate.part) && !(candidate.tasks && options.wants("tasks")));
  });
  return all;
}

/// The rows of a run before over the same model.
class Earlier {
 public:
  Earlier(const AccuracyOptions& options, const std::string& model) {
    const std::string path = options.output + "/llm.json";
    if (!options.resume || !std::filesystem::exists(path)) return;
    try {
      for (const auto& row : cafeq::detail::read_json(path)) rows_.push_back(from_json(row));
      std::erase_if(rows_, [&](const Measurement& row) { return row.model != model; });
    } catch (const cafeq::detail::Json::exception& error) {
      raise(ErrorCode::corrupt, message(path, ": is no list of rows: ", error.what()));
    }
  }
  /// The first that is left of those with this recipe, metric and seed: candidates come in the
  /// same order again. Nothing where it does not answer these tasks.
  std::optional<Measurement> take(const std::string& recipe, const std::string& metric,
                                  std::optional<std::uint64_t> seed, std::span<const Task> tasks) {
    const auto found = std::ranges::find_if(rows_, [&](const Measurement& row) {
      return row.recipe == recipe && row.metric == metric && row.seed == seed;
    });
    if (found == rows_.end()) return std::nullopt;
    std::optional<Measurement> row = std::move(*found);
    rows_.erase(found);
    const bool answered = std::ranges::all_of(
        tasks, [&](const Task& task) { return row->verdict.tasks.contains(task.name); });
    return answered ? std::move(row) : std::nullopt;
  }

 private:
  std::vector<Measurement> rows_;
};

void print(const Measurement& m) {
  const Verdict& v = m.verdict;
  std::printf("%-28s %5s bits %7s MB  perplexity %-9s KL %-7s 99 %% %-6s same top %-6s %.1f s\n",
              m.recipe.c_str(), m.bits_per_weight ? fixed(*m.bits_per_weight, 2).c_str() : "",
              detail::megabytes(m.file_bytes).c_str(), detail::digits(v.perplexity.value).c_str(),
              detail::digits(v.kl.value).c_str(), detail::digits(v.kl99).c_str(),
              detail::digits(v.same_top.value).c_str(), m.seconds);
  for (const auto& [name, share] : v.tasks)
    std::printf("    %-10s %5.1f ± %.1f %%\n", name.c_str(), 100 * share.value, 100 * share.error);
  std::fflush(stdout);
}

}  // namespace

std::string judge_language_model(const AccuracyOptions& options) {
  ThreadPool threads(options.threads);
  const ModelFile file(options.model);
  const std::string name = std::filesystem::path(options.model).filename().string();
  const engine::Model model = engine::load_model(file, threads);
  Texts texts = load_texts(options, file);
  const Judge judge(model, std::move(texts.judged), std::move(texts.tasks), threads);
  std::printf("Model: %s, judged on %lld tokens\n", name.c_str(),
              static_cast<long long>(judge.predicted_tokens()));
  std::fflush(stdout);

  std::vector<Measurement> found;
  const auto note = [&](Measurement m) {
    print(m);
    found.push_back(std::move(m));
    auto json = nlohmann::ordered_json::array();
    for (const Measurement& each : found) json.push_back(to_json(each));
    write_file(options.output + "/llm.json", json.dump(1) + "\n");
  };
  Earlier earlier(options, name);
  auto original = earlier.take("unquantized", "none", {}, judge.tasks());
  note(original ? *std::move(original)
                : Measurement{.model = name,
                              .recipe = "unquantized",
                              .file_bytes = double(file.file_bytes()),
                              .verdict = judge.judge(model, true)});
  const Workshop shop{file, options.output, threads};
  const auto metrics = std::make_shared<Metrics>(file, model, options.output, std::move(texts.data),
                                                 texts.begin, threads);
  for (const Candidate& candidate : candidates_of(options, shop, metrics)) {
    const auto tasks = candidate.tasks ? std::span(judge.tasks()) : std::span<const Task>();
    if (auto row = earlier.take(candidate.recipe, candidate.metric, candidate.seed, tasks)) {
      note(*std::move(row));
      continue;
    }
    const Result<Made> made = catch_error([&] { return candidate.make(); });
    if (!made && made.error().code() != ErrorCode::invalid_argument) raise(made.error());
    if (!made) {  // such as a type that is larger than the one that the model has
      std::fprintf(stderr, "%s: left out: %s\n", candidate.recipe.c_str(),
                   made.error().message().c_str());
      continue;
    }
    note({.model = name,
          .recipe = candidate.recipe,
          .metric = candidate.metric,
          .bits_per_weight = made.value().bits_per_weight,
          .file_bytes = made.value().file_bytes,
          .seed = candidate.seed,
          .seconds = made.value().seconds,
          .expected_kl = made.value().expected_kl,
          .verdict = judge.judge(made.value().model, candidate.tasks)});
  }
  return size_tables(found) + expected_table(found) + task_table(found, judge.tasks());
}

}  // namespace cafeq::accuracy
