/// Little-endian numbers, strings and runs of bytes as binary files hold them: read with every
/// length checked before it is used, and appended to a string.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>

#include "cafeq/core/error.hpp"
#include "cafeq/model/tensor.hpp"

namespace cafeq::detail {

/// The same bytes as characters.
inline std::string_view as_text(std::span<const std::byte> bytes) noexcept {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

/// Reads `bytes` from front to back. Everything that would reach beyond the end raises corrupt,
/// with a message that names the `file` and `what` was being read.
class ByteCursor {
 public:
  ByteCursor(std::string_view file, std::span<const std::byte> bytes) noexcept
      : file_(file), bytes_(bytes) {}

  std::string_view file() const noexcept { return file_; }
  std::size_t position() const noexcept { return position_; }
  std::size_t remaining() const noexcept { return bytes_.size() - position_; }

  /// The next `count` bytes, which are not copied.
  std::span<const std::byte> take(std::uint64_t count, std::string_view what) {
    if (count > remaining())
      fail(message(what, " of ", count, " bytes at byte ", position_, " reaches beyond the end of ",
                   bytes_.size(), " bytes"));
    position_ += std::size_t(count);
    return bytes_.subspan(position_ - std::size_t(count), std::size_t(count));
  }
  /// The next bytes as a number.
  template <class T>
  T number(std::string_view what) {
    static_assert(std::is_trivially_copyable_v<T>);
    T value;
    std::memcpy(&value, take(sizeof value, what).data(), sizeof value);
    return value;
  }
  /// The next string: a 64-bit length and that many characters, which are not copied.
  std::string_view text(std::string_view what) {
    return as_text(take(number<std::uint64_t>(what), what));
  }

  /// Raises corrupt for what the bytes say.
  [[noreturn]] void fail(std::string_view problem) const {
    raise(ErrorCode::corrupt, message(file_, ": ", problem));
  }

 private:
  std::string_view file_;
  std::span<const std::byte> bytes_;
  std::size_t position_ = 0;
};

/// The opposites of number() and text().
template <class T>
  requires std::is_trivially_copyable_v<T>
void append_number(std::string& to, T value) {
  to.append(reinterpret_cast<const char*>(&value), sizeof value);
}
inline void append_text(std::string& to, std::string_view text) {
  append_number(to, std::uint64_t(text.size()));
  to.append(text);
}

}  // namespace cafeq::detail
