#include "cafeq/core/executor.hpp"

#include <array>
#include <atomic>
#include <deque>
#include <functional>
#include <future>
#include <mutex>
#include <stdexcept>
#include <thread>

#include "cafeq/core/thread_pool.hpp"
#include "support/catch.hpp"
#include "support/random.hpp"

using namespace cafeq;

namespace {

/// A pool as a host engine may have it: starts threads for each loop, hands chunks out from the
/// last to the first.
class HostPool {
 public:
  Index concurrency() const { return 4; }
  void parallel_for(Index n, Index grain, LoopBody f) {
    std::atomic<Index> next{ceil_div(n, grain)};
    std::vector<std::future<void>> running;  // waited for before `next` ends, whatever is thrown
    for (Index worker = 0; worker < concurrency(); ++worker)
      running.push_back(std::async(std::launch::async, [&, worker] {
        for (Index chunk; (chunk = --next) >= 0;)
          f(chunk * grain, std::min(n, (chunk + 1) * grain), worker);
      }));
    for (auto& r : running) r.get();
  }
};

static_assert(Executor<HostPool> && Executor<ThreadPool> && Executor<InlineExecutor> &&
              Executor<const InlineExecutor>);
static_assert(!Executor<int> && !Executor<const HostPool>);

struct Chunk {
  Index begin, end, worker;
};

/// Checks the contract of parallel_for for awkward sizes.
template <class E>
void check_chunks(E& executor) {
  const ExecutorRef ref(executor);
  for (const Index n : {0, 1, 7, 17, 33, 129, 1000})
    for (const Index grain : {1, 3, 16, 1000, 5000}) {
      CAPTURE(n, grain, executor.concurrency());
      std::mutex mutex;
      std::vector<Chunk> chunks;
      ref.parallel_for(n, grain, [&](Index begin, Index end, Index worker) {
        const std::lock_guard lock(mutex);
        chunks.push_back({begin, end, worker});
      });
      std::sort(chunks.begin(), chunks.end(),
                [](const Chunk& a, const Chunk& b) { return a.begin < b.begin; });
      REQUIRE(Index(chunks.size()) == ceil_div(n, grain));
      for (std::size_t k = 0; k < chunks.size(); ++k) {
        CHECK(chunks[k].begin == Index(k) * grain);
        CHECK(chunks[k].end == std::min(n, Index(k + 1) * grain));
        CHECK(chunks[k].worker >= 0);
        CHECK(chunks[k].worker < executor.concurrency());
      }
    }
}

/// Calls that run at the same time have different workers.
template <class E>
void check_workers(E& executor) {
  std::array<std::atomic<bool>, 8> busy{};
  std::atomic<int> clashes{0};
  ExecutorRef(executor).parallel_for(200, 1, [&](Index, Index, Index worker) {
    clashes += busy[std::size_t(worker)].exchange(true);
    std::this_thread::yield();
    busy[std::size_t(worker)] = false;
  });
  CHECK(clashes == 0);
}

}  // namespace

TEST_CASE("every chunk runs once", "[core][executor]") {
  InlineExecutor inline_executor;
  HostPool host;
  ThreadPool one(1), two(2), three(3);
  CHECK(one.concurrency() == 1);
  CHECK(three.concurrency() == 3);
  CHECK(ExecutorRef().concurrency() == 1);
  CHECK(ExecutorRef(three).concurrency() == 3);
  check_chunks(inline_executor);
  check_chunks(one);
  check_chunks(two);
  check_chunks(three);
  check_chunks(host);
  check_workers(three);
  check_workers(host);
}

TEST_CASE("an exception in a body reaches the caller, and the pool stays usable",
          "[core][executor]") {
  HostPool host;
  ThreadPool one(1), three(3);
  for (const ExecutorRef executor :
       {ExecutorRef(), ExecutorRef(one), ExecutorRef(three), ExecutorRef(host)}) {
    CAPTURE(executor.concurrency());
    for (int again = 0; again < 20; ++again)
      CHECK_THROWS_WITH(executor.parallel_for(10, 1,
                                              [](Index begin, Index, Index) {
                                                if (begin == 7) throw std::runtime_error("chunk 7");
                                              }),
                        "chunk 7");
    std::atomic<Index> count{0};
    executor.parallel_for(10, 1, [&](Index, Index, Index) { ++count; });
    CHECK(count == 10);
  }
}

TEST_CASE("sums do not depend on the executor", "[core][executor]") {
  const auto values = test::gaussian<double>(1, 10001, 3);
  const auto sum_with = [&](ExecutorRef executor) {
    return detail::parallel_sum(executor, values.size(), 64, [&](Index begin, Index end) {
      double sum = 0;
      for (Index i = begin; i < end; ++i) sum += values.data()[i];
      return sum;
    });
  };
  HostPool host;
  ThreadPool one(1), two(2), three(3);
  const double expected = sum_with({});
  CHECK(expected != 0);
  for (const ExecutorRef executor :
       {ExecutorRef(one), ExecutorRef(two), ExecutorRef(three), ExecutorRef(host)})
    CHECK(sum_with(executor) == expected);
  CHECK(detail::parallel_sum(three, 0, 64, [](Index, Index) { return 1.0; }) == 0);
}
