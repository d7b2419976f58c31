// Fitting a dual scaling, and the scan of the weights that precedes everything.
#include "cafeq/transform/dual_scaling.hpp"

#include <cmath>
#include <vector>

#include "support/bench.hpp"

namespace {

using namespace cafeq;

/// Outlier channels, as transformers have them.
Matrix<float> channels(Index rows, Index cols) {
  const auto x = bench::weights(rows * cols);
  Matrix<float> W(rows, cols);
  for (Index i = 0; i < rows; ++i)
    for (Index j = 0; j < cols; ++j)
      W(i, j) = x[std::size_t(i * cols + j)] * (j % 257 == 5 ? 10.0f : 1.0f) *
                (i % 301 == 7 ? 4.0f : 1.0f);
  return W;
}

/// The rounds as they are defined: two passes each, sums in double.
std::vector<double> plain_rounds(const Matrix<float>& W, int rounds) {
  const auto deviation = [](double sum, double squares, double n) {
    return std::sqrt(squares / n - sum / n * (sum / n));
  };
  std::vector<double> r(std::size_t(W.rows()), 1.0), c(std::size_t(W.cols()), 1.0);
  for (int round = 0; round < rounds; ++round) {
    std::vector<double> sum(c.size()), squares(c.size());
    for (std::size_t i = 0; i < r.size(); ++i)
      for (std::size_t j = 0; j < c.size(); ++j) {
        const double x = double(W.data()[i * c.size() + j]) / r[i];
        sum[j] += x;
        squares[j] += x * x;
      }
    for (std::size_t j = 0; j < c.size(); ++j)
      c[j] = deviation(sum[j], squares[j], double(r.size()));
    for (std::size_t i = 0; i < r.size(); ++i) {
      double row_sum = 0, row_squares = 0;
      for (std::size_t j = 0; j < c.size(); ++j) {
        const double x = double(W.data()[i * c.size() + j]) / c[j];
        row_sum += x;
        row_squares += x * x;
      }
      r[i] = deviation(row_sum, row_squares, double(c.size()));
    }
  }
  return c;
}

template <class T>
void add_fit(const std::string& type, Index rows, Index cols) {
  const std::string size = std::to_string(rows) + " x " + std::to_string(cols) + ", " + type;
  const double bytes = double(sizeof(T)) * double(rows * cols);
  bench::add("dual scaling, fit", size, [=](bench::Contest& c) {
    const auto W = channels(rows, cols);
    const auto typed = to_matrix<T>(W.view());
    c.ours(bench::Unit::megaweights, double(rows * cols),
           [&] { bench::keep(DualScaling{}.fit(typed.view())); });
    if (std::is_same_v<T, float>)
      c.peer("plain loops, 3 rounds", [&] { bench::keep(plain_rounds(W, 3)); });
    c.run();
  });
  bench::add("dual scaling, one round", size, [=](bench::Contest& c) {
    const auto W = channels(rows, cols);
    const auto typed = to_matrix<T>(W.view());
    detail::DualScalingPasses<T> passes(typed.view(), largest_magnitude(typed.view()), {});
    c.ours(bench::Unit::gigabytes, bytes, [&] { bench::keep(passes.round(false)); });
    c.limit(bench::read_limit(Index(bytes)));
    c.run();
  });
  bench::add("scan of weights", size, [=](bench::Contest& c) {
    const auto W = channels(rows, cols);
    const auto typed = to_matrix<T>(W.view());
    c.ours(bench::Unit::gigabytes, bytes, [&] { bench::keep(detail::scan_weights(typed.view())); });
    c.limit(bench::read_limit(Index(bytes)));
    c.run();
  });
}

}  // namespace

void register_benchmarks() {
  add_fit<float>("fp32", 128, 512);  // second-level cache
  add_fit<float>("fp32", 4096, 4096);
  add_fit<bf16>("bf16", 4096, 4096);
  add_fit<fp16>("fp16", 4096, 4096);
}
