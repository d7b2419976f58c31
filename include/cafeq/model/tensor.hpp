/// What a model consists of: named arrays of a scalar type and a shape, as views of memory that
/// somebody else owns (TensorView) or with memory of their own (Tensor).
#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "cafeq/core/matrix.hpp"

namespace cafeq {

static_assert(std::endian::native == std::endian::little,
              "cafeq: model files hold little-endian numbers and are read in place");

/// The type of a tensor's elements.
enum class ScalarType : std::uint8_t {
  boolean,
  u8,
  i8,
  f8_e4m3,
  f8_e5m2,
  f8_e8m0,
  u16,
  i16,
  f16,
  bf16,
  u32,
  i32,
  f32,
  u64,
  i64,
  f64
};

namespace detail {

struct ScalarTypeInfo {
  std::string_view name;
  Index bytes;
};
inline constexpr std::array<ScalarTypeInfo, 16> scalar_types{{{"BOOL", 1},
                                                              {"U8", 1},
                                                              {"I8", 1},
                                                              {"F8_E4M3", 1},
                                                              {"F8_E5M2", 1},
                                                              {"F8_E8M0", 1},
                                                              {"U16", 2},
                                                              {"I16", 2},
                                                              {"F16", 2},
                                                              {"BF16", 2},
                                                              {"U32", 4},
                                                              {"I32", 4},
                                                              {"F32", 4},
                                                              {"U64", 8},
                                                              {"I64", 8},
                                                              {"F64", 8}}};

template <class T>
consteval ScalarType scalar_type_for() {
  if constexpr (std::is_same_v<T, float>) return ScalarType::f32;
  else if constexpr (std::is_same_v<T, double>) return ScalarType::f64;
  else if constexpr (std::is_same_v<T, fp16>) return ScalarType::f16;
  else if constexpr (std::is_same_v<T, bf16>) return ScalarType::bf16;
  else if constexpr (std::is_same_v<T, bool>) return ScalarType::boolean;
  else if constexpr (std::is_same_v<T, std::uint8_t>) return ScalarType::u8;
  else if constexpr (std::is_same_v<T, std::int8_t>) return ScalarType::i8;
  else if constexpr (std::is_same_v<T, std::uint16_t>) return ScalarType::u16;
  else if constexpr (std::is_same_v<T, std::int16_t>) return ScalarType::i16;
  else if constexpr (std::is_same_v<T, std::uint32_t>) return ScalarType::u32;
  else if constexpr (std::is_same_v<T, std::int32_t>) return ScalarType::i32;
  else if constexpr (std::is_same_v<T, std::uint64_t>) return ScalarType::u64;
  else {
    static_assert(std::is_same_v<T, std::int64_t>, "cafeq: no scalar type of model files");
    return ScalarType::i64;
  }
}

}  // namespace detail

/// The scalar type whose elements are of the C++ type T.
template <class T>
inline constexpr ScalarType scalar_type_of = detail::scalar_type_for<std::remove_const_t<T>>();

/// "F32", "BF16", "I64", "BOOL" and so on.
constexpr std::string_view name_of(ScalarType type) noexcept {
  return detail::scalar_types[std::size_t(type)].name;
}
constexpr Index bytes_of(ScalarType type) noexcept {
  return detail::scalar_types[std::size_t(type)].bytes;
}
/// The scalar type of that name, or nothing where none has it.
constexpr std::optional<ScalarType> scalar_type_named(std::string_view name) noexcept {
  for (std::size_t i = 0; i < detail::scalar_types.size(); ++i)
    if (detail::scalar_types[i].name == name) return ScalarType(i);
  return std::nullopt;
}
/// Whether matrices may have elements of this type: whether its C++ type models Element.
constexpr bool is_element(ScalarType type) noexcept {
  return type == ScalarType::f16 || type == ScalarType::bf16 || type == ScalarType::f32 ||
         type == ScalarType::f64;
}

/// The number of elements of a tensor: the product of its sizes. Nothing where a size is negative
/// or the product does not fit an Index.
constexpr std::optional<Index> element_count(std::span<const Index> shape) noexcept {
  Index count = 1;
  for (const Index size : shape)
    if (size < 0 || __builtin_mul_overflow(count, size, &count)) return std::nullopt;
  return count;
}

/// The number of bytes of a tensor, or nothing where it has no number of elements or the product
/// does not fit an Index.
constexpr std::optional<Index> byte_count(ScalarType type, std::span<const Index> shape) noexcept {
  auto count = element_count(shape);
  if (count && __builtin_mul_overflow(*count, bytes_of(type), &*count)) return std::nullopt;
  return count;
}

namespace detail {

/// Type and shape for messages: "F32 [3, 4]".
inline std::string describe(ScalarType type, std::span<const Index> shape) {
  std::string text = message(name_of(type), " [");
  for (std::size_t i = 0; i < shape.size(); ++i) text += message(i == 0 ? "" : ", ", shape[i]);
  return text + "]";
}

}  // namespace detail

/// A tensor whose bytes somebody else owns, row-major. The accessors take a `name` for the messages
/// of their errors.
struct TensorView {
  ScalarType type = ScalarType::f32;
  std::vector<Index> shape;
  std::span<const std::byte> bytes;

  /// All elements in order. Raises invalid_argument unless they are of type T, invalid_shape
  /// unless the bytes are as many as type and shape say, and invalid_stride unless they are aligned
  /// for T.
  template <class T>
  std::span<const T> values(std::string_view name = "tensor") const {
    if (type != scalar_type_of<T>)
      raise(ErrorCode::invalid_argument, message(name, ": is ", detail::describe(type, shape),
                                                 ", not ", name_of(scalar_type_of<T>)));
    if (byte_count(type, shape) != Index(bytes.size()))
      raise(ErrorCode::invalid_shape,
            message(name, ": ", detail::describe(type, shape), " has ", bytes.size(), " bytes"));
    if (std::uintptr_t(bytes.data()) % alignof(T) != 0)
      raise(ErrorCode::invalid_stride,
            message(name, ": its bytes are not aligned for ", name_of(type)));

    return {reinterpret_cast<const T*>(bytes.data()), bytes.size() / sizeof(T)};
  }

  /// The matrix of the last two dimensions. Raises invalid_shape where there are fewer of them, or
  /// where one of the others is not 1, and as values().
  template <Element T = float>
  View<const T> matrix(std::string_view name = "tensor") const {
    const auto elements = values<T>(name);
    const std::size_t rank = shape.size();
    bool is_matrix = rank >= 2;
    for (std::size_t i = 0; i + 2 < rank; ++i) is_matrix &= shape[i] == 1;
    if (!is_matrix)
      raise(ErrorCode::invalid_shape,
            message(name, ": ", detail::describe(type, shape), " is not a matrix"));

    return {elements.data(), shape[rank - 2], shape[rank - 1], shape[rank - 1], 1};
  }
};

/// A tensor that owns its bytes, which start at a multiple of 64.
struct Tensor {
  ScalarType type = ScalarType::f32;
  std::vector<Index> shape;
  Buffer<std::byte> bytes;

  TensorView view() const& { return {type, shape, bytes}; }
  TensorView view() && = delete;  // the view would outlive its bytes
  template <class T>
  std::span<const T> values(std::string_view name = "tensor") const& {
    return view().values<T>(name);
  }
  template <Element T = float>
  View<const T> matrix(std::string_view name = "tensor") const& {
    return view().matrix<T>(name);
  }
};

/// A dense row-major matrix, or a vector, as a tensor that views the same memory. Raises
/// invalid_stride for a matrix that is not dense.
template <Element T>
TensorView as_tensor(View<T> matrix) {
  if (!matrix.contiguous())
    raise(ErrorCode::invalid_stride, "as_tensor: the matrix is not dense and row-major");
  return {scalar_type_of<T>,
          {matrix.rows, matrix.cols},
          std::as_bytes(std::span(matrix.data, std::size_t(matrix.size())))};
}
template <class T>
TensorView as_tensor(std::span<T> vector) {
  return {scalar_type_of<T>, {Index(vector.size())}, std::as_bytes(vector)};
}

/// Tensors by name.
using TensorMap = std::map<std::string, Tensor, std::less<>>;
using TensorViewMap = std::map<std::string, TensorView, std::less<>>;

/// The tensor of that name. Raises invalid_argument where there is none.
template <class T>
const T& tensor_at(const std::map<std::string, T, std::less<>>& tensors, std::string_view name) {
  const auto found = tensors.find(name);
  if (found == tensors.end())
    raise(ErrorCode::invalid_argument, message("no tensor is named ", name));
  return found->second;
}

}  // namespace cafeq
