/// Paths and directories of model files. POSIX.
#pragma once

#include <dirent.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <memory>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

#include "cafeq/core/error.hpp"

namespace cafeq::detail {

/// Raises io with what the system says of an error number.
[[noreturn]] inline void raise_system(const std::string& path, std::string_view action, int error) {
  raise(ErrorCode::io,
        message(path, ": cannot ", action, ": ", std::generic_category().message(error)));
}

/// What kind of file a path leads to (S_IFREG, S_IFDIR …), 0 where to none.
inline mode_t kind_of(const std::string& path) noexcept {
  struct stat status{};
  return ::stat(path.c_str(), &status) == 0 ? status.st_mode & S_IFMT : 0;
}
inline bool is_file(const std::string& path) noexcept { return kind_of(path) == S_IFREG; }
inline bool is_directory(const std::string& path) noexcept { return kind_of(path) == S_IFDIR; }

/// The directory that a file lies in, and the file's name there.
inline std::string directory_of(const std::string& path) {
  const auto slash = path.rfind('/');
  return slash == std::string::npos ? "." : path.substr(0, std::max<std::size_t>(slash, 1));
}
inline std::string_view name_in_directory(std::string_view path) noexcept {
  return path.substr(path.rfind('/') + 1);
}

/// The names of all that lies in a directory, sorted.
inline std::vector<std::string> names_in(const std::string& directory) {
  const std::unique_ptr<DIR, int (*)(DIR*)> stream(::opendir(directory.c_str()), ::closedir);
  if (stream == nullptr) raise_system(directory, "open", errno);

  std::vector<std::string> names;
  while (const dirent* entry = ::readdir(stream.get())) {
    const std::string_view name = entry->d_name;
    if (name != "." && name != "..") names.emplace_back(name);
  }
  std::sort(names.begin(), names.end());
  return names;
}

/// Whether a path that a model file names, relative to its own directory, stays below that
/// directory.
inline bool is_inside(std::string_view path) noexcept {
  if (path.empty() || path.front() == '/' || path.find('\\') != path.npos ||
      path.find('\0') != path.npos)
    return false;

  for (std::size_t begin = 0; begin <= path.size();) {
    const std::size_t end = std::min(path.find('/', begin), path.size());
    if (path.substr(begin, end - begin) == "..") return false;
    begin = end + 1;
  }
  return true;
}

}  // namespace cafeq::detail
