// Whole recipes on a transformer layer of Gemma-2-2B's shapes, generated heavy-tailed weights:
// speed, memory beyond input and result, and how both grow with rows, columns, bits, block size and
// threads.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <stdexcept>
#include <string>

#include "cafeq/cafeq.hpp"
#include "support/allocations.hpp"
#include "support/bench.hpp"

namespace {

using cafeq::Index;
using cafeq::Matrix;
namespace recipes = cafeq::recipes;

constexpr Index heads = 8, kv_heads = 4;

/// The sizes of Gemma-2-2B, all divided by 32 where it only matters that the jobs run.
Index size(Index full) { return bench::smoke() ? full / 32 : full; }

/// Student-like tails and a few strong input channels.
Matrix<float> layer_weights(Index rows, Index cols, std::uint64_t seed) {
  Matrix<float> W(rows, cols);
  const auto x = bench::weights(rows * cols, seed);
  const cafeq::CounterRng rng(seed, cafeq::stream_of("channels"));
  for (Index j = 0; j < cols; ++j) {
    const float channel =
        float(std::exp(0.3 * rng.normal(std::uint64_t(j)))) * (j % 509 == 7 ? 6.0f : 1.0f);
    for (Index i = 0; i < rows; ++i)
      W(i, j) = x[std::size_t((i * cols + j * 7) % (rows * cols))] * channel;
  }
  return W;
}

struct Job {
  double seconds = 0;
  double memory = 0;  // at most allocated beyond input and result, over the input
};

template <class F>
Job run(double input_bytes, F&& quantize) {
  Job job;
  const auto start = std::chrono::steady_clock::now();
  job.memory = double(cafeq::test::scratch_of(quantize)) / input_bytes;
  job.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return job;
}

template <class R>
Job quantize(const Matrix<float>& W, const R& recipe, cafeq::ExecutorRef executor = {}) {
  return run(double(W.size()) * sizeof(float),
             [&] { return cafeq::quantize(W, recipe, executor); });
}

void report(const std::string& recipe, const std::string& name, double weights, const Job& job) {
  std::printf("%-10s %-40s %8.3f s %8.2f Mweights/s, memory %.3f of the input\n", recipe.c_str(),
              name.c_str(), job.seconds, weights / job.seconds / 1e6, job.memory);
  std::fflush(stdout);
  bench::record("job " + recipe, name, weights / job.seconds / 1e6, "Mweights/s");
  bench::record("job " + recipe, name + ", memory", job.memory, "of the input");
}

std::string shape(Index rows, Index cols) {
  return std::to_string(rows) + " x " + std::to_string(cols);
}

template <class R>
void grow(const std::string& name, const R& recipe, Index rows, Index cols,
          const std::string& what) {
  const auto W = layer_weights(rows, cols, 3);
  report(name, shape(rows, cols) + what, double(W.size()), quantize(W, recipe));
}

/// Whether two results have the same codes.
template <class Q>
bool same_codes(const Q& a, const Q& b) {
  if constexpr (requires { a.codes().packed(); }) {
    return std::ranges::equal(a.codes().packed().bytes(), b.codes().packed().bytes());
  } else {
    return a.codes().stored_chunks() == b.codes().stored_chunks() &&
           std::ranges::equal(a.codes().scales().codes(), b.codes().scales().codes());
  }
}

/// Two threads against one, and the same bits.
template <class R>
void threads(const std::string& name, const R& recipe, Index rows, Index cols) {
  if (std::thread::hardware_concurrency() < 2) return;
  const auto W = layer_weights(rows, cols, 3);
  double best[2] = {1e9, 1e9};
  cafeq::ThreadPool pool(2);
  const auto alone = cafeq::quantize(W, recipe), together = cafeq::quantize(W, recipe, pool);
  if (!same_codes(alone, together) || alone.error(W) != together.error(W))
    throw std::runtime_error(name + ": two threads give other codes than one");
  for (int round = 0; round < 3; ++round) {
    best[0] = std::min(best[0], quantize(W, recipe).seconds);
    best[1] = std::min(best[1], quantize(W, recipe, pool).seconds);
  }
  std::printf("%-10s %-40s two threads: %.3f times as fast\n", name.c_str(),
              shape(rows, cols).c_str(), best[0] / best[1]);
  std::fflush(stdout);
  bench::record("job " + name, shape(rows, cols) + ", two threads against one", best[0] / best[1],
                "times");
}

void layer(bool quick) {
  const Index model = size(2304), hidden = size(9216), head_dim = size(256);
  struct Linear {
    const char* name;
    Index rows, cols;
  };
  const Linear linears[] = {{"query", heads * head_dim, model},
                            {"key", kv_heads * head_dim, model},
                            {"output", model, heads * head_dim},
                            {"up", hidden, model},
                            {"down", model, hidden}};
  for (const Linear& l : linears) {
    const auto W = layer_weights(l.rows, l.cols, 5);
    const double n = double(W.size());
    const std::string name = std::string(l.name) + " " + shape(l.rows, l.cols);
    report("fast", name + ", 4 bits g64", n, quantize(W, recipes::fast<4>{}));
    if (quick && l.rows * l.cols > (1 << 22)) continue;
    report("learned", name + ", 3 bits", n, quantize(W, recipes::learned<3>{}));
    report("smallest", name + ", 3.25 bits", n, quantize(W, recipes::smallest{.bits = 3.25}));
  }
}

void pairs(bool quick) {
  const Index model = size(2304), head_dim = size(256);
  const Index n = quick ? model / 2 : model;
  const auto value = layer_weights(kv_heads * head_dim, n, 7);
  const auto output = layer_weights(n, heads * head_dim, 8);
  const double count = double(value.size() + output.size());
  const cafeq::HeadLayout layout{.head_dim = head_dim, .heads = heads, .kv_heads = kv_heads};
  report("pairs", "value/output, width " + std::to_string(n) + ", 3 bits", count,
         run(count * sizeof(float), [&] {
           return cafeq::quantize_value_output(value, output, layout, recipes::learned<3>{});
         }));
  report("pairs", "value/output, width " + std::to_string(n) + ", smallest, 3.25 bits", count,
         run(count * sizeof(float), [&] {
           return cafeq::quantize_value_output(value, output, layout,
                                               recipes::smallest{.bits = 3.25});
         }));
}

}  // namespace

void register_benchmarks() {
  bench::add_job("layer", [] { layer(bench::quick()); });
  bench::add_job("pairs", [] { pairs(bench::quick()); });
  bench::add_job("growth", [] {
    const Index n = bench::smoke() ? 32 : (bench::quick() ? 512 : 1024);
    grow("fast", recipes::fast<4>{}, 2 * n, 2 * n, ", 4 bits g64");
    grow("fast", recipes::fast<4>{}, 4 * n, 2 * n, ", 4 bits g64: rows doubled");
    grow("fast", recipes::fast<4>{}, 2 * n, 4 * n, ", 4 bits g64: columns doubled");
    grow("fast", recipes::fast<2>{}, 2 * n, 2 * n, ", 2 bits g64: bits halved");
    for (const double bits : {2.25, 3.25, 4.25}) {
      const std::string budget = ", " + std::to_string(bits).substr(0, 4) + " bits";
      for (const int window : {12, 10, 14})
        grow("smallest", recipes::smallest{.bits = bits, .window = window}, 2 * n, n,
             budget + ", windows of " + std::to_string(window));
    }
    grow("learned", recipes::learned<3>{.max_block = 32}, 2 * n, n, ", 3 bits, k = 32");
    grow("learned", recipes::learned<3>{.max_block = 32}, 4 * n, n,
         ", 3 bits, k = 32: rows doubled");
    grow("learned", recipes::learned<3>{.max_block = 32}, 2 * n, 2 * n,
         ", 3 bits, k = 32: columns doubled");
    grow("learned", recipes::learned<3>{.transform_bits = 1, .max_block = 64}, 2 * n, n,
         ", 3 bits, k = 64: block doubled");
    grow("learned", recipes::learned<4>{.max_block = 32}, 2 * n, n, ", 4 bits, k = 32");
    grow("learned", recipes::learned<2>{.max_block = 32}, 2 * n, n,
         ", 2 bits, k = 32: bits halved");
  });
  bench::add_job("threads", [] {
    const Index n = bench::smoke() ? 32 : (bench::quick() ? 512 : 1024);
    threads("fast", recipes::fast<4>{}, 2 * n, 4 * n);
    threads("smallest", recipes::smallest{.bits = 3.25}, 2 * n, n);
    threads("learned", recipes::learned<3>{.max_block = 32}, 2 * n, n);
  });
}
