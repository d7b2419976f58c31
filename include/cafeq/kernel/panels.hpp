/// Panels: a matrix packed for products, so that a tile reads one cache line after another.
#pragma once

#include <algorithm>
#include <type_traits>

#include "cafeq/core/matrix.hpp"
#include "cafeq/simd/batch.hpp"

namespace cafeq::kernel {

/// Columns of a panel: one cache line, whatever the width of a vector.
template <class T>
inline constexpr Index panel_width = 64 / Index(sizeof(T));

/// A matrix in panels of panel_width<T> columns, one after another; each is a dense [rows,
/// panel_width] array, the last filled up with zeros.
template <class T>
struct Panels {
  const T* data = nullptr;
  Index rows = 0;
  Index cols = 0;

  /// Where element (row, column) lies.
  const T* at(Index row, Index col) const noexcept {
    return data + (col / panel_width<T> * rows + row) * panel_width<T> + col % panel_width<T>;
  }
};

/// Elements that the panels of a [rows, cols] matrix take.
template <class T>
constexpr Index panels_size(Index rows, Index cols) noexcept {
  return rows * ceil_div(cols, panel_width<T>) * panel_width<T>;
}

namespace detail {

/// Panel rows from a matrix with columns as contiguous arrays.
template <class T, class Arch, class U>
inline void pack_columns(View<const U> B, T* to) noexcept {
  constexpr Index width = panel_width<T>;
  Index p = 0;
  if constexpr (std::is_same_v<T, float> && std::is_same_v<U, float>) {
    constexpr Index w = Index(Batch<float, Arch>::size);
    if constexpr (w <= width) {
      for (; p + w <= B.rows; p += w)
        for (Index j = 0; j + w <= B.cols; j += w) {
          Batch<float, Arch> row[std::size_t(w)];
          CAFEQ_UNROLL
          for (Index l = 0; l < w; ++l)
            row[l] = Batch<float, Arch>::load_unaligned(B.data + p + (j + l) * B.col_stride);
          simd::transpose<Arch>(row);
          CAFEQ_UNROLL
          for (Index l = 0; l < w; ++l) row[l].store_unaligned(to + (p + l) * width + j);
        }
      for (Index j = B.cols / w * w; j < B.cols; ++j)
        for (Index q = 0; q < p; ++q) to[q * width + j] = B.data[q + j * B.col_stride];
    }
  }
  for (; p < B.rows; ++p)
    for (Index j = 0; j < B.cols; ++j) to[p * width + j] = T(B.data[p + j * B.col_stride]);
}

/// One panel: B [rows, at most panel_width].
template <class T, class Arch, class U>
inline void pack_panel(View<const U> B, T* to) noexcept {
  constexpr Index width = panel_width<T>;
  if (B.cols < width) std::fill_n(to, B.rows * width, T(0));
  if (B.row_stride == 1 && B.col_stride != 1) return pack_columns<T, Arch>(B, to);
  for (Index p = 0; p < B.rows; ++p, to += width) {
    const U* from = B.data + p * B.row_stride;
    if (B.col_stride == 1 && B.cols == width) {
      for (Index j = 0; j < width; ++j) to[j] = T(from[j]);
    } else {
      for (Index j = 0; j < B.cols; ++j) to[j] = T(from[j * B.col_stride]);
    }
  }
}

}  // namespace detail

/// Writes the panels of B, of any strides, to `to` [panels_size<T>(rows, cols)]; elements are
/// converted to T. Tiles read it fastest where it starts at a cache line.
template <class T, class Arch = DefaultArch, class U>
Panels<T> pack_panels(View<const U> B, T* to) noexcept {
  constexpr Index width = panel_width<T>;
  for (Index j = 0; j < B.cols; j += width)
    detail::pack_panel<T, Arch>(B.col_block(j, std::min(width, B.cols - j)), to + j * B.rows);
  return {to, B.rows, B.cols};
}

/// Panels with storage of their own.
template <class T>
class PackedMatrix {
 public:
  PackedMatrix() = default;
  template <class U>
  explicit PackedMatrix(View<U> B) {
    assign(B);
  }
  /// Allocates only where B is larger than all before it.
  template <class U>
  void assign(View<U> B) {
    data_.resize(std::size_t(panels_size<T>(B.rows, B.cols)));
    panels_ = pack_panels<T>(B.as_const(), data_.data());
  }
  Index rows() const noexcept { return panels_.rows; }
  Index cols() const noexcept { return panels_.cols; }
  Panels<T> panels() const noexcept { return {data_.data(), panels_.rows, panels_.cols}; }

 private:
  Buffer<T> data_;
  Panels<T> panels_;
};

}  // namespace cafeq::kernel
