/// Codes<Q>: the codes of a matrix as they are stored, with the scales that belong to them. What a
/// result holds, a file keeps and a product reads, whatever the quantizer.
///
/// One concept, two forms: a scalar quantizer leaves packed codes and the parameters of groups
/// (here), a joint one chunks and the scales of lines (quant/joint_codes.hpp).
#pragma once

#include <concepts>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "cafeq/core/packed.hpp"
#include "cafeq/quant/rows.hpp"

namespace cafeq {

/// Codes of a matrix X̂ [rows, cols].
///   rows(), cols()           its shape
///   storage_bits()           what is stored of it, everything counted
///   decode_rows(begin, out)  rows [begin, begin + out.rows) of X̂, into a view of any strides
///   quantizer()              how they were made
template <class C>
concept StoredCodes = std::copyable<C> && requires(const C& codes, Index begin, View<float> out) {
  { codes.rows() } -> std::convertible_to<Index>;
  { codes.cols() } -> std::convertible_to<Index>;
  { codes.storage_bits() } -> std::convertible_to<std::int64_t>;
  codes.decode_rows(begin, out);
  codes.quantizer();
};

template <class Q>
class Codes;

/// Of a scalar quantizer: packed codes, and the parameters of every group.
template <ScalarQuantizer Q>
class Codes<Q> {
 public:
  using Params = typename Q::Params;

  /// Raises corrupt where the parts contradict each other.
  Codes(Q quantizer, Index cols, PackedCodes packed, std::vector<Params> params)
      : quantizer_(std::move(quantizer)),
        grouping_{packed.rows(), cols, quantizer_.group},
        packed_(std::move(packed)),
        params_(std::move(params)) {
    if (packed_.cols() != cols || packed_.bits() != quantizer_.bits)
      raise(ErrorCode::corrupt, message("codes: ", packed_.cols(), " columns and ", packed_.bits(),
                                        " bits, expected ", cols, " and ", int(quantizer_.bits)));
    if (Index(params_.size()) != grouping_.count())
      raise(ErrorCode::corrupt, message("codes: ", params_.size(),
                                        " groups of parameters, expected ", grouping_.count()));
  }

  /// What quantize() will store for a matrix of that shape.
  static std::int64_t storage_bits(const Q& quantizer, Index rows, Index cols) {
    const Grouping grouping{rows, cols, quantizer.group};
    const Index row_bytes = ceil_div(cols * Index(quantizer.bits), Index(8));
    return 8 * std::int64_t(rows) * row_bytes +
           std::int64_t(grouping.count()) * param_bits(quantizer) + tensor_bits(quantizer);
  }

  Index rows() const noexcept { return grouping_.rows; }
  Index cols() const noexcept { return grouping_.cols; }
  const Q& quantizer() const noexcept { return quantizer_; }
  const Grouping& grouping() const noexcept { return grouping_; }
  const PackedCodes& packed() const noexcept { return packed_; }
  std::span<const Params> params() const noexcept { return params_; }

  /// Codes (rows start at a byte), parameters, and what the quantizer keeps for the whole matrix.
  std::int64_t storage_bits() const { return storage_bits(quantizer_, rows(), cols()); }

  void decode_rows(Index begin, View<float> out) const {
    Buffer<float> dense(std::size_t(out.rows_contiguous() ? 0 : cols()));

    for (Index i = 0; i < out.rows; ++i) {
      const std::span<float> row = dense.empty() ? out.row(i) : std::span<float>(dense);
      unpack_row(quantizer_, packed_.row(begin + i), grouping_.width(), params_of(begin + i), row);
      for (std::size_t j = 0; j < dense.size(); ++j) out(i, Index(j)) = dense[j];
    }
  }

 private:
  std::span<const Params> params_of(Index row) const noexcept {
    const Index count = grouping_.group == per_tensor ? 1 : grouping_.per_row_count();
    return params().subspan(std::size_t(grouping_.index(row, 0)), std::size_t(count));
  }

  Q quantizer_;
  Grouping grouping_;
  PackedCodes packed_;
  std::vector<Params> params_;
};

template <ScalarQuantizer Q>
Codes(Q, Index, PackedCodes, std::vector<typename Q::Params>) -> Codes<Q>;

}  // namespace cafeq
