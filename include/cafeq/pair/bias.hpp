/// Biases of the matrices of a pair: vectors that may be absent. Internal.
///
/// A bias that is added to a factor's output is one more column of the factor.
#pragma once

#include <optional>
#include <string_view>
#include <vector>

#include "cafeq/core/as_view.hpp"
#include "cafeq/core/error.hpp"

namespace cafeq::detail {

/// The element type of a matrix argument, which its biases share.
template <class M>
using ElementOf = typename decltype(as_view(std::declval<M>()))::value_type;

/// What keeps a bias from belonging to a matrix of `rows` rows, if anything. One of no entries is
/// absent, which is no fault.
template <class T>
std::optional<Error> bias_fault(VectorView<T> bias, Index rows, std::string_view name) {
  if (bias.size == 0) return std::nullopt;
  if (bias.data == nullptr)
    return Error(ErrorCode::invalid_stride, message(name, ": no data for ", bias.size, " entries"));
  if (bias.size != rows)
    return Error(ErrorCode::invalid_shape,
                 message(name, ": ", bias.size, " entries, but the matrix has ", rows, " rows"));
  return std::nullopt;
}

/// A vector as a matrix of one column.
template <class T>
View<T> as_column(VectorView<T> bias) noexcept {
  return {bias.data, bias.size, 1, bias.stride, 1};
}

/// The entries, none where the bias is absent.
inline std::vector<float> copy_bias(VectorView<const float> bias) {
  std::vector<float> result;
  for (Index i = 0; i < bias.size; ++i) result.push_back(bias[i]);
  return result;
}

/// The other way round: absent where there are no entries.
inline VectorView<float> bias_view(std::vector<float>& bias) noexcept {
  return {bias.empty() ? nullptr : bias.data(), Index(bias.size()), 1};
}

}  // namespace cafeq::detail
