// Statistics of columns of a row-major matrix.
#include "cafeq/kernel/columns.hpp"

#include <Eigen/Core>
#include <cmath>

#include "support/bench.hpp"

namespace {

using namespace cafeq;
using Rows =
    Eigen::Map<const Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>>;

void add_cases(Index rows, Index cols) {
  const Index n = rows * cols;
  const double bytes = 4.0 * double(n);
  const std::string size = std::to_string(rows) + " x " + std::to_string(cols);
  bench::add("column absmax", size, [=](bench::Contest& c) {
    const auto x = bench::weights(n);
    bench::Floats peak(static_cast<std::size_t>(cols)), plain(peak.size());
    Eigen::RowVectorXf eigen(cols);
    c.ours(bench::Unit::gigabytes, bytes, [&] {
      std::fill(peak.begin(), peak.end(), 0.0f);
      kernel::column_absmax(View<const float>{x.data(), rows, cols, cols, 1}, peak.data());
      bench::keep(peak);
    });
    c.limit(bench::read_limit(4 * n));
    c.peer("Eigen", [&] {
      eigen = Rows(x.data(), rows, cols).cwiseAbs().colwise().maxCoeff();
      bench::keep(eigen);
    });
    c.peer("plain loop", [&] {
      std::fill(plain.begin(), plain.end(), 0.0f);
      for (Index i = 0; i < rows; ++i)
        for (Index j = 0; j < cols; ++j)
          plain[std::size_t(j)] =
              std::max(plain[std::size_t(j)], std::abs(x[std::size_t(i * cols + j)]));
      bench::keep(plain);
    });
    c.run();
  });
  bench::add("column min/max", size, [=](bench::Contest& c) {
    const auto x = bench::weights(n);
    bench::Floats low(static_cast<std::size_t>(cols)), high(low.size());
    c.ours(bench::Unit::gigabytes, bytes, [&] {
      kernel::column_ranges(View<const float>{x.data(), rows, cols, cols, 1}, low.data(),
                            high.data());
      bench::keep(low);
    });
    c.limit(bench::read_limit(4 * n));
    c.run();
  });
  bench::add("column sums and squares", size, [=](bench::Contest& c) {
    const auto x = bench::weights(n);
    Buffer<double> sum(static_cast<std::size_t>(cols)), squares(sum.size());
    bench::Floats plain_sum(static_cast<std::size_t>(cols)), plain_squares(plain_sum.size());
    c.ours(bench::Unit::gigabytes, bytes, [&] {
      kernel::column_moments(View<const float>{x.data(), rows, cols, cols, 1}, nullptr, sum.data(),
                             squares.data());
      bench::keep(sum);
    });
    c.limit(bench::read_limit(4 * n));
    c.peer("plain float loop", [&] {
      for (Index i = 0; i < rows; ++i)
        for (Index j = 0; j < cols; ++j) {
          const float v = x[std::size_t(i * cols + j)];
          plain_sum[std::size_t(j)] += v;
          plain_squares[std::size_t(j)] += v * v;
        }
      bench::keep(plain_sum);
    });
    c.run();
  });
}

}  // namespace

void register_benchmarks() {
  add_cases(128, 512);  // second-level cache
  add_cases(4096, 4096);
}
