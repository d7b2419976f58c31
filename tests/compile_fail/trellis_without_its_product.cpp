// A quantizer that has a product of its own is not multiplied by another one behind its back.
// expect: (incomplete type|undefined template) .*Product
#include "cafeq/product/product.hpp"
#include "cafeq/trellis/trellis.hpp"
#if !defined(CAFEQ_MISUSE)
#include "cafeq/trellis/multiply.hpp"
#endif

int main() { return int(sizeof(cafeq::ProductOf<cafeq::Trellis>)); }
