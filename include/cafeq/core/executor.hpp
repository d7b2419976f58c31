/// Who runs the loops: the host's thread pool, the one of core/thread_pool.hpp, or the calling
/// thread.
///
/// Work is cut into portions of `grain` iterations, never by the number of threads, and reductions
/// add their portions in order. Results therefore do not depend on the executor.
#pragma once

#include <algorithm>
#include <concepts>
#include <cstdint>
#include <memory>
#include <type_traits>
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

  /// The same for every loop that one place in the source runs: a pool may learn by it what to
  /// expect.
  std::uintptr_t place() const noexcept { return reinterpret_cast<std::uintptr_t>(call_); }

 private:
  void* object_;
  void (*call_)(void*, Index, Index, Index);
};

/// parallel_for(n, grain, f) calls f(begin, end, worker) once for each portion
/// [k * grain, min(n, (k + 1) * grain)), in any order and on any thread, with
/// 0 <= worker < concurrency() distinct among calls that run at the same time, and returns when all
/// are done. A body may throw (no memory, an Error); the executor passes the first exception on to
/// its caller.
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

/// f(i, worker) for each i in [0, n), one a portion.
template <class F>
void for_each(ExecutorRef executor, Index n, F&& f) {
  executor.parallel_for(n, 1, [&](Index begin, Index end, Index worker) {
    for (Index i = begin; i < end; ++i) f(i, worker);
  });
}

/// f(portion) for portions of `grain`, its results added in the order of the portions: the same sum
/// for every executor.
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
