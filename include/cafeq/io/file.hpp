/// Files as the readers and writers of this floor need them: checked reads, read-only mappings,
/// writes that appear whole or not at all.
///
/// Every failure is an Error of code io that names the file and what the system said. POSIX.
#pragma once

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "cafeq/core/error.hpp"
#include "cafeq/core/matrix.hpp"
#include "cafeq/io/path.hpp"

namespace cafeq {

namespace detail {

/// An open file, which is closed on destruction.
class FileDescriptor {
 public:
  explicit FileDescriptor(int fd = -1) noexcept : fd_(fd) {}
  FileDescriptor(FileDescriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  FileDescriptor& operator=(FileDescriptor&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~FileDescriptor() { close(); }

  int get() const noexcept { return fd_; }
  /// Returns 0, or the number of the error: that a disk is full may only show here.
  int close() noexcept { return fd_ >= 0 && ::close(std::exchange(fd_, -1)) != 0 ? errno : 0; }

 private:
  int fd_;
};

/// Brings the names in a directory to the disk. That a file system cannot do it is no reason to
/// fail.
inline void sync_directory(const std::string& path) noexcept {
  const FileDescriptor entry(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (entry.get() >= 0) ::fsync(entry.get());
}

}  // namespace detail

/// A regular file open for reading.
class InputFile {
 public:
  explicit InputFile(std::string path) : path_(std::move(path)) {
    // Without O_NONBLOCK, opening a pipe would wait for a writer before it could be refused.
    fd_ = detail::FileDescriptor(::open(path_.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
    struct stat status{};
    if (fd_.get() < 0 || ::fstat(fd_.get(), &status) != 0)
      detail::raise_system(path_, "open", errno);

    if (!S_ISREG(status.st_mode)) raise(ErrorCode::io, message(path_, ": is not a regular file"));
    size_ = Index(status.st_size);
  }

  const std::string& path() const noexcept { return path_; }
  Index size() const noexcept { return size_; }
  int descriptor() const noexcept { return fd_.get(); }

  /// Fills `to` with the bytes from `offset` on. Raises io where the file ends early.
  void read_at(Index offset, std::span<std::byte> to) const {
    while (!to.empty()) {
      const ssize_t count = ::pread(fd_.get(), to.data(), to.size(), off_t(offset));
      if (count < 0 && errno == EINTR) continue;
      if (count < 0) detail::raise_system(path_, "read", errno);
      if (count == 0) raise(ErrorCode::io, message(path_, ": ends ", to.size(), " bytes early"));
      to = to.subspan(std::size_t(count));
      offset += count;
    }
  }

 private:
  std::string path_;
  detail::FileDescriptor fd_;
  Index size_ = 0;
};

/// Reads a whole file into memory.
inline Buffer<std::byte> read_file(const std::string& path) {
  const InputFile file(path);
  Buffer<std::byte> bytes(std::size_t(file.size()));
  file.read_at(0, bytes);
  return bytes;
}

/// A file as memory: the system reads its pages when they are touched. The file must not shrink
/// while it is mapped.
class MappedFile {
 public:
  explicit MappedFile(const std::string& path) {
    const InputFile file(path);
    size_ = std::size_t(file.size());
    if (size_ == 0) return;  // nothing can be mapped, and nothing needs to be

    void* pages = ::mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, file.descriptor(), 0);
    if (pages == MAP_FAILED) detail::raise_system(path, "map", errno);
    data_ = static_cast<const std::byte*>(pages);
  }
  MappedFile(MappedFile&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}
  MappedFile& operator=(MappedFile&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
  }
  ~MappedFile() {
    if (data_ != nullptr) ::munmap(const_cast<std::byte*>(data_), size_);
  }

  std::span<const std::byte> bytes() const noexcept { return {data_, size_}; }

  /// Lets the pages of `part`, a piece of bytes(), leave memory. When they are touched again the
  /// system reads them from the file once more.
  void release(std::span<const std::byte> part) const noexcept {
    if (part.empty()) return;
    const std::size_t page = std::size_t(::sysconf(_SC_PAGESIZE));
    const std::size_t begin = std::size_t(part.data() - data_) / page * page;
    const std::size_t end = std::size_t(part.data() - data_) + part.size();
    ::madvise(const_cast<std::byte*>(data_) + begin, end - begin, MADV_DONTNEED);
  }

 private:
  const std::byte* data_ = nullptr;
  std::size_t size_ = 0;
};

namespace process_wide {

inline std::atomic<unsigned> files{0};  // begun so far

}  // namespace process_wide

/// A file written under a temporary name beside its target, which it replaces on commit(). Until
/// then, and whenever something fails, the target is untouched; the temporary file goes with this
/// object.
class AtomicFile {
 public:
  explicit AtomicFile(std::string path) : path_(std::move(path)) {
    do {
      temporary_ = message(path_, ".", Index(::getpid()), ".", process_wide::files++, ".tmp");
      fd_ = detail::FileDescriptor(
          ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666));
    } while (fd_.get() < 0 && errno == EEXIST);
    if (fd_.get() < 0) detail::raise_system(path_, "create a temporary file beside it", errno);
  }
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;
  ~AtomicFile() { discard(); }

  /// Appends to what has been written so far.
  void write(std::span<const std::byte> bytes) { write_at(end_, bytes); }
  /// Writes at `offset`. Bytes that are jumped over are zero until they are written.
  void write_at(Index offset, std::span<const std::byte> bytes) {
    // The system takes no more than 2 GiB a call.
    constexpr std::size_t most = std::size_t(1) << 30;
    while (!bytes.empty()) {
      const ssize_t count =
          ::pwrite(fd_.get(), bytes.data(), std::min(bytes.size(), most), off_t(offset));
      if (count < 0 && errno == EINTR) continue;
      if (count < 0) fail("write", errno);
      bytes = bytes.subspan(std::size_t(count));
      offset += count;
    }
    end_ = std::max(end_, offset);
  }
  /// Gives the file that size: zeros follow what has been written, or its end is cut off.
  void resize(Index size) {
    if (::ftruncate(fd_.get(), off_t(size)) != 0) fail("write", errno);
    end_ = size;
  }

  /// Brings the content to the disk, still under the temporary name; a full disk shows here at the
  /// latest.
  void finish() {
    if (temporary_.empty())
      raise(ErrorCode::io, message(path_, ": the file was discarded, or is in its place already"));
    if (fd_.get() < 0) return;
    if (::fsync(fd_.get()) != 0) fail("write", errno);
    if (const int error = fd_.close(); error != 0) fail("write", error);
  }
  /// Finishes, then gives the file its name.
  void commit() {
    finish();
    if (std::rename(temporary_.c_str(), path_.c_str()) != 0) fail("replace", errno);
    temporary_.clear();
    detail::sync_directory(detail::directory_of(path_));
  }

  /// Removes the temporary file, after which nothing can be written.
  void discard() noexcept {
    fd_.close();
    if (!temporary_.empty()) ::unlink(temporary_.c_str());
    temporary_.clear();
  }

 private:
  [[noreturn]] void fail(std::string_view action, int error) {
    // This is not left to the destructor, which a host without exceptions never reaches.
    discard();
    detail::raise_system(path_, action, error);
  }

  std::string path_;
  std::string temporary_;
  detail::FileDescriptor fd_;
  Index end_ = 0;
};

/// Writes a whole file, which appears at once.
inline void write_file(const std::string& path, std::string_view content) {
  AtomicFile file(path);
  file.write(std::as_bytes(std::span(content)));
  file.commit();
}

}  // namespace cafeq
