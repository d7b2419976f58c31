/// A matrix on its way into a quantized file and out of it: a description and a few tensors.
#pragma once

#include <array>
#include <cstring>
#include <limits>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "cafeq/io/json.hpp"
#include "cafeq/linalg/metric.hpp"
#include "cafeq/model/tensor.hpp"

namespace cafeq::detail {

inline constexpr const char* version_key = "cafeq.version";
inline constexpr const char* matrices_key = "cafeq.matrices";
inline constexpr const char* places_key = "cafeq.places";
inline constexpr const char* blocks_key = "cafeq.blocks";
inline constexpr std::string_view file_prefix = "cafeq.file/";
inline constexpr std::string_view gguf_metadata_file = "metadata.gguf";

inline constexpr std::array<std::string_view, 8> part_suffixes{
    "codes", "scales",   "scale_codes", "offsets",
    "zeros", "diagonal", "inverse",     "inverse_exponents"};
inline bool is_part_suffix(std::string_view suffix) noexcept {
  for (const auto known : part_suffixes)
    if (suffix == known) return true;
  return false;
}

/// Powers of two that a double takes without harm.
inline constexpr Index exponent_limit = 2000;

/// A matrix on its way into a file.
struct MatrixParts {
  Json description;
  TensorMap tensors;

  template <class T>
  void put(const char* suffix, std::vector<Index> shape, std::span<const T> values) {
    const auto bytes = std::as_bytes(values);
    tensors[suffix] =
        Tensor{scalar_type_of<T>, std::move(shape), Buffer<std::byte>(bytes.begin(), bytes.end())};
  }
  template <class T>
  void put(const char* suffix, std::vector<Index> shape, const std::vector<T>& values) {
    put(suffix, std::move(shape), std::span<const T>(values));
  }
};

/// A matrix in a file. `where` names it in messages.
struct StoredMatrix {
  std::string where;
  std::string name;
  const Json& description;
  const TensorViewMap& tensors;

  [[noreturn]] void fail(std::string_view problem) const {
    raise(ErrorCode::corrupt, message(where, ": ", problem));
  }

  Index number(const Json& object, const char* key, Index least, Index most) const {
    const Json* member = find_member(object, key);
    if (member == nullptr || !member->is_number_integer())
      fail(message("has no whole number ", key));
    const bool huge =
        member->is_number_unsigned() &&
        member->get<std::uint64_t>() > std::uint64_t(std::numeric_limits<Index>::max());
    const Index value = huge ? std::numeric_limits<Index>::max() : member->get<Index>();
    if (value < least || value > most)
      fail(message(key, " is ", value, ", must be ", least, " to ", most));
    return value;
  }
  Index number(const char* key, Index least, Index most) const {
    return number(description, key, least, most);
  }
  float real(const char* key, double least, double most) const {
    const Json* member = find_member(description, key);
    if (member == nullptr || !member->is_number() ||
        !(member->get<double>() >= least && member->get<double>() <= most))
      fail(message("has no number ", key));
    return member->get<float>();
  }
  std::string text(const char* key) const {
    const std::string* found = find_string(description, key);
    if (found == nullptr) fail(message("has no text ", key));
    return *found;
  }

  /// Raises unless the grid is this one.
  void check_grid(std::string_view grid) const {
    if (text("grid") != grid) fail(message("its grid is ", text("grid"), ", not ", grid));
  }
  Side side() const {
    const std::string side = text("side");
    if (side != "input" && side != "output") fail(message("its side is ", side));
    return side == "input" ? Side::input : Side::output;
  }
  int exponent() const { return int(number("exponent", -exponent_limit, exponent_limit)); }

  /// All values of a part, which must have that shape.
  template <class T>
  std::vector<T> values(const char* suffix, const std::vector<Index>& shape) const {
    const std::string part = message(name, ".", suffix);
    const auto found = tensors.find(part);
    if (found == tensors.end()) fail(message("its part ", part, " is missing"));
    const TensorView& tensor = found->second;
    if (tensor.type != scalar_type_of<T> || tensor.shape != shape)
      fail(message(part, " is ", describe(tensor.type, tensor.shape), ", expected ",
                   describe(scalar_type_of<T>, shape)));
    std::vector<T> result(tensor.bytes.size() / sizeof(T));
    if (!result.empty()) std::memcpy(result.data(), tensor.bytes.data(), tensor.bytes.size());
    return result;
  }
};

}  // namespace cafeq::detail
