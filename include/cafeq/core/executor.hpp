/// Who runs the loops: the host's thread pool, a small pool of our own, or the calling thread.
///
/// Work is cut into chunks of `grain` iterations, never by the number of threads, and reductions
/// add their chunks in order. Results therefore do not depend on the executor.
#pragma once

#include <algorithm>
#include <atomic>
#include <concepts>
#include <condition_variable>
#include <exception>
#include <memory>
#include <mutex>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

#include "cafeq/core/numeric.hpp"

namespace cafeq {

/// A reference to a callable f(begin, end, worker) that outlives the loop.
class LoopBody {
 public:
  template <class F>
    requires(!std::is_same_v<std::remove_cvref_t<F>, LoopBody> &&
             std::is_invocable_v<F&, Index, Index, Index>)
  LoopBody(F&& f) noexcept  // NOLINT(google-explicit-constructor)
      : object_(const_cast<void*>(static_cast<const void*>(std::addressof(f)))),
        call_([](void* object, Index begin, Index end, Index worker) {
          (*static_cast<std::remove_reference_t<F>*>(object))(begin, end, worker);
        }) {}

  void operator()(Index begin, Index end, Index worker) const {
    call_(object_, begin, end, worker);
  }
  /// For pools that count in other integers.
  template <std::integral I>
  void operator()(I begin, I end, I worker) const {
    call_(object_, Index(begin), Index(end), Index(worker));
  }

 private:
  void* object_;
  void (*call_)(void*, Index, Index, Index);
};

/// parallel_for(n, grain, f) calls f(begin, end, worker) once for each chunk [k * grain, min(n, (k
/// + 1) * grain)), in any order and on any thread, with 0 <= worker < concurrency() distinct among
/// calls that run at the same time, and returns when all are done. A body may throw (no memory, an
/// Error); the executor passes the first exception on to its caller.
template <class E>
concept Executor = requires(E& e, const E& c, Index n, LoopBody f) {
  { c.concurrency() } -> std::convertible_to<Index>;
  e.parallel_for(n, n, f);
};

/// Runs everything on the calling thread.
struct InlineExecutor {
  Index concurrency() const noexcept { return 1; }
  void parallel_for(Index n, Index grain, LoopBody f) const {
    grain = std::max<Index>(grain, 1);
    for (Index begin = 0; begin < n; begin += grain) f(begin, std::min(begin + grain, n), 0);
  }
};

/// What the library's functions take: any Executor by reference, or the inline one by default. The
/// executor must outlive the call.
class ExecutorRef {
 public:
  ExecutorRef() noexcept : object_(nullptr), vtable_(&table<const InlineExecutor>) {}

  template <Executor E>
    requires(!std::is_same_v<std::remove_const_t<E>, ExecutorRef>)
  ExecutorRef(E& executor) noexcept  // NOLINT(google-explicit-constructor)
      : object_(const_cast<void*>(static_cast<const void*>(std::addressof(executor)))),
        vtable_(&table<E>) {}

  Index concurrency() const { return vtable_->concurrency(object_); }
  void parallel_for(Index n, Index grain, LoopBody f) const {
    if (n > 0) vtable_->parallel_for(object_, n, std::max<Index>(grain, 1), f);
  }

 private:
  struct Table {
    Index (*concurrency)(const void*);
    void (*parallel_for)(void*, Index, Index, LoopBody);
  };

// A pool may count in unsigned numbers, to which n and grain then convert.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wsign-conversion"
  template <class E>
  static void parallel_for_in(E& executor, Index n, Index grain, LoopBody f) {
    executor.parallel_for(n, grain, f);
  }
#pragma GCC diagnostic pop

  template <class E>
  static constexpr Table table{[](const void* e) {
                                 if constexpr (std::is_same_v<E, const InlineExecutor>)
                                   return Index(1);
                                 else return Index(static_cast<const E*>(e)->concurrency());
                               },
                               [](void* e, Index n, Index grain, LoopBody f) {
                                 if constexpr (std::is_same_v<E, const InlineExecutor>)
                                   InlineExecutor{}.parallel_for(n, grain, f);
                                 else
                                   ExecutorRef::parallel_for_in(*static_cast<E*>(e), n, grain, f);
                               }};
  void* object_;
  const Table* vtable_;
};

namespace detail {

/// Tells the processor that this is a loop which waits.
inline void spin_pause() noexcept {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

}  // namespace detail

/// A fixed set of threads; the caller of parallel_for works too, so `threads` is the number of
/// cores in use. A loop started from inside a loop runs on its own thread. The first exception of a
/// body is rethrown to the caller once every chunk has ended.
///
/// Optimizers start many short loops one after another, so whoever waits looks for about a
/// millisecond before it sleeps: waking up takes tens of microseconds. Not where there are more
/// threads than processors.
class ThreadPool {
 public:
  explicit ThreadPool(Index threads = Index(std::max(1u, std::thread::hardware_concurrency())))
      : spins_(threads <= Index(std::thread::hardware_concurrency()) ? 100000 : 0) {
    for (Index worker = 1; worker < threads; ++worker)
      threads_.emplace_back([this, worker] { run(worker); });
  }
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;
  ~ThreadPool() {
    {
      const std::lock_guard lock(mutex_);
      stop_ = true;
    }
    wake_.notify_all();
    for (auto& thread : threads_) thread.join();
  }

  Index concurrency() const noexcept { return Index(threads_.size()) + 1; }

  void parallel_for(Index n, Index grain, LoopBody f) {
    if (n <= 0) return;
    grain = std::max<Index>(grain, 1);
    // Threads of this pool that wait for one another would wait for ever.
    if (inside_loop() || threads_.empty() || n <= grain)
      return InlineExecutor{}.parallel_for(n, grain, f);

    const std::lock_guard one_loop_at_a_time(loop_mutex_);
    {
      const std::lock_guard lock(mutex_);  // a thread that wakes up sees all of it
      body_ = &f;
      n_ = n;
      grain_ = grain;
      next_ = 0;
      running_ = Index(threads_.size());
      ++generation_;
    }
    wake_.notify_all();

    work(0);
    spin([this] { return running_.load() == 0; });
    std::unique_lock lock(mutex_);
    done_.wait(lock, [this] { return running_.load() == 0; });
#if CAFEQ_EXCEPTIONS
    if (failure_) std::rethrow_exception(std::exchange(failure_, nullptr));
#endif
  }

 private:
  static bool& inside_loop() {
    thread_local bool inside = false;
    return inside;
  }

  template <class F>
  void spin(F&& ready) const {
    for (int i = 1; i < spins_ && !ready(); ++i)
      if (i % 64 != 0) detail::spin_pause();
      else std::this_thread::yield();  // somebody else may need the processor
  }

  void run(Index worker) {
    std::uint64_t seen = 0;
    for (;;) {
      spin([&] { return generation_.load() != seen; });
      {
        std::unique_lock lock(mutex_);
        wake_.wait(lock, [&] { return stop_ || generation_.load() != seen; });
        if (stop_) return;
        seen = generation_.load();
      }
      work(worker);
      const std::lock_guard lock(mutex_);
      if (--running_ == 0) done_.notify_one();
    }
  }

  void work(Index worker) {
    inside_loop() = true;
    for (;;) {
      const Index begin = next_.fetch_add(grain_);
      if (begin >= n_) break;
#if CAFEQ_EXCEPTIONS
      try {
        (*body_)(begin, std::min(begin + grain_, n_), worker);
      } catch (...) {
        const std::lock_guard lock(mutex_);
        if (!failure_) failure_ = std::current_exception();
      }
#else
      (*body_)(begin, std::min(begin + grain_, n_), worker);
#endif
    }
    inside_loop() = false;
  }

  std::vector<std::thread> threads_;
  std::mutex loop_mutex_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::condition_variable done_;
  const LoopBody* body_ = nullptr;
  Index n_ = 0;
  Index grain_ = 1;
  std::atomic<Index> next_{0};
  std::atomic<Index> running_{0};
  std::atomic<std::uint64_t> generation_{0};
  const int spins_;
  bool stop_ = false;
  std::exception_ptr failure_;  // there without exceptions too, so that the layout is one
};

namespace detail {

/// f(i, worker) for each i in [0, n), one a chunk.
template <class F>
void for_each(ExecutorRef executor, Index n, F&& f) {
  executor.parallel_for(n, 1, [&](Index begin, Index end, Index worker) {
    for (Index i = begin; i < end; ++i) f(i, worker);
  });
}

/// f(chunk) for chunks of `grain`, its results added in the order of the chunks: the same sum for
/// every executor.
template <class F>
double parallel_sum(ExecutorRef executor, Index n, Index grain, F&& f) {
  std::vector<double> partial(std::size_t(ceil_div(n, grain)));
  executor.parallel_for(n, grain, [&](Index begin, Index end, Index) {
    partial[std::size_t(begin / grain)] = f(begin, end);
  });
  double sum = 0;
  for (const double p : partial) sum += p;
  return sum;
}

}  // namespace detail

}  // namespace cafeq
