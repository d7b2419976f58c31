/// Reads the levels of a trellis chunk, stretch after stretch, in registers.
///
/// Windows are cut out as trellis/windows.hpp says. A product of 16 bits gives the bytes h of 16
/// weights; those of two stretches are mapped to magnitudes by look-ups in tables of 16. Where
/// bytes cannot be shuffled, weights are looked up one by one.
///
/// A chunk must have the memory form of trellis/stream.hpp: loads of 16 bytes begin at the first
/// byte of a stretch that has a weight of the chunk.
#pragma once

#include <array>
#include <cstdint>

#include "cafeq/simd/byte_ops.hpp"
#include "cafeq/trellis/stream.hpp"
#include "cafeq/trellis/windows.hpp"

namespace cafeq::kernel::detail {

/// Stretches of a chunk one after the other, in P pairs at a time. Magnitudes: 32 or 128. Two
/// functions, hashes() and levels(), so that a loop may let the first run ahead of the second.
template <class Ops, int Magnitudes>
class TrellisReader {
 public:
  using Vector = typename Ops::Vector;
  /// What two stretches are looked up by, the first in the even bytes, the second in the odd ones.
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

  /// From stretch `first` of the chunk on.
  TrellisReader(const TrellisPlan<Ops>& plan, const std::uint8_t* chunk, Index first) noexcept
      : plan_(plan),
        chunk_(chunk),
        bit_(first * plan.sixteenths),
        mask_(Ops::set16((1 << plan.window) - 1)),
        multiplier_(Ops::set16(plan.multiplier)) {
    CAFEQ_UNROLL
    for (std::size_t k = 0; k < tables; ++k) table_[k] = Ops::load(plan.table[k].data());
  }

  /// Of the next 2 P stretches.
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
  /// Of the next stretch, twice: what follows it may not be there.
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
  /// The level of h = 128, whose sign byte is 0, is then 0 indeed; else that byte is made odd.
  static constexpr bool first_is_zero = Magnitudes == 128;

  /// The windows of a stretch, one a 16-bit lane, and what is above them.
  Vector windows(Index bit) const noexcept {
    const TrellisWindows& w = plan_.windows[std::size_t(bit & 7)];
    const Vector both =
        Ops::shuffle(Ops::load_half(chunk_ + (bit >> 3)), Ops::load(w.bytes.data()));
    return Ops::merge16(Ops::shift_right32(both, Ops::load(w.right.data())),
                        Ops::shift_left32(both, Ops::load(w.left.data())));
  }

  // In both functions below the steps of all pairs alternate: each step waits for the one before
  // it, and another pair's fills that time.

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

  /// Levels one by one, where bytes cannot be shuffled.
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
    const std::uint32_t state =
        TrellisStream{{plan_.sixteenths}, plan_.window}.state_at(chunk_, bit);
    return plan_.level[(state * std::uint32_t(plan_.multiplier) & 0xffff) >> 8];
  }

  const TrellisPlan<Ops>& plan_;
  const std::uint8_t* chunk_;
  Index bit_;
  Vector mask_, multiplier_;
  Vector table_[tables];
};

/// f(levels, g) for the next `count` stretches of a reader, the first of a call being g: four a
/// call, then two, then a last one twice.
///
/// The next windows are cut while the last ones are looked up: in one go, a chain of 20 dependent
/// steps fills the scheduler with what cannot start yet.
template <class Reader, class F>
[[gnu::always_inline]] inline void for_stretches(Reader& reader, Index count, F&& f) noexcept {
  constexpr int pairs = 2;
  Index g = 0;
  if (g + 2 * pairs <= count) {
    auto next = reader.template hashes<pairs>();
    for (; g + 4 * pairs <= count; g += 2 * pairs) {
      const auto now = next;
      next = reader.template hashes<pairs>();
      f(reader.levels(now), g);
    }
    f(reader.levels(next), g);
    g += 2 * pairs;
  }
  for (; g + 2 <= count; g += 2) f(reader.levels(reader.template hashes<1>()), g);
  if (g < count) f(reader.levels(reader.last_hashes()), g);
}

}  // namespace cafeq::kernel::detail
