/// Models whose tensors lie in one or several safetensors files of a directory, as Hugging Face
/// lays them out, read as one list. cafeq/io/sharded_safetensors.hpp writes the same layout.
///
/// `model.safetensors.index.json` maps each tensor's name to its file in "weight_map"; readers do
/// not need the "metadata" beside it.
#pragma once

#include <algorithm>
#include <charconv>
#include <cstddef>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "cafeq/io/json.hpp"
#include "cafeq/io/named_list.hpp"
#include "cafeq/io/path.hpp"
#include "cafeq/io/safetensors.hpp"

namespace cafeq {

namespace detail {

/// The names of a model's files, and where an index exists the file of each tensor.
struct SafetensorsFiles {
  std::string directory;
  std::vector<std::string> names;
  std::optional<std::map<std::string, std::string>> placed{};
};

}  // namespace detail

/// A tensor of one of a model's files, `shard` being that file's number.
struct SafetensorsTensor {
  std::string name;
  TensorView view;
  std::size_t shard;
};

/// The mapped safetensors files of a model.
class SafetensorsModel {
 public:
  /// `path`: a safetensors file; an index (.json); or a directory with an index, else with
  /// model.safetensors, else with any *.safetensors, all of which are taken. Raises corrupt where
  /// the files contradict the index or each other, io where one is missing, and as
  /// SafetensorsReader.
  explicit SafetensorsModel(const std::string& path);

  /// In the order of the files' names, and in each file in the order of bytes.
  std::span<const SafetensorsTensor> tensors() const noexcept { return tensors_.items(); }
  /// Raises where there is none of that name.
  const SafetensorsTensor& tensor(std::string_view name) const { return tensors_.at(name); }
  /// The tensor's pages leave memory until they are touched again.
  void release(std::string_view name) const { shards_[tensor(name).shard].release(name); }

  /// The metadata of all files together.
  const Metadata& metadata() const noexcept { return metadata_; }
  const std::string& directory() const noexcept { return directory_; }
  /// The files' names in that directory.
  std::span<const std::string> files() const noexcept { return files_; }
  Index file_bytes() const noexcept {
    Index bytes = 0;
    for (const auto& shard : shards_) bytes += shard.file_bytes();
    return bytes;
  }

 private:
  void add_shard(const std::string& name, const detail::SafetensorsFiles& files);

  std::string directory_;
  std::vector<std::string> files_;
  std::vector<SafetensorsReader> shards_;
  detail::NamedList<SafetensorsTensor> tensors_;
  Metadata metadata_;
};

namespace detail {

/// The names that Hugging Face gives.
inline constexpr std::string_view safetensors_suffix = ".safetensors";
inline constexpr std::string_view single_safetensors = "model.safetensors";
inline constexpr std::string_view safetensors_index = "model.safetensors.index.json";

/// N of a name "…-of-N.safetensors".
inline std::optional<Index> shard_count(std::string_view name) noexcept {
  name.remove_suffix(safetensors_suffix.size());
  const auto of = name.rfind("-of-");
  if (of == name.npos) return std::nullopt;
  Index count = 0;
  const auto [end, error] = std::from_chars(name.data() + of + 4, name.data() + name.size(), count);
  return error == std::errc() && end == name.data() + name.size() ? std::optional(count)
                                                                  : std::nullopt;
}

/// The files that an index lists. Raises corrupt for a file that does not lie beside it.
inline SafetensorsFiles read_safetensors_index(const std::string& path) {
  const Json index = read_json(path);
  const Json* entries = find_member(index, "weight_map");
  if (entries == nullptr || !entries->is_object())
    raise(ErrorCode::corrupt, message(path, ": has no object weight_map"));

  std::map<std::string, std::string> placed;
  std::set<std::string> names;
  for (const auto& item : entries->items()) {
    const auto* file = item.value().get_ptr<const std::string*>();
    if (file == nullptr || !is_inside(*file) || file->find('/') != file->npos)
      raise(ErrorCode::corrupt,
            message(path, ": tensor ", item.key(), ": ", printable(item.value()),
                    " is not the name of a file beside the index"));
    placed.emplace(item.key(), *file);
    names.insert(*file);
  }
  return {.directory = directory_of(path),
          .names = {names.begin(), names.end()},
          .placed = std::move(placed)};
}

/// The files of the model at `path`. Raises io where there are none, or where one is missing.
inline SafetensorsFiles find_safetensors(const std::string& path) {
  if (!is_directory(path)) {
    if (path.ends_with(".json")) return read_safetensors_index(path);
    return {.directory = directory_of(path), .names = {std::string(name_in_directory(path))}};
  }

  std::vector<std::string> all = names_in(path);
  const auto holds = [&](std::string_view name) {
    return std::binary_search(all.begin(), all.end(), name);
  };
  if (holds(safetensors_index))
    return read_safetensors_index(message(path, "/", safetensors_index));
  if (holds(single_safetensors))
    return {.directory = path, .names = {std::string(single_safetensors)}};

  // Without an index the names of shards are all that tells how many there should be.
  std::erase_if(all, [](const std::string& name) { return !name.ends_with(safetensors_suffix); });
  if (all.empty()) raise(ErrorCode::io, message(path, ": holds no *", safetensors_suffix));
  for (const std::string& name : all)
    if (const auto count = shard_count(name); count && *count != Index(all.size()))
      raise(ErrorCode::io,
            message(path, ": holds ", all.size(), " safetensors files and no index, but ", name,
                    " is one of ", *count));
  return {.directory = path, .names = std::move(all)};
}

}  // namespace detail

inline SafetensorsModel::SafetensorsModel(const std::string& path) {
  const detail::SafetensorsFiles files = detail::find_safetensors(path);
  directory_ = files.directory;
  files_ = files.names;
  for (const std::string& name : files_) add_shard(name, files);

  if (!files.placed) return;
  for (const auto& [name, file] : *files.placed)
    if (tensors_.find(name) == nullptr)
      raise(ErrorCode::corrupt, message(directory_, "/", file, ": has no tensor ", name,
                                        ", which the index places there"));
}

inline void SafetensorsModel::add_shard(const std::string& name,
                                        const detail::SafetensorsFiles& files) {
  const std::string path = message(directory_, "/", name);
  const SafetensorsReader& shard = shards_.emplace_back(path);

  // By their bytes, so that whoever goes through the list reads a file from front to back.
  std::vector<const TensorViewMap::value_type*> order;
  for (const auto& item : shard.tensors()) order.push_back(&item);
  std::stable_sort(order.begin(), order.end(), [](const auto* a, const auto* b) {
    return a->second.bytes.data() < b->second.bytes.data();
  });

  for (const auto* item : order) {
    if (files.placed) {
      const auto place = files.placed->find(item->first);
      if (place == files.placed->end() || place->second != name)
        raise(ErrorCode::corrupt,
              message(path, ": has tensor ", item->first, ", which the index ",
                      place == files.placed->end() ? "does not list"
                                                   : message("places in ", place->second)));
    }
    if (!tensors_.add({item->first, item->second, shards_.size() - 1}))
      raise(ErrorCode::corrupt, message(path, ": tensor ", item->first, " is in another file too"));
  }

  for (const auto& [key, value] : shard.metadata())
    if (const auto known = metadata_.emplace(key, value).first; known->second != value)
      raise(ErrorCode::corrupt, message(path, ": its metadata ", key, " is ", value,
                                        ", in another file it is ", known->second));
}

}  // namespace cafeq
