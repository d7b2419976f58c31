/// View<T>: a matrix that somebody else owns, and as_view(), which makes one of whatever holds a
/// matrix.
///
/// Accepted: View; Eigen's Matrix, Map, Ref, Block and their transposes (recognised by data(),
/// rowStride() and colStride(), Eigen itself is not included); mdspan of rank 2; a pointer with
/// strides; a span with a row length; cafeq::Matrix. Expression templates have no storage and
/// owning temporaries lose theirs: both are rejected at compile time.
/// Longer than most headers: the checks and scans of a view are what every caller of one needs with
/// it.
#pragma once

#include <algorithm>
#include <cmath>
#include <concepts>
#include <cstdlib>
#include <optional>
#include <span>
#include <type_traits>
#include <utility>

#include "cafeq/core/bits.hpp"
#include "cafeq/core/error.hpp"
#include "cafeq/core/numeric.hpp"

namespace Eigen {
template <typename, int, typename>
class Ref;
}

namespace cafeq {

/// rows × cols elements at data[i * row_stride + j * col_stride]; strides count elements and may be
/// negative. Non-owning, cheap to copy.
template <class T>
struct View {
  using value_type = std::remove_const_t<T>;

  T* data = nullptr;
  Index rows = 0;
  Index cols = 0;
  Index row_stride = 0;
  Index col_stride = 1;

  T& operator()(Index i, Index j) const noexcept {
    CAFEQ_ASSERT(i >= 0 && i < rows && j >= 0 && j < cols);
    return data[i * row_stride + j * col_stride];
  }
  Index size() const noexcept { return rows * cols; }
  bool empty() const noexcept { return rows == 0 || cols == 0; }
  bool rows_contiguous() const noexcept { return col_stride == 1 || cols <= 1; }
  bool contiguous() const noexcept {
    return rows_contiguous() && (row_stride == cols || rows <= 1);
  }

  View transposed() const noexcept { return {data, cols, rows, col_stride, row_stride}; }
  View block(Index i, Index j, Index block_rows, Index block_cols) const noexcept {
    CAFEQ_ASSERT(i >= 0 && j >= 0 && i + block_rows <= rows && j + block_cols <= cols);
    return {data == nullptr ? nullptr : data + i * row_stride + j * col_stride, block_rows,
            block_cols, row_stride, col_stride};
  }
  View row_block(Index i, Index count) const noexcept { return block(i, 0, count, cols); }
  View col_block(Index j, Index count) const noexcept { return block(0, j, rows, count); }
  /// Row i as a span; only where rows are contiguous.
  std::span<T> row(Index i) const noexcept {
    CAFEQ_ASSERT(rows_contiguous());
    return {data + i * row_stride, std::size_t(cols)};
  }

  operator View<const T>() const noexcept  // NOLINT(google-explicit-constructor)
    requires(!std::is_const_v<T>)
  {
    return {data, rows, cols, row_stride, col_stride};
  }
};

/// size elements at data[i * stride]: an activation, a bias.
template <class T>
struct VectorView {
  using value_type = std::remove_const_t<T>;

  T* data = nullptr;
  Index size = 0;
  Index stride = 1;

  T& operator[](Index i) const noexcept {
    CAFEQ_ASSERT(i >= 0 && i < size);
    return data[i * stride];
  }
  operator VectorView<const T>() const noexcept  // NOLINT(google-explicit-constructor)
    requires(!std::is_const_v<T>)
  {
    return {data, size, stride};
  }
};

namespace detail {

template <class T>
inline constexpr bool is_view = false;
template <class T>
inline constexpr bool is_view<View<T>> = true;

template <class M>
concept HasViewMember = requires(M& m) {
  m.view();
  requires is_view<std::remove_cvref_t<decltype(m.view())>>;
};

/// Eigen's dense objects with direct access.
template <class M>
concept EigenLike = requires(M& m) {
  typename std::remove_cvref_t<M>::PlainObject;
  { m.data() };
  requires std::is_pointer_v<decltype(m.data())>;
  { m.rows() } -> std::convertible_to<Index>;
  { m.cols() } -> std::convertible_to<Index>;
  { m.rowStride() } -> std::convertible_to<Index>;
  { m.colStride() } -> std::convertible_to<Index>;
};

/// std::mdspan and Kokkos::mdspan of rank 2.
template <class M>
concept MdspanLike = requires(M& m) {
  { m.data_handle() };
  requires std::is_pointer_v<std::remove_cvref_t<decltype(m.data_handle())>>;
  requires std::remove_cvref_t<M>::rank() == 2;
  { m.extent(0) } -> std::convertible_to<Index>;
  { m.stride(0) } -> std::convertible_to<Index>;
};

template <class M>
inline constexpr bool is_eigen_ref = false;
template <class P, int O, class S>
inline constexpr bool is_eigen_ref<Eigen::Ref<P, O, S>> = true;

/// Whether a temporary of this type owns the elements that it shows, so that a view of it would
/// dangle.
template <class M>
consteval bool owns_elements() {
  using Plain = std::remove_cvref_t<M>;
  if constexpr (is_view<Plain> || MdspanLike<M>) {
    return false;
  } else if constexpr (EigenLike<M>) {
    return std::is_same_v<typename Plain::PlainObject, Plain> || is_eigen_ref<Plain>;
  } else {
    return true;
  }
}

template <class M>
concept HasStorage =
    is_view<std::remove_cvref_t<M>> || HasViewMember<std::remove_reference_t<M>> ||
    EigenLike<std::remove_reference_t<M>> || MdspanLike<std::remove_reference_t<M>>;

}  // namespace detail

/// What as_view() takes: something with its own storage, by lvalue, or by value where it owns
/// nothing.
template <class M>
concept MatrixView =
    detail::HasStorage<M> && (std::is_lvalue_reference_v<M> || !detail::owns_elements<M>());

/// A view of a matrix; see the top of this file for what is accepted. Never copies, never
/// allocates.
template <MatrixView M>
auto as_view(M&& m) noexcept {
  using Plain = std::remove_reference_t<M>;
  if constexpr (detail::is_view<std::remove_cvref_t<M>>) {
    return std::remove_cvref_t<M>(m);
  } else if constexpr (detail::HasViewMember<Plain>) {
    return m.view();
  } else if constexpr (detail::MdspanLike<Plain>) {
    using T = std::remove_pointer_t<std::remove_cvref_t<decltype(m.data_handle())>>;
    static_assert(Element<T>, "cafeq: elements must be float, double, bf16 or fp16");
    return View<T>{m.data_handle(), Index(m.extent(0)), Index(m.extent(1)), Index(m.stride(0)),
                   Index(m.stride(1))};
  } else {
    using T = std::remove_pointer_t<decltype(m.data())>;
    static_assert(Element<T>, "cafeq: elements must be float, double, bf16 or fp16");
    return View<T>{m.data(), Index(m.rows()), Index(m.cols()), Index(m.rowStride()),
                   Index(m.colStride())};
  }
}

/// rows × cols at a pointer; strides in elements.
template <Element T>
View<T> as_view(T* data, Index rows, Index cols, Index row_stride, Index col_stride = 1) noexcept {
  return {data, rows, cols, row_stride, col_stride};
}

/// rows × cols at a pointer, row-major and dense.
template <Element T>
View<T> as_view(T* data, Index rows, Index cols) noexcept {
  return {data, rows, cols, cols, 1};
}

/// A span as rows of `cols` elements; its size must be a multiple of that.
template <Element T, std::size_t N>
View<T> as_view(std::span<T, N> elements, Index cols) {
  if (cols <= 0 || Index(elements.size()) % cols != 0)
    raise(ErrorCode::invalid_shape,
          message("as_view: a span of ", elements.size(), " elements is not rows of ", cols));
  return {elements.data(), Index(elements.size()) / cols, cols, cols, 1};
}

/// A vector: a contiguous container or span by lvalue, or a matrix that has one row or one column.
template <class V>
auto as_vector(V&& v) {
  if constexpr (requires {
                  typename std::remove_cvref_t<V>::value_type;
                  v.data[0];
                  v.size;
                  v.stride;
                }) {
    return std::remove_cvref_t<V>(v);
  } else if constexpr (MatrixView<V>) {
    auto m = as_view(std::forward<V>(v));
    using T = std::remove_pointer_t<decltype(m.data)>;
    if (m.rows != 1 && m.cols != 1)
      raise(ErrorCode::invalid_shape,
            message("as_vector: a matrix of ", m.rows, " x ", m.cols, " is not a vector"));
    return m.cols == 1 ? VectorView<T>{m.data, m.rows, m.row_stride}
                       : VectorView<T>{m.data, m.cols, m.col_stride};
  } else {
    auto s = std::span(v);
    using T = typename decltype(s)::element_type;
    static_assert(Element<T>, "cafeq: elements must be float, double, bf16 or fp16");
    static_assert(
        std::is_lvalue_reference_v<V> || std::is_same_v<std::remove_cvref_t<V>, decltype(s)>,
        "cafeq: a view of an owning temporary would dangle");
    return VectorView<T>{s.data(), Index(s.size()), 1};
  }
}

/// What is wrong with a view, if anything: a negative size, no data, elements that overlap.
template <class T>
std::optional<Error> view_fault(View<T> view, std::string_view name) {
  if (view.rows < 0 || view.cols < 0)
    return Error(ErrorCode::invalid_shape,
                 message(name, ": negative size ", view.rows, " x ", view.cols));
  if (view.empty()) return std::nullopt;
  if (view.data == nullptr)
    return Error(ErrorCode::invalid_stride,
                 message(name, ": no data for ", view.rows, " x ", view.cols));
  const Index r = view.row_stride < 0 ? -view.row_stride : view.row_stride;
  const Index c = view.col_stride < 0 ? -view.col_stride : view.col_stride;
  // One of the strides must step over everything that the other one walks through.
  const bool by_rows = (view.cols == 1 || c >= 1) && (view.rows == 1 || r > (view.cols - 1) * c);
  const bool by_cols = (view.rows == 1 || r >= 1) && (view.cols == 1 || c > (view.rows - 1) * r);
  if (by_rows || by_cols) return std::nullopt;
  return Error(ErrorCode::invalid_stride,
               message(name, ": elements overlap: ", view.rows, " x ", view.cols, " with strides ",
                       view.row_stride, " and ", view.col_stride));
}

namespace detail {

/// Scans the elements of a view that is not empty, along memory.
template <class T>
BitScan<std::remove_const_t<T>> scan_bits(View<T> view) noexcept {
  BitScan<std::remove_const_t<T>> scan(view(0, 0));
  if (view.contiguous()) {
    scan.line(view.data, view.size(), 1);
    return scan;
  }
  if (std::abs(view.col_stride) > std::abs(view.row_stride)) view = view.transposed();
  for (Index i = 0; i < view.rows; ++i)
    scan.line(view.data + i * view.row_stride, view.cols, view.col_stride);
  return scan;
}

}  // namespace detail

/// The first NaN or infinity, named by row and column.
template <class T>
std::optional<Error> finite_fault(View<T> view, std::string_view name) {
  if (view.empty() || detail::scan_bits(view).finite()) return std::nullopt;
  for (Index i = 0; i < view.rows; ++i)
    for (Index j = 0; j < view.cols; ++j)
      if (!std::isfinite(double(view(i, j))))
        return Error(ErrorCode::non_finite,
                     message(name, ": row ", i, ", column ", j, " is ", double(view(i, j))));
  return std::nullopt;
}

template <class T>
void check_view(View<T> view, std::string_view name) {
  if (auto fault = view_fault(view, name)) raise(*fault);
}

template <class T>
void check_finite(View<T> view, std::string_view name) {
  if (auto fault = finite_fault(view, name)) raise(*fault);
}

template <class T, class U>
void check_same_shape(View<T> a, std::string_view a_name, View<U> b, std::string_view b_name) {
  if (a.rows != b.rows || a.cols != b.cols)
    raise(ErrorCode::invalid_shape, message(a_name, " is ", a.rows, " x ", a.cols, " but ", b_name,
                                            " is ", b.rows, " x ", b.cols));
}

/// The largest magnitude, in double; 0 for an empty view, NaN passed over.
template <class T>
double largest_magnitude(View<T> view) noexcept {
  if (view.empty()) return 0;
  const auto scan = detail::scan_bits(view);
  if (!scan.has_nan()) return scan.largest_value();
  double largest = 0;
  for (Index i = 0; i < view.rows; ++i)
    for (Index j = 0; j < view.cols; ++j) largest = std::max(largest, std::abs(double(view(i, j))));
  return largest;
}

/// Whether all of several elements are equal and not zero: one level holds them all as they are,
/// where a rotation would spread them.
template <class T>
bool is_constant(View<T> view) noexcept {
  if (view.empty() || view.size() == 1) return false;
  if (double(view(0, 0)) != double(view(view.rows - 1, view.cols - 1)) ||
      double(view(0, 0)) != double(view(view.rows / 2, view.cols / 2)))
    return false;  // nearly every matrix is seen through by this
  return detail::scan_bits(view).constant();
}

namespace detail {

/// n elements, converted through Wide. Steps of 1 that the compiler sees become vectors.
template <class Wide, class T, class U, class FromStep, class ToStep>
void copy_line(const T* from, FromStep from_step, U* to, ToStep to_step, Index n) noexcept {
  for (Index j = 0; j < n; ++j)
    to[j * to_step] = static_cast<U>(static_cast<Wide>(from[j * from_step]));
}

}  // namespace detail

/// Copies element by element, converting through float (or double where both ends hold it); shapes
/// must agree. Where the two memory orders differ the copy walks in tiles, so that neither side is
/// read a cache line an element.
template <class T, class U>
void copy(View<T> from, View<U> to) {
  check_same_shape(from, "from", to, "to");
  using Wide = std::conditional_t<
      std::is_same_v<std::remove_const_t<T>, double> && std::is_same_v<U, double>, double, float>;
  using Dense = std::integral_constant<Index, 1>;
  if (from.empty()) return;
  if (std::abs(to.col_stride) >
      std::abs(to.row_stride)) {  // lines run along the memory that is written
    from = from.transposed();
    to = to.transposed();
  }
  if (from.col_stride == 1 && to.col_stride == 1) {
    for (Index i = 0; i < from.rows; ++i)
      detail::copy_line<Wide>(from.data + i * from.row_stride, Dense{}, to.data + i * to.row_stride,
                              Dense{}, from.cols);
    return;
  }
  constexpr Index tile = 16;
  for (Index i = 0; i < from.rows; i += tile)
    for (Index j = 0; j < from.cols; j += tile) {
      const Index n = std::min(tile, from.cols - j);
      for (Index l = i; l < std::min(i + tile, from.rows); ++l)
        detail::copy_line<Wide>(from.data + l * from.row_stride + j * from.col_stride,
                                from.col_stride, to.data + l * to.row_stride + j * to.col_stride,
                                to.col_stride, n);
    }
}

}  // namespace cafeq
