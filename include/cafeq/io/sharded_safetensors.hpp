/// Models whose tensors lie in one or several safetensors files of a directory, as Hugging Face
/// lays them out: read as one list, written back in the same layout.
///
/// `model.safetensors.index.json` maps each tensor's name to its file in "weight_map"; readers do
/// not need the "metadata" beside it.
#pragma once

#include <algorithm>
#include <charconv>
#include <cstdint>
#include <cstdio>
#include <deque>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "cafeq/io/file.hpp"
#include "cafeq/io/json.hpp"
#include "cafeq/io/named_list.hpp"
#include "cafeq/io/safetensors.hpp"

namespace cafeq {

namespace detail {

/// A model's files, and where an index exists the file of each tensor.
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

  /// Of all files together.
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

/// Writes a model as Hugging Face does: `model.safetensors` where one file is enough, else
/// `model-00001-of-0000N.safetensors` and an index.
class ShardedSafetensorsWriter {
 public:
  /// Entries fill one file after the other, in their order; none gets more than `shard_bytes`
  /// unless one tensor alone has. Raises invalid_argument as SafetensorsWriter, and where the
  /// directory has other safetensors files, which would be taken for a part of the model.
  ShardedSafetensorsWriter(const std::string& directory, std::span<const SafetensorsEntry> entries,
                           const Metadata& metadata = {}, Index shard_bytes = 5'000'000'000);

  /// As TensorFileWriter.
  void write(std::string_view name, std::span<const std::byte> bytes);
  /// All files are complete and on the disk before the first gets its name; the index comes last.
  void commit();

 private:
  std::map<std::string, std::size_t, std::less<>> places_;  // of each tensor among the shards
  std::deque<SafetensorsWriter> shards_;                    // a deque, since a writer cannot move
  std::optional<AtomicFile> index_;
};

namespace detail {

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
  return {directory_of(path), {names.begin(), names.end()}, std::move(placed)};
}

inline SafetensorsFiles find_safetensors(const std::string& path) {
  if (!is_directory(path)) {
    if (path.ends_with(".json")) return read_safetensors_index(path);
    return {directory_of(path), {std::string(name_in_directory(path))}};
  }
  std::vector<std::string> all = names_in(path);
  const auto holds = [&](std::string_view name) {
    return std::binary_search(all.begin(), all.end(), name);
  };
  if (holds(safetensors_index))
    return read_safetensors_index(message(path, "/", safetensors_index));
  if (holds(single_safetensors)) return {path, {std::string(single_safetensors)}};
  std::erase_if(all, [](const std::string& name) { return !name.ends_with(safetensors_suffix); });
  if (all.empty()) raise(ErrorCode::io, message(path, ": holds no *", safetensors_suffix));
  for (const std::string& name : all)
    if (const auto count = shard_count(name); count && *count != Index(all.size()))
      raise(ErrorCode::io,
            message(path, ": holds ", all.size(), " safetensors files and no index, but ", name,
                    " is one of ", *count));
  return {path, std::move(all)};
}

/// "model-00001-of-00003.safetensors", or the name of the only shard.
inline std::string shard_name(std::size_t shard, std::size_t count) {
  if (count == 1) return std::string(single_safetensors);
  char name[64];
  std::snprintf(name, sizeof name, "model-%05zu-of-%05zu.safetensors", shard + 1, count);
  return name;
}

/// Entries in runs of at most `limit` bytes, longer only for a single one. At least one run.
inline std::vector<std::span<const SafetensorsEntry>> cut_into_shards(
    std::span<const SafetensorsEntry> entries, Index limit) {
  std::vector<std::span<const SafetensorsEntry>> shards;
  std::size_t begin = 0;
  Index held = 0;
  for (std::size_t i = 0; i < entries.size(); ++i) {
    const Index bytes = byte_count(entries[i].type, entries[i].shape)
                            .value_or(0);  // the shard's writer refuses what has no size
    if (i > begin && bytes > limit - held) {
      shards.push_back(entries.subspan(begin, i - begin));
      begin = i;
      held = 0;
    }
    held += bytes;
  }
  shards.push_back(entries.subspan(begin));
  return shards;
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

inline ShardedSafetensorsWriter::ShardedSafetensorsWriter(const std::string& directory,
                                                          std::span<const SafetensorsEntry> entries,
                                                          const Metadata& metadata,
                                                          Index shard_bytes) {
  const auto shards = detail::cut_into_shards(entries, shard_bytes);
  std::vector<std::string> names;
  detail::Json weight_map = detail::Json::object();
  std::uint64_t total = 0;
  for (std::size_t s = 0; s < shards.size(); ++s) {
    names.push_back(detail::shard_name(s, shards.size()));
    for (const SafetensorsEntry& entry : shards[s]) {
      if (!places_.try_emplace(entry.name, s).second)
        raise(ErrorCode::invalid_argument, message("tensor ", entry.name, " is declared twice"));
      weight_map[entry.name] = names.back();
      total += std::uint64_t(byte_count(entry.type, entry.shape).value_or(0));
    }
  }
  for (const std::string& other : detail::names_in(directory)) {
    const bool index = other == detail::safetensors_index && shards.size() == 1;
    const bool shard = other.ends_with(detail::safetensors_suffix) &&
                       std::find(names.begin(), names.end(), other) == names.end();
    if (index || shard)
      raise(ErrorCode::invalid_argument, message(directory, ": holds ", other,
                                                 ", which would be taken for a part of the model"));
  }

  for (std::size_t s = 0; s < shards.size(); ++s)
    shards_.emplace_back(message(directory, "/", names[s]), shards[s], metadata);
  if (shards.size() == 1) return;
  index_.emplace(message(directory, "/", detail::safetensors_index));
  const std::string text =
      detail::Json{{"metadata", {{"total_size", total}}}, {"weight_map", std::move(weight_map)}}
          .dump(2) +
      "\n";
  index_->write(std::as_bytes(std::span(text)));
}

inline void ShardedSafetensorsWriter::write(std::string_view name,
                                            std::span<const std::byte> bytes) {
  const auto place = places_.find(name);
  if (place == places_.end()) {
    shards_.clear();
    index_.reset();
    raise(ErrorCode::invalid_argument, message("tensor ", name, " was not declared"));
  }
  shards_[place->second].write(name, bytes);
}

inline void ShardedSafetensorsWriter::commit() {
  for (auto& shard : shards_) shard.finish();
  if (index_) index_->finish();
  for (auto& shard : shards_) shard.commit();
  if (index_) index_->commit();
}

}  // namespace cafeq
