/// Threads that share the work of a loop.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <future>
#include <vector>

namespace engine {

/// Starts them for each loop, which takes some ten microseconds a thread.
class Threads {
 public:
  explicit Threads(std::size_t count) : count_(count) {}

  std::size_t count() const { return count_; }
  std::size_t concurrency() const { return count_; }

  /// Calls body(begin, end, worker) for parts of `grain` of n iterations and returns when all are
  /// done; `worker` differs among calls that run at the same time and is below count(). What one
  /// throws reaches the caller.
  template <class Body>
  void parallel_for(std::size_t n, std::size_t grain, const Body& body) const {
    std::atomic<std::size_t> next{0};
    const auto work = [&](std::size_t worker) {
      for (std::size_t begin; (begin = next.fetch_add(grain)) < n;)
        body(begin, std::min(n, begin + grain), worker);
    };
    std::vector<std::future<void>> others;
    for (std::size_t worker = 1; worker < count_ && worker * grain < n; ++worker)
      others.push_back(std::async(std::launch::async, work, worker));
    work(0);
    for (auto& other : others) other.get();
  }

 private:
  std::size_t count_;
};

}  // namespace engine
