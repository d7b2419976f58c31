/// What a plan is asked for.
#pragma once

#include <functional>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "cafeq/model/any_recipe.hpp"

namespace cafeq {

struct PlanOptions {
  std::optional<AnyRecipe> recipe{};  ///< of each matrix; a plan needs one
  bool pairs = true;
  bool any_bits = false;               ///< bits are chosen later: what could become smaller with
                                       ///< the fewest is quantized
  bool embeddings = false;             ///< quantize embeddings and unembeddings too
  std::vector<std::string> include{};  ///< shell patterns of tensors to quantize, whatever their
                                       ///< role; empty for those that one quantizes
  std::vector<std::string> exclude{};  ///< of tensors to keep
  /// Tensors whose matrices read inputs that will be known: these are rounded in the metric of
  /// their inputs where the recipe minds, each matrix by itself.
  std::set<std::string, std::less<>> known_inputs{};
};

}  // namespace cafeq
