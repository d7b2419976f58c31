/// A model in cafeq's own format as the model that it came from: the same tensors, with Ŵ in place
/// of W, and what lay beside its weights. docs/reference/format.md has the layout.
///
///   const ModelFile model("small.safetensors");
///   const auto* packed = model.as<QuantizedModelReader>();
///   packed->load_quantized(matrix.place);   // codes, for whoever multiplies them as they are
///   model.load(matrix.place.tensor);        // fp32
#pragma once

#include <algorithm>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "cafeq/io/gguf_file.hpp"
#include "cafeq/io/load_elements.hpp"
#include "cafeq/io/quantized_file.hpp"
#include "cafeq/model/load_matrix.hpp"
#include "cafeq/model/model.hpp"
#include "cafeq/model/roles.hpp"

namespace cafeq {

class QuantizedModelReader {
 public:
  /// Raises as QuantizedFileReader, and corrupt where the matrices of a tensor do not make it up.
  explicit QuantizedModelReader(const std::string& path);

  const QuantizedFileReader& file() const noexcept { return file_; }
  Index file_bytes() const noexcept { return file_.file_bytes(); }
  /// Of the model that was quantized, by name.
  std::span<const TensorInfo> tensors() const noexcept { return tensors_; }

  /// Ŵ of all matrices of the tensor in their places, in fp32; of one that was kept its elements,
  /// blocks of GGUF decoded to fp32. Raises as ModelFile::load().
  LoadedTensor load(std::string_view name) const;
  /// Lets the tensor's pages leave memory until it is loaded again.
  void release(std::string_view name) const;
  /// The matrix that lies there, as it is stored; nothing where that one is not quantized.
  std::optional<AnyQuantized> load_quantized(const MatrixPlace& place) const;

  /// Keys and values of the GGUF model that it came from, or of the llama2.c checkpoint as GGUF has
  /// them; null where it came from another format.
  const GgufMetadata* metadata() const noexcept { return metadata_ ? &*metadata_ : nullptr; }
  /// The content of a file that lay beside the weights; nothing where there was none of that name.
  std::optional<std::string> companion(std::string_view name) const;

 private:
  struct PlacedMatrix {
    std::string name;  // in the file
    MatrixPlace place;
  };
  /// Elements of GGUF that are kept.
  struct Blocks {
    GgufType type;
    std::vector<Index> shape;
  };

  [[noreturn]] void fail(std::string_view tensor, std::string_view problem) const {
    raise(ErrorCode::corrupt, message(path_, ": tensor ", tensor, " ", problem));
  }
  detail::Json metadata_object(const char* key) const;
  void find_matrices();
  void find_blocks();
  TensorInfo info_of(const std::string& tensor, const std::vector<PlacedMatrix>& matrices) const;

  std::string path_;
  QuantizedFileReader file_;
  std::map<std::string, std::vector<PlacedMatrix>, std::less<>> matrices_;  // of each tensor
  std::map<std::string, Blocks, std::less<>> blocks_;
  std::vector<TensorInfo> tensors_;
  std::optional<GgufMetadata> metadata_;
};

inline QuantizedModelReader::QuantizedModelReader(const std::string& path)
    : path_(path), file_(path) {
  find_matrices();
  find_blocks();
  for (const auto& [tensor, matrices] : matrices_) tensors_.push_back(info_of(tensor, matrices));
  for (const auto& [name, view] : file_.tensors()) {
    if (matrices_.contains(name)) fail(name, "is kept, and quantized too");
    TensorInfo info = detail::tensor_info(name, view);
    if (const auto blocks = blocks_.find(name); blocks != blocks_.end()) {
      info.type = gguf_type_info(blocks->second.type).name;
      info.shape = blocks->second.shape;
      info.loadable = true;
    }
    tensors_.push_back(std::move(info));
  }
  std::sort(tensors_.begin(), tensors_.end(),
            [](const TensorInfo& a, const TensorInfo& b) { return a.name < b.name; });

  if (const auto found = file_.files().find(detail::gguf_metadata_file);
      found != file_.files().end())
    metadata_ =
        detail::parse_gguf(message(path, ": ", detail::gguf_metadata_file), found->second).metadata;
}

/// A JSON object of the file's metadata; an empty one where there is no such key.
inline detail::Json QuantizedModelReader::metadata_object(const char* key) const {
  const auto found = file_.metadata().find(key);
  if (found == file_.metadata().end()) return detail::Json::object();
  detail::Json json = detail::parse_json(found->second, message(path_, ": ", key));
  if (!json.is_object()) raise(ErrorCode::corrupt, message(path_, ": ", key, " is not an object"));
  return json;
}

inline void QuantizedModelReader::find_matrices() {
  const detail::Json places = metadata_object(detail::places_key);
  for (const std::string& name : file_.matrices()) {
    const StoredMatrixInfo info = file_.info(name);
    MatrixPlace place{.tensor = name, .out = info.rows, .in = info.cols};
    if (const detail::Json* json = detail::find_member(places, name.c_str())) {
      const detail::StoredMatrix stored{message(path_, ": place of ", name), name, *json,
                                        file_.tensors()};
      constexpr Index most = Index(1) << 40;
      place.tensor = stored.text("tensor");
      place.begin = stored.number("begin", 0, most);
      if (json->contains("slice")) place.slice = stored.number("slice", 0, most);
      const detail::Json* transposed = detail::find_member(*json, "transposed");
      if (transposed == nullptr || !transposed->is_boolean()) stored.fail("has no flag transposed");
      place.transposed = transposed->get<bool>();
    }
    matrices_[place.tensor].push_back({name, place});
  }

  for (auto& [tensor, matrices] : matrices_)
    std::sort(matrices.begin(), matrices.end(), [](const auto& a, const auto& b) {
      return std::pair(a.place.slice, a.place.begin) < std::pair(b.place.slice, b.place.begin);
    });
}

inline void QuantizedModelReader::find_blocks() {
  const detail::Json blocks = metadata_object(detail::blocks_key);
  for (const auto& item : blocks.items()) {
    const std::string* type_name = detail::find_string(item.value(), "type");
    const auto shape = detail::to_sizes(detail::find_member(item.value(), "shape"));
    if (type_name == nullptr || !shape) fail(item.key(), "is in blocks of no type, or no shape");
    const auto type = gguf_type_named(*type_name);
    if (!type)
      raise(ErrorCode::unsupported, message(path_, ": tensor ", item.key(), " is in blocks of ",
                                            *type_name, ", which is not known"));
    const auto kept = file_.tensors().find(item.key());
    if (kept == file_.tensors().end() ||
        detail::gguf_bytes(*type, *shape) != Index(kept->second.bytes.size()))
      fail(item.key(), message("does not have the bytes of its blocks"));
    blocks_[item.key()] = {*type, *shape};
  }
}

/// A tensor that these matrices make up, in the order of their places.
inline TensorInfo QuantizedModelReader::info_of(const std::string& tensor,
                                                const std::vector<PlacedMatrix>& matrices) const {
  const MatrixPlace& first = matrices.front().place;
  TensorInfo info{.name = tensor, .type = file_.info(matrices.front().name).grid, .shape = {}};
  std::map<Index, Index> rows;  // of each slice
  for (const auto& [name, place] : matrices) {
    if (place.begin != rows[place.slice] || place.in != first.in ||
        place.transposed != first.transposed)
      fail(tensor, message("is not made up by its matrices: ", name, " does not fit"));
    rows[place.slice] += place.out;
    info.bytes += file_.info(name).bytes;
  }
  const Index out = rows.begin()->second;
  const bool stacked = first.slice >= 0;
  Index next = stacked ? 0 : -1;
  for (const auto& [slice, count] : rows)
    if (slice != next++ || count != out || (slice >= 0) != stacked)
      fail(tensor, message("is not made up by its matrices: slice ", slice, " does not fit"));

  if (stacked) info.shape.push_back(next);
  info.shape.push_back(first.transposed ? first.in : out);
  info.shape.push_back(first.transposed ? out : first.in);
  if (!byte_count(ScalarType::f32, info.shape)) fail(tensor, "is too large");
  return info;
}

inline LoadedTensor QuantizedModelReader::load(std::string_view name) const {
  if (const auto blocks = blocks_.find(name); blocks != blocks_.end())
    return detail::load_blocks(blocks->second.type, blocks->second.shape,
                               file_.tensors().find(name)->second.bytes);
  const auto matrices = matrices_.find(name);
  if (matrices == matrices_.end()) {
    const TensorView& view = tensor_at(file_.tensors(), name);
    detail::check_loadable(detail::tensor_info(std::string(name), view));
    return detail::load_elements(view);
  }

  // All are loaded ahead of the memory that they claim to need.
  std::vector<AnyQuantized> loaded;
  for (const auto& matrix : matrices->second) loaded.push_back(file_.load(matrix.name));
  Tensor tensor{ScalarType::f32, info_of(matrices->first, matrices->second).shape, {}};
  tensor.bytes.resize(std::size_t(*byte_count(tensor.type, tensor.shape)));
  const std::span elements(reinterpret_cast<float*>(tensor.bytes.data()),
                           tensor.bytes.size() / sizeof(float));
  for (std::size_t m = 0; m < loaded.size(); ++m)
    loaded[m].dequantize(detail::matrix_in(elements, tensor.shape, matrices->second[m].place));
  return detail::owned(std::move(tensor));
}

inline void QuantizedModelReader::release(std::string_view name) const {
  const auto matrices = matrices_.find(name);
  if (matrices == matrices_.end()) return file_.release(name);
  for (const auto& matrix : matrices->second) file_.release(matrix.name);
}

inline std::optional<AnyQuantized> QuantizedModelReader::load_quantized(
    const MatrixPlace& place) const {
  const auto matrices = matrices_.find(place.tensor);
  if (matrices == matrices_.end()) return std::nullopt;
  for (const auto& [name, other] : matrices->second)
    if (other.slice == place.slice && other.begin == place.begin && other.out == place.out &&
        other.in == place.in && other.transposed == place.transposed)
      return file_.load(name);
  return std::nullopt;
}

inline std::optional<std::string> QuantizedModelReader::companion(std::string_view name) const {
  const auto found = file_.files().find(name);
  if (found == file_.files().end() || name == detail::gguf_metadata_file) return std::nullopt;
  return std::string(detail::as_text(found->second));
}

}  // namespace cafeq
