/// as_view(), which makes a View of whatever holds a matrix, and as_vector() for vectors.
///
/// Accepted: View; Eigen's Matrix, Map, Ref, Block and their transposes (recognised by data(),
/// rowStride() and colStride(), Eigen itself is not included); mdspan of rank 2; a pointer with
/// strides; a span with a row length; cafeq::Matrix and any other class with a member view().
/// Expression templates have no storage and owning temporaries lose theirs: both are rejected at
/// compile time.
#pragma once

#include <concepts>
#include <span>
#include <type_traits>
#include <utility>

#include "cafeq/core/error.hpp"
#include "cafeq/core/view.hpp"

namespace Eigen {
template <typename, int, typename>
class Ref;
}

namespace cafeq {

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

}  // namespace cafeq
