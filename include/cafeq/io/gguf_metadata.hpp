/// The keys and values at the head of a GGUF file.
///
/// A value keeps the bytes that it has in a file, so that whatever is carried from one file to
/// another stays as it is, and is decoded where it is asked for.
#pragma once

#include <array>
#include <bit>
#include <concepts>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "cafeq/io/byte_cursor.hpp"
#include "cafeq/io/named_list.hpp"

namespace cafeq {

/// The type of a value, by the number that stands for it in a file.
enum class GgufValueType : std::uint32_t {
  u8,
  i8,
  u16,
  i16,
  u32,
  i32,
  f32,
  boolean,
  string,
  array,
  u64,
  i64,
  f64
};

namespace detail {

/// Whether a value of this C++ type is written as an array.
template <class T>
inline constexpr bool is_array_like = false;
template <class T>
inline constexpr bool is_array_like<std::vector<T>> = true;
template <class T, std::size_t n>
inline constexpr bool is_array_like<std::span<T, n>> = true;

/// What stands for T in a file.
template <class T>
constexpr GgufValueType gguf_value_type_of() {
  if constexpr (is_array_like<T>) return GgufValueType::array;
  else if constexpr (std::convertible_to<const T&, std::string_view>) return GgufValueType::string;
  else if constexpr (std::is_same_v<T, bool>) return GgufValueType::boolean;
  else if constexpr (std::is_floating_point_v<T>)
    return sizeof(T) == 8 ? GgufValueType::f64 : GgufValueType::f32;
  else {
    static_assert(std::is_integral_v<T> && sizeof(T) <= 8, "cafeq: no value of GGUF metadata");
    constexpr std::array types{GgufValueType::u8, GgufValueType::u16, GgufValueType::u32,
                               GgufValueType::u64};
    return GgufValueType(std::uint32_t(types[std::size_t(std::bit_width(sizeof(T)) - 1)]) +
                         std::uint32_t(std::is_signed_v<T>));
  }
}

}  // namespace detail

/// One value: a number, a flag, a string, or an array of values of one type, which may be arrays
/// again.
class GgufValue {
 public:
  /// A value of the type that T has: an unsigned 32-bit number for std::uint32_t, a string for what
  /// converts to std::string_view, an array for a std::vector or std::span.
  template <class T>
    requires(!std::is_same_v<T, GgufValue>)
  explicit GgufValue(const T& value) : type_(detail::gguf_value_type_of<T>()) {
    append(value);
  }
  /// Reads a value of `type` and leaves the cursor behind it.
  static GgufValue read(detail::ByteCursor& cursor, GgufValueType type);

  GgufValueType type() const noexcept { return type_; }
  /// As in a file, without the type.
  std::string_view encoded() const& noexcept { return encoded_; }

  /// The value where T can hold it, or nothing. T is Index for integers of any type, double for
  /// numbers of any type, bool, std::string_view (into this value), or a std::vector of these or of
  /// vectors.
  template <class T>
  std::optional<T> to() const& {
    detail::ByteCursor cursor("", std::as_bytes(std::span(encoded_)));
    return decode<T>(cursor, type_);
  }
  template <class T>
  std::optional<T> to() && = delete;  // a string would outlive its characters

  bool operator==(const GgufValue&) const = default;

 private:
  GgufValue(GgufValueType type, std::string_view encoded) : type_(type), encoded_(encoded) {}

  template <class T>
  void append(const T& value);
  template <class T>
  static std::optional<T> decode(detail::ByteCursor& cursor, GgufValueType type);

  GgufValueType type_;
  std::string encoded_;
};

/// A key and its value.
struct GgufField {
  std::string name;
  GgufValue value;

  bool operator==(const GgufField&) const = default;
};

/// The fields at the head of a file.
class GgufMetadata {
 public:
  /// In the file's order.
  std::span<const GgufField> fields() const noexcept { return fields_.items(); }
  /// The value of that name, or null where there is none.
  const GgufValue* find(std::string_view name) const noexcept {
    const GgufField* field = fields_.find(name);
    return field == nullptr ? nullptr : &field->value;
  }
  /// The value of that name where there is one and T can hold it.
  template <class T>
  std::optional<T> get(std::string_view name) const {
    const GgufValue* value = find(name);
    return value == nullptr ? std::nullopt : value->to<T>();
  }

  /// False, and nothing is added, where the name is taken.
  bool add(std::string name, GgufValue value) {
    return fields_.add({std::move(name), std::move(value)});
  }
  /// Replaces the value of that name in its place, or adds it at the end.
  void set(std::string name, GgufValue value) {
    if (GgufField* field = fields_.find(name)) field->value = std::move(value);
    else add(std::move(name), std::move(value));
  }

 private:
  detail::NamedList<GgufField> fields_;
};

namespace detail {

/// Reads the number of a type. Raises corrupt where it stands for none.
inline GgufValueType read_gguf_value_type(ByteCursor& cursor) {
  const auto number = cursor.number<std::uint32_t>("a value type");
  if (number > std::uint32_t(GgufValueType::f64))
    cursor.fail(message("value type ", number, " at byte ", cursor.position() - 4, " is unknown"));
  return GgufValueType(number);
}

/// The bytes of one value of a type in a file; 0 where they vary.
constexpr std::size_t bytes_of(GgufValueType type) noexcept {
  constexpr std::array<std::size_t, 13> sizes{1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
  return sizes[std::size_t(type)];
}

/// Steps over a value, every part of which it checks.
inline void skip_gguf_value(ByteCursor& cursor, GgufValueType type, int depth = 0) {
  constexpr int depth_limit = 8;
  const auto skip_numbers = [&](GgufValueType element, std::uint64_t count) {
    if (count > cursor.remaining() / bytes_of(element))
      cursor.fail(message(count, " values at byte ", cursor.position(), " reach beyond the end"));
    const auto values = cursor.take(count * bytes_of(element), "a value");
    if (element != GgufValueType::boolean) return;
    for (const std::byte flag : values)
      if (std::uint8_t(flag) > 1)
        cursor.fail(message("a flag before byte ", cursor.position(), " is neither 0 nor 1"));
  };
  if (type == GgufValueType::string) {
    cursor.text("a string");
  } else if (type != GgufValueType::array) {
    skip_numbers(type, 1);
  } else {
    if (depth == depth_limit)
      cursor.fail(message("arrays are nested more than ", depth_limit, " deep"));
    const GgufValueType element = read_gguf_value_type(cursor);
    const auto count = cursor.number<std::uint64_t>("the length of an array");
    if (bytes_of(element) > 0) return skip_numbers(element, count);
    for (std::uint64_t i = 0; i < count; ++i) skip_gguf_value(cursor, element, depth + 1);
  }
}

/// Calls f with the number that is next.
template <class F>
auto with_gguf_number(ByteCursor& cursor, GgufValueType type, F&& f) {
  constexpr std::string_view what = "a number";
  switch (type) {
    case GgufValueType::u8: return f(cursor.number<std::uint8_t>(what));
    case GgufValueType::i8: return f(cursor.number<std::int8_t>(what));
    case GgufValueType::u16: return f(cursor.number<std::uint16_t>(what));
    case GgufValueType::i16: return f(cursor.number<std::int16_t>(what));
    case GgufValueType::u32: return f(cursor.number<std::uint32_t>(what));
    case GgufValueType::i32: return f(cursor.number<std::int32_t>(what));
    case GgufValueType::f32: return f(cursor.number<float>(what));
    case GgufValueType::u64: return f(cursor.number<std::uint64_t>(what));
    case GgufValueType::i64: return f(cursor.number<std::int64_t>(what));
    case GgufValueType::f64: return f(cursor.number<double>(what));
    default: return decltype(f(0)){};
  }
}

}  // namespace detail

inline GgufValue GgufValue::read(detail::ByteCursor& cursor, GgufValueType type) {
  detail::ByteCursor start = cursor;
  detail::skip_gguf_value(cursor, type);
  return {type, detail::as_text(start.take(cursor.position() - start.position(), "a value"))};
}

template <class T>
void GgufValue::append(const T& value) {
  if constexpr (detail::is_array_like<T>) {
    using Element = std::remove_cv_t<typename T::value_type>;
    detail::append_number(encoded_, detail::gguf_value_type_of<Element>());
    detail::append_number(encoded_, std::uint64_t(value.size()));
    for (const Element& element : value) append(element);
  } else if constexpr (std::convertible_to<const T&, std::string_view>) {
    detail::append_text(encoded_, value);
  } else {
    detail::append_number(encoded_, value);
  }
}

template <class T>
std::optional<T> GgufValue::decode(detail::ByteCursor& cursor, GgufValueType type) {
  if constexpr (detail::is_array_like<T>) {
    if (type != GgufValueType::array) return std::nullopt;
    const GgufValueType element = detail::read_gguf_value_type(cursor);
    const auto count = cursor.number<std::uint64_t>("the length of an array");
    T values;
    for (std::uint64_t i = 0; i < count; ++i) {
      const auto value = decode<typename T::value_type>(cursor, element);
      if (!value) return std::nullopt;
      values.push_back(*value);
    }
    return values;
  } else if constexpr (std::is_same_v<T, std::string_view>) {
    if (type != GgufValueType::string) return std::nullopt;
    return cursor.text("a string");
  } else if constexpr (std::is_same_v<T, bool>) {
    if (type != GgufValueType::boolean) return std::nullopt;
    return cursor.number<std::uint8_t>("a flag") != 0;
  } else {
    static_assert(std::is_same_v<T, Index> || std::is_same_v<T, double>,
                  "cafeq: ask for Index, double, bool, std::string_view or vectors");
    return detail::with_gguf_number(cursor, type, [](auto number) -> std::optional<T> {
      if constexpr (std::is_same_v<T, double>) return double(number);
      else if constexpr (!std::is_integral_v<decltype(number)>) return std::nullopt;
      else return std::in_range<T>(number) ? std::optional<T>(T(number)) : std::nullopt;
    });
  }
}

}  // namespace cafeq
