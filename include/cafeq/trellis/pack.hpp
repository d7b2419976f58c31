/// States of a trellis code as the bits of a chunk (trellis/stream.hpp).
#pragma once

#include <cstdint>
#include <cstring>
#include <span>

#include "cafeq/trellis/stream.hpp"

namespace cafeq::kernel {

namespace detail {

/// Appends bits to bytes, the most significant first.
class BitWriter {
 public:
  explicit BitWriter(std::uint8_t* to) noexcept : to_(to) {}

  /// The lowest `count` bits of `bits`, at most 16.
  void write(std::uint32_t bits, int count) noexcept {
    held_ = held_ << count | (bits & ((1u << count) - 1));
    for (held_count_ += count; held_count_ >= 8; held_count_ -= 8)
      *to_++ = std::uint8_t(held_ >> (held_count_ - 8));
  }
  /// Zeros from here to `end`.
  void finish(const std::uint8_t* end) noexcept {
    if (held_count_ > 0) write(0, 8 - held_count_);
    std::memset(to_, 0, std::size_t(end - to_));
  }

 private:
  std::uint8_t* to_;
  std::uint32_t held_ = 0;
  int held_count_ = 0;
};

/// Writes a cycle of states in its form in memory, piece by piece.
class TrellisWriter {
 public:
  TrellisWriter(const TrellisStream& stream, std::span<std::uint8_t> chunk) noexcept
      : stream_(stream), bits_(chunk.data()), end_(chunk.data() + chunk.size()) {}

  /// The states of the weights that follow. Each weight leaves the bits that the window loses when
  /// it slides on to the next one.
  void write(std::span<const std::uint16_t> states) noexcept {
    for (const std::uint16_t state : states) {
      if (next_ == 0) first_ = state;
      const int count = int(stream_.rate.begin(next_ + 1) - stream_.rate.begin(next_));
      bits_.write(std::uint32_t(state) >> (stream_.window - count), count);
      ++next_;
    }
  }
  /// After the last one: the first bits once more, then zeros.
  void close() noexcept {
    bits_.write(first_ >> 1, stream_.window - 1);
    bits_.finish(end_);
  }

 private:
  TrellisStream stream_;
  BitWriter bits_;
  const std::uint8_t* end_;
  Index next_ = 0;
  std::uint32_t first_ = 0;
};

}  // namespace detail

/// Writes a cycle of states in its form in memory: stream.state(chunk, t) is then states[t]. The
/// states are those of all stream.padded(n) weights, also of the ones that nobody reads; each must
/// continue the one before. `chunk` has stream.bytes(n) bytes or more; those behind it become zero.
inline void pack_trellis(std::span<const std::uint16_t> states, const TrellisStream& stream,
                         std::span<std::uint8_t> chunk) noexcept {
  [[maybe_unused]] const Index n = Index(states.size());
  CAFEQ_ASSERT(n == stream.padded(n) && Index(chunk.size()) >= stream.bytes(n));
  detail::TrellisWriter writer(stream, chunk);
  writer.write(states);
  writer.close();
}

}  // namespace cafeq::kernel
