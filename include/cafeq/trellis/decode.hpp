/// Chunks of a trellis code back to levels and weights, from any weight on: ŵ = level · (unit ·
/// scale of its row).
///
/// Weights are decoded in groups of 16 that begin at a multiple of 16. Group g begins at bit g·(16
/// R) exactly and has the same ⌊iR⌋ inside, so only its place within a byte, one of 8, changes from
/// group to group. For each place a shuffle of 16 bytes brings two neighbouring windows into a
/// 32-bit lane and two shifts bring each of them into its half. A product of 16 bits gives h of 16
/// weights; the bytes h of two groups are mapped to magnitudes by look-ups in tables of 16. Where
/// bytes cannot be shuffled, weights are looked up one by one.
/// A chunk must have the memory form of trellis/code.hpp: loads of 16 bytes begin at the first
/// byte of a group that has a weight of the chunk. Longer than most headers: how windows are laid
/// out, read and looked up is one contract.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <span>
#include <type_traits>

#include "cafeq/simd/batch.hpp"
#include "cafeq/simd/byte_ops.hpp"
#include "cafeq/trellis/code.hpp"

namespace cafeq::kernel {

namespace detail {

inline constexpr Index trellis_group = 16;

/// How the windows of a group are cut out of the 16 bytes from its first one on. Lane l has windows
/// 2l and 2l + 1.
struct alignas(128) TrellisWindows {
  alignas(32) std::array<std::uint8_t, 32> bytes;  // three or four that have both windows of a
                                                   // lane, the first one on top
  alignas(32) std::array<std::uint32_t, 8> right;  // brings the even window to bit 0
  alignas(32) std::array<std::uint32_t, 8> left;   // brings the odd one to bit 16
};

/// What the decoding of a code at a rate needs, the same whatever the architecture.
template <class Ops>
struct TrellisPlan {
  TrellisPlan(const TrellisCode& code, TrellisRate rate) noexcept;

  int sixteenths;
  int window;
  int multiplier;
  int magnitudes;
  float unit;
  std::array<TrellisWindows, 8> windows;  // of a group that begins at that bit of a byte
  /// What magnitude 16k + i has more than magnitude 16(k−1) + i, at i and 16 + i of table k: a
  /// magnitude is the sum of a column down to its own row.
  alignas(32) std::array<std::array<std::int8_t, 32>, 8> table;
  std::array<std::int8_t, 256> level;  // of each h
};

/// Groups of a chunk one after the other, in P pairs at a time. Magnitudes: 32 or 128.
/// Two functions, hashes() and levels(), so that a loop may let the first run ahead of the second.
template <class Ops, int Magnitudes>
class TrellisReader {
 public:
  using Vector = typename Ops::Vector;
  /// What two groups are looked up by, the first in the even bytes, the second in the odd ones.
  template <int P>
  struct Hashes {
    Vector pair[P];
  };
  /// Levels in the same order, without their signs, at most 127, and bytes of their signs.
  template <int P>
  struct Levels {
    static constexpr int pairs = P;
    Vector magnitude[P];
    Vector sign[P];
    Vector value(int p) const noexcept { return Ops::sign8(magnitude[p], sign[p]); }
  };

  TrellisReader(const TrellisPlan<Ops>& plan, const std::uint8_t* chunk, Index group) noexcept
      : plan_(plan),
        chunk_(chunk),
        bit_(group * plan.sixteenths),
        mask_(Ops::set16((1 << plan.window) - 1)),
        multiplier_(Ops::set16(plan.multiplier)) {
    CAFEQ_UNROLL
    for (std::size_t k = 0; k < tables; ++k) table_[k] = Ops::load(plan.table[k].data());
  }

  /// Of the next 2 P groups.
  template <int P>
  [[gnu::always_inline]] Hashes<P> hashes() noexcept {
    const Index bit = bit_;
    bit_ += 2 * P * plan_.sixteenths;
    if constexpr (Ops::fast) {
      Vector u[2 * P];
      CAFEQ_UNROLL
      for (int g = 0; g < 2 * P; ++g) u[g] = windows(bit + g * plan_.sixteenths);
      return hash<P>(u);
    } else {
      Hashes<P> h;
      for (int p = 0; p < P; ++p)
        h.pair[p] = values(bit + 2 * p * plan_.sixteenths, bit + (2 * p + 1) * plan_.sixteenths);
      return h;
    }
  }
  /// Of the next group, twice: what follows it may not be there.
  [[gnu::always_inline]] Hashes<1> last_hashes() noexcept {
    const Index bit = bit_;
    bit_ += plan_.sixteenths;
    if constexpr (Ops::fast) {
      const Vector u = windows(bit), both[2] = {u, u};
      return hash<1>(both);
    } else {
      return {{values(bit, bit)}};
    }
  }
  template <int P>
  [[gnu::always_inline]] Levels<P> levels(const Hashes<P>& h) const noexcept {
    if constexpr (Ops::fast) {
      return look_up(h);
    } else {
      Levels<P> levels;
      for (int p = 0; p < P; ++p) {
        levels.magnitude[p] = Ops::sign8(h.pair[p], h.pair[p]);
        levels.sign[p] = h.pair[p];
      }
      return levels;
    }
  }

 private:
  static constexpr int tables = Magnitudes / 16;
  /// Then the level of h = 128, whose sign byte is 0, is 0 indeed.
  static constexpr bool first_is_zero = Magnitudes == 128;

  /// The windows of a group, one a 16-bit lane, and what is above them.
  Vector windows(Index bit) const noexcept {
    const TrellisWindows& w = plan_.windows[std::size_t(bit & 7)];
    const Vector both =
        Ops::shuffle(Ops::load_half(chunk_ + (bit >> 3)), Ops::load(w.bytes.data()));
    return Ops::merge16(Ops::shift_right32(both, Ops::load(w.right.data())),
                        Ops::shift_left32(both, Ops::load(w.left.data())));
  }

  // Below the steps of all pairs alternate, so that each finds the one before it done.

  /// h − 128, or for 32 magnitudes ⌊h/4⌋ − 32: the index of the magnitude, or −1 less it, which is
  /// negative where the level is.
  template <int P>
  [[gnu::always_inline]] Hashes<P> hash(const Vector* windows) const noexcept {
    Vector u[2 * P];
    CAFEQ_UNROLL
    for (int g = 0; g < 2 * P; ++g)
      u[g] = Ops::multiply16(Ops::bit_and(windows[g], mask_), multiplier_);
    Hashes<P> h;
    CAFEQ_UNROLL
    for (int p = 0; p < P; ++p) {
      if constexpr (Magnitudes == 128)
        h.pair[p] = Ops::merge8(Ops::template shift_right16<8>(u[2 * p]), u[2 * p + 1]);
      else
        h.pair[p] = Ops::merge8(Ops::template shift_right16<10>(u[2 * p]),
                                Ops::template shift_right16<2>(u[2 * p + 1]));
    }
    CAFEQ_UNROLL
    for (int p = 0; p < P; ++p) h.pair[p] = Ops::sub8(h.pair[p], Ops::set8(Magnitudes));
    return h;
  }

  template <int P>
  [[gnu::always_inline]] Levels<P> look_up(const Hashes<P>& h) const noexcept {
    Levels<P> levels;
    Vector index[P];
    CAFEQ_UNROLL
    for (int p = 0; p < P; ++p)
      index[p] = Ops::min8(h.pair[p], Ops::bit_xor(h.pair[p], Ops::set8(0xff)));
    CAFEQ_UNROLL
    for (int p = 0; p < P; ++p) levels.magnitude[p] = Ops::shuffle(table_[0], index[p]);
    CAFEQ_UNROLL
    for (int k = 1; k < tables; ++k) {  // a negative index finds 0
      CAFEQ_UNROLL
      for (int p = 0; p < P; ++p) index[p] = Ops::sub8(index[p], Ops::set8(16));
      CAFEQ_UNROLL
      for (int p = 0; p < P; ++p)
        levels.magnitude[p] = Ops::add8(levels.magnitude[p], Ops::shuffle(table_[k], index[p]));
    }
    CAFEQ_UNROLL
    for (int p = 0; p < P; ++p)
      levels.sign[p] = first_is_zero ? h.pair[p] : Ops::bit_or(h.pair[p], Ops::set8(1));
    return levels;
  }

  /// Levels one by one.
  Vector values(Index bit, Index second) const noexcept {
    alignas(32) std::array<std::int8_t, 32> value;
    for (std::size_t i = 0; i < 16; ++i) {
      const Index at = Index(i) * plan_.sixteenths >> 4;
      value[2 * i] = level(bit + at);
      value[2 * i + 1] = level(second + at);
    }
    return Ops::load(value.data());
  }
  std::int8_t level(Index bit) const noexcept {
    const std::uint32_t state = trellis_state(chunk_, bit, plan_.window);
    return plan_.level[(state * std::uint32_t(plan_.multiplier) & 0xffff) >> 8];
  }

  const TrellisPlan<Ops>& plan_;
  const std::uint8_t* chunk_;
  Index bit_;
  Vector mask_, multiplier_;
  Vector table_[tables];
};

/// f(levels, g) for the next `groups` groups of a reader, the first of a call being g: four a call,
/// then two, then a last one twice. The next windows are cut while the last ones are looked up: in
/// one go, a chain of 20 dependent steps fills the scheduler with what cannot start yet.
template <class Reader, class F>
[[gnu::always_inline]] inline void for_groups(Reader& reader, Index groups, F&& f) noexcept {
  constexpr int pairs = 2;
  Index g = 0;
  if (g + 2 * pairs <= groups) {
    auto next = reader.template hashes<pairs>();
    for (; g + 4 * pairs <= groups; g += 2 * pairs) {
      const auto now = next;
      next = reader.template hashes<pairs>();
      f(reader.levels(now), g);
    }
    f(reader.levels(next), g);
    g += 2 * pairs;
  }
  for (; g + 2 <= groups; g += 2) f(reader.levels(reader.template hashes<1>()), g);
  if (g < groups) f(reader.levels(reader.last_hashes()), g);
}

}  // namespace detail

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

  /// f(reader) with a reader that begins at group `group` of the chunk.
  template <class F>
  void read(const std::uint8_t* chunk, Index group, F&& f) const noexcept {
    if (plan_.magnitudes == 32) f(detail::TrellisReader<Ops, 32>(plan_, chunk, group));
    else f(detail::TrellisReader<Ops, 128>(plan_, chunk, group));
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
  detail::TrellisReader<Ops, Magnitudes> reader(plan_, chunk, first / detail::trellis_group);
  alignas(32) std::int8_t buffer[32];
  const auto store = [](const auto& value, std::int8_t* p) {
    Ops::store(p, Ops::narrow16(Ops::even8(value), Ops::odd8(value)));
  };
  if (const auto skipped = std::size_t(first % detail::trellis_group);
      skipped > 0 && !out.empty()) {
    const std::size_t count = std::min(out.size(), std::size_t(detail::trellis_group) - skipped);
    store(reader.levels(reader.last_hashes()).value(0), buffer);
    std::memcpy(out.data(), buffer + skipped, count);
    out = out.subspan(count);
  }
  detail::for_groups(reader, ceil_div(Index(out.size()), detail::trellis_group),
                     [&](const auto& levels, Index g) __attribute__((always_inline)) {
                       CAFEQ_UNROLL
                       for (int p = 0; p < std::decay_t<decltype(levels)>::pairs; ++p) {
                         const auto rest =
                             out.subspan(std::size_t((g + 2 * p) * detail::trellis_group));
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
    const Index some = std::min(
        count - at,
        block - (first + at) % detail::trellis_group);  // the next block begins with a group
    levels(chunk, first + at, {buffer, std::size_t(some)});
    Index j = 0;
    for (; j + lanes <= some; j += lanes)
      simd::store_float<Arch>(out.data() + at + j, V(by) * simd::load_float<Arch>(buffer + j));
    for (; j < some; ++j) out[std::size_t(at + j)] = T(by * float(buffer[j]));
    at += some;
  }
}

template <class Ops>
detail::TrellisPlan<Ops>::TrellisPlan(const TrellisCode& code, TrellisRate rate) noexcept
    : sixteenths(rate.sixteenths),
      window(code.window),
      multiplier(code.multiplier),
      magnitudes(code.levels),
      unit(code.unit),
      windows{},
      table{},
      level{} {
  CAFEQ_ASSERT(rate.is_valid() &&
               (magnitudes == 32 || (magnitudes == 128 && code.magnitudes[0] == 0)));
  // A pair of windows spans at most 7 + 5 + 12 = 24 bits of its three bytes, and the last byte of a
  // group is its twelfth. Longer windows need a fourth, and the odd one, which begins two bits or
  // more behind the even one, then still has to move up or not at all.
  const std::size_t span = window > 12 ? 4 : 3;
  for (std::size_t bit = 0; bit < windows.size(); ++bit)
    for (std::size_t l = 0; l < 8; ++l) {
      const auto even = bit + std::size_t(rate.begin(Index(2 * l))),
                 odd = bit + std::size_t(rate.begin(Index(2 * l + 1)));
      const std::size_t byte = even / 8;
      for (std::size_t b = 0; b < 4; ++b)
        windows[bit].bytes[4 * l + b] = b < span ? std::uint8_t(byte + span - 1 - b) : 0x80;
      windows[bit].right[l] = std::uint32_t(int(8 * span) - window - int(even - 8 * byte));
      windows[bit].left[l] = std::uint32_t(window + 16 - int(8 * span) + int(odd - 8 * byte));
    }
  for (int i = 0; i < magnitudes; ++i) {
    const int before = i < 16 ? 0 : code.magnitudes[std::size_t(i - 16)];
    for (int half : {0, 16})
      table[std::size_t(i / 16)][std::size_t(half + i % 16)] =
          std::int8_t(code.magnitudes[std::size_t(i)] - before);
  }
  for (int h = 0; h < 256; ++h) {
    const int magnitude =
        code.magnitudes[std::size_t((h >= 128 ? h - 128 : 127 - h) / (128 / magnitudes))];
    level[std::size_t(h)] = std::int8_t(h >= 128 ? magnitude : -magnitude);
  }
}

}  // namespace cafeq::kernel
