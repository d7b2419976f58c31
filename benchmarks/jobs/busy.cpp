// Threads beside other programs: what `learned` and a language model's forward pass take on as many
// threads as there are processors, while one busy process a processor runs beside them, over their
// time alone on one thread. 1 is one thread on an idle machine; with as many busy processes as
// processors nobody can expect less than about 1.
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <functional>
#include <string>
#include <vector>

#include "cafeq/cafeq.hpp"
#include "support/bench.hpp"
#include "support/language_model.hpp"

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

#if CAFEQ_BENCH_HAS_OPENBLAS
/// The products of one token, in fp32.
class Products {
 public:
  Products() {
    const auto c = bench::language_model_config();
    const Index dim = c.hidden, hidden = c.intermediate, kv = c.kv_heads * c.head_dim;
    for (Index layer = 0; layer < c.layers; ++layer)
      for (const auto& [rows, cols] : {std::pair{dim + 2 * kv, dim}, std::pair{dim, dim},
                                       std::pair{2 * hidden, dim}, std::pair{dim, hidden}})
        W_.push_back(layer_weights(rows, cols, std::uint64_t(W_.size())));
    W_.push_back(layer_weights(c.vocabulary, dim, 99));
  }
  void multiply() {
    for (const auto& W : W_)
      cblas_sgemv(CblasRowMajor, CblasNoTrans, int(W.rows()), int(W.cols()), 1.0f, W.data(),
                  int(W.cols()), x_.data(), 1, 0.0f, y_.data(), 1);
  }

 private:
  std::vector<Matrix<float>> W_;
  std::vector<float> x_ = std::vector<float>(4096, 0.5f), y_ = x_;
};
#endif

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

  const engine::Model model = bench::language_model("fast4");
  const std::size_t tokens = bench::smoke() ? 2 : 400;
  compare("forward pass, token by token", processors, [&](cafeq::ExecutorRef executor) {
    const engine::Transformer transformer(model, executor);
    engine::Text text;
    Matrix<float> logits(1, model.config.vocabulary);
    for (engine::Token token = 0; token < tokens; ++token) {
      const auto states = transformer.forward(text, std::span(&token, 1));
      transformer.logits(states.view(), logits.view());
      bench::keep(logits);
    }
  });

#if CAFEQ_BENCH_HAS_OPENBLAS
  Products products;
  const auto by_openblas = [&](int threads) {
    openblas_set_num_threads(threads);
    for (std::size_t token = 0; token < (tokens + 4) / 5; ++token) products.multiply();
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
