// Each kind of declaration that the list knows, and some that it must not.
#pragma once

namespace cafeq {

namespace detail {
struct Hidden {};
}  // namespace detail

template <class T>
concept Shape = requires(T t) { t.area(); };

enum class Color { red, green };

struct Square {
  int area() const { return side * side; }
  int side = 1'000;
};

template <class T>
  requires(Shape<T>)
int area_of(const T& t);

template <class T>
  requires(Shape<T>)
int area_of(const T& t) {
  return t.area();
}

using Box = Square;
inline constexpr int sides = 4;

}  // namespace cafeq
