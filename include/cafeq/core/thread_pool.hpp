/// The pool of threads that is included: small, and considerate of what else runs on the machine.
///
/// The caller of a loop works too and waits only for portions that another thread has taken. Loops
/// too short to share stay on the caller's thread, as far as their like have shown
/// (core/loop_costs.hpp). Threads look for work for a millisecond before they sleep, since waking
/// takes some 50 µs, but sleep at once while somebody else wants their processor.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <exception>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "cafeq/config/config.hpp"
#include "cafeq/core/executor.hpp"
#include "cafeq/core/loop_costs.hpp"
#include "cafeq/core/processors.hpp"

namespace cafeq {
namespace detail {

/// Tells the processor that this is a loop which waits.
inline void spin_pause() noexcept {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

/// How long one thread looks for something before it sleeps.
class Patience {
 public:
  /// Whether ready() became true meanwhile.
  template <class F>
  bool spin_until(F&& ready) {
    if (ready()) return true;
    std::int64_t before = LoopCosts::now();
    if (before < sleep_until_) return false;
    for (const std::int64_t end = before + longest; before < end;) {
      for (int i = 0; i < 64; ++i) {
        if (ready()) return true;
        spin_pause();
      }
      const std::int64_t now = LoopCosts::now();
      if (now - before > interruption) {  // somebody else had the processor
        sleep_until_ = now + considerate;
        return ready();
      }
      before = now;
    }
    return ready();
  }

 private:
  static constexpr std::int64_t longest = 1'000'000, interruption = 200'000,
                                considerate = 100'000'000;  // ns
  std::int64_t sleep_until_ = 0;
};

/// A loop whose portions threads take. It outlives each loop, so that a thread which comes late, or
/// was set aside, finds that nothing is left.
class SharedLoop {
 public:
  static constexpr Index most_portions = Index(1) << 40;

  /// Offers ceil(n / grain) portions, at most most_portions. The last loop must have ended.
  void start(const LoopBody& body, Index n, Index grain) noexcept {
    body_.store(&body, std::memory_order_relaxed);
    n_.store(n, std::memory_order_relaxed);
    grain_.store(grain, std::memory_order_relaxed);
    const Index portions = ceil_div(n, grain);
    unfinished_.store(portions, std::memory_order_relaxed);
    const std::uint64_t loop = offer_.load(std::memory_order_relaxed) / one_loop + 1;
    offer_.store(loop * one_loop + std::uint64_t(portions), std::memory_order_release);
  }

  /// Runs portions as `worker` until none is left to take; returns how many.
  Index work(Index worker) {
    Index count = 0;
    for (Portion portion; take(portion); ++count) {
#if CAFEQ_EXCEPTIONS
      try {
        (*portion.body)(portion.begin, portion.end, worker);
      } catch (...) {
        const std::lock_guard lock(failure_mutex_);
        if (!failure_) failure_ = std::current_exception();
      }
#else
      (*portion.body)(portion.begin, portion.end, worker);
#endif
      if (unfinished_.fetch_sub(1, std::memory_order_acq_rel) == 1) {
        ends_.fetch_add(1, std::memory_order_release);
        ends_.notify_one();
      }
    }
    return count;
  }

  /// Waits for the portions that others have taken; throws what one of them threw first.
  void wait(Patience& patience) {
    const auto ended = [this] { return unfinished_.load(std::memory_order_acquire) == 0; };
    while (!patience.spin_until(ended)) {
      const std::uint32_t before = ends_.load(std::memory_order_acquire);
      if (ended()) break;
      ends_.wait(before, std::memory_order_acquire);
    }
#if CAFEQ_EXCEPTIONS
    if (failure_) std::rethrow_exception(std::exchange(failure_, nullptr));
#endif
  }

 private:
  struct Portion {
    const LoopBody* body;
    Index begin, end;
  };

  static constexpr std::uint64_t one_loop = std::uint64_t(most_portions) * 2;

  /// False where none is left. Portions are counted down, so that a loop of which none is left
  /// shows it whatever the next one has already written beside; and the loop's number changes, so
  /// that what was read belongs to the loop of which a portion is taken: none ends before.
  bool take(Portion& portion) noexcept {
    std::uint64_t offer = offer_.load(std::memory_order_acquire);
    while (offer % one_loop != 0) {
      const Index n = n_.load(std::memory_order_relaxed),
                  grain = grain_.load(std::memory_order_relaxed),
                  k = ceil_div(n, grain) - Index(offer % one_loop);
      portion = {body_.load(std::memory_order_relaxed), k * grain, std::min(n, (k + 1) * grain)};
      if (offer_.compare_exchange_weak(offer, offer - 1, std::memory_order_acq_rel,
                                       std::memory_order_acquire))
        return true;
    }
    return false;
  }

  std::atomic<std::uint64_t> offer_{0};  // number of the loop, and portions not yet taken
  std::atomic<const LoopBody*> body_{nullptr};
  std::atomic<Index> n_{0}, grain_{1};
  std::atomic<Index> unfinished_{0};    // portions that have not ended
  std::atomic<std::uint32_t> ends_{0};  // changes when a loop ends: for whoever sleeps
  std::mutex failure_mutex_;
  std::exception_ptr failure_;  // there without exceptions too, so that the layout is one
};

}  // namespace detail

/// A fixed set of threads; the caller of parallel_for works too, so `threads` is the number of
/// processors in use. By default as many as the process may use (core/processors.hpp).
///
/// A loop started inside a loop of the same pool, or while another thread's loop has the pool, runs
/// on the thread that starts it. The first exception of a body reaches the caller once every
/// portion has ended.
class ThreadPool {
 public:
  explicit ThreadPool(Index threads = available_processors()) {
    for (Index worker = 1; worker < threads; ++worker)
      threads_.emplace_back([this, worker] { run(worker); });
  }
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;
  ~ThreadPool() {
    stop_.store(true, std::memory_order_relaxed);
    call(concurrency());
    for (auto& thread : threads_) thread.join();
  }

  Index concurrency() const noexcept { return Index(threads_.size()) + 1; }

  void parallel_for(Index n, Index grain, LoopBody f) {
    if (n <= 0) return;
    grain = std::max<Index>(grain, 1);
    const Index portions = ceil_div(n, grain);
    if (threads_.empty() || portions == 1 || portions > detail::SharedLoop::most_portions ||
        in_use_.exchange(true, std::memory_order_acquire))
      return InlineExecutor{}.parallel_for(n, grain, f);

    const InUse in_use{in_use_};
    const std::int64_t start = detail::LoopCosts::now();
    detail::LoopCost& cost = costs_.of(f.place(), n, grain);
    if (!cost.worth_sharing(start)) {
      InlineExecutor{}.parallel_for(n, grain, f);
      return cost.ran(detail::LoopCosts::now() - start, portions, portions);
    }

    loop_.start(f, n, grain);
    call(portions);
    const Index count = loop_.work(0);
    if (count > 0) cost.ran(detail::LoopCosts::now() - start, count, portions);
    loop_.wait(patience_);
    const std::int64_t end = detail::LoopCosts::now();
    cost.was_shared(end - start, end);
  }

 private:
  struct InUse {
    std::atomic<bool>& flag;
    ~InUse() { flag.store(false, std::memory_order_release); }
  };

  /// Tells as many threads as there is work for beside the caller's.
  void call(Index portions) noexcept {
    calls_.fetch_add(1, std::memory_order_release);
    if (portions >= concurrency()) calls_.notify_all();
    else
      for (Index i = 1; i < portions; ++i) calls_.notify_one();
  }

  void run(Index worker) {
    detail::Patience patience;
    for (;;) {
      const std::uint32_t seen = calls_.load(std::memory_order_acquire);
      if (stop_.load(std::memory_order_relaxed)) return;
      loop_.work(worker);
      if (!patience.spin_until([&] { return calls_.load(std::memory_order_acquire) != seen; }))
        calls_.wait(seen, std::memory_order_acquire);
    }
  }

  std::vector<std::thread> threads_;
  detail::SharedLoop loop_;
  detail::LoopCosts costs_;    // of whoever has the pool in use
  detail::Patience patience_;  // likewise
  std::atomic<std::uint32_t> calls_{0};
  std::atomic<bool> in_use_{false};
  std::atomic<bool> stop_{false};
};

}  // namespace cafeq
