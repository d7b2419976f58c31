// Smooth ranges and their gradients: log-sum-exp and p-norms of rows, groups and columns.
#include "cafeq/loss/range_surrogate.hpp"

#include <cmath>

#include "cafeq/kernel/columns.hpp"
#include "support/bench.hpp"

namespace {

using namespace cafeq;

constexpr Index row_length = 4096;

// Two peers, each with the peak given: its exponentials are what counts.
double xsimd_exponentials(const float* x, Index n, float t, float peak, float* slope) {
  using V = Batch<float>;
  constexpr Index w = Index(V::size);
  const V a(t * peak);
  V sum(0.0f);
  for (Index j = 0; j + w <= n; j += w) {
    const V v = V::load_unaligned(x + j) * V(t);
    const V plus = xsimd::exp(v - a);
    const V minus = xsimd::exp(-v - a);
    sum = sum + (plus + minus);
    if (slope != nullptr) (plus - minus).store_unaligned(slope + j);
  }
  return double(simd::reduce_add(sum));
}

double plain_exponentials(const float* x, Index n, float t, float peak, float* slope) {
  float sum = 0;
  for (Index j = 0; j < n; ++j) {
    const float plus = std::exp(t * (x[j] - peak));
    const float minus = std::exp(t * (-x[j] - peak));
    sum += plus + minus;
    if (slope != nullptr) slope[j] = plus - minus;
  }
  return double(sum);
}

double plain_powers(const float* x, Index n, int p, float peak, float* slope) {
  float sum = 0;
  for (Index j = 0; j < n; ++j) {
    const float r = x[j] / peak;
    const float square = r * r;
    float power = square * square * square;
    if (p == 16) power = power * power * square;
    sum += power * square;
    if (slope != nullptr) slope[j] = power * r;
  }
  return double(sum);
}

double bytes(Index n) { return 4.0 * double(n); }

// Rows of one set each, and rows of groups.
template <class S, class Peer>
void add_rows(const std::string& kernel, const S& surrogate, Index n, Index group, Peer peer) {
  const std::string name =
      (n * 4 > (Index(1) << 22) ? "DRAM" : "L2") +
      (group == row_length ? std::string() : ", groups of " + std::to_string(group));
  bench::add(kernel + " value", name, [=](bench::Contest& c) {
    const auto x = bench::weights(n);
    c.ours(bench::Unit::gigabytes, bytes(n), [&] {
      for (Index j = 0; j < n; j += row_length)
        bench::keep(detail::row_ranges_value(surrogate, x.data() + j, row_length, group));
    });
    c.limit(bench::read_limit(4 * n));
    if (group == row_length) peer(c, x.data(), n, nullptr);
    c.run();
  });
  bench::add(kernel + " value and gradient", name, [=](bench::Contest& c) {
    const auto x = bench::weights(n);
    bench::Floats gradient(x.size());
    c.ours(bench::Unit::gigabytes, bytes(n), [&] {
      for (Index j = 0; j < n; j += row_length) {
        std::copy_n(x.data() + j, row_length, gradient.data() + j);
        bench::keep(detail::row_ranges(surrogate, gradient.data() + j, row_length, group));
      }
    });
    c.limit(bench::read_limit(4 * n));
    if (group == row_length) peer(c, x.data(), n, gradient.data());
    c.run();
  });
}

template <class S>
void add_columns(const std::string& kernel, const S& surrogate, Index rows) {
  bench::add(kernel + " of columns, value and gradient", std::to_string(rows) + " rows",
             [=](bench::Contest& c) {
               const auto x = bench::weights(rows * row_length);
               bench::Floats work(x.size()), peak(row_length), a(row_length), b(row_length),
                   sum(row_length);
               const auto phi = surrogate.kernel();
               c.ours(bench::Unit::gigabytes, bytes(rows * row_length), [&] {
                 std::copy(x.begin(), x.end(), work.begin());
                 const View<float> X{work.data(), rows, row_length, row_length, 1};
                 std::fill(peak.begin(), peak.end(), 0.0f);
                 kernel::column_absmax(View<const float>(X), peak.data());
                 kernel::prepare_columns(phi, peak.data(), row_length, a.data(), b.data());
                 kernel::column_sums(phi, X, a.data(), b.data(), sum.data());
                 kernel::scale_columns(X, sum.data());
               });
               c.limit(bench::read_limit(4 * rows * row_length));
               c.run();
             });
}

}  // namespace

void register_benchmarks() {
  const LogSumExp lse;
  const auto exponentials = [t = lse.t](bench::Contest& c, const float* x, Index n, float* slope) {
    c.peer("xsimd::exp loop", [=] {
      for (Index j = 0; j < n; j += row_length)
        bench::keep(xsimd_exponentials(x + j, row_length, t, 10.0f,
                                       slope == nullptr ? nullptr : slope + j));
    });
    c.peer("plain loop", [=] {
      for (Index j = 0; j < n; j += row_length)
        bench::keep(plain_exponentials(x + j, row_length, t, 10.0f,
                                       slope == nullptr ? nullptr : slope + j));
    });
  };
  for (const Index n : {Index(65536), Index(1) << 24}) {
    add_rows("log-sum-exp", lse, n, row_length, exponentials);
    for (const int p : {8, 16})
      add_rows(std::to_string(p) + "-norm", PNorm{p}, n, row_length,
               [p](bench::Contest& c, const float* x, Index length, float* slope) {
                 c.peer("plain loop", [=] {
                   for (Index j = 0; j < length; j += row_length)
                     bench::keep(plain_powers(x + j, row_length, p, 10.0f,
                                              slope == nullptr ? nullptr : slope + j));
                 });
               });
  }
  for (const Index group : {64, 128}) {
    add_rows("log-sum-exp", lse, 65536, group, exponentials);
    add_rows("8-norm", PNorm{}, 65536, group, exponentials);
  }
  for (const Index rows : {24, 96}) {
    add_columns("log-sum-exp", lse, rows);
    add_columns("8-norm", PNorm{}, rows);
  }
}
