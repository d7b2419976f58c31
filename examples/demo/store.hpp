/// Quantized matrices in a safetensors file: codes, parameters and transforms as tensors, shapes and exponents as metadata.
#pragma once

#include <bit>
#include <cmath>
#include <cstring>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "cafeq/cafeq.hpp"
#include "cafeq/io/safetensors.hpp"

namespace cafeq::example {

/// Collects tensors and writes them as one file.
class QuantizedStore {
 public:
  template <Transform T, Quantizer Q>
  void add(const std::string& name, const Quantized<T, Q>& q) {
    put(name + ".codes", ScalarType::u8, {q.rows(), q.codes().row_bytes()}, std::as_bytes(q.codes().bytes()));
    put(name + ".params", ScalarType::u8, {Index(q.params().size()), Index(sizeof(typename Q::Params))}, std::as_bytes(q.params()));
    add_transform(name, q.transform());
    metadata_[name] = nlohmann::ordered_json{
        {"rows", q.rows()}, {"cols", q.cols()}, {"bits", q.bits()}, {"group", q.quantizer().group}, {"exponent", q.exponent()}}.dump();
  }

  void write(const std::string& path) const {
    TensorViewMap views;
    for (const auto& [name, tensor] : tensors_) views.emplace(name, tensor.view());
    write_safetensors(path, views, metadata_);
  }

 private:
  void put(const std::string& name, ScalarType type, std::vector<Index> shape, std::span<const std::byte> bytes) {
    tensors_[name] = Tensor{type, std::move(shape), Buffer<std::byte>(bytes.begin(), bytes.end())};
  }
  template <class T>
  void put(const std::string& name, const std::vector<T>& values) {
    put(name, scalar_type_of<T>, {Index(values.size())}, std::as_bytes(std::span(values)));
  }

  void add_transform(const std::string& name, const Diagonal& t) {
    int largest = std::numeric_limits<int>::min();
    for (const float d : t.entries()) largest = std::max(largest, floor_log2(double(d)));
    std::vector<fp16> halves;  // what Diagonal keeps: halves times one power of two
    for (const float d : t.entries()) halves.emplace_back(std::ldexp(d, 14 - largest));
    put(name + ".diagonal", halves);
    put(name + ".diagonal_exponent", std::vector<std::int32_t>{largest - 14});
  }
  void add_transform(const std::string& name, const Hadamard& t) {
    if (!t.signs().seed()) raise(ErrorCode::unsupported, message(name, ": only signs drawn from a seed are stored"));
    put(name + ".hadamard", std::vector<std::uint64_t>{std::uint64_t(t.dim()), *t.signs().seed()});
  }
  template <Transform A, Transform B>
  void add_transform(const std::string& name, const Composed<A, B>& t) {
    add_transform(name, t.first());
    add_transform(name, t.second());
  }
  void add_transform(const std::string& name, const BlockDiagonal& t) {
    const Int8Inverse stored = t.int8_inverse();
    std::vector<std::int64_t> sizes;
    std::vector<std::int8_t> codes;
    std::vector<std::uint8_t> exponents;
    for (const auto& block : stored.blocks) {
      sizes.push_back(block.size);
      codes.insert(codes.end(), block.codes.begin(), block.codes.end());
      exponents.insert(exponents.end(), block.exponents.begin(), block.exponents.end());
    }
    put(name + ".block_sizes", sizes);
    put(name + ".inverse", codes);
    put(name + ".inverse_exponents", exponents);
    put(name + ".inverse_base", std::vector<std::int32_t>{stored.base});
  }

  TensorMap tensors_;
  Metadata metadata_;
};

namespace detail {

template <class T>
std::vector<T> stored_values(const SafetensorsReader& file, const std::string& name) {
  const auto values = tensor_at(file.tensors(), name).values<T>(name);
  return {values.begin(), values.end()};
}

/// The one value of a tensor.
template <class T>
T stored_value(const SafetensorsReader& file, const std::string& name) {
  const auto values = stored_values<T>(file, name);
  if (values.size() != 1) raise(ErrorCode::corrupt, message(name, ": ", values.size(), " values, expected 1"));
  return values.front();
}

template <class T>
struct StoredTransform;

template <>
struct StoredTransform<Diagonal> {
  static Diagonal load(const SafetensorsReader& file, const std::string& name, Index dim) {
    const int exponent = stored_value<std::int32_t>(file, name + ".diagonal_exponent");
    std::vector<double> entries;
    for (const fp16 half : stored_values<fp16>(file, name + ".diagonal")) entries.push_back(std::ldexp(double(float(half)), exponent));
    if (Index(entries.size()) != dim) raise(ErrorCode::corrupt, message(name, ": a diagonal of ", entries.size(), ", expected ", dim));
    return Diagonal(std::move(entries));
  }
};

template <>
struct StoredTransform<Hadamard> {
  static Hadamard load(const SafetensorsReader& file, const std::string& name, Index dim) {
    const auto values = stored_values<std::uint64_t>(file, name + ".hadamard");
    if (values.size() != 2 || values[0] != std::uint64_t(dim)) raise(ErrorCode::corrupt, message(name, ": its Hadamard is not of dimension ", dim));
    return Hadamard(Signs(dim, values[1]));
  }
};

template <class A, class B>
struct StoredTransform<Composed<A, B>> {
  static Composed<A, B> load(const SafetensorsReader& file, const std::string& name, Index dim) {
    return {StoredTransform<A>::load(file, name, dim), StoredTransform<B>::load(file, name, dim)};
  }
};

template <>
struct StoredTransform<BlockDiagonal> {
  static BlockDiagonal load(const SafetensorsReader& file, const std::string& name, Index dim) {
    const auto codes = stored_values<std::int8_t>(file, name + ".inverse");
    const auto exponents = stored_values<std::uint8_t>(file, name + ".inverse_exponents");
    Int8Inverse stored{stored_value<std::int32_t>(file, name + ".inverse_base"), {}};
    auto code = codes.begin();
    auto exponent = exponents.begin();
    for (const std::int64_t size : stored_values<std::int64_t>(file, name + ".block_sizes")) {
      if (size < 1 || size > exponents.end() - exponent || size * size > codes.end() - code) raise(ErrorCode::corrupt, message(name, ": blocks do not fit"));
      stored.blocks.push_back({Index(size), {code, code + size * size}, {exponent, exponent + size}});
      code += size * size;
      exponent += size;
    }
    if (Index(exponents.size()) != dim || exponent != exponents.end() || code != codes.end())
      raise(ErrorCode::corrupt, message(name, ": blocks for ", exponent - exponents.begin(), " columns, expected ", dim));
    return BlockDiagonal::from_int8(stored);
  }
};

}  // namespace detail

/// The quantized matrix of that name, of type Quantized<T, Q>.
template <Transform T, Quantizer Q>
Quantized<T, Q> load_quantized(const SafetensorsReader& file, const std::string& name) {
  const auto entry = file.metadata().find(name);
  if (entry == file.metadata().end()) raise(ErrorCode::corrupt, message("no quantized matrix is named ", name));
  const auto json = cafeq::detail::parse_json(entry->second, name);
  const auto number = [&](const char* key) {
    const auto* member = cafeq::detail::find_member(json, key);
    if (member == nullptr || !member->is_number_integer()) raise(ErrorCode::corrupt, message(name, ": its metadata has no whole number ", key));
    return Index(member->template get<std::int64_t>());
  };
  Q quantizer{};
  quantizer.group = number("group");
  check_quantizer(quantizer);
  const Index rows = number("rows"), cols = number("cols"), bits = number("bits");
  const TensorView& stored_codes = tensor_at(file.tensors(), name + ".codes");
  const auto bytes = stored_codes.values<std::uint8_t>(name + ".codes");
  // Before anything of that size is allocated.
  if (bits != quantizer.bits || cols < 1 || cols > Index(bytes.size()) * 8 || stored_codes.shape != std::vector<Index>{rows, ceil_div(cols * bits, 8)})
    raise(ErrorCode::corrupt, message(name, ": codes are ", describe(stored_codes.type, stored_codes.shape), ", expected ", rows, " x ", cols, " of ", bits, " bits"));
  PackedCodes codes(rows, cols, int(bits));
  std::memcpy(codes.bytes().data(), bytes.data(), bytes.size());
  using Params = typename Q::Params;
  const auto stored = tensor_at(file.tensors(), name + ".params").values<std::uint8_t>(name + ".params");
  if (stored.size() % sizeof(Params) != 0) raise(ErrorCode::corrupt, message(name, ": ", stored.size(), " bytes of parameters"));
  std::vector<Params> params(stored.size() / sizeof(Params));
  if (!params.empty()) std::memcpy(params.data(), stored.data(), params.size() * sizeof(Params));
  return Quantized<T, Q>(quantizer, codes.cols(), std::move(codes), std::move(params), detail::StoredTransform<T>::load(file, name, cols), Side::input,
                         int(number("exponent")));
}

/// Raises unless the file holds exactly what `quantized` decodes to.
template <Transform T, Quantizer Q>
void check_stored(const SafetensorsReader& file, const std::string& name, const Quantized<T, Q>& quantized) {
  const auto reloaded = load_quantized<T, Q>(file, name);
  Matrix<float> before(quantized.rows(), quantized.cols());
  Matrix<float> after(quantized.rows(), quantized.cols());
  quantized.dequantize(before);
  reloaded.dequantize(after);
  for (Index i = 0; i < before.size(); ++i)
    if (std::bit_cast<std::uint32_t>(before.data()[i]) != std::bit_cast<std::uint32_t>(after.data()[i]))
      raise(ErrorCode::corrupt, message(name, ": row ", i / before.cols(), ", column ", i % before.cols(), " changed on the way through the file"));
}

}  // namespace cafeq::example
