/// GramCollector: what the layers of a model take in, by the names of the matrices that read it.
///
///   GramCollector grams;
///   grams.share("layers.0.q_proj.weight", {"layers.0.k_proj.weight", "layers.0.v_proj.weight"});
///   grams.add("layers.0.q_proj.weight", X, executor);       // in the forward pass, X [tokens, in]
///   grams.find("layers.0.v_proj.weight")->metric();         // to quantize that matrix in
#pragma once

#include <algorithm>
#include <functional>
#include <initializer_list>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "cafeq/linalg/input_gram.hpp"

namespace cafeq {

class GramCollector {
 public:
  /// One input, called by the first of the matrices that read it.
  struct Input {
    std::string name;
    std::vector<std::string> readers{};  ///< the others
    InputGram gram{};
  };

  /// What is kept of each input.
  explicit GramCollector(GramKind kind = GramKind::whole) : kind_(kind) {}

  GramKind kind() const noexcept { return kind_; }
  /// In the order in which they were first named.
  std::span<const Input> inputs() const noexcept { return inputs_; }
  /// What a matrix reads; null where nothing is known of it.
  const InputGram* find(std::string_view matrix) const noexcept {
    const auto found = places_.find(matrix);
    if (found == places_.end()) return nullptr;
    const InputGram& gram = inputs_[found->second].gram;
    return gram.count() > 0 ? &gram : nullptr;
  }

  /// Says that other matrices read the same input. Raises invalid_argument where one of them is
  /// known to read another.
  void share(std::string_view matrix, std::span<const std::string> others) {
    const std::size_t place = place_of(matrix);
    for (const std::string& other : others) {
      const auto [found, is_new] = places_.try_emplace(other, place);
      if (found->second != place)
        raise(ErrorCode::invalid_argument,
              message("grams: ", other, " reads another input than ", inputs_[place].name));
      if (is_new) inputs_[place].readers.push_back(other);
    }
  }
  void share(std::string_view matrix, std::initializer_list<std::string> others) {
    share(matrix, std::span(others.begin(), others.size()));
  }
  /// Adds what a matrix reads: the rows of X [n, in], of any strides and element type. What is
  /// shared is added once, by any of its readers. Raises invalid_shape and non_finite, naming the
  /// matrix.
  template <MatrixView M>
  void add(std::string_view matrix, M&& X, ExecutorRef executor = {}) {
    InputGram& gram = inputs_[place_of(matrix)].gram;
    if (gram.dim() == 0) gram = InputGram(as_view(X).cols, kind_);
    const auto added = catch_error([&] { return gram.add(X, executor), 0; });
    if (!added)
      raise(added.error().code(), message("grams: ", matrix, ": ", added.error().message()));
  }
  /// Takes a stored sum over.
  void set(Input input) {
    const std::size_t place = place_of(input.name);
    inputs_[place].gram = std::move(input.gram);
    share(input.name, input.readers);
  }
  /// Adds the sums of another run over the same model: of other texts, another thread or machine.
  void merge(const GramCollector& other) {
    for (const Input& input : other.inputs_) {
      const std::size_t place = place_of(input.name);
      share(input.name, input.readers);
      InputGram& gram = inputs_[place].gram;
      if (gram.dim() == 0) {
        gram = input.gram;
        continue;
      }
      const auto merged = catch_error([&] { return gram.merge(input.gram), 0; });
      if (!merged)
        raise(merged.error().code(),
              message("grams: ", input.name, ": ", merged.error().message()));
    }
  }

 private:
  std::size_t place_of(std::string_view matrix) {
    if (const auto found = places_.find(matrix); found != places_.end()) return found->second;
    inputs_.push_back({std::string(matrix)});
    return places_[std::string(matrix)] = inputs_.size() - 1;
  }

  GramKind kind_;
  std::vector<Input> inputs_;
  std::map<std::string, std::size_t, std::less<>> places_;  // by every reader
};

}  // namespace cafeq
