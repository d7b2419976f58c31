// A case of a benchmark: our kernel, its peers and its limit, timed in turns so that a drift of the
// machine meets them all alike.
#pragma once

#include <benchmark/benchmark.h>

#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "cafeq/core/matrix.hpp"

namespace bench {

using cafeq::Index;
using Floats = cafeq::Buffer<float>;

/// Heavy-tailed floats of a fixed seed: Gaussian, one in 64 eight times as large.
Floats weights(Index n, std::uint64_t seed = 1);

/// What a case counts; every unit is a rate, so more is better.
enum class Unit {
  gigabytes,   ///< 1e9 bytes a second: read, or read and written where the work is in place or a
               ///< copy
  gigaflops,   ///< 1e9 additions and multiplications a second
  megaweights  ///< 1e6 weights a second
};

/// A rate that the machine does not exceed, measured by `work` units a call of `body`.
struct Limit {
  std::string name;
  double work = 0;
  std::function<void()> body;
};

// `bytes` is the size of the working set, which decides the level of the memory.
Limit read_limit(Index bytes);      ///< bytes read
Limit copy_limit(Index bytes);      ///< bytes read and bytes written, from one buffer to another
Limit in_place_limit(Index bytes);  ///< bytes read and bytes written, in one buffer
Limit fma_limit();  ///< single-precision fused multiply-adds, two operations each, in registers
Limit double_fma_limit();  ///< the same in double precision
Limit add_limit();         ///< single-precision additions in registers

class Contest {
 public:
  Contest(benchmark::State& state, std::string kernel, std::string name)
      : state_(state), kernel_(std::move(kernel)), name_(std::move(name)) {}

  /// The case itself: `work` units a call.
  template <class F>
  void ours(Unit unit, double work, F body) {
    unit_ = unit;
    work_ = work;
    contenders_.insert(contenders_.begin(), {"cafeq", work, std::move(body)});
  }
  void limit(Limit limit) {
    has_limit_ = true;
    contenders_.push_back({std::move(limit.name), limit.work, std::move(limit.body)});
  }
  /// Somebody else's way to do the same work.
  template <class F>
  void peer(std::string name, F body) {
    contenders_.push_back({std::move(name), 0, std::move(body)});
  }
  /// Times all of them in turns and records the medians. Call it last: the bodies refer to locals
  /// of the case.
  void run();

 private:
  struct Contender {
    std::string name;
    double work;  // a call; 0 for the work of the case itself, which is a peer's
    std::function<void()> body;
  };
  benchmark::State& state_;
  std::string kernel_;
  std::string name_;
  Unit unit_ = Unit::gigabytes;
  double work_ = 0;
  bool has_limit_ = false;
  std::vector<Contender> contenders_;
};

/// Registers a case; `body` sets it up and ends with contest.run().
void add(std::string kernel, std::string name, std::function<void(Contest&)> body);

/// Registers a job that is too long for rounds: it runs once and calls record().
void add_job(std::string name, std::function<void()> body);

/// A figure that no contest gives: a memory footprint, a speed-up. Written beside the others.
void record(std::string kernel, std::string name, double value, std::string unit);

/// Keeps a result alive.
template <class T>
void keep(T&& value) {
  benchmark::DoNotOptimize(value);
}

/// Whether a quick look was asked for (--quick): fewer rounds; a case may also take smaller sizes.
bool quick();
/// Whether everything runs just once, to see that it does (--smoke): jobs take tiny sizes.
bool smoke();

}  // namespace bench

/// Each benchmark program defines this one.
void register_benchmarks();
