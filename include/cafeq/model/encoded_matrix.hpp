/// A matrix as a plan's job leaves it, whatever form it has.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <utility>
#include <variant>

#include "cafeq/core/executor.hpp"
#include "cafeq/core/matrix.hpp"
#include "cafeq/pipeline/any_quantized.hpp"

namespace cafeq {

/// Rows of bytes in a format of somebody else's, one after the other, and what decodes one of them.
struct EncodedRows {
  /// The weights of a row whose format has a number of its own.
  using Decode = void (*)(std::uint32_t type, std::span<const std::byte> row,
                          std::span<float> weights);

  std::uint32_t type = 0;
  Index rows = 0;
  Index cols = 0;
  Index row_bytes = 0;
  Decode decode = nullptr;
  Buffer<std::byte> bytes{};

  EncodedRows(std::uint32_t number, Index n, Index width, Index bytes_a_row, Decode decoder)
      : type(number),
        rows(n),
        cols(width),
        row_bytes(bytes_a_row),
        decode(decoder),
        bytes(std::size_t(n * bytes_a_row)) {}

  std::span<std::byte> row(Index i) noexcept {
    return std::span(bytes).subspan(std::size_t(i * row_bytes), std::size_t(row_bytes));
  }
  std::span<const std::byte> row(Index i) const noexcept {
    return std::span(bytes).subspan(std::size_t(i * row_bytes), std::size_t(row_bytes));
  }
};

/// Codes of this library, or rows in another format.
class EncodedMatrix {
 public:
  EncodedMatrix(AnyQuantized quantized)  // NOLINT(google-explicit-constructor)
      : content_(std::move(quantized)) {}
  EncodedMatrix(EncodedRows rows)  // NOLINT(google-explicit-constructor)
      : content_(std::move(rows)) {}

  /// Null where it is the other.
  const AnyQuantized* quantized() const noexcept { return std::get_if<AnyQuantized>(&content_); }
  const EncodedRows* rows() const noexcept { return std::get_if<EncodedRows>(&content_); }

  /// Ŵ, in any elements and strides.
  template <class T>
  void dequantize(View<T> out, ExecutorRef executor = {}) const {
    if (const auto* own = quantized()) return own->dequantize(out, executor);
    const EncodedRows& encoded = *rows();
    executor.parallel_for(encoded.rows, 16, [&](Index begin, Index end, Index) {
      Matrix<float> row(1, encoded.cols);
      for (Index i = begin; i < end; ++i) {
        encoded.decode(encoded.type, encoded.row(i), row.row(0));
        copy(View<const float>(row.view()), out.row_block(i, 1));
      }
    });
  }
  /// Everything counted.
  std::int64_t storage_bits() const {
    if (const auto* own = quantized()) return own->storage_bits();
    return 8 * std::int64_t(rows()->bytes.size());
  }

 private:
  std::variant<AnyQuantized, EncodedRows> content_;
};

/// A matrix that was quantized by itself, and how well.
struct QuantizedMatrix {
  EncodedMatrix matrix;
  double squared_error = 0;  ///< ‖W − Ŵ‖²; both are 0 where two matrices are rounded together
  double squared_norm = 0;   ///< ‖W‖²
};

}  // namespace cafeq
