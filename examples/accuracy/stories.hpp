/// A small Llama model in llama2.c's format, and its perplexity on stories.
#pragma once

#include <algorithm>
#include <fstream>
#include <string>
#include <utility>
#include <vector>

#include "accuracy/subject.hpp"
#include "cafeq/io/model_file.hpp"
#include "cafeq/io/read_vocabulary.hpp"
#include "engine/llama2c.hpp"
#include "engine/packed.hpp"
#include "engine/perplexity.hpp"
#include "engine/tokenizer.hpp"

namespace cafeq::example {

/// The first `count` lines, each a JSON string, cut to 512 tokens.
inline std::vector<std::vector<engine::Token>> read_stories(const std::string& path,
                                                            std::size_t count,
                                                            const engine::Tokenizer& tokenizer) {
  constexpr std::size_t longest = 512;
  std::vector<std::vector<engine::Token>> stories;
  std::ifstream file(path);
  for (std::string line; stories.size() < count && std::getline(file, line);) {
    stories.push_back(tokenizer.encode(engine::Json::parse(line).get<std::string>()));
    stories.back().resize(std::min(stories.back().size(), longest));
  }
  if (stories.size() < count)
    engine::fail(path + ": has " + std::to_string(stories.size()) + " stories, expected " +
                 std::to_string(count));
  return stories;
}

inline Matrix<float> to_tensor(const engine::Matrix& matrix) {
  return to_matrix<float>(as_view(matrix.values.data(), Index(matrix.rows), Index(matrix.cols)));
}
inline engine::Matrix to_engine(const Matrix<float>& tensor) {
  engine::Matrix matrix(std::size_t(tensor.rows()), std::size_t(tensor.cols()));
  std::copy_n(tensor.data(), tensor.size(), matrix.values.begin());
  return matrix;
}

/// The model and the first 58 stories of `directory`.
struct StoryData {
  engine::Checkpoint checkpoint;
  std::vector<std::vector<engine::Token>> stories;

  explicit StoryData(const std::string& directory)
      : checkpoint(engine::open_llama2c(directory + "/stories260K.bin")),
        stories(read_stories(
            directory + "/tinystories_200.jsonl", 58,
            engine::Tokenizer(*read_vocabulary(ModelFile(directory + "/stories260K.bin"),
                                               directory + "/tok512.bin")))) {}
};

/// Weights of the engine, quantized by a recipe and dequantized again.
template <class Recipe>
engine::Linear dequantized(const engine::Matrix& weights, const engine::Threads& threads) {
  engine::Matrix hat(weights.rows, weights.cols);
  quantize(engine::view(weights), Recipe{}, threads).dequantize(engine::view(hat), threads);
  return engine::Linear(std::move(hat));
}

/// How much the perplexity on packed weights, multiplied as they are, differs from that on
/// dequantized ones. Relative.
template <class Recipe>
double packed_difference(const StoryData& data) {
  const engine::Threads threads(1);
  const auto perplexity = [&](auto pack) {
    return engine::measure_perplexity(engine::load_model(data.checkpoint, pack, threads),
                                      data.stories, threads)
        .value();
  };
  return perplexity(engine::quantize<Recipe>) / perplexity(dequantized<Recipe>) - 1;
}

/// stories260K.bin in `directory`, on the first 58 stories there. What its tensors are called is
/// what the engine asks for.
inline Subject story_model(const std::string& directory) {
  const StoryData data(directory);
  Tensors tensors;
  const auto record = [&](const std::string& name, std::size_t rows, std::size_t cols) {
    engine::Matrix matrix = data.checkpoint.read(name, rows, cols);
    tensors.emplace(name, to_tensor(matrix));
    return matrix;
  };
  engine::load_model({data.checkpoint.config, record});

  const auto measure = [config = data.checkpoint.config,
                        stories = data.stories](const Tensors& with) {
    const auto read = [&](const std::string& name, std::size_t, std::size_t) {
      return to_engine(with.at(name));
    };
    const engine::Threads alone(1);
    return Quality{
        .perplexity =
            engine::measure_perplexity(engine::load_model({config, read}), stories, alone).value()};
  };
  return {"stories260K",
          {TensorModel(std::move(tensors), ModelFile(directory + "/stories260K.bin").config())},
          measure};
}

}  // namespace cafeq::example
