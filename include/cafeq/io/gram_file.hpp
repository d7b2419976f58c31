/// Grams in files: what GramCollector has gathered, kept for other runs, threads and machines.
///
/// A safetensors file. Its metadata has "cafeq.grams", JSON:
///   {"version": 1, "model": FINGERPRINT,
///    "inputs": {NAME: {"dim": n, "kind": "whole" or "diagonal", "count": N, "readers": [...]}}}
/// and each input is a tensor F32 of its name, that of the first matrix that reads it: means over
/// the N inputs, x_j² [n] of a diagonal, x_i x_j [n (n + 1) / 2] of a whole one, the lower triangle
/// row by row. `readers` are the other matrices.
///
/// llama.cpp's imatrix in GGUF is read and written too: per matrix, Σ x_j² ("NAME.in_sum2") and N
/// ("NAME.counts").
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "cafeq/io/gguf_file.hpp"
#include "cafeq/io/gram_file_writer.hpp"
#include "cafeq/io/imatrix.hpp"
#include "cafeq/io/json.hpp"
#include "cafeq/io/safetensors.hpp"
#include "cafeq/model/gram_collector.hpp"
#include "cafeq/model/tensor_names.hpp"

namespace cafeq {

/// A file of Grams, mapped: one at a time is taken into memory.
class GramFile {
 public:
  /// Either format. Raises io for a file that cannot be read, corrupt for one that breaks its
  /// format, unsupported for one that is neither.
  explicit GramFile(std::string path);

  const std::string& path() const noexcept { return path_; }
  std::span<const GramEntry> inputs() const noexcept { return inputs_; }
  /// Of the model that they are from; empty where the file does not say.
  const std::string& model() const noexcept { return model_; }

  /// The input of a matrix, or null where the file has none. A file of another format of the model,
  /// whose tensors have other names, is understood by layer and role.
  const GramEntry* find(std::string_view matrix) const {
    if (const auto found = places_.find(std::string(matrix)); found != places_.end())
      return &inputs_[found->second];
    const auto key = detail::place_in_layers(matrix);
    if (!key) return nullptr;
    const auto found = roles_.find(*key);
    return found == roles_.end() ? nullptr : &inputs_[found->second];
  }
  /// The sums of one of inputs(). Raises corrupt for numbers that no inputs have.
  InputGram load(const GramEntry& entry) const;

 private:
  [[noreturn]] void fail(std::string_view name, std::string_view problem) const {
    raise(ErrorCode::corrupt, message(path_, ": ", name, ": ", problem));
  }
  void list(const SafetensorsReader& file);
  void list(const GgufReader& file);
  void add(GramEntry entry);
  InputGram load_from(const SafetensorsReader& file, const GramEntry& entry) const;
  InputGram load_from(const GgufReader& file, const GramEntry& entry) const;
  void check(const GramEntry& entry, Index j, double square) const {
    if (!(square >= 0) || !std::isfinite(square))
      fail(entry.name, message("the mean square of input ", j, " is ", square));
  }

  std::string path_;
  std::unique_ptr<std::variant<SafetensorsReader, GgufReader>> file_;
  std::vector<GramEntry> inputs_;
  std::string model_;
  std::map<std::string, std::size_t> places_;  // by every reader
  std::map<std::pair<Index, Role>, std::size_t> roles_;
};

namespace detail {

/// The member of that name where it is a size.
inline std::optional<Index> size_of(const Json& object, const char* key) {
  const Json* member = find_member(object, key);
  return member == nullptr ? std::nullopt : to_size(*member);
}

inline bool is_gguf(const std::string& path) {
  InputFile file(path);
  std::array<std::byte, 4> magic{};
  return file.size() >= Index(magic.size()) && (file.read_at(0, magic), true) &&
         as_text(magic) == gguf_magic;
}

}  // namespace detail

inline GramFile::GramFile(std::string path) : path_(std::move(path)) {
  using File = std::variant<SafetensorsReader, GgufReader>;
  if (detail::is_gguf(path_)) file_ = std::make_unique<File>(std::in_place_type<GgufReader>, path_);
  else file_ = std::make_unique<File>(std::in_place_type<SafetensorsReader>, path_);
  std::visit([&](const auto& file) { list(file); }, *file_);
}

inline void GramFile::add(GramEntry entry) {
  const std::size_t place = inputs_.size();
  const auto known_as = [&](const std::string& name) {
    if (!places_.emplace(name, place).second) fail(name, "is listed twice");
    if (const auto key = detail::place_in_layers(name)) roles_.emplace(*key, place);
  };
  known_as(entry.name);
  for (const std::string& reader : entry.readers) known_as(reader);
  inputs_.push_back(std::move(entry));
}

inline void GramFile::list(const SafetensorsReader& file) {
  const auto about = file.metadata().find(detail::grams_key);
  if (about == file.metadata().end())
    raise(ErrorCode::unsupported,
          message(path_, ": is no file of Grams: it has no ", detail::grams_key));
  const auto json = detail::parse_json(about->second, message(path_, ": ", detail::grams_key));
  const auto version = detail::size_of(json, "version");
  if (!version) fail(detail::grams_key, "has no version");
  if (*version != detail::grams_version)
    raise(ErrorCode::unsupported,
          message(path_, ": is version ", *version, " of Grams, expected ", detail::grams_version));
  if (const std::string* model = detail::find_string(json, "model")) model_ = *model;
  const auto* inputs = detail::find_member(json, "inputs");
  if (inputs == nullptr || !inputs->is_object()) fail(detail::grams_key, "has no inputs");

  for (const auto& item : inputs->items()) {
    const auto& about_input = item.value();
    const auto dim = detail::size_of(about_input, "dim");
    const auto count = detail::size_of(about_input, "count");
    const std::string* kind = detail::find_string(about_input, "kind");
    if (!dim || *dim == 0 || *dim > detail::gram_dim_limit || !count || kind == nullptr ||
        (*kind != name_of(GramKind::whole) && *kind != name_of(GramKind::diagonal)))
      fail(item.key(), "has not the dim, kind and count of an input");
    GramEntry entry{
        .name = item.key(),
        .dim = *dim,
        .kind = *kind == name_of(GramKind::whole) ? GramKind::whole : GramKind::diagonal,
        .count = *count};
    if (const auto* readers = detail::find_member(about_input, "readers")) {
      if (!readers->is_array()) fail(item.key(), "its readers are no list");
      for (const auto& reader : *readers) {
        if (!reader.is_string()) fail(item.key(), "a reader is no name");
        entry.readers.push_back(reader.get<std::string>());
      }
    }
    const auto tensor = file.tensors().find(entry.name);
    if (tensor == file.tensors().end()) fail(entry.name, "has no tensor");
    if (tensor->second.type != ScalarType::f32 ||
        tensor->second.shape != std::vector<Index>{detail::gram_numbers(entry)})
      fail(entry.name, message("is ", detail::describe(tensor->second.type, tensor->second.shape),
                               ", expected F32 [", detail::gram_numbers(entry), "]"));
    add(std::move(entry));
  }
}

inline void GramFile::list(const GgufReader& file) {
  const auto type = file.metadata().get<std::string_view>("general.type");
  if (!type || *type != "imatrix")
    raise(ErrorCode::unsupported, message(path_, ": is a GGUF file, but no imatrix"));
  for (const GgufTensor& squares : file.tensors()) {
    if (!squares.name.ends_with(detail::imatrix_squares)) continue;
    const std::string name =
        squares.name.substr(0, squares.name.size() - detail::imatrix_squares.size());
    const GgufTensor* counts = file.find(name + std::string(detail::imatrix_counts));
    if (squares.type != GgufType::f32 || squares.shape.empty() || counts == nullptr ||
        counts->type != GgufType::f32 || counts->data.empty())
      fail(name, "has not the sums and counts of an imatrix");
    // Those of experts come by expert: each has inputs of its own, which no matrix here has.
    if (element_count(squares.shape) != squares.shape.back()) continue;
    const auto count = detail::ByteCursor(path_, counts->data).number<float>("a count");
    if (!(count >= 0) || !std::isfinite(count) || double(count) > 1e15)
      fail(name, message("its count is ", double(count)));
    add({.name = name,
         .dim = squares.shape.back(),
         .kind = GramKind::diagonal,
         .count = std::int64_t(count)});
  }
}

inline InputGram GramFile::load(const GramEntry& entry) const {
  return std::visit([&](const auto& file) { return load_from(file, entry); }, *file_);
}

inline InputGram GramFile::load_from(const SafetensorsReader& file, const GramEntry& entry) const {
  const TensorView& tensor = tensor_at(file.tensors(), entry.name);
  const double n = double(entry.count);
  detail::ByteCursor cursor(path_, tensor.bytes);
  const auto next = [&] { return double(cursor.number<float>("a mean")); };
  if (entry.kind == GramKind::diagonal) {
    std::vector<double> squares(static_cast<std::size_t>(entry.dim));
    for (Index j = 0; j < entry.dim; ++j) {
      squares[std::size_t(j)] = n * next();
      check(entry, j, squares[std::size_t(j)]);
    }
    file.release(entry.name);
    return {std::move(squares), entry.count};
  }
  Matrix<double> gram(entry.dim, entry.dim);
  for (Index i = 0; i < entry.dim; ++i) {
    for (Index j = 0; j <= i; ++j) {
      const double product = n * next();
      if (!std::isfinite(product))
        fail(entry.name, message("the mean product of inputs ", i, " and ", j, " is ", product));
      gram(j, i) = product;
    }
    check(entry, i, gram(i, i));
  }
  file.release(entry.name);
  return {std::move(gram), entry.count};
}

inline InputGram GramFile::load_from(const GgufReader& file, const GramEntry& entry) const {
  const GgufTensor& tensor = file.tensor(entry.name + std::string(detail::imatrix_squares));
  detail::ByteCursor cursor(path_, tensor.data);
  std::vector<double> squares(static_cast<std::size_t>(entry.dim));
  for (Index j = 0; j < entry.dim; ++j) {
    squares[std::size_t(j)] = double(cursor.number<float>("a sum"));
    check(entry, j, squares[std::size_t(j)]);
  }
  return {std::move(squares), entry.count};
}

/// The other way, of either format; all of them in memory.
inline GramCollector read_grams(const std::string& path) {
  const GramFile file(path);
  GramCollector grams;
  for (const GramEntry& entry : file.inputs())
    grams.set({entry.name, entry.readers, file.load(entry)});
  return grams;
}

}  // namespace cafeq
