// Threads beside other programs: what `learned` and the products of a language model's layers take
// on as many threads as there are processors, while one busy process a processor runs beside them,
// over their time alone on one thread. 1 is one thread on an idle machine; with as many busy
// processes as processors nobody can expect less than about 1.
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "cafeq/cafeq.hpp"
#include "support/bench.hpp"

#if CAFEQ_BENCH_HAS_OPENBLAS
#include <cblas.h>
#endif
#if CAFEQ_BENCH_HAS_TBB
#include <tbb/blocked_range.h>
#include <tbb/parallel_for.h>
#include <tbb/task_arena.h>
#endif

namespace {

using cafeq::Index;
using cafeq::Matrix;

/// Processes that compute until this ends.
class BusyProcesses {
 public:
  explicit BusyProcesses(Index count) {
    for (Index i = 0; i < count; ++i) {
      const pid_t child = ::fork();
      if (child == 0) {
        ::alarm(600);  // should nobody stop it
        for (volatile double x = 1;;) x = x * 1.0000001;
      }
      if (child > 0) children_.push_back(child);
    }
    ::usleep(200'000);
  }
  BusyProcesses(const BusyProcesses&) = delete;
  BusyProcesses& operator=(const BusyProcesses&) = delete;
  ~BusyProcesses() {
    for (const pid_t child : children_) {
      ::kill(child, SIGKILL);
      ::waitpid(child, nullptr, 0);
    }
  }

 private:
  std::vector<pid_t> children_;
};

Matrix<float> layer_weights(Index rows, Index cols, std::uint64_t seed) {
  Matrix<float> W(rows, cols);
  const auto x = bench::weights(W.size(), seed);
  std::copy(x.begin(), x.end(), W.data());
  return W;
}

double seconds(const std::function<void()>& job) {
  const auto start = std::chrono::steady_clock::now();
  job();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

/// The matrices that a token passes in a language model of 135 million weights: a few layers.
class Layers {
 public:
  explicit Layers(Index count) {
    constexpr Index width = 576, kv = 192, hidden = 1536;
    const std::vector<std::pair<Index, Index>> shapes{
        {width, width},  {kv, width},     {kv, width},    {width, width},
        {hidden, width}, {hidden, width}, {width, hidden}};
    for (Index i = 0; i < count; ++i)
      for (const auto& [rows, cols] : shapes) {
        W_.push_back(layer_weights(rows, cols, std::uint64_t(W_.size())));
        packed_.emplace_back(cafeq::quantize(W_.back(), cafeq::recipes::fast<4>{}));
      }
    x_.assign(std::size_t(hidden), 0.5f);
    y_.assign(std::size_t(hidden), 0.0f);
  }

  void multiply(cafeq::ExecutorRef executor) {
    for (const auto& layer : packed_)
      layer.multiply(std::span(x_).first(std::size_t(layer.in())),
                     std::span(y_).first(std::size_t(layer.out())), executor);
  }
#if CAFEQ_BENCH_HAS_OPENBLAS
  void multiply_by_openblas() {
    for (const auto& W : W_)
      cblas_sgemv(CblasRowMajor, CblasNoTrans, int(W.rows()), int(W.cols()), 1.0f, W.data(),
                  int(W.cols()), x_.data(), 1, 0.0f, y_.data(), 1);
  }
#endif

 private:
  using Packed = decltype(cafeq::Linear(
      cafeq::quantize(std::declval<Matrix<float>&>(), cafeq::recipes::fast<4>{})));
  std::vector<Matrix<float>> W_;
  std::vector<Packed> packed_;
  std::vector<float> x_, y_;
};

#if CAFEQ_BENCH_HAS_TBB
/// Loops given to oneTBB, one portion a task.
class TbbExecutor {
 public:
  explicit TbbExecutor(int threads) : arena_(threads) {}
  Index concurrency() const { return arena_.max_concurrency(); }
  void parallel_for(Index n, Index grain, cafeq::LoopBody f) {
    arena_.execute([&] {
      tbb::parallel_for(
          tbb::blocked_range<Index>(0, cafeq::ceil_div(n, grain), 1),
          [&](const auto& range) {
            for (Index k = range.begin(); k < range.end(); ++k)
              f(k * grain, std::min(n, (k + 1) * grain),
                Index(tbb::this_task_arena::current_thread_index()));
          },
          tbb::simple_partitioner());
    });
  }

 private:
  tbb::task_arena arena_;
};
#endif

void report(const std::string& what, const std::string& who, double alone, double idle,
            double busy) {
  std::printf("%-28s %-12s one thread alone %7.3f s, all threads: idle machine %.2f, busy %.2f\n",
              what.c_str(), who.c_str(), alone, idle / alone, busy / alone);
  std::fflush(stdout);
  bench::record("busy " + what, who + ", idle", idle / alone, "of one thread alone");
  bench::record("busy " + what, who + ", beside busy processes", busy / alone,
                "of one thread alone");
}

/// job(executor) by each pool: alone on one thread, on all of an idle machine, and on a busy one.
void compare(const std::string& what, Index processors,
             const std::function<void(cafeq::ExecutorRef)>& job) {
  const double alone = std::min(seconds([&] { job({}); }), seconds([&] { job({}); }));
  const auto measure = [&](const std::string& who, cafeq::ExecutorRef executor) {
    job(executor);
    const double idle = seconds([&] { job(executor); });
    const BusyProcesses others(processors);
    report(what, who, alone, idle, seconds([&] { job(executor); }));
  };

  measure("one thread", {});

  cafeq::ThreadPool pool(processors);
  measure("cafeq", pool);
#if CAFEQ_BENCH_HAS_TBB
  TbbExecutor tbb(static_cast<int>(processors));
  measure("oneTBB", tbb);
#endif
}

void busy() {
  const Index processors = cafeq::available_processors();
  if (processors < 2) return;
  const auto W = layer_weights(bench::smoke() ? 64 : 512, bench::smoke() ? 64 : 256, 3);
  const int times = bench::smoke() ? 1 : 50;
  compare("learned 512 x 256", processors, [&](cafeq::ExecutorRef executor) {
    for (int time = 0; time < times; ++time)
      bench::keep(cafeq::quantize(W, cafeq::recipes::learned<3>{.max_block = 32}, executor));
  });

  const auto layers = std::make_unique<Layers>(bench::smoke() ? 1 : 4);
  const int tokens = bench::smoke() ? 1 : 2000;
  compare("products, token by token", processors, [&](cafeq::ExecutorRef executor) {
    for (int token = 0; token < tokens; ++token) layers->multiply(executor);
  });

#if CAFEQ_BENCH_HAS_OPENBLAS
  const auto by_openblas = [&](int threads) {
    openblas_set_num_threads(threads);
    for (int token = 0; token < (tokens + 4) / 5; ++token) layers->multiply_by_openblas();
  };
  by_openblas(1);
  const double alone = seconds([&] { by_openblas(1); });
  by_openblas(static_cast<int>(processors));
  const double idle = seconds([&] { by_openblas(static_cast<int>(processors)); });
  const BusyProcesses others(processors);
  report("fp32 products", "OpenBLAS", alone, idle,
         seconds([&] { by_openblas(static_cast<int>(processors)); }));
#endif
}

}  // namespace

void register_benchmarks() { bench::add_job("busy", busy); }
