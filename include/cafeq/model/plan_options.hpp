/// What a plan is asked for.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "cafeq/model/any_recipe.hpp"

namespace cafeq {

struct PlanOptions {
  std::optional<AnyRecipe> recipe{};  ///< of each matrix; a plan needs one
  bool pairs = true;
  bool embeddings = false;             ///< quantize embeddings and unembeddings too
  std::vector<std::string> include{};  ///< shell patterns of tensors to quantize, whatever their
                                       ///< role; empty for those that one quantizes
  std::vector<std::string> exclude{};  ///< of tensors to keep
};

}  // namespace cafeq
