/// What the program is asked for, and its two parts.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "cafeq/core/processors.hpp"

namespace cafeq::accuracy {

struct AccuracyOptions {
  std::string output = "build/accuracy";
  Index threads = available_processors();
  std::vector<std::string> only{};  ///< parts of the job; empty for all
  std::vector<std::string>
      rows{};               ///< what the recipes of its rows have in their names; empty: any
  std::uint64_t seeds = 3;  ///< of random rotations, from 0 on
  // The language model.
  std::string model{}, tokenizer{};
  std::string text{}, tokens_json{};  ///< texts to predict, as such or as tokens
  Index windows = 6, length = 1024;
  std::string eval{};     ///< a directory with tasks
  Index questions = 100;  ///< of each task; 0: all
  std::string files{};    ///< a list of models to judge besides
  bool resume = false;    ///< rows that llm.json has are not measured again
  // The sentence encoder.
  std::string encoder{};
  Index paper_steps = 3000;

  bool wants(std::string_view part) const {
    return only.empty() || std::find(only.begin(), only.end(), part) != only.end();
  }
  bool wants_row(std::string_view recipe) const {
    return rows.empty() || std::ranges::any_of(rows, [&](const std::string& words) {
             return recipe.find(words) != recipe.npos;
           });
  }
};

/// Both print and return tables in Markdown, and write llm.json or encoder.json.
std::string judge_language_model(const AccuracyOptions& options);
std::string judge_encoder(const AccuracyOptions& options);

}  // namespace cafeq::accuracy
