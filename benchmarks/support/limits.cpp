// The limits of the machine, by loops that do nothing but move data or count.
#include <cstring>
#include <memory>

#include "cafeq/simd/arch.hpp"
#include "support/bench.hpp"

namespace {

using cafeq::Index;
using V = cafeq::Batch<float>;
constexpr Index w = Index(V::size);
constexpr Index unroll = 8;

Index whole_steps(Index bytes) {
  return std::max<Index>(1, bytes / Index(sizeof(float)) / (unroll * w)) * unroll * w;
}

// Small buffers are walked several times a call, so that the call itself does not count.
Index passes(Index bytes) { return std::max<Index>(1, Index(1 << 20) / bytes); }

template <class T>
double fused_multiply_adds(Index rounds) {
  using B = cafeq::Batch<T>;
  constexpr int chains = 12;
  B sum[chains];
  CAFEQ_UNROLL
  for (int c = 0; c < chains; ++c) sum[c] = B(T(c));
  B a(T(0.999));
  B b(T(1e-3));
  benchmark::DoNotOptimize(a);
  benchmark::DoNotOptimize(b);
  for (Index r = 0; r < rounds; ++r) {
    CAFEQ_UNROLL
    for (int c = 0; c < chains; ++c) sum[c] = xsimd::fma(sum[c], a, b);
  }
  CAFEQ_UNROLL
  for (int c = 1; c < chains; ++c) sum[0] = sum[0] + sum[c];
  benchmark::DoNotOptimize(sum[0]);
  return 2.0 * double(chains) * double(B::size) * double(rounds);
}

double additions(Index rounds) {
  constexpr int chains = 12;
  V sum[chains];
  CAFEQ_UNROLL
  for (int c = 0; c < chains; ++c) sum[c] = V(float(c));
  V a(1e-3f);
  benchmark::DoNotOptimize(a);
  for (Index r = 0; r < rounds; ++r) {
    CAFEQ_UNROLL
    for (int c = 0; c < chains; ++c) sum[c] = sum[c] + a;
  }
  CAFEQ_UNROLL
  for (int c = 1; c < chains; ++c) sum[0] = sum[0] + sum[c];
  benchmark::DoNotOptimize(sum[0]);
  return double(chains) * double(w) * double(rounds);
}

template <class F>
bench::Limit arithmetic(std::string name, F f) {
  constexpr Index rounds = 4096;
  return {std::move(name), f(rounds), [f] { f(rounds); }};
}

}  // namespace

bench::Limit bench::read_limit(Index bytes) {
  const Index n = whole_steps(bytes);
  auto buffer = std::make_shared<Floats>(std::size_t(n), 1.0f);
  const Index times = passes(bytes);
  return {"read " + std::to_string(bytes >> 10) + " KiB", double(n) * sizeof(float) * double(times),
          [buffer, n, times] {
            V sum[unroll];
            CAFEQ_UNROLL
            for (int u = 0; u < unroll; ++u) sum[u] = V(0.0f);
            const float* x = buffer->data();
            for (Index t = 0; t < times; ++t) {
              benchmark::ClobberMemory();
              for (Index i = 0; i < n; i += unroll * w) {
                CAFEQ_UNROLL
                for (int u = 0; u < unroll; ++u) sum[u] = sum[u] | V::load_aligned(x + i + u * w);
              }
            }
            CAFEQ_UNROLL
            for (int u = 1; u < unroll; ++u) sum[0] = sum[0] | sum[u];
            benchmark::DoNotOptimize(sum[0]);
          }};
}

bench::Limit bench::copy_limit(Index bytes) {
  const Index n = whole_steps(bytes / 2);
  auto from = std::make_shared<Floats>(std::size_t(n), 1.0f);
  auto to = std::make_shared<Floats>(std::size_t(n), 1.0f);
  const Index times = passes(bytes);
  return {"copy " + std::to_string(bytes >> 10) + " KiB",
          2.0 * double(n) * sizeof(float) * double(times), [from, to, n, times] {
            for (Index t = 0; t < times; ++t) {
              const float* x = from->data();
              float* y = to->data();
              benchmark::ClobberMemory();
              for (Index i = 0; i < n; i += unroll * w) {
                CAFEQ_UNROLL
                for (int u = 0; u < unroll; ++u)
                  V::load_aligned(x + i + u * w).store_aligned(y + i + u * w);
              }
              benchmark::ClobberMemory();
            }
          }};
}

bench::Limit bench::in_place_limit(Index bytes) {
  const Index n = whole_steps(bytes);
  auto buffer = std::make_shared<Floats>(std::size_t(n), 1.0f);
  const Index times = passes(bytes);
  return {"in place " + std::to_string(bytes >> 10) + " KiB",
          2.0 * double(n) * sizeof(float) * double(times), [buffer, n, times] {
            const V c(-1.0f);
            float* x = buffer->data();
            for (Index t = 0; t < times; ++t) {
              for (Index i = 0; i < n; i += unroll * w) {
                CAFEQ_UNROLL
                for (int u = 0; u < unroll; ++u)
                  (V::load_aligned(x + i + u * w) * c).store_aligned(x + i + u * w);
              }
              benchmark::ClobberMemory();
            }
          }};
}

bench::Limit bench::fma_limit() { return arithmetic("FMA peak", fused_multiply_adds<float>); }
bench::Limit bench::double_fma_limit() {
  return arithmetic("FMA peak (double)", fused_multiply_adds<double>);
}
bench::Limit bench::add_limit() { return arithmetic("additions", additions); }
