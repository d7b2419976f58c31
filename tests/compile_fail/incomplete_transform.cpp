// A transform that does not say whether it is orthogonal.
// expect: Transform
#include "cafeq/transform/transform.hpp"

struct Negation {
  cafeq::Index dim() const { return 2; }
  template <class E>
  void apply(cafeq::View<E> x, cafeq::Op) const {
    for (cafeq::Index i = 0; i < x.rows; ++i)
      for (cafeq::Index j = 0; j < x.cols; ++j) x(i, j) = -x(i, j);
  }
#if !defined(CAFEQ_MISUSE)
  bool is_orthogonal() const { return true; }
#endif
  std::int64_t storage_bits() const { return 0; }
};

int main() {
  cafeq::Matrix<float> x(1, 2);
  cafeq::apply_right(Negation{}, x.view());
}
