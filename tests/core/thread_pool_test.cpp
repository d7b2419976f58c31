#include "cafeq/core/thread_pool.hpp"

#include <atomic>
#include <stdexcept>
#include <thread>
#include <vector>

#include "support/catch.hpp"

using namespace cafeq;

TEST_CASE("a pool is reused for many loops", "[core][thread_pool]") {
  ThreadPool pool(3);
  std::atomic<Index> sum{0};
  for (int loop = 0; loop < 2000; ++loop)
    pool.parallel_for(6, 2, [&](Index begin, Index end, Index) { sum += end - begin; });
  CHECK(sum == 12000);
}

TEST_CASE("the threads of a pool work at the same time", "[core][thread_pool]") {
  ThreadPool pool(2);
  std::atomic<int> arrived{0};
  pool.parallel_for(2, 1, [&](Index, Index, Index) {
    ++arrived;
    while (arrived < 2) std::this_thread::yield();  // ends only if the other chunk runs meanwhile
  });
  CHECK(arrived == 2);
}

TEST_CASE("a pool ends every chunk before it rethrows", "[core][thread_pool]") {
  ThreadPool pool(3);
  std::atomic<int> started{0}, ended{0};
  CHECK_THROWS_AS(pool.parallel_for(100, 1,
                                    [&](Index begin, Index, Index) {
                                      ++started;
                                      if (begin == 0) throw std::runtime_error("first");
                                      std::this_thread::yield();
                                      ++ended;
                                    }),
                  std::runtime_error);
  CHECK(started == 100);
  CHECK(ended == 99);
}

TEST_CASE("a loop inside a loop runs on its own thread", "[core][thread_pool]") {
  ThreadPool pool(3);
  std::atomic<Index> sum{0};
  std::atomic<int> strangers{0};
  pool.parallel_for(8, 1, [&](Index, Index, Index) {
    const auto self = std::this_thread::get_id();
    pool.parallel_for(100, 7, [&](Index begin, Index end, Index) {
      strangers += std::this_thread::get_id() != self;
      sum += end - begin;
    });
  });
  CHECK(sum == 800);
  CHECK(strangers == 0);
}

TEST_CASE("an exception from a loop inside a loop reaches the outer caller",
          "[core][thread_pool]") {
  ThreadPool pool(2);
  CHECK_THROWS_AS(pool.parallel_for(4, 1,
                                    [&](Index, Index, Index) {
                                      pool.parallel_for(4, 1, [](Index, Index, Index) {
                                        throw std::runtime_error("inner");
                                      });
                                    }),
                  std::runtime_error);
}

TEST_CASE("two threads may share a pool", "[core][thread_pool]") {
  ThreadPool pool(3);
  std::atomic<Index> sum{0};
  const auto work = [&] {
    for (int loop = 0; loop < 300; ++loop)
      pool.parallel_for(9, 2, [&](Index begin, Index end, Index) { sum += end - begin; });
  };
  std::thread other(work);
  work();
  other.join();
  CHECK(sum == 2 * 300 * 9);
}

TEST_CASE("who finds the pool in use runs his loop himself", "[core][thread_pool]") {
  ThreadPool pool(2);
  std::atomic<bool> started{false}, finished{false};
  std::thread other([&] {
    pool.parallel_for(2, 1, [&](Index, Index, Index) {
      started = true;
      while (!finished) std::this_thread::yield();
    });
  });
  while (!started) std::this_thread::yield();

  // Both threads of the pool stay where they are until this loop has ended.
  Index sum = 0;
  const auto self = std::this_thread::get_id();
  bool strangers = false;
  pool.parallel_for(10, 3, [&](Index begin, Index end, Index) {
    strangers |= std::this_thread::get_id() != self;
    sum += end - begin;
  });
  finished = true;
  other.join();
  CHECK(sum == 10);
  CHECK_FALSE(strangers);
}

TEST_CASE("threads that come late to a loop take nothing of the next one by mistake",
          "[core][thread_pool]") {
  detail::SharedLoop shared;
  detail::Patience patience;
  std::atomic<bool> stop{false};
  std::vector<std::thread> helpers;
  for (Index worker = 1; worker < 4; ++worker)
    helpers.emplace_back([&, worker] {
      while (!stop) shared.work(worker);
    });

  std::atomic<Index> wrong{0};
  for (Index loop = 0; loop < 200000; ++loop) {
    const Index n = 1 + loop * 7 % 29, grain = 1 + loop % 3;
    std::vector<std::atomic<int>> runs(static_cast<std::size_t>(n));
    const auto body = [&](Index begin, Index end, Index worker) {
      wrong += worker < 0 || worker > 3 || begin % grain != 0 || end > n;
      for (Index i = begin; i < end; ++i) ++runs[std::size_t(i)];
    };
    const LoopBody f(body);
    shared.start(f, n, grain);
    shared.work(0);
    shared.wait(patience);
    for (const auto& count : runs) wrong += count != 1;
  }
  stop = true;
  for (auto& helper : helpers) helper.join();
  CHECK(wrong == 0);
}

TEST_CASE("a pool that did nothing ends", "[core][thread_pool]") {
  for (int again = 0; again < 50; ++again) ThreadPool pool(3);
  CHECK(ThreadPool().concurrency() == available_processors());
}
