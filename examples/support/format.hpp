/// Numbers as people read them.
#pragma once

#include <cstdio>
#include <string>

namespace cafeq::example {

/// "3.142" for fixed(π, 3).
inline std::string fixed(double value, int digits) {
  char buffer[64];
  std::snprintf(buffer, sizeof buffer, "%.*f", digits, value);
  return buffer;
}

/// "1.23e-04".
inline std::string scientific(double value, int digits = 2) {
  char buffer[64];
  std::snprintf(buffer, sizeof buffer, "%.*e", digits, value);
  return buffer;
}

/// "812 B", "3.4 MiB".
inline std::string byte_text(double bytes) {
  constexpr const char* units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  int unit = 0;
  for (; bytes >= 1023.95 && unit < 4; ++unit) bytes /= 1024;
  return fixed(bytes, unit == 0 ? 0 : 1) + " " + units[unit];
}

/// "0.8 s", "42 s", "3 min 07 s", "2 h 05 min".
inline std::string duration_text(double seconds) {
  if (seconds < 9.95) return fixed(seconds, 1) + " s";
  if (seconds < 59.5) return fixed(seconds, 0) + " s";
  char buffer[64];
  const long long rounded =
      seconds < 1e15 ? static_cast<long long>(seconds + 0.5) : 1'000'000'000'000'000;
  if (rounded < 3600)
    std::snprintf(buffer, sizeof buffer, "%lld min %02lld s", rounded / 60, rounded % 60);
  else
    std::snprintf(buffer, sizeof buffer, "%lld h %02lld min", rounded / 3600, rounded % 3600 / 60);
  return buffer;
}

}  // namespace cafeq::example
