/// What a quantized language model has lost.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "accuracy/tasks.hpp"
#include "engine/evaluate.hpp"

namespace cafeq::accuracy {

using engine::Estimate;

/// All that is measured of a model, beside the one that it was made of.
struct Verdict {
  Estimate perplexity, kl, same_top;  ///< the last: the same token is the most likely one
  double kl99 = 0;                    ///< below which the divergences of 99 % of all tokens are
  std::map<std::string, Estimate> tasks{};  ///< shares of right answers
};

class Judge {
 public:
  /// Keeps a reference to the model.
  Judge(const engine::Model& model, std::vector<Tokens> texts, std::vector<Task> tasks,
        ExecutorRef threads)
      : threads_(threads),
        transformer_(model, threads),
        reference_(transformer_, std::move(texts)),
        tasks_(std::move(tasks)) {}

  /// Of a model that has the same tokens.
  Verdict judge(const engine::Model& model, bool with_tasks) const {
    const engine::Transformer transformer(model, threads_);
    const engine::Comparison found = reference_.compare(transformer, threads_);
    Verdict verdict{engine::perplexity_of(found.surprises), engine::mean_of(found.divergences),
                    engine::mean_of(found.same_top), engine::quantile(found.divergences, .99)};
    if (with_tasks)
      for (const Task& task : tasks_)
        verdict.tasks[task.name] = engine::mean_of(answers(transformer, task));
    return verdict;
  }

  const std::vector<Task>& tasks() const { return tasks_; }
  Index predicted_tokens() const { return reference_.size(); }

 private:
  ExecutorRef threads_;
  engine::Transformer transformer_;
  engine::Reference reference_;
  std::vector<Task> tasks_;
};

}  // namespace cafeq::accuracy
