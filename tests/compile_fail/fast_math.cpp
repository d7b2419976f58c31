// The option changes codes and hides NaN.
// expect: cafeq: -ffast-math
#if defined(CAFEQ_MISUSE)
#define __FAST_MATH__ 1
#endif
#include "cafeq/config/config.hpp"

int main() {}
