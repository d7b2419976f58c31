/// PairPipeline: the transform between two matrices that meet in the graph, a quantizer and a
/// rounder for both.
#pragma once

#include <algorithm>
#include <array>
#include <optional>
#include <string_view>
#include <utility>

#include "cafeq/optimize/lbfgs.hpp"
#include "cafeq/pair/learn_pair.hpp"
#include "cafeq/pair/query_key.hpp"
#include "cafeq/pipeline/pipeline.hpp"
#include "cafeq/rounding/alternating.hpp"
#include "cafeq/rounding/error_feedback.hpp"

namespace cafeq {

enum class PairTransform {
  none,      ///< M = I
  balanced,  ///< balance and a randomized Hadamard a head
  learned,  ///< a rotation learned on top of that, or of the plain factors where those round better
};

/// The shapes of two matrices that meet in the graph, both with the shared dimension first: entries
/// of it (`lines`), and what the matrix has beside it (`length`).
struct PairShape {
  Index first_lines = 1;
  Index first_length = 1;
  Index second_lines = 1;
  Index second_length = 1;
};

/// One matrix of a pair as stored, [rows, cols], the side on which its heads lie, and what errors
/// call it ("first" and "second" if nothing).
template <class T>
struct PairInput {
  View<T> W;
  Side inner = Side::output;
  std::string_view name{};
};

template <class T>
PairInput(View<T>, Side) -> PairInput<T>;
template <class T>
PairInput(View<T>, Side, std::string_view) -> PairInput<T>;

/// Both matrices of a pair, quantized. Inference needs no transform.
template <class Q>
struct RoundedPair {
  Quantized<Identity::Fitted, Q> first;   ///< the output or query projection
  Quantized<Identity::Fitted, Q> second;  ///< the value or key projection
  HeadTransform transform;   ///< M of each KV head: `second` stands for M W, `first` for M⁻ᵀ W
                             ///< (heads on rows) or W M⁻¹
  double nearest_error = 0;  ///< relative error of the product by M and rounding to nearest
  double error = 0;          ///< after alternating rounding; never above nearest_error
};

namespace detail {

/// The two factors in fp32 on their way to the grid: each W·2^-exponent, in its stored orientation.
struct PairFactors {
  HeadLayout layout;
  std::array<Matrix<float>, 2> W;
  std::array<Side, 2> inner{};
  std::array<int, 2> exponent{};

  PairFactor factor(std::size_t i) const noexcept {
    return {W[i].view(), inner[i], i == 0 ? layout.heads : layout.kv_heads};
  }
  View<const float> inner_first(std::size_t i) const noexcept {
    return with_side_first(W[i].view(), inner[i]);
  }
  View<float> inner_first(std::size_t i) noexcept { return with_side_first(W[i].view(), inner[i]); }

  /// The first KV heads, with the heads that read them.
  template <class Arch = DefaultArch>
  PairFactors heads(Index kv_heads) const {
    PairFactors part{{layout.head_dim, kv_heads * layout.group(), kv_heads}, {}, inner, exponent};
    for (std::size_t i = 0; i < 2; ++i) {
      const Index rows = layout.head_dim * (i == 0 ? part.layout.heads : kv_heads);
      part.W[i] = to_matrix<float>(inner[i] == Side::output ? W[i].view().row_block(0, rows)
                                                            : W[i].view().col_block(0, rows));
    }
    return part;
  }

  template <class Arch = DefaultArch>
  void apply(const HeadTransform& M, ExecutorRef executor) {
    M.apply_first(inner_first(0), executor);
    M.apply_second(inner_first(1), executor);
  }
  template <class Arch = DefaultArch>
  void scale(ExecutorRef executor) {
    for (std::size_t i = 0; i < 2; ++i) exponent[i] -= scale_for_grid(W[i].view(), executor);
  }
};

}  // namespace detail

template <class Q, RangeSurrogate S = PNorm, Optimizer O = Lbfgs, RounderFor<Q> R = ErrorFeedback>
  requires(LinearGrid<Q> || JointQuantizer<Q>)
struct PairPipeline {
  Q quantizer{};
  PairTransform transform = PairTransform::learned;
  S surrogate{};
  O optimizer{};
  R rounder{};
  int alternations = 10;
  std::uint64_t seed = 0;
  Index trial_iterations =
      10;  ///< of the optimizer from each of two starts; the better one is then learned in full

  /// Quantizes both. With rotary positions M is the balance that commutes with the rotation, and
  /// rounding is to nearest: the product depends on the distance of two tokens, so there is no one
  /// product to alternate for. Memory beyond the result: each matrix in fp32 about six times.
  /// Raises what try_quantize() returns.
  template <class T, class U>
  RoundedPair<Q> quantize(const PairInput<T>& first, const PairInput<U>& second,
                          const HeadLayout& layout, const std::optional<Rotary>& rotary = {},
                          ExecutorRef executor = {}) const {
    return try_quantize(first, second, layout, rotary, executor).value();
  }

  /// The same for callers without exceptions. Wrong members, matrices and layouts come back as an
  /// Error before any work is done. What only the work itself finds does where there are
  /// exceptions, and is raised where there are none: a learned rotation or a Gram matrix of
  /// alternating rounding that becomes singular.
  template <class T, class U>
  Result<RoundedPair<Q>> try_quantize(const PairInput<T>& first, const PairInput<U>& second,
                                      const HeadLayout& layout,
                                      const std::optional<Rotary>& rotary = {},
                                      ExecutorRef executor = {}) const {
    const std::string_view first_name = first.name.empty() ? "first" : first.name;
    const std::string_view second_name = second.name.empty() ? "second" : second.name;
    if (auto fault = layout.fault()) return *fault;
    if (auto fault = input_fault(first, first_name)) return *fault;
    if (auto fault = input_fault(second, second_name)) return *fault;
    if (auto fault = layout.first_fault(lines_of(first), first_name, unit_of(first))) return *fault;
    if (auto fault = layout.second_fault(lines_of(second), second_name, unit_of(second)))
      return *fault;
    if (rotary)
      if (auto fault = rotary->fault(layout.head_dim)) return *fault;
    if (auto fault = this->fault(shape_of(first, second))) return *fault;

    const auto first_exponent = detail::exponent_of(first.W.as_const(), first_name, executor);
    if (!first_exponent) return first_exponent.error();
    const auto second_exponent = detail::exponent_of(second.W.as_const(), second_name, executor);
    if (!second_exponent) return second_exponent.error();

    return catch_error([&] {
      detail::PairFactors plain{layout,
                                {},
                                {first.inner, second.inner},
                                {first_exponent.value(), second_exponent.value()}};
      plain.W = {detail::scaled_down(first.W, plain.exponent[0], executor),
                 detail::scaled_down(second.W, plain.exponent[1], executor)};
      return quantize_checked(plain, rotary, executor);
    });
  }

  /// What is wrong with one of the members, if anything.
  std::optional<Error> fault(const PairShape& shape) const {
    const Index rows = shape.first_lines, cols = shape.first_length;
    if (auto fault = fault_of(quantizer, rows, cols)) return fault;
    if (auto fault = fault_of(surrogate, rows, cols)) return fault;
    if (auto fault = fault_of(optimizer, rows, cols)) return fault;
    if (auto fault = fault_of(rounder, rows, cols)) return fault;
    if (alternations < 0)
      return Error(ErrorCode::invalid_argument,
                   message("alternations is ", alternations, ", must not be negative"));
    if (trial_iterations < 0)
      return Error(ErrorCode::invalid_argument,
                   message("trial_iterations is ", trial_iterations, ", must not be negative"));
    return std::nullopt;
  }

 private:
  template <class T, class U>
  static PairShape shape_of(const PairInput<T>& first, const PairInput<U>& second) noexcept {
    return {.first_lines = lines_of(first),
            .first_length = first.W.size() / lines_of(first),
            .second_lines = lines_of(second),
            .second_length = second.W.size() / lines_of(second)};
  }

  template <class T>
  static Index lines_of(const PairInput<T>& input) noexcept {
    return input.inner == Side::input ? input.W.cols : input.W.rows;
  }
  template <class T>
  static std::string_view unit_of(const PairInput<T>& input) noexcept {
    return input.inner == Side::input ? "columns" : "rows";
  }
  /// What keeps one matrix from being read, or the quantizer and the rounder from working on it as
  /// it is stored.
  template <class T>
  std::optional<Error> input_fault(const PairInput<T>& input, std::string_view name) const {
    if (auto fault = detail::layout_fault(input.W, name)) return fault;
    if (auto fault = fault_of(quantizer, input.W.rows, input.W.cols)) return fault;
    return fault_of(rounder, input.W.rows, input.W.cols);
  }

  /// The factors as they go to the grid, and the M that made them.
  struct Candidate {
    detail::PairFactors factors;
    HeadTransform M;
  };

  RoundedPair<Q> quantize_checked(const detail::PairFactors& plain,
                                  const std::optional<Rotary>& rotary, ExecutorRef executor) const;

  AlternatedPair<Q> round(const detail::PairFactors& factors, int rounds,
                          ExecutorRef executor) const {
    return alternate(factors.factor(0), factors.factor(1), quantizer, rounder, rounds, executor);
  }

  Candidate scaled(detail::PairFactors factors, HeadTransform M, ExecutorRef executor) const {
    factors.scale(executor);
    return {std::move(factors), std::move(M)};
  }

  /// No transform, or the balanced start as it is.
  Candidate fixed(const detail::PairFactors& plain, ExecutorRef executor) const {
    if (transform == PairTransform::none)
      return scaled(plain, HeadTransform(plain.layout), executor);
    return rotated(plain, true, optimizer, executor);
  }

  /// From the balanced start or from the plain factors: whichever rounds better after a few
  /// iterations on a quarter of the heads.
  Candidate learned(const detail::PairFactors& plain, ExecutorRef executor) const {
    const O trial = detail::with_iterations(optimizer, trial_iterations);
    const detail::PairFactors part = plain.heads(ceil_div(plain.layout.kv_heads, 4));
    const auto error_from = [&](bool balanced) {
      return round(rotated(part, balanced, trial, executor).factors, 0, executor).nearest_error;
    };
    return rotated(plain, error_from(true) <= error_from(false), optimizer, executor);
  }

  Candidate commuting(detail::PairFactors factors, const Rotary& rotary,
                      ExecutorRef executor) const {
    HeadTransform M(factors.layout);
    if (transform != PairTransform::none)
      M = balance_commuting(std::as_const(factors).inner_first(0),
                            std::as_const(factors).inner_first(1), factors.layout, rotary, {},
                            executor);
    factors.apply(M, executor);
    return scaled(std::move(factors), std::move(M), executor);
  }

  /// Balance and Hadamard, or neither, then the learned rotation where one is asked for.
  Candidate rotated(detail::PairFactors factors, bool balanced, const O& with,
                    ExecutorRef executor) const {
    const HeadLayout& layout = factors.layout;
    HeadTransform M(layout);
    if (balanced) {
      M = balance(std::as_const(factors).inner_first(0), std::as_const(factors).inner_first(1),
                  layout, {}, {}, executor);
      factors.apply(M, executor);
    }
    const auto heads = std::size_t(layout.kv_heads);
    auto start = balanced
                     ? detail::hadamard_blocks(std::vector<Index>(heads, layout.head_dim), seed)
                     : detail::MatrixBlocks(heads, identity_matrix<double>(layout.head_dim));
    const HeadTransform rotation =
        transform == PairTransform::learned
            ? detail::learn_head_rotation(std::as_const(factors).inner_first(0),
                                          detail::pair_scale_sets(factors.inner[0] == Side::output,
                                                                  detail::group_of(quantizer)),
                                          std::as_const(factors).inner_first(1),
                                          detail::pair_scale_sets(factors.inner[1] == Side::output,
                                                                  detail::group_of(quantizer)),
                                          layout, std::move(start), surrogate, with, executor)
            : detail::head_rotation(layout, start);
    factors.apply(rotation, executor);
    return scaled(std::move(factors), M.then(rotation), executor);
  }
};

template <class Q, RangeSurrogate S, Optimizer O, RounderFor<Q> R>
  requires(LinearGrid<Q> || JointQuantizer<Q>)
RoundedPair<Q> PairPipeline<Q, S, O, R>::quantize_checked(const detail::PairFactors& plain,
                                                          const std::optional<Rotary>& rotary,
                                                          ExecutorRef executor) const {
  const Candidate best = rotary ? commuting(plain, *rotary, executor)
                                : (transform == PairTransform::learned ? learned(plain, executor)
                                                                       : fixed(plain, executor));
  const auto rounded = round(best.factors, rotary ? 0 : alternations, executor);
  const auto pack = [&](const Encoding<Q>& encoding, std::size_t i) {
    return Quantized<Identity::Fitted, Q>(encoding.pack(executor), {encoding.cols()}, Side::input,
                                          best.factors.exponent[i]);
  };
  return {pack(rounded.first, 0), pack(rounded.second, 1), best.M, rounded.nearest_error,
          rounded.error};
}

}  // namespace cafeq
