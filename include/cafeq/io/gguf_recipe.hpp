/// GgufRecipe: matrices as blocks of a type of GGUF, in the plan of a model.
#pragma once

#include <algorithm>
#include <array>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "cafeq/loss/reconstruction.hpp"
#include "cafeq/model/any_recipe.hpp"
#include "cafeq/pipeline/weights.hpp"
#include "cafeq/quant/gguf.hpp"
#include "cafeq/rounding/error_feedback.hpp"

namespace cafeq {

namespace detail {

/// The type for rows of `cols` weights: the one that is asked for; where they are no whole blocks
/// of it the one that llama.cpp takes in its place, else fp16.
inline GgufType legal_type(GgufType type, Index cols) noexcept {
  const auto in_its_place = [&] {
    switch (type) {
      case GgufType::q2_k:
      case GgufType::q3_k: return GgufType::iq4_nl;
      case GgufType::q4_k: return GgufType::q5_0;
      case GgufType::q5_k: return GgufType::q5_1;
      case GgufType::q6_k: return GgufType::q8_0;
      default: return GgufType::f16;
    }
  };
  if (gguf_row_bytes(type, cols)) return type;
  return gguf_row_bytes(in_its_place(), cols) ? in_its_place() : GgufType::f16;
}

inline void decode_gguf_row(std::uint32_t type, std::span<const std::byte> row,
                            std::span<float> weights) {
  gguf::dequantize_row(GgufType(type), row, weights);
}

inline EncodedRows gguf_rows(GgufType type, Index rows, Index cols) {
  const Index row_bytes = gguf_row_bytes(type, cols).value_or(0);
  return EncodedRows(std::uint32_t(type), rows, cols, row_bytes, decode_gguf_row);
}

/// With how well they stand for W.
template <class Arch = DefaultArch>
QuantizedMatrix with_error(EncodedRows blocks, const Matrix<float>& W, ExecutorRef executor) {
  const auto type = GgufType(blocks.type);
  const auto sums = sum_over_rows(W.rows(), W.cols(), executor, [&](Index begin, Index end) {
    Matrix<float> hat(end - begin, W.cols());
    for (Index i = begin; i < end; ++i)
      gguf::dequantize_row<Arch>(type, blocks.row(i), hat.row(i - begin));
    return plain_rows(W.view().row_block(begin, end - begin), View<const float>(hat.view()));
  });
  return {std::move(blocks), sums.error, sums.norm};
}

template <class Arch = DefaultArch>
QuantizedMatrix quantize_to_gguf(const Matrix<float>& W, GgufType type, ExecutorRef executor) {
  EncodedRows blocks = gguf_rows(type, W.rows(), W.cols());
  executor.parallel_for(W.rows(), 16, [&](Index begin, Index end, Index) {
    for (; begin < end; ++begin) gguf::quantize_row<Arch>(type, W.row(begin), blocks.row(begin));
  });
  return with_error<Arch>(std::move(blocks), W, executor);
}

/// Codes of the quantizer of a type, for weights of 2^exponent times their size.
template <GgufQuantizer Q>
EncodedRows to_gguf(const Codes<Q>& codes, int exponent, ExecutorRef executor) {
  EncodedRows blocks = gguf_rows(GgufBlock<Q>::type, codes.rows(), codes.cols());
  const Index groups = codes.grouping().per_row_count();
  executor.parallel_for(codes.rows(), 16, [&](Index begin, Index end, Index) {
    std::vector<std::uint8_t> row(std::size_t(codes.cols()));
    for (Index i = begin; i < end; ++i) {
      codes.packed().unpack_row(i, row);
      gguf::write_row(codes.quantizer(), std::span<const std::uint8_t>(row),
                      codes.params().subspan(std::size_t(i * groups), std::size_t(groups)),
                      blocks.row(i), exponent);
    }
  });
  return blocks;
}

/// The same in a metric of W's inputs: errors are fed back, and scales fitted in it.
template <class Arch = DefaultArch>
QuantizedMatrix quantize_to_gguf(const Matrix<float>& W, GgufType type, const Metric& metric,
                                 ExecutorRef executor) {
  if (metric.is_identity() || gguf_type_info(type).weights == 1)
    return quantize_to_gguf<Arch>(W, type, executor);
  constexpr ErrorFeedback rounder{.sweeps = 3, .fit_scales = true};
  const Result<int> exponent = exponent_of(W.view(), "W", executor);
  if (!exponent) raise(exponent.error());
  Matrix<float> X = scaled_down(W.view(), exponent.value(), executor);
  const int scale = exponent.value() - scale_for_grid(X.view(), executor);
  EncodedRows blocks = gguf::with_quantizer(type, [&](const auto& quantizer) {
    const auto codes =
        round(rounder, std::as_const(X).view(), quantizer, metric, Side::input, executor)
            .pack(executor);
    return to_gguf(codes, scale, executor);
  });
  return with_error<Arch>(std::move(blocks), W, executor);
}

/// What rounds two matrices together with the quantizer of a type.
template <GgufQuantizer Q>
struct GgufPairRecipe {
  Q quantizer;
  PairTransform transform;
  std::uint64_t seed;

  auto pair(const PairShape&) const {
    return PairPipeline<Q>{.quantizer = quantizer,
                           .transform = transform,
                           .alternations = transform == PairTransform::learned ? 10 : 0,
                           .seed = seed};
  }
};

/// Both matrices of a pair as blocks of a type, with the transform between them.
template <class Arch = DefaultArch>
EncodedPair quantize_together_to_gguf(GgufType type, PairTransform transform, std::uint64_t seed,
                                      PairWeights& weights, const PairRole& pair,
                                      ExecutorRef executor) {
  return gguf::with_quantizer(type, [&]<class Q>(const Q& quantizer) -> EncodedPair {
    const GgufPairRecipe<Q> recipe{quantizer, transform, seed};
    return quantize_together(recipe, weights, pair, executor, [&](const auto& q) {
      return EncodedMatrix(to_gguf(q.codes(), q.exponent(), executor));
    });
  });
}

}  // namespace detail

/// Blocks of one type, or of the one that llama.cpp takes where rows do not fit it, found by this
/// library's scale search. No matrix has a transform of its own, so that two which meet are rounded
/// together, with an M between them as another recipe says: none, balanced or learned; or, where
/// inputs are known, each in their metric.
class GgufRecipe : public RecipeModel {
 public:
  /// How pairs are transformed comes from `like`, with its seed. Raises invalid_argument where that
  /// chooses codes together, which no type can hold.
  template <class Arch = DefaultArch>
  static AnyRecipe make(GgufType type, const AnyRecipe& like);

  GgufType type() const noexcept { return type_; }
  /// Of a matrix whose rows have so many weights.
  GgufType type_for(Index cols) const noexcept { return detail::legal_type(type_, cols); }

  std::string_view name() const override { return like_->name(); }
  std::vector<RecipeOption> options() const override {
    return {{"type", std::int64_t(type_)}, {"seed", seed_}};
  }
  std::optional<Error> fault() const override { return std::nullopt; }

  std::string grid(Index, Index cols) const override {
    return std::string(gguf_type_info(type_for(cols)).name);
  }
  std::string transform(Index, Index) const override { return "none"; }
  std::string note(Index, Index cols) const override {
    if (type_for(cols) == type_) return {};
    const auto& asked = gguf_type_info(type_);
    return message("rows of ", cols, " are no multiple of ", asked.name, "'s ", asked.weights);
  }
  std::int64_t storage_bits(Index rows, Index cols) const override {
    return 8 * std::int64_t(rows) * gguf_row_bytes(type_for(cols), cols).value_or(0);
  }

  PairAdvice advice(Index head_dim, std::span<const PairedMatrix, 2> pair) const override {
    if (in_metric_)
      return {.why = "each is rounded in the metric of its own inputs", .always = true};
    const PairAdvice own = like_->advice(head_dim, pair);
    if (own.always) return own;
    if (like_->pair_transform() != PairTransform::learned && head_dim < least_head_dim)
      return {.why = message("heads of ", head_dim, " channels gain nothing by it")};
    const GgufType first = type_for(pair[0].cols), second = type_for(pair[1].cols);
    if (first != second) return {.why = "its matrices need different types"};
    if (gguf_type_info(first).weights == 1) return {.why = "floats have no use for it"};
    return {.form = PairForm::together};
  }
  std::array<std::string, 2> grids(std::span<const PairedMatrix, 2> pair) const override {
    return {grid(pair[0].rows, pair[0].cols), grid(pair[1].rows, pair[1].cols)};
  }
  std::array<std::int64_t, 2> storage_bits(std::span<const PairedMatrix, 2> pair) const override {
    return {storage_bits(pair[0].rows, pair[0].cols), storage_bits(pair[1].rows, pair[1].cols)};
  }
  std::optional<AnyRecipe> with_bits(double) const override { return std::nullopt; }
  double trial_error(const Matrix<float>& rows, ExecutorRef executor) const override {
    const QuantizedMatrix blocks = quantize(rows, executor);
    return blocks.squared_norm > 0 ? blocks.squared_error / blocks.squared_norm : 0;
  }
  bool is_one_a_tensor() const override { return true; }
  PairTransform pair_transform() const override { return like_->pair_transform(); }
  double work() const override { return like_->work(); }

 protected:
  GgufRecipe(GgufType type, const AnyRecipe& like) : type_(type), like_(like) {
    if (like->with_bits(4))
      raise(ErrorCode::invalid_argument, message("plan: GGUF's ", gguf_type_info(type).name,
                                                 " cannot hold the codes of ", like->name()));
    if (const auto seed = like.option("seed"))
      std::visit([&](auto value) { seed_ = std::uint64_t(value); }, *seed);
  }

  GgufType type_;
  AnyRecipe like_;
  std::uint64_t seed_ = 0;
  bool in_metric_ = false;
};

namespace detail {

/// What of it leads to kernels, for one architecture.
template <class Arch>
class GgufRecipeOn final : public GgufRecipe {
 public:
  GgufRecipeOn(GgufType type, const AnyRecipe& like) : GgufRecipe(type, like) {}

  QuantizedMatrix quantize(const Matrix<float>& W, ExecutorRef executor) const override {
    return quantize_to_gguf<Arch>(W, type_for(W.cols()), executor);
  }
  QuantizedMatrix quantize(const Matrix<float>& W, const Metric& metric,
                           ExecutorRef executor) const override {
    if (!in_metric_) return quantize(W, executor);
    return quantize_to_gguf<Arch>(W, type_for(W.cols()), metric, executor);
  }
  std::optional<AnyRecipe> in_metric() const override { return AnyRecipe(with_type(type_, true)); }
  EncodedPair quantize(PairWeights weights, const PairRole& pair,
                       ExecutorRef executor) const override {
    return quantize_together_to_gguf<Arch>(type_for(weights.W[0].cols()), like_->pair_transform(),
                                           seed_, weights, pair, executor);
  }

  /// Types of blocks that rows of all these widths fit into.
  std::vector<AnyRecipe> alternatives(std::span<const Index> cols) const override {
    std::vector<AnyRecipe> all;
    for (const GgufTypeInfo& info : gguf_types) {
      const auto fits = [&](Index n) { return gguf_row_bytes(info.type, n).has_value(); };
      if (info.weights > 1 && std::all_of(cols.begin(), cols.end(), fits))
        all.push_back(variant(info.type));
    }
    if (all.empty()) all.push_back(variant(type_for(cols[0])));
    return all;
  }

 private:
  std::shared_ptr<const GgufRecipe> with_type(GgufType type, bool in_metric) const {
    auto other = std::make_shared<GgufRecipeOn>(type, like_);
    other->in_metric_ = in_metric;
    return other;
  }
  AnyRecipe variant(GgufType type) const { return AnyRecipe(with_type(type, in_metric_)); }
};

}  // namespace detail

template <class Arch>
AnyRecipe GgufRecipe::make(GgufType type, const AnyRecipe& like) {
  std::shared_ptr<const GgufRecipe> recipe =
      std::make_shared<detail::GgufRecipeOn<Arch>>(type, like);
  return AnyRecipe(std::move(recipe));
}

}  // namespace cafeq
