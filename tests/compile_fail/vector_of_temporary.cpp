// The vector would be gone before its view is used.
// expect: cafeq: a view of an owning temporary would dangle
#include <vector>

#include "cafeq/core/as_view.hpp"

int main() {
#if defined(CAFEQ_MISUSE)
  auto view = cafeq::as_vector(std::vector<float>(3));
#else
  std::vector<float> vector(3);
  auto view = cafeq::as_vector(vector);
#endif
  return int(view.size);
}
