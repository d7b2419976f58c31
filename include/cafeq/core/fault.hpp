/// What is wrong with something that a caller has put together, before any work is done.
///
/// Every spec (a quantizer, a transform, a rounder, a pipeline, a recipe) may have a member
///   std::optional<Error> fault(Index rows, Index cols) const
/// which says what keeps it from working on a matrix [rows, cols], the first thing that is wrong,
/// or nothing. A spec that no matrix makes right or wrong (an optimizer, a range surrogate, a head
/// layout) has `fault()` instead. A transform of known dimension needs neither: its dim() must be
/// the number of columns.
///
/// What raises and what returns both ask it: `check(spec, rows, cols)` raises the answer, and the
/// `try_` functions return it. So it names everything that a caller can get wrong.
#pragma once

#include <concepts>
#include <optional>

#include "cafeq/core/error.hpp"
#include "cafeq/core/numeric.hpp"

namespace cafeq {

/// What is wrong with something that no matrix makes right or wrong; nothing where it has no
/// fault().
template <class S>
std::optional<Error> fault_of(const S& spec) {
  if constexpr (requires {
                  { spec.fault() } -> std::same_as<std::optional<Error>>;
                })
    return spec.fault();
  else return std::nullopt;
}

/// What is wrong with a spec for a matrix [rows, cols], if anything; nothing where it has no
/// fault().
template <class S>
std::optional<Error> fault_of(const S& spec, Index rows, Index cols) {
  if constexpr (requires {
                  { spec.fault(rows, cols) } -> std::same_as<std::optional<Error>>;
                }) {
    return spec.fault(rows, cols);
  } else if constexpr (requires {
                         { spec.dim() } -> std::convertible_to<Index>;
                       }) {
    if (Index(spec.dim()) == cols) return std::nullopt;
    return Error(ErrorCode::invalid_shape, message("transform: dimension ", Index(spec.dim()),
                                                   " does not fit ", cols, " columns"));
  } else {
    return fault_of(spec);
  }
}

/// Raises a fault, if there is one: check(layout.fault()).
inline void check(const std::optional<Error>& fault) {
  if (fault) raise(*fault);
}

/// Raises what fault_of() finds.
template <class S>
void check(const S& spec, Index rows, Index cols) {
  check(fault_of(spec, rows, cols));
}

}  // namespace cafeq
