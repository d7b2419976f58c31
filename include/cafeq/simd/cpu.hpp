/// What the processor at hand can run, found out at run time, and which architecture the host wants
/// of it.
///
/// Precedence: require(), then the environment variable CAFEQ_ARCH, then the best that is there.
/// Nothing here is compiled for more than the flags of the including file, so it may run anywhere.
/// A feature counts only if the operating system saves its registers too.
#pragma once

#include <array>
#include <atomic>
#include <cstdlib>
#include <optional>
#include <string_view>

#include "cafeq/core/error.hpp"

#if (defined(__x86_64__) || defined(__i386__)) && defined(__GNUC__)
#include <cpuid.h>
#define CAFEQ_CPU_X86 1
#else
#define CAFEQ_CPU_X86 0
#endif

namespace cafeq::cpu {

/// Ascending: a later one is preferred.
enum class Architecture {
  generic,  ///< what every processor of the kind has: SSE2 on x86-64
  neon,     ///< aarch64 with NEON and FMA
  avx2,     ///< x86-64-v3: AVX2, FMA, F16C, BMI
  avx512,   ///< x86-64-v4: AVX-512 F, BW, CD, DQ, VL
};

inline constexpr std::array architectures{Architecture::generic, Architecture::neon,
                                          Architecture::avx2, Architecture::avx512};

constexpr std::string_view name(Architecture architecture) noexcept {
  constexpr std::string_view names[] = {"generic", "neon", "avx2", "avx512"};
  return names[std::size_t(architecture)];
}

constexpr std::optional<Architecture> from_name(std::string_view text) noexcept {
  for (const Architecture architecture : architectures)
    if (name(architecture) == text) return architecture;
  return std::nullopt;
}

/// The best of them whose instructions the flags of this translation unit allow.
constexpr Architecture compiled_for =
#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512CD__) && \
    defined(__AVX512DQ__) && defined(__AVX512VL__)
    Architecture::avx512;
#elif defined(__AVX2__) && defined(__FMA__) && defined(__F16C__) && defined(__BMI__) && \
    defined(__BMI2__) && defined(__LZCNT__)
    Architecture::avx2;
#elif defined(__aarch64__)
    Architecture::neon;
#else
    Architecture::generic;
#endif

namespace detail {

#if CAFEQ_CPU_X86
inline bool has_x86_64_v3() noexcept {
  // __builtin_cpu_supports asks the operating system too, but knows F16C, MOVBE and LZCNT in newer
  // compilers only.
  unsigned a = 0, b = 0, c = 0, d = 0, extended = 0;
  if (__get_cpuid(1, &a, &b, &c, &d) == 0 || __get_cpuid(0x80000001, &a, &b, &extended, &d) == 0)
    return false;
  constexpr unsigned movbe = 1u << 22, f16c = 1u << 29, lzcnt = 1u << 5;
  __builtin_cpu_init();
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
         __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2") && (c & movbe) != 0 &&
         (c & f16c) != 0 && (extended & lzcnt) != 0;
}

inline bool has_x86_64_v4() noexcept {
  return has_x86_64_v3() && __builtin_cpu_supports("avx512f") &&
         __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512cd") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}
#endif

}  // namespace detail
}  // namespace cafeq::cpu

namespace cafeq::process_wide {

inline std::atomic<int> required_architecture{-1};  // none

}  // namespace cafeq::process_wide

namespace cafeq::cpu {

/// Whether code for this architecture runs here.
inline bool supports(Architecture architecture) noexcept {
  switch (architecture) {
    case Architecture::generic: return true;
#if CAFEQ_CPU_X86
    case Architecture::avx2: return detail::has_x86_64_v3();
    case Architecture::avx512: return detail::has_x86_64_v4();
#endif
#if defined(__aarch64__)
    case Architecture::neon: return true;
#endif
    default: return false;
  }
}

/// From now on this architecture, whatever CAFEQ_ARCH says; without one, CAFEQ_ARCH or the best
/// again. An error where the processor lacks it. Tables of kernels that were taken before stay what
/// they are.
inline void require(std::optional<Architecture> architecture) {
  if (architecture && !supports(*architecture))
    raise(ErrorCode::unsupported,
          message("cpu::require: this processor has no ", name(*architecture)));
  process_wide::required_architecture.store(architecture ? int(*architecture) : -1);
}

/// What require() or CAFEQ_ARCH asks for; nothing where neither does, or the variable is empty. An
/// error for a name that does not exist.
inline Result<std::optional<Architecture>> requested() {
  if (const int required = process_wide::required_architecture.load(); required >= 0)
    return std::optional(Architecture(required));
  const char* text = std::getenv("CAFEQ_ARCH");
  if (text == nullptr || *text == '\0') return std::optional<Architecture>();
  if (const auto architecture = from_name(text)) return architecture;
  return Error(ErrorCode::invalid_argument,
               message("CAFEQ_ARCH: ", text, " is none of generic, neon, avx2, avx512"));
}

}  // namespace cafeq::cpu
