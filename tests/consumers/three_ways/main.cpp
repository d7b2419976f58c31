// A program of a few lines that quantizes and multiplies: built from the headers alone, with
// cafeq::compiled, and for several architectures; to print the same.
#include <cstdio>
#include <vector>

#include "cafeq/core/matrix.hpp"
#include "cafeq/core/rng.hpp"
#include "layers.hpp"

int main() {
  cafeq::Matrix<float> W(192, 256);
  const cafeq::CounterRng rng(1);
  for (cafeq::Index i = 0; i < W.size(); ++i) W.data()[i] = float(rng.normal(std::uint64_t(i)));

  const Layers& layers = cafeq::dispatched<Layers>();
  const Layer layer = layers.pack(W.view());
  std::vector<float> x(256, 1.0f), y(192);
  layer(x, y);
  std::printf("%.6f %.4f\n", layers.loss(W.view()), double(y[7]));
}
