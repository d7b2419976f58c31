/// How far a quantized model is from the one that it was made from.
#pragma once

#include <string>
#include <vector>

#include "engine/engine.hpp"
#include "engine/own_metric.hpp"
#include "engine/report.hpp"
#include "engine/texts.hpp"
#include "support/progress_bar.hpp"

namespace cafeq::example {

/// What --evaluate names: a file of text, or "own", texts that the model writes itself.
class Evaluation {
 public:
  /// Reads the text, so that what is wrong with it is known ahead of the work. Raises what makes
  /// an evaluation impossible.
  Evaluation(const std::string& input, const std::string& tokenizer, std::string source)
      : source_(std::move(source)) {
    const ModelFile file(input);
    engine::check_model(file);
    const auto vocabulary = engine::load_tokenizer(file, tokenizer);
    if (vocabulary.vocabulary().begin) begin_ = engine::Token(*vocabulary.vocabulary().begin);
    if (source_ != own) texts_ = engine::read_texts(source_, vocabulary, limits);
  }

  engine::Comparison operator()(const std::string& input, const std::string& output,
                                ExecutorRef executor) {
    const engine::Engine before(input, executor);
    if (source_ == own) write_texts(before.transformer);
    const engine::Engine after(output, executor);
    ProgressBar bar("evaluating", 2 * double(engine::predicted_tokens(texts_)));
    const auto advance = [&](Index tokens) { bar.advance(double(tokens)); };
    return engine::Reference(before.transformer, texts_, advance)
        .compare(after.transformer, executor, advance);
  }

 private:
  static constexpr std::string_view own = "own";
  static constexpr engine::TextLimits limits{.count = 8, .length = 512};
  static constexpr Index own_length = 256;
  static constexpr std::uint64_t own_seed = 1'000'000;

  /// From the token that begins a text on, at temperature 1.
  void write_texts(const engine::Transformer& transformer) {
    ProgressBar bar("writing texts", double(limits.count * own_length));
    texts_ = metric_texts(transformer, begin_,
                          {.count = limits.count, .length = own_length + 1, .seed = own_seed},
                          [&] { bar.advance(); });
  }

  std::string source_;
  engine::Token begin_ = 0;
  std::vector<engine::Tokens> texts_;
};

}  // namespace cafeq::example
