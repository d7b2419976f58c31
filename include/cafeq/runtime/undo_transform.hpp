/// Undoing a transform on activations: x ← M⁻¹ x, or z ← M⁻ᵀ z for a transform of the output side.
///
/// A block-diagonal transform is read as it is stored, k·dim entries of 1, 2 or 4 bytes; any other
/// by its own apply().
#pragma once

#include <cmath>
#include <concepts>
#include <utility>
#include <variant>
#include <vector>

#include "cafeq/kernel/block_vector.hpp"
#include "cafeq/transform/block_diagonal.hpp"
#include "cafeq/transform/compose.hpp"

namespace cafeq {

/// What Linear keeps of a transform besides the transform itself. Specialise it for transforms of
/// your own that have a faster way.
template <Transform T>
class UndoTransform {
 public:
  UndoTransform(const T&, Side side)
      : op_(side == Side::input ? Op::inverse_transpose : Op::inverse) {}
  /// The rows of X, which are contiguous: (M⁻¹ x)ᵀ = xᵀ M⁻ᵀ, (M⁻ᵀ z)ᵀ = zᵀ M⁻¹.
  void operator()(const T& transform, View<float> X, ExecutorRef) const { transform.apply(X, op_); }

 private:
  Op op_;
};

template <>
class UndoTransform<Identity::Fitted> {
 public:
  UndoTransform(const Identity::Fitted&, Side) noexcept {}
  void operator()(const Identity::Fitted&, View<float>, ExecutorRef) const noexcept {}
};

template <Transform T>
  requires std::same_as<T, BlockDiagonal>
class UndoTransform<T> {
 public:
  UndoTransform(const BlockDiagonal& transform, Side side) {
    switch (transform.precision()) {
      case InversePrecision::fp32: {
        auto& N = start<float>(transform);
        fill(N, side, [&](Index b, Index r, Index c) { return float(transform.inverse(b)(r, c)); });
        return;
      }
      case InversePrecision::fp16: {
        auto& N = start<fp16>(transform);
        double largest = 0;
        for (Index b = 0; b < N.blocks(); ++b)
          largest = std::max(largest, largest_magnitude(transform.inverse(b).view()));
        const int exponent = detail::half_exponent(largest);
        fill(N, side, [&](Index b, Index r, Index c) {
          return fp16(float(std::ldexp(transform.inverse(b)(r, c), -exponent)));
        });
        N.column_scales().assign(std::size_t(N.dim()), float(std::ldexp(1.0, exponent)));
        return;
      }
      case InversePrecision::int8: {
        auto& N = start<std::int8_t>(transform);
        const detail::Int8Inverse stored = transform.int8_inverse();
        fill(N, side, [&](Index b, Index r, Index c) {
          return stored.blocks[std::size_t(b)].codes[std::size_t(r * N.size(b) + c)];
        });
        auto& scales = side == Side::input ? N.column_scales() : N.row_scales();
        for (const auto& block : stored.blocks)
          for (const std::uint8_t e : block.exponents)
            scales.push_back(float(detail::eighth_octave(8 * stored.base - int(e))));
        return;
      }
    }
  }

  /// Blocks in parallel, several together where they are small.
  void operator()(const BlockDiagonal&, View<float> X, ExecutorRef executor) const {
    std::visit(
        [&](const auto& N) {
          using Entry = std::remove_cvref_t<decltype(N(0, 0, 0))>;
          if (X.rows == 0 || N.blocks() == 0) return;
          Index largest = 0;
          for (Index b = 0; b < N.blocks(); ++b) largest = std::max(largest, N.size(b));
          const Index grain = std::max<Index>(1, (Index(1) << 18) / (largest * largest * X.rows));
          executor.parallel_for(N.blocks(), grain, [&](Index begin, Index end, Index) {
            Buffer<float> scratch(std::size_t(kernel::block_multiply_scratch<Entry>(largest)));
            kernel::block_multiply(N, begin, end, X, scratch);
          });
        },
        inverse_);
  }

 private:
  template <class Entry>
  kernel::BlockPanels<Entry>& start(const BlockDiagonal& transform) {
    std::vector<Index> sizes;
    for (const auto& block : transform.blocks()) sizes.push_back(block.size());
    return inverse_.emplace<kernel::BlockPanels<Entry>>(sizes);
  }
  /// N for the input side, Nᵀ for the output side.
  template <class Entry, class F>
  static void fill(kernel::BlockPanels<Entry>& N, Side side, F&& entry) {
    for (Index b = 0; b < N.blocks(); ++b)
      for (Index r = 0; r < N.size(b); ++r)
        for (Index c = 0; c < N.size(b); ++c)
          N(b, r, c) = side == Side::input ? entry(b, r, c) : entry(b, c, r);
  }

  std::variant<kernel::BlockPanels<float>, kernel::BlockPanels<fp16>,
               kernel::BlockPanels<std::int8_t>>
      inverse_;
};

/// M = M_a M_b: M⁻¹ x = M_b⁻¹ (M_a⁻¹ x), and M⁻ᵀ z = M_a⁻ᵀ (M_b⁻ᵀ z).
template <Transform A, Transform B>
class UndoTransform<Composed<A, B>> {
 public:
  UndoTransform(const Composed<A, B>& transform, Side side)
      : side_(side), first_(transform.first(), side), second_(transform.second(), side) {}
  void operator()(const Composed<A, B>& transform, View<float> X, ExecutorRef executor) const {
    if (side_ == Side::input) {
      first_(transform.first(), X, executor);
      second_(transform.second(), X, executor);
    } else {
      second_(transform.second(), X, executor);
      first_(transform.first(), X, executor);
    }
  }

 private:
  Side side_;
  UndoTransform<A> first_;
  UndoTransform<B> second_;
};

}  // namespace cafeq
