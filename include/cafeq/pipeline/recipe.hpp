/// What a recipe is: a pipeline with every choice made, whose members are the choices that a caller
/// may change. All that is known of a recipe stands with it, in a file of its own
/// (pipeline/recipes/): quantize(), pairs, plans, tools and documentation take it from there.
#pragma once

#include <concepts>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>

#include "cafeq/pipeline/pair_pipeline.hpp"
#include "cafeq/pipeline/pipeline.hpp"
#include "cafeq/quant/scale_search.hpp"
#include "cafeq/rounding/error_feedback.hpp"

namespace cafeq {

/// Something with pipeline(rows, cols), the Pipeline for a matrix of that shape. It may say what is
/// wrong with its members by fault(rows, cols); what is wrong with those of its pipeline, that
/// says. It may have another one for a known metric of the inputs, metric_pipeline(rows, cols), of
/// the same transform and quantizer: where error feedback pays.
template <class R>
concept Recipe = requires(const R& recipe, Index n) {
  { recipe.pipeline(n, n).fault(n, n) } -> std::same_as<std::optional<Error>>;
};

/// Something with pair(shape), the PairPipeline for two matrices that meet. It may say what is
/// wrong with its members by pair_fault(shape).
template <class R>
concept PairRecipe = requires(const R& recipe, PairShape shape) {
  { recipe.pair(shape).fault(shape) } -> std::same_as<std::optional<Error>>;
};

/// What a recipe makes of two matrices that meet when a whole model is quantized.
enum class PairForm {
  apart,     ///< each by itself
  balanced,  ///< balanced against each other, which is exact, then each by itself
  together,  ///< rounded together, by pair()
};

/// That, and the reason for `apart`.
struct PairAdvice {
  PairForm form = PairForm::apart;
  std::string why{};
  bool always = false;  ///< `apart` whatever the two matrices are
};

/// Where heads have fewer channels, M between the two must be as large as the blocks that each
/// could have on its own, and rounding them together gains nothing.
inline constexpr Index least_head_dim = 32;

/// A recipe that plans and tools know by its name.
///   name, description     what it is called, and what it does in a line
///   options(recipe, f)    static: f(name, member) for each member that a caller may choose, among
///                         them "bits", "group" and "seed" where it has them
///   transform(rows, cols) the transform of a matrix of that shape in a few words
///   pair_advice(head_dim) what to do with two matrices that meet in heads of so many channels;
///                         `together` only where it is a PairRecipe
///   work                  what a weight takes, in units of `fast`
/// Optional:
///   trial()               a cheap recipe whose errors tell how those of this one change with bits
///   with_bits(bits)       the same for any mean bits a weight, where its rate is continuous
///   or_least              a member: whether it takes the least bits that there are where a small
///                         matrix takes more than it was given, instead of being refused
template <class R>
concept NamedRecipe = Recipe<R> && std::copyable<R> && requires(R& recipe, Index n) {
  { R::name } -> std::convertible_to<std::string_view>;
  { R::description } -> std::convertible_to<std::string_view>;
  { R::work } -> std::convertible_to<double>;
  R::options(recipe, [](std::string_view, auto&) {});
  { recipe.transform(n, n) } -> std::convertible_to<std::string>;
  { recipe.pair_advice(n) } -> std::same_as<PairAdvice>;
};

namespace detail {

/// A grid of some bits, whether its type or a member says them.
template <class G>
G grid_of(int bits, Index group, ScaleSearch search = ScaleSearch::mse) {
  G grid{.group = group};
  if constexpr (requires { grid.search = search; }) grid.search = search;
  if constexpr (std::is_same_v<decltype(grid.bits), BitCount<runtime_bits>>) grid.bits = bits;
  return grid;
}

/// The same transform and grid with error feedback and scales that are fitted in the metric.
template <class T, class Q>
auto with_feedback(const Pipeline<T, Q, Nearest>& pipeline) {
  return Pipeline{pipeline.transform, pipeline.quantizer,
                  ErrorFeedback{.sweeps = 3, .fit_scales = true}};
}

}  // namespace detail
}  // namespace cafeq
