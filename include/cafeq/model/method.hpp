/// How one matrix or pair of a model is quantized: the recipes by name, with bits and groups that
/// are known when the program runs.
#pragma once

#include <algorithm>
#include <array>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

#include "cafeq/pipeline/quantize_pair.hpp"
#include "cafeq/pipeline/recipes.hpp"
#include "cafeq/quant/gguf.hpp"

namespace cafeq {

enum class Method { rtn, fast, learned, paper, smallest };

inline constexpr std::array<std::pair<std::string_view, Method>, 5> method_names{
    {{"rtn", Method::rtn},
     {"fast", Method::fast},
     {"learned", Method::learned},
     {"paper", Method::paper},
     {"smallest", Method::smallest}}};

constexpr std::string_view name_of(Method method) noexcept {
  for (const auto& [name, value] : method_names)
    if (value == method) return name;
  return {};
}
constexpr std::optional<Method> method_named(std::string_view name) noexcept {
  for (const auto& [known, value] : method_names)
    if (known == name) return value;
  return std::nullopt;
}

/// What the recipe takes where nobody says otherwise.
constexpr std::string_view grid_kind(Method method) noexcept {
  return method == Method::smallest                        ? "trellis"
         : method == Method::rtn || method == Method::fast ? "affine"
                                                           : "midrise";
}
constexpr Index default_group(Method method) noexcept {
  return grid_kind(method) == "affine" ? 64 : per_row;
}

/// Equal choices give equal results. With a type of GGUF that type says bits and groups, no matrix
/// has a transform of its own, and the method only says how pairs are transformed.
struct Choice {
  Method method = Method::fast;
  int bits = 4;
  Index group = default_group(Method::fast);  ///< weights that share parameters, or per_row
  std::uint64_t seed = 0;
  std::optional<GgufType> type = std::nullopt;
  double budget =
      3.25;  ///< of `smallest`, in place of bits and group: bits a weight, everything counted
};

/// `smallest` for these: within the budget, or at the lowest rate where few weights take more than
/// that.
inline recipes::smallest smallest_for(const Choice& choice,
                                      std::span<const recipes::TrellisLoad> loads) {
  return {.bits = std::max(choice.budget, recipes::least_trellis_bits(loads) * (1 + 1e-12)),
          .seed = choice.seed};
}
inline recipes::smallest smallest_for(const Choice& choice, Index rows, Index cols) {
  const auto load = recipes::smallest::load(rows, cols);
  return smallest_for(choice, {&load, 1});
}

/// f(recipe) with the recipe that a choice names for W [rows, cols].
template <class F>
decltype(auto) with_recipe(const Choice& choice, Index rows, Index cols, F&& f) {
  switch (choice.method) {
    case Method::rtn: return f(recipes::rtn<>{.bits = choice.bits, .group = choice.group});
    case Method::fast:
      return f(recipes::fast<>{.bits = choice.bits, .group = choice.group, .seed = choice.seed});
    case Method::learned:
      return f(recipes::learned<>{.bits = choice.bits, .group = choice.group, .seed = choice.seed});
    case Method::smallest: return f(smallest_for(choice, rows, cols));
    default:
      return f(recipes::paper<>{.bits = choice.bits, .group = choice.group, .seed = choice.seed});
  }
}

/// What rounds two matrices together with the quantizer of a type of GGUF.
template <GgufQuantizer Q>
struct GgufPairRecipe {
  Q quantizer;
  PairTransform transform;
  int alternations;
  std::uint64_t seed;

  auto pair() const {
    return PairPipeline<Q>{
        .quantizer = quantizer, .transform = transform, .alternations = alternations, .seed = seed};
  }
};

/// The same for two matrices that meet and are rounded together.
template <class F>
decltype(auto) with_pair_recipe(const Choice& choice, F&& f) {
  if (choice.type)
    return gguf::with_quantizer(*choice.type, [&](const auto& quantizer) {
      const bool learned = choice.method == Method::learned || choice.method == Method::paper;
      return f(GgufPairRecipe<std::remove_cvref_t<decltype(quantizer)>>{
          quantizer, learned ? PairTransform::learned : PairTransform::balanced, learned ? 10 : 0,
          choice.seed});
    });
  switch (choice.method) {
    case Method::learned:
      return f(recipes::learned<>{.bits = choice.bits, .group = choice.group, .seed = choice.seed});
    case Method::paper:
      return f(recipes::paper<>{.bits = choice.bits, .group = choice.group, .seed = choice.seed});
    case Method::smallest: return f(recipes::smallest{.bits = choice.budget, .seed = choice.seed});
    default:
      raise(
          ErrorCode::invalid_argument,
          message("no recipe that rounds two matrices together is named ", name_of(choice.method)));
  }
}

/// What W [rows, cols] will take, in bits. Rounded together with another matrix it has no transform
/// to store.
CAFEQ_LAZY std::int64_t planned_storage(const Choice& choice, Index rows, Index cols,
                                        bool together) {
  if (choice.type) return 8 * rows * gguf_row_bytes(*choice.type, cols).value_or(0);
  return with_recipe(choice, rows, cols, [&](const auto& recipe) {
    const auto pipeline = recipe.pipeline(rows, cols);
    return pipeline.storage_bits(rows, cols) -
           (together ? pipeline.transform.storage_bits(cols) : 0);
  });
}

/// The transform of W [rows, cols] in a few words.
inline std::string transform_name(const Choice& choice, Index rows, Index cols) {
  if (choice.type || choice.method == Method::rtn) return "none";
  if (choice.method == Method::fast) return "scaling, Hadamard";
  if (choice.method == Method::smallest) return "Hadamard";
  const recipes::learned<> recipe{};
  return message("learned, k = ",
                 recipes::affordable_block(rows, cols, recipe.transform_bits, recipe.max_block));
}

inline std::string trellis_name(const Trellis& q) {
  return message("trellis", q.rate.bits(), q.sequence == Sequence::column ? " column" : " row",
                 q.scale_bits);
}

/// Grid and granularity for W [rows, cols] in a few words.
inline std::string grid_name(const Choice& choice, Index rows, Index cols) {
  if (choice.type) return std::string(gguf_type_info(*choice.type).name);
  if (choice.method == Method::smallest)
    return trellis_name(smallest_for(choice, rows, cols).pipeline(rows, cols).quantizer);
  return message(grid_kind(choice.method), choice.bits,
                 choice.group == per_row ? std::string(" row") : message(" g", choice.group));
}

}  // namespace cafeq
