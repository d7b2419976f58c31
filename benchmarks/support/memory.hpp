// What the program holds of operator new, and the most that it ever did. Link support/memory.cpp.
#pragma once

#include <cstddef>

namespace bench {

std::ptrdiff_t allocated_bytes() noexcept;
std::ptrdiff_t peak_bytes() noexcept;
/// From now on the peak is that of what follows.
void reset_peak() noexcept;

}  // namespace bench
