/// Chunks of a trellis code back to levels and weights, from any weight on: ŵ = level · (unit ·
/// scale of its row).
///
/// The levels are read as trellis/reader.hpp says; a chunk must have the memory form of
/// trellis/stream.hpp.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <span>
#include <type_traits>

#include "cafeq/simd/batch.hpp"
#include "cafeq/simd/byte_ops.hpp"
#include "cafeq/trellis/code.hpp"
#include "cafeq/trellis/reader.hpp"
#include "cafeq/trellis/windows.hpp"

namespace cafeq::kernel {

/// Decodes chunks of one code at one rate. `Ops` is what an architecture does with bytes. 2.5 KB;
/// make it once, not for each row.
template <class Arch = DefaultArch, class Ops = simd::ByteOps<Arch>>
class TrellisDecoder {
 public:
  /// `code` has a window of 8 … 12, or of 14 bits and, of 128 magnitudes, 0 as the first.
  TrellisDecoder(const TrellisCode& code, TrellisRate rate) noexcept : plan_(code, rate) {}

  /// What a level of a row with that scale is multiplied by: unit · scale, in fp32.
  float factor(float scale) const noexcept { return plan_.unit * scale; }

  /// What a level is multiplied by beside the scale of its row.
  float unit() const noexcept { return plan_.unit; }

  /// The levels, −127 … 127, of the weights from `first` on. They are the same on every
  /// architecture.
  void levels(const std::uint8_t* chunk, Index first, std::span<std::int8_t> out) const noexcept {
    if (plan_.magnitudes == 32) levels<32>(chunk, first, out);
    else levels<128>(chunk, first, out);
  }

  /// The weights from `first` on, all of one scale, which does not have the unit in it: level ·
  /// factor(scale) in fp32, rounded once more where T is narrower. T: float, fp16, bf16 or double.
  template <class T>
  void decode(const std::uint8_t* chunk, Index first, float scale, std::span<T> out) const noexcept;

  /// f(reader) with a reader that begins at stretch `first` of the chunk.
  template <class F>
  void read(const std::uint8_t* chunk, Index first, F&& f) const noexcept {
    if (plan_.magnitudes == 32) f(detail::TrellisReader<Ops, 32>(plan_, chunk, first));
    else f(detail::TrellisReader<Ops, 128>(plan_, chunk, first));
  }

 private:
  template <int Magnitudes>
  void levels(const std::uint8_t* chunk, Index first, std::span<std::int8_t> out) const noexcept;

  detail::TrellisPlan<Ops> plan_;
};

template <class Arch, class Ops>
template <int Magnitudes>
void TrellisDecoder<Arch, Ops>::levels(const std::uint8_t* chunk, Index first,
                                       std::span<std::int8_t> out) const noexcept {
  detail::TrellisReader<Ops, Magnitudes> reader(plan_, chunk, first / detail::stretch);
  alignas(32) std::int8_t buffer[32];
  const auto store = [](const auto& value, std::int8_t* p) {
    Ops::store(p, Ops::narrow16(Ops::even8(value), Ops::odd8(value)));
  };
  if (const auto skipped = std::size_t(first % detail::stretch); skipped > 0 && !out.empty()) {
    const std::size_t count = std::min(out.size(), std::size_t(detail::stretch) - skipped);
    store(reader.levels(reader.last_hashes()).value(0), buffer);
    std::memcpy(out.data(), buffer + skipped, count);
    out = out.subspan(count);
  }
  detail::for_stretches(reader, ceil_div(Index(out.size()), detail::stretch),
                        [&](const auto& levels, Index g) __attribute__((always_inline)) {
                          CAFEQ_UNROLL
                          for (int p = 0; p < std::decay_t<decltype(levels)>::pairs; ++p) {
                            const auto rest =
                                out.subspan(std::size_t((g + 2 * p) * detail::stretch));
                            store(levels.value(p), rest.size() >= 32 ? rest.data() : buffer);
                            if (rest.size() < 32) std::memcpy(rest.data(), buffer, rest.size());
                          }
                        });
}

template <class Arch, class Ops>
template <class T>
void TrellisDecoder<Arch, Ops>::decode(const std::uint8_t* chunk, Index first, float scale,
                                       std::span<T> out) const noexcept {
  using V = Batch<float, Arch>;
  constexpr Index lanes = Index(V::size), block = 512;
  alignas(64) std::int8_t buffer[block];
  const float by = factor(scale);
  const Index count = Index(out.size());
  for (Index at = 0; at < count;) {
    const Index some =
        std::min(count - at,
                 block - (first + at) % detail::stretch);  // the next block begins with a stretch
    levels(chunk, first + at, {buffer, std::size_t(some)});
    Index j = 0;
    for (; j + lanes <= some; j += lanes)
      simd::store_float<Arch>(out.data() + at + j, V(by) * simd::load_float<Arch>(buffer + j));
    for (; j < some; ++j) out[std::size_t(at + j)] = T(by * float(buffer[j]));
    at += some;
  }
}

}  // namespace cafeq::kernel
