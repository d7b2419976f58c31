#include "kernels.hpp"

#include "cafeq/cafeq.hpp"

namespace engine {
namespace {

/// In eight sums that do not wait for each other.
float sum_of_products(const float* a, const float* b, std::size_t n) {
  float sums[8] = {};
  std::size_t j = 0;
  for (; j + 8 <= n; j += 8)
    for (std::size_t k = 0; k < 8; ++k) sums[k] += a[j + k] * b[j + k];
  for (; j < n; ++j) sums[0] += a[j] * b[j];
  return ((sums[0] + sums[1]) + (sums[2] + sums[3])) + ((sums[4] + sums[5]) + (sums[6] + sums[7]));
}

Linear plain(std::shared_ptr<const Matrix> weights) {
  return [weights](const Matrix& x, cafeq::ExecutorRef threads) {
    Matrix y(x.rows, weights->rows);
    // Enough to be worth a thread; rows of weights that stay in the cache while x passes by.
    const auto grain = std::max<std::size_t>(16, (1 << 18) / (x.values.size() + 1));
    threads.parallel_for(cafeq::Index(y.cols), cafeq::Index(grain),
                         [&](std::size_t begin, std::size_t end, std::size_t) {
                           for (std::size_t n = 0; n < x.rows; ++n)
                             for (std::size_t i = begin; i < end; ++i)
                               y.row(n)[i] =
                                   sum_of_products(x.row(n).data(), weights->row(i).data(), x.cols);
                         });
    return y;
  };
}

auto view(auto& matrix) {
  return cafeq::as_view(matrix.values.data(), cafeq::Index(matrix.rows), cafeq::Index(matrix.cols));
}

template <class Recipe>
Linear quantize(const Matrix& weights, cafeq::ExecutorRef threads) {
  const cafeq::Linear packed(cafeq::quantize(view(weights), Recipe{}, threads));
  return [packed](const Matrix& x, cafeq::ExecutorRef all) {
    Matrix y(x.rows, std::size_t(packed.out()));
    packed.multiply_batch(view(x), view(y), all);
    return y;
  };
}

Linear packed(std::string_view how, const Matrix& weights, cafeq::ExecutorRef threads) {
  if (how == "fast3") return quantize<cafeq::recipes::fast<3>>(weights, threads);
  if (how == "fast4") return quantize<cafeq::recipes::fast<4>>(weights, threads);
  if (how == "learned3") return quantize<cafeq::recipes::learned<3>>(weights, threads);
  return quantize<cafeq::recipes::smallest>(weights, threads);
}

}  // namespace
}  // namespace engine

template <>
constinit const engine::Kernels cafeq::Dispatched<engine::Kernels>::table{
    .dot = engine::sum_of_products, .plain = engine::plain, .packed = engine::packed};
