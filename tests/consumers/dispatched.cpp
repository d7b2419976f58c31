#include "cafeq/kernel/dispatch.hpp"

int main() {
  float x[] = {1, 0};
  cafeq::kernel::table().fwht(x, 2, 0.5f);
  return x[0] == 0.5f && x[1] == 0.5f ? 0 : 1;
}
