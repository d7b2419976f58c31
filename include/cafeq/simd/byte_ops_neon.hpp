/// The operations of byte_ops.hpp in two registers of NEON.
#pragma once

#include <cstdint>

#include "cafeq/simd/arch.hpp"

#if defined(__aarch64__)

namespace cafeq::simd {

template <class Arch>
struct NeonByteOps {
  static constexpr bool fast = true;
  struct Vector {
    uint8x16_t half[2];
  };
  struct Floats {
    float32x4_t half[2];
  };

  static Vector load(const void* p) noexcept {
    const std::uint8_t* bytes = static_cast<const std::uint8_t*>(p);
    return {vld1q_u8(bytes), vld1q_u8(bytes + 16)};
  }
  static Vector load_half(const void* p) noexcept {
    const uint8x16_t half = vld1q_u8(static_cast<const std::uint8_t*>(p));
    return {half, half};
  }
  static void store(void* p, const Vector& v) noexcept {
    vst1q_u8(static_cast<std::uint8_t*>(p), v.half[0]);
    vst1q_u8(static_cast<std::uint8_t*>(p) + 16, v.half[1]);
  }
  static Vector zero() noexcept { return set8(0); }
  static Vector set8(int x) noexcept {
    return {vdupq_n_u8(std::uint8_t(x)), vdupq_n_u8(std::uint8_t(x))};
  }
  static Vector set16(int x) noexcept {
    const uint8x16_t half = vreinterpretq_u8_u16(vdupq_n_u16(std::uint16_t(x)));
    return {half, half};
  }

  /// The instruction gives 0 for any index past 15.
  static Vector shuffle(const Vector& v, const Vector& index) noexcept {
    return map(v, index, [](uint8x16_t a, uint8x16_t i) {
      return vqtbl1q_u8(a, vandq_u8(i, vdupq_n_u8(0x8f)));
    });
  }
  static Vector shift_left32(const Vector& v, const Vector& count) noexcept {
    return map(v, count, [](uint8x16_t a, uint8x16_t c) {
      return bytes(vshlq_u32(words(a), vreinterpretq_s32_u8(c)));
    });
  }
  static Vector shift_right32(const Vector& v, const Vector& count) noexcept {
    return map(v, count, [](uint8x16_t a, uint8x16_t c) {
      return bytes(vshlq_u32(words(a), vnegq_s32(vreinterpretq_s32_u8(c))));
    });
  }
  template <int Count>
  static Vector shift_right16(const Vector& v) noexcept {
    return map(v, v, [](uint8x16_t a, uint8x16_t) {
      return vreinterpretq_u8_u16(vshrq_n_u16(vreinterpretq_u16_u8(a), Count));
    });
  }
  static Vector merge16(const Vector& even, const Vector& odd) noexcept {
    return map(even, odd, [](uint8x16_t a, uint8x16_t b) {
      return vbslq_u8(bytes(vdupq_n_u32(0xffff0000u)), b, a);
    });
  }
  static Vector merge8(const Vector& even, const Vector& odd) noexcept {
    return map(even, odd, [](uint8x16_t a, uint8x16_t b) {
      return vbslq_u8(bytes(vdupq_n_u32(0xff00ff00u)), b, a);
    });
  }
  static Vector bit_and(const Vector& a, const Vector& b) noexcept {
    return map(a, b, [](uint8x16_t s, uint8x16_t t) { return vandq_u8(s, t); });
  }
  static Vector bit_or(const Vector& a, const Vector& b) noexcept {
    return map(a, b, [](uint8x16_t s, uint8x16_t t) { return vorrq_u8(s, t); });
  }
  static Vector bit_xor(const Vector& a, const Vector& b) noexcept {
    return map(a, b, [](uint8x16_t s, uint8x16_t t) { return veorq_u8(s, t); });
  }
  static Vector add8(const Vector& a, const Vector& b) noexcept {
    return map(a, b, [](uint8x16_t s, uint8x16_t t) { return vaddq_u8(s, t); });
  }
  static Vector sub8(const Vector& a, const Vector& b) noexcept {
    return map(a, b, [](uint8x16_t s, uint8x16_t t) { return vsubq_u8(s, t); });
  }
  static Vector min8(const Vector& a, const Vector& b) noexcept {
    return map(a, b, [](uint8x16_t s, uint8x16_t t) { return vminq_u8(s, t); });
  }
  static Vector sign8(const Vector& a, const Vector& s) noexcept {
    return map(a, s, [](uint8x16_t t, uint8x16_t u) {
      const int8x16_t value = vreinterpretq_s8_u8(t), sign = vreinterpretq_s8_u8(u);
      return vbicq_u8(vreinterpretq_u8_s8(vbslq_s8(vcltzq_s8(sign), vnegq_s8(value), value)),
                      vceqzq_s8(sign));
    });
  }

  static Vector even8(const Vector& v) noexcept {
    return map(v, v, [](uint8x16_t a, uint8x16_t) {
      return vreinterpretq_u8_s16(vshrq_n_s16(vshlq_n_s16(vreinterpretq_s16_u8(a), 8), 8));
    });
  }
  static Vector odd8(const Vector& v) noexcept {
    return map(v, v, [](uint8x16_t a, uint8x16_t) {
      return vreinterpretq_u8_s16(vshrq_n_s16(vreinterpretq_s16_u8(a), 8));
    });
  }
  static Vector narrow16(const Vector& a, const Vector& b) noexcept {
    return {vuzp1q_u8(a.half[0], a.half[1]), vuzp1q_u8(b.half[0], b.half[1])};
  }
  static Vector multiply16(const Vector& a, const Vector& b) noexcept {
    return map(a, b, [](uint8x16_t s, uint8x16_t t) {
      return vreinterpretq_u8_u16(vmulq_u16(vreinterpretq_u16_u8(s), vreinterpretq_u16_u8(t)));
    });
  }
  static Vector add_products16(const Vector& sum, const Vector& a, const Vector& b) noexcept {
    const auto one = [&](int h) {
      const int16x8_t s = vreinterpretq_s16_u8(a.half[h]), t = vreinterpretq_s16_u8(b.half[h]);
      const int32x4_t products =
          vpaddq_s32(vmull_s16(vget_low_s16(s), vget_low_s16(t)), vmull_high_s16(s, t));
      return vreinterpretq_u8_s32(vaddq_s32(vreinterpretq_s32_u8(sum.half[h]), products));
    };
    return {one(0), one(1)};
  }
  static Vector add_products8(const Vector& sum, const Vector& a, const Vector& b) noexcept {
    const auto one = [&](int h) {
      const int8x16_t s = vreinterpretq_s8_u8(a.half[h]), t = vreinterpretq_s8_u8(b.half[h]);
      const int32x4_t low = vpaddlq_s16(vmull_s8(vget_low_s8(s), vget_low_s8(t))),
                      high = vpaddlq_s16(vmull_high_s8(s, t));
      return vreinterpretq_u8_s32(
          vaddq_s32(vreinterpretq_s32_u8(sum.half[h]), vpaddq_s32(low, high)));
    };
    return {one(0), one(1)};
  }
  static std::int64_t sum32(const Vector& v) noexcept {
    return vaddlvq_s32(vreinterpretq_s32_u8(v.half[0])) +
           vaddlvq_s32(vreinterpretq_s32_u8(v.half[1]));
  }

  static Floats zero_floats() noexcept { return {vdupq_n_f32(0), vdupq_n_f32(0)}; }
  static Floats add_scaled32(const Floats& sum, const Vector& v, float factor) noexcept {
    const auto one = [&](int h) {
      return vfmaq_n_f32(sum.half[h], vcvtq_f32_s32(vreinterpretq_s32_u8(v.half[h])), factor);
    };
    return {one(0), one(1)};
  }
  static float sum_floats(const Floats& v) noexcept {
    const float32x4_t four = vaddq_f32(v.half[0], v.half[1]);
    const float32x2_t two = vadd_f32(vget_low_f32(four), vget_high_f32(four));
    return vget_lane_f32(two, 0) + vget_lane_f32(two, 1);
  }

 private:
  static uint32x4_t words(uint8x16_t v) noexcept { return vreinterpretq_u32_u8(v); }
  static uint8x16_t bytes(uint32x4_t v) noexcept { return vreinterpretq_u8_u32(v); }
  template <class F>
  static Vector map(const Vector& a, const Vector& b, F&& f) noexcept {
    return {f(a.half[0], b.half[0]), f(a.half[1], b.half[1])};
  }
};

}  // namespace cafeq::simd

#endif
