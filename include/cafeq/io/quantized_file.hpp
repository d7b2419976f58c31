/// cafeq's own format: quantized matrices, and tensors kept as they are, in a safetensors file.
/// docs/reference/format.md has the layout.
#pragma once

#include <cstddef>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "cafeq/io/json.hpp"
#include "cafeq/io/quantized_parts.hpp"
#include "cafeq/io/safetensors.hpp"
#include "cafeq/pipeline/any_quantized.hpp"

namespace cafeq {

/// Version of the layout; files of a later one are refused.
inline constexpr int quantized_file_version = 1;

/// Collects matrices and tensors, then writes them as one file that appears whole or not at all.
class QuantizedFileWriter {
 public:
  /// Raises invalid_argument where the name is taken, unsupported for a grid or a transform that
  /// the format has no words for.
  template <Transform T, class Q>
  void add(const std::string& name, const Quantized<T, Q>& quantized) {
    auto parts = detail::parts_of(quantized, name);
    if (!matrices_.emplace(name, std::move(parts.description)).second)
      raise(ErrorCode::invalid_argument, message("two matrices are named ", name));
    for (auto& [suffix, tensor] : parts.tensors)
      add_tensor(message(name, ".", suffix), std::move(tensor));
  }
  /// A tensor that stays as it is.
  void add_tensor(const std::string& name, Tensor tensor) {
    if (!tensors_.emplace(name, std::move(tensor)).second)
      raise(ErrorCode::invalid_argument, message("two tensors are named ", name));
  }

  /// `about` joins the file's metadata; keys that begin with "cafeq." are the format's.
  void write(const std::string& path, Metadata about = {}) const {
    TensorViewMap views;
    for (const auto& [name, tensor] : tensors_) views.emplace(name, tensor.view());
    about[detail::version_key] = message(quantized_file_version);
    about[detail::matrices_key] = matrices_.dump();
    write_safetensors(path, views, about);
  }

 private:
  TensorMap tensors_;
  detail::Json matrices_ = detail::Json::object();
};

/// What the header of a file says of a matrix.
struct StoredMatrixInfo {
  Index rows = 0;
  Index cols = 0;
  std::string grid;  ///< "affine", "trellis" …
  Index bytes = 0;   ///< of all that is stored of it, but for its description
};

/// Such a file. Nothing of a matrix is copied until load(). Of models as a whole see
/// cafeq/io/quantized_model.hpp.
class QuantizedFileReader {
 public:
  /// Raises io, corrupt for what breaks the format, unsupported for a later version.
  explicit QuantizedFileReader(const std::string& path,
                               SafetensorsReader::Access access = SafetensorsReader::Access::map)
      : file_(path, access), path_(path) {
    const auto version = file_.metadata().find(detail::version_key);
    const auto matrices = file_.metadata().find(detail::matrices_key);
    if (version == file_.metadata().end() || matrices == file_.metadata().end())
      raise(ErrorCode::corrupt,
            message(path, ": is a safetensors file, but not one of cafeq's: it has no ",
                    detail::version_key));
    if (version->second != message(quantized_file_version))
      raise(ErrorCode::unsupported,
            message(path, ": has version ", version->second,
                    " of the format, this library reads version ", quantized_file_version));
    matrices_ = detail::parse_json(matrices->second, message(path, ": ", detail::matrices_key));
    if (!matrices_.is_object())
      raise(ErrorCode::corrupt, message(path, ": ", detail::matrices_key, " is not an object"));
    for (const auto& item : file_.tensors())
      if (item.first.starts_with(detail::file_prefix))
        files_.emplace(item.first.substr(detail::file_prefix.size()), item.second.bytes);
      else if (!is_part(item.first)) kept_.emplace(item);
  }

  const std::string& path() const noexcept { return path_; }
  std::vector<std::string> matrices() const {
    std::vector<std::string> names;
    for (const auto& item : matrices_.items()) names.push_back(item.key());
    return names;
  }
  bool has_matrix(std::string_view name) const { return matrices_.contains(std::string(name)); }
  /// What the header says of a matrix, without touching its codes. Errors as load().
  StoredMatrixInfo info(std::string_view name) const;
  /// Tensors that are no part of a matrix and no file.
  const TensorViewMap& tensors() const noexcept { return kept_; }
  /// Files that lie beside the weights of a model, by their names.
  const std::map<std::string, std::span<const std::byte>, std::less<>>& files() const noexcept {
    return files_;
  }
  const Metadata& metadata() const noexcept { return file_.metadata(); }
  Index file_bytes() const noexcept { return file_.file_bytes(); }
  /// Lets the pages of a matrix, or of a tensor, leave memory until they are touched again.
  void release(std::string_view name) const;

  /// The matrix of that name. Raises invalid_argument where there is none, corrupt where parts are
  /// missing or contradict each other.
  AnyQuantized load(std::string_view name) const {
    return load_as<AnyTransform, AnyQuantizer>(name);
  }
  /// The same, which must be of type Quantized<T, Q>.
  template <Transform T, class Q>
  Quantized<T, Q> load_as(std::string_view name) const {
    return detail::load_quantized<T, Q>(parts(name));
  }

 private:
  detail::StoredMatrix parts(std::string_view name) const {
    const auto found = matrices_.find(std::string(name));
    if (found == matrices_.end())
      raise(ErrorCode::invalid_argument, message(path_, ": no matrix is named ", name));
    return {message(path_, ": ", name), std::string(name), *found, file_.tensors()};
  }
  bool is_part(const std::string& tensor) const {
    const auto dot = tensor.rfind('.');
    return dot != std::string::npos && matrices_.contains(tensor.substr(0, dot)) &&
           detail::is_part_suffix(std::string_view(tensor).substr(dot + 1));
  }

  SafetensorsReader file_;
  std::string path_;
  detail::Json matrices_;
  TensorViewMap kept_;
  std::map<std::string, std::span<const std::byte>, std::less<>> files_;
};

inline StoredMatrixInfo QuantizedFileReader::info(std::string_view name) const {
  const detail::StoredMatrix stored = parts(name);
  constexpr Index most = Index(1) << 40;
  StoredMatrixInfo info{.rows = stored.number("rows", 1, most),
                        .cols = stored.number("cols", 1, most),
                        .grid = stored.text("grid")};
  for (const std::string_view suffix : detail::part_suffixes)
    if (const auto part = file_.tensors().find(message(name, ".", suffix));
        part != file_.tensors().end())
      info.bytes += Index(part->second.bytes.size());
  return info;
}

inline void QuantizedFileReader::release(std::string_view name) const {
  if (!has_matrix(name)) return file_.release(name);
  for (const std::string_view suffix : detail::part_suffixes)
    if (const std::string part = message(name, ".", suffix); file_.tensors().contains(part))
      file_.release(part);
}

}  // namespace cafeq
