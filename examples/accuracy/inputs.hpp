/// Gram matrices of what the layers of a language model take in, for methods that need data.
#pragma once

#include <Eigen/Core>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "cafeq/model/roles.hpp"
#include "engine/forward.hpp"

namespace cafeq::accuracy {

/// Σ x xᵀ of each input, by layer and by the first of the matrices that read it.
using InputGrams = std::map<std::pair<Index, Role>, Eigen::MatrixXf>;

/// The first of the matrices that read what this one reads.
constexpr Role first_reader(Role role) {
  if (role == Role::key || role == Role::value) return Role::query;
  return role == Role::up ? Role::gate : role;
}

namespace detail {

inline void add_gram(View<const float> X, Eigen::MatrixXf& gram, ExecutorRef threads) {
  using Rows =
      Eigen::Map<const Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>, 0,
                 Eigen::OuterStride<>>;
  const Rows x(X.data, X.rows, X.cols, Eigen::OuterStride<>(X.row_stride));
  if (gram.size() == 0) gram.setZero(X.cols, X.cols);
  threads.parallel_for(X.cols, 64, [&](Index begin, Index end, Index) {
    gram.middleCols(begin, end - begin).noalias() +=
        x.transpose() * x.middleCols(begin, end - begin);
  });
}

}  // namespace detail

/// Runs a model on texts.
inline InputGrams input_grams(engine::Model model, const std::vector<engine::Tokens>& texts,
                              ExecutorRef threads) {
  InputGrams grams;
  const auto watch = [&](Index layer, Role role, engine::Stack& readers) {
    auto& multiply = readers.front().multiply;
    multiply = [gram = &grams[{layer, role}], own = multiply](View<const float> X, View<float> Y,
                                                              ExecutorRef executor) {
      detail::add_gram(X, *gram, executor);
      own(X, Y, executor);
    };
  };
  for (std::size_t l = 0; l < model.layers.size(); ++l) {
    engine::Layer& layer = model.layers[l];
    watch(Index(l), Role::query, layer.query_key_value);
    watch(Index(l), Role::output, layer.output);
    watch(Index(l), Role::gate, layer.gate_up);
    watch(Index(l), Role::down, layer.down);
  }
  const engine::Transformer transformer(model, threads);
  for (const engine::Tokens& tokens : texts) {
    engine::Text text;
    transformer.forward(text, tokens);
  }
  return grams;
}

}  // namespace cafeq::accuracy
