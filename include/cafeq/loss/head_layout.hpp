/// HeadLayout: how the dimension at which two matrices of an attention layer meet divides into
/// heads.
#pragma once

#include <optional>
#include <string_view>

#include "cafeq/core/error.hpp"
#include "cafeq/core/numeric.hpp"

namespace cafeq {

/// The first matrix (queries, the output projection) has heads · head_dim rows or columns there,
/// the second one (keys, values) kv_heads · head_dim. kv_heads = heads is multi-head attention (the
/// default), 1 multi-query, between them grouped.
struct HeadLayout {
  Index head_dim = 0;
  Index heads = 1;
  Index kv_heads = heads;

  /// Heads of the first matrix that share one of the second.
  Index group() const noexcept { return heads / kv_heads; }
  Index kv_head(Index head) const noexcept { return head / group(); }

  /// What is wrong with the numbers themselves, if anything.
  std::optional<Error> fault() const;
  /// What is wrong with a first matrix, called `name`, that has `size` rows or columns (`unit`)
  /// where it should have heads · head_dim.
  std::optional<Error> first_fault(Index size, std::string_view name,
                                   std::string_view unit = "rows") const;
  /// The same for a second matrix, which should have kv_heads · head_dim.
  std::optional<Error> second_fault(Index size, std::string_view name,
                                    std::string_view unit = "rows") const;
};

/// One head of dimension 1 for each of the channels between an up and a down matrix.
inline HeadLayout channel_layout(Index channels) noexcept {
  return {.head_dim = 1, .heads = channels};
}

namespace detail {

inline std::optional<Error> head_rows_fault(Index size, Index heads, Index head_dim,
                                            std::string_view name, std::string_view unit,
                                            std::string_view count) {
  if (size == heads * head_dim) return std::nullopt;
  return Error(ErrorCode::invalid_shape,
               message(name, ": ", size, " ", unit, ", but ", count, " * head_dim is ", heads,
                       " * ", head_dim, " = ", heads * head_dim));
}

}  // namespace detail

inline std::optional<Error> HeadLayout::fault() const {
  const auto below_one = [](std::string_view name, Index value) {
    return Error(ErrorCode::invalid_argument,
                 message("layout: ", name, " is ", value, ", must be at least 1"));
  };
  if (head_dim < 1) return below_one("head_dim", head_dim);
  if (heads < 1) return below_one("heads", heads);
  if (kv_heads < 1) return below_one("kv_heads", kv_heads);
  if (heads % kv_heads != 0)
    return Error(
        ErrorCode::invalid_argument,
        message("layout: heads (", heads, ") is not a multiple of kv_heads (", kv_heads, ")"));
  return std::nullopt;
}

inline std::optional<Error> HeadLayout::first_fault(Index size, std::string_view name,
                                                    std::string_view unit) const {
  return detail::head_rows_fault(size, heads, head_dim, name, unit, "heads");
}

inline std::optional<Error> HeadLayout::second_fault(Index size, std::string_view name,
                                                     std::string_view unit) const {
  return detail::head_rows_fault(size, kv_heads, head_dim, name, unit, "kv_heads");
}

}  // namespace cafeq
