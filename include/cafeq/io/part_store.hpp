/// A directory for the parts of a long job, each a file of its own until the whole can be put
/// together, so that nothing that was done is done again after an interruption.
#pragma once

#include <sys/file.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <string>
#include <string_view>
#include <utility>

#include "cafeq/io/byte_cursor.hpp"
#include "cafeq/io/file.hpp"

namespace cafeq {

/// The directory holds a file `plan` with the fingerprint of the job, which tells this job from
/// others, and the parts. A part that is there is complete, since it appears whole or not at all.
/// Whatever else an interrupted run has left is removed when the next one begins; files that no run
/// has made stay.
///
/// One process at a time has the directory. The lock goes when that process ends, however it ends.
class PartStore {
 public:
  enum class Start {
    fresh,   ///< no job may have begun in the directory
    resume,  ///< a job with the same fingerprint may have begun, whose parts count
    anew,    ///< any job may have begun, whose parts are removed
  };

  /// Raises invalid_argument where the directory has what `start` forbids, io where another process
  /// has it.
  PartStore(std::string directory, std::string_view fingerprint, Start start);

  /// Where a part is to be written.
  std::string path(std::size_t part) const { return message(directory_, "/", part, part_suffix); }
  bool has(std::size_t part) const noexcept { return detail::kind_of(path(part)) == S_IFREG; }
  /// Whether no part is there.
  bool empty() const;
  /// Where what the parts are made by is to be written, which stays with them: the metric of the
  /// inputs, and what errors in matrices cost.
  std::string metric() const { return directory_ + "/metric"; }
  std::string sensitivities() const { return directory_ + "/sensitivities"; }
  /// That all parts are made as this text says, which is decided only when the directory has been
  /// opened. Raises invalid_argument where they were begun by another one.
  void insist(std::string_view decision) const;
  /// The path of the file or the directory in which the parts are put together: on the file system
  /// where it will stay, so that it can be moved to its place in one step.
  std::string whole() const { return directory_ + "/whole"; }

  /// Moves the whole to its place, in one step, and removes all else. A file that is there is
  /// replaced.
  void finish(const std::string& place);
  /// Removes everything: the plan first, so that what an interruption leaves is not taken for
  /// parts.
  void remove() noexcept;

 private:
  static constexpr std::string_view part_suffix = ".part";
  /// What follows the number at the start of a name; empty where it starts with none.
  static std::string_view suffix_of(std::string_view name) noexcept {
    const auto digits = std::min(name.find_first_not_of("0123456789"), name.size());
    return digits == 0 ? std::string_view() : name.substr(digits);
  }
  static bool is_part(std::string_view name) noexcept { return suffix_of(name) == part_suffix; }
  static bool is_ours(std::string_view name) noexcept {
    constexpr std::array names{"plan", "whole", "metric", "sensitivities", "decision"};
    return suffix_of(name).starts_with(part_suffix) ||
           std::ranges::any_of(names, [&](const char* ours) { return name.starts_with(ours); });
  }
  static bool stays(std::string_view name) noexcept {
    return is_part(name) || name == "plan" || name == "metric" || name == "sensitivities" ||
           name == "decision";
  }
  /// Raises where a file that is there has not this text.
  void check_same(const std::string& path, std::string_view text) const;

  std::string plan_path() const { return directory_ + "/plan"; }
  void lock();
  template <class Keep>
  void remove_all_but(Keep&& keep) noexcept;

  std::string directory_;
  detail::FileDescriptor lock_;
};

inline PartStore::PartStore(std::string directory, std::string_view fingerprint, Start start)
    : directory_(std::move(directory)) {
  if (::mkdir(directory_.c_str(), 0777) != 0 && errno != EEXIST)
    detail::raise_system(directory_, "create", errno);
  lock();

  const bool begun = detail::kind_of(plan_path()) == S_IFREG;
  if (begun && start == Start::fresh)
    raise(ErrorCode::invalid_argument, message(directory_,
                                               ": is there already, with what an interrupted run "
                                               "has done; resume it, or overwrite it"));

  if (begun && start == Start::resume) {
    check_same(plan_path(), fingerprint);
    remove_all_but(stays);
    return;
  }

  remove_all_but([](std::string_view) { return false; });
  write_file(plan_path(), fingerprint);
}

inline void PartStore::check_same(const std::string& path, std::string_view text) const {
  const auto bytes = read_file(path);
  if (detail::as_text(bytes) != text)
    raise(ErrorCode::invalid_argument, message(directory_,
                                               ": belongs to another plan or another model, or "
                                               "the model has changed; resume with the "
                                               "options it was begun with, or overwrite it"));
}

inline void PartStore::insist(std::string_view decision) const {
  const std::string path = directory_ + "/decision";
  if (detail::kind_of(path) == S_IFREG) check_same(path, decision);
  else write_file(path, decision);
}

inline void PartStore::lock() {
  lock_ = detail::FileDescriptor(::open(directory_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (lock_.get() < 0) detail::raise_system(directory_, "open", errno);
  // A file system without locks is no reason to fail.
  if (::flock(lock_.get(), LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK)
    raise(ErrorCode::io, message(directory_, ": another run is at work in it"));
}

inline bool PartStore::empty() const {
  const auto names = detail::names_in(directory_);
  return std::none_of(names.begin(), names.end(), is_part);
}

inline void PartStore::finish(const std::string& place) {
  if (std::rename(whole().c_str(), place.c_str()) != 0)
    detail::raise_system(place, "create", errno);
  detail::sync_directory(detail::directory_of(place));
  remove();
}

inline void PartStore::remove() noexcept {
  remove_all_but([](std::string_view) { return false; });
  ::rmdir(directory_.c_str());
}

template <class Keep>
void PartStore::remove_all_but(Keep&& keep) noexcept {
  if (!keep("plan")) ::unlink(plan_path().c_str());
  std::error_code ignored;
  for (std::filesystem::directory_iterator entry(directory_, ignored), end; entry != end;
       entry.increment(ignored))
    if (const std::string name = entry->path().filename().string(); is_ours(name) && !keep(name))
      std::filesystem::remove_all(entry->path(), ignored);
}

}  // namespace cafeq
