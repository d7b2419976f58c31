/// Storage that results own: 64-byte-aligned buffers and a row-major matrix on one.
#pragma once

#include <algorithm>
#include <cstdlib>
#include <initializer_list>
#include <memory>
#include <new>
#include <span>
#include <vector>

#include "cafeq/core/as_view.hpp"
#include "cafeq/core/copy.hpp"

namespace cafeq {

/// Every buffer that the library owns starts at a multiple of this.
inline constexpr std::size_t alignment = 64;

namespace detail {

/// The allocator of all owned storage: operator new with that alignment.
template <class T>
struct AlignedAllocator {
  using value_type = T;
  AlignedAllocator() = default;
  template <class U>
  AlignedAllocator(const AlignedAllocator<U>&) noexcept {}  // NOLINT(google-explicit-constructor)
  T* allocate(std::size_t n) {
    return static_cast<T*>(::operator new(n * sizeof(T), std::align_val_t(alignment)));
  }
  void deallocate(T* p, std::size_t) noexcept { ::operator delete(p, std::align_val_t(alignment)); }
  template <class U>
  bool operator==(const AlignedAllocator<U>&) const noexcept {
    return true;
  }
};

}  // namespace detail

/// Aligned elements in a row.
template <class T>
using Buffer = std::vector<T, detail::AlignedAllocator<T>>;

/// An owning row-major matrix, rows dense, zero at first. Copies are deep.
template <class T>
class Matrix {
 public:
  Matrix() = default;
  Matrix(Index rows, Index cols) : rows_(rows), cols_(cols), data_(std::size_t(rows * cols)) {}

  Index rows() const noexcept { return rows_; }
  Index cols() const noexcept { return cols_; }
  Index size() const noexcept { return rows_ * cols_; }
  bool empty() const noexcept { return size() == 0; }
  T* data() noexcept { return data_.data(); }
  const T* data() const noexcept { return data_.data(); }

  T& operator()(Index i, Index j) noexcept { return view()(i, j); }
  const T& operator()(Index i, Index j) const noexcept { return view()(i, j); }
  std::span<T> row(Index i) noexcept { return view().row(i); }
  std::span<const T> row(Index i) const noexcept { return view().row(i); }

  View<T> view() & noexcept { return {data_.data(), rows_, cols_, cols_, 1}; }
  View<const T> view() const& noexcept { return {data_.data(), rows_, cols_, cols_, 1}; }
  void view() && = delete;  // the view would outlive its matrix

 private:
  Index rows_ = 0;
  Index cols_ = 0;
  Buffer<T> data_;
};

/// A dense copy of a view, element type converted.
template <class T, class U>
Matrix<T> to_matrix(View<U> from) {
  Matrix<T> result(from.rows, from.cols);
  copy(from, result.view());
  return result;
}

/// The n × n identity.
template <class T>
Matrix<T> identity_matrix(Index n) {
  Matrix<T> result(n, n);
  for (Index i = 0; i < n; ++i) result(i, i) = T(1);
  return result;
}

}  // namespace cafeq
