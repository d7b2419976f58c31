// Codes have 2 to 8 bits.
// expect: cafeq: bits must be 2 to 8
#include "cafeq/quant/midrise.hpp"

int main() {
#if defined(CAFEQ_MISUSE)
  return int(sizeof(cafeq::Midrise<1>));
#else
  return int(sizeof(cafeq::Midrise<3>));
#endif
}
