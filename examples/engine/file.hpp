/// Files that are read in parts.
#pragma once

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <bit>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <nlohmann/json.hpp>
#include <string>

#include "model.hpp"

namespace engine {

static_assert(std::endian::native == std::endian::little,
              "the formats are read as they are stored");

using Json = nlohmann::json;

class File {
 public:
  explicit File(const std::string& path)
      : path_(path), descriptor_(::open(path.c_str(), O_RDONLY | O_CLOEXEC)) {
    struct stat status{};
    if (descriptor_ < 0 || ::fstat(descriptor_, &status) != 0)
      fail(path + ": " + std::strerror(errno));
    size_ = std::uint64_t(status.st_size);
  }
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  ~File() { ::close(descriptor_); }

  const std::string& path() const { return path_; }
  std::uint64_t size() const { return size_; }

  void read(std::uint64_t offset, void* to, std::size_t bytes) const {
    for (auto* out = static_cast<char*>(to); bytes > 0;) {
      const ::ssize_t got = ::pread(descriptor_, out, bytes, ::off_t(offset));
      if (got < 0) fail(path_ + ": " + std::strerror(errno));
      if (got == 0) fail(path_ + ": ends after " + std::to_string(offset) + " bytes");
      out += got;
      offset += std::uint64_t(got);
      bytes -= std::size_t(got);
    }
  }

 private:
  std::string path_;
  int descriptor_;
  std::uint64_t size_ = 0;
};

inline std::string read_text(const std::string& path) {
  const File file(path);
  std::string text(file.size(), '\0');
  file.read(0, text.data(), text.size());
  return text;
}

/// f(), whose errors are made to name the file.
template <class F>
auto in_file(const std::string& path, F&& f) {
  try {
    return f();
  } catch (const std::exception& error) {
    fail(path + ": " + error.what());
  }
}

/// What f makes of a JSON file.
template <class F>
auto read_json(const std::string& path, F&& f) {
  const std::string text = read_text(path);
  return in_file(path, [&] { return f(Json::parse(text)); });
}

}  // namespace engine
