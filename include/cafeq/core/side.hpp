/// Side: which dimension of a matrix is meant.
#pragma once

#include "cafeq/core/view.hpp"

namespace cafeq {

/// A side of W [out, in]. A transform of the input side makes W M of it, one of the output side
/// Mᵀ W; a metric H weighs the error E of W along it.
enum class Side {
  input,   ///< columns; H [in, in]: the error is tr(E H Eᵀ)
  output,  ///< rows; H [out, out]: the error is tr(Eᵀ H E)
};

namespace detail {

/// A matrix [out, in] with the given side first: as it lies for the output side, transposed for the
/// input side.
template <class T>
View<T> with_side_first(View<T> W, Side side) noexcept {
  return side == Side::output ? W : W.transposed();
}

}  // namespace detail
}  // namespace cafeq
