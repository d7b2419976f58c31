/// Writes a model as one or several safetensors files of a directory, as Hugging Face lays them out
/// and cafeq/io/safetensors_model.hpp reads them.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <deque>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "cafeq/io/file.hpp"
#include "cafeq/io/json.hpp"
#include "cafeq/io/path.hpp"
#include "cafeq/io/safetensors.hpp"
#include "cafeq/io/safetensors_model.hpp"

namespace cafeq {

/// Writes a model as Hugging Face does: `model.safetensors` where one file is enough, else
/// `model-00001-of-0000N.safetensors` and an index.
class ShardedSafetensorsWriter {
 public:
  /// Entries fill one file after the other, in their order; none gets more than `shard_bytes`
  /// unless one tensor alone has. Raises invalid_argument as SafetensorsWriter, and where the
  /// directory has other safetensors files, which would be taken for a part of the model.
  ShardedSafetensorsWriter(const std::string& directory, std::span<const SafetensorsEntry> entries,
                           const Metadata& metadata = {}, Index shard_bytes = 5'000'000'000);

  /// All bytes of one tensor, in any order of tensors. Errors as TensorFileWriter::write().
  void write(std::string_view name, std::span<const std::byte> bytes);
  /// All files are complete and on the disk before the first gets its name; the index comes last.
  void commit();

 private:
  std::map<std::string, std::size_t, std::less<>> places_;  // of each tensor among the shards
  std::deque<SafetensorsWriter> shards_;                    // a deque, since a writer cannot move
  std::optional<AtomicFile> index_;
};

namespace detail {

/// "model-00001-of-00003.safetensors", or the name of the only shard.
inline std::string shard_name(std::size_t shard, std::size_t count) {
  if (count == 1) return std::string(single_safetensors);
  char name[64];
  std::snprintf(name, sizeof name, "model-%05zu-of-%05zu.safetensors", shard + 1, count);
  return name;
}

/// Cuts the entries into runs of at most `limit` bytes; longer is only the run of a single entry
/// that is longer by itself. There is at least one run.
inline std::vector<std::span<const SafetensorsEntry>> cut_into_shards(
    std::span<const SafetensorsEntry> entries, Index limit) {
  std::vector<std::span<const SafetensorsEntry>> shards;
  std::size_t begin = 0;
  Index held = 0;
  for (std::size_t i = 0; i < entries.size(); ++i) {
    // What has no size is refused by the writer of its shard.
    const Index bytes = byte_count(entries[i].type, entries[i].shape).value_or(0);
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
