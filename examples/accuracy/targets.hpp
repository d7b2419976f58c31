/// What the recipes are expected to reach on the two models, and whether they do.
#pragma once

#include <array>
#include <string>
#include <tuple>
#include <vector>

#include "accuracy/report.hpp"

namespace cafeq::example {

struct Target {
  Row row;
  double error;   ///< of the encoder, at most
  double ratio;   ///< of the language model's perplexity to that of fp32, at most; 0: any
  double cosine;  ///< of the encoder's embeddings, at least
};

/// A line for each number that is expected: "hit" or "MISS", what, reached, expected. Means over
/// the seeds.
inline std::string check_targets(const Report& report) {
  const std::vector<Target> targets{
      {{"fast", "affine", 64, 3, false}, .0290, 1.60, .895},
      {{"fast", "affine", 64, 4, false}, .0071, 1.09, .972},
      {{"fast", "midrise", 64, 3, false}, .0335, 1.75, .880},
      {{"fast", "midrise", 64, 4, false}, .0089, 1.12, .967},
      {{"learned", "midrise", per_row, 3, false}, .0200, 0, .925},
      {{"smallest", "trellis", per_row, 2, false}, .0555, 4.46, .79},
      {{"smallest", "trellis", per_row, 3, false}, .0142, 1.255, .944},
      {{"smallest", "trellis", per_row, 4, false}, .0038, 1.049, .984}};
  struct Products {
    int bits;
    std::array<double, 2> errors;  // layer by layer
  };
  constexpr std::array products{Products{2, {.115, .078}}, Products{3, {.028, .018}},
                                Products{4, {.0069, .0044}}};

  std::string text;
  const auto say = [&](const std::string& what, double reached, double limit, bool at_most) {
    const bool hit = at_most ? reached <= limit : reached >= limit;
    text += message(hit ? "hit   " : "MISS  ", what, " ", fixed(reached, 4),
                    at_most ? ", at most " : ", at least ", fixed(limit, 4), "\n");
  };
  for (const auto& [row, error, ratio, cosine] : targets) {
    const std::string name = message(row.recipe, " ", row.grid, ", ", row.bits, " bits: ");
    if (const auto encoder = report.mean("use", row)) {
      say(name + "error", encoder->error, error, true);
      say(name + "cosine", encoder->quality, cosine, false);
    }
    if (const auto stories = report.mean("stories260K", row); stories && ratio > 0)
      say(name + "perplexity ratio", stories->quality, ratio, true);
  }
  for (const auto& [bits, errors] : products)
    if (const auto encoder = report.mean("use", {"learned", "midrise", per_row, bits, true}))
      for (std::size_t layer = 0; layer < errors.size(); ++layer)
        say(message("value/output of layer ", layer, ", ", bits, " bits: error"),
            encoder->value_output_errors.at(layer), errors[layer], true);
  for (const int bits : {2, 3, 4})
    for (const Row& alone :
         {Row{"fast", "affine", 64, bits, false}, Row{"learned", "midrise", per_row, bits, false},
          Row{"paper", "midrise", per_row, bits, false}}) {
      Row paired = alone;
      paired.pairs = true;
      for (const auto& [model, what, at_most] :
           {std::tuple("use", "cosine", false),
            std::tuple("stories260K", "perplexity ratio", true)}) {
        const auto without = report.mean(model, alone), with = report.mean(model, paired);
        if (without && with)
          say(message(alone.recipe, " with pairs, ", bits, " bits: ", what), with->quality,
              without->quality, at_most);
      }
    }
  return text;
}

}  // namespace cafeq::example
