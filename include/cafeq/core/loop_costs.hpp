/// What loops have taken so far, by which a pool decides whether to share the next one.
///
/// A loop that is over before another thread has come is better run where it is. So is every short
/// loop while other programs use the processors: a thread that has taken a portion and is set aside
/// keeps all others waiting for the length of a time slice, some milliseconds. Neither is known
/// beforehand, but optimizers and engines run the same loops again and again.
#pragma once

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdint>

#include "cafeq/core/numeric.hpp"

namespace cafeq::detail {

/// A loop of one kind: started by one place in the source, of one size. Times in nanoseconds.
class LoopCost {
 public:
  /// Whether to share a loop that starts at `now`. One of unknown length is.
  bool worth_sharing(std::int64_t now) const noexcept {
    return alone_ == 0 || (alone_ >= shortest && now >= retry_at_);
  }

  /// What it takes on one thread, as `portions` of its `all` in `time` tell. A thread that was set
  /// aside meanwhile took longer than the loop needs, so that estimates grow slowly.
  void ran(std::int64_t time, Index portions, Index all) noexcept {
    const double whole = double(time) / double(portions) * double(all);
    alone_ = std::max(1.0, alone_ == 0 ? whole : std::min(whole, 1.25 * alone_));
  }

  /// A shared loop that ended at `now` took `time`. What sharing loses is paid back by sixteen
  /// times as much time without; a few gains make up for an accident.
  void was_shared(std::int64_t time, std::int64_t now) noexcept {
    if (alone_ == 0) return;  // other threads took all of it
    debt_ = std::max(debt_ + double(time) - alone_, -most_credit);
    if (debt_ <= 0) return;
    retry_at_ = now + std::int64_t(16 * std::min(debt_, longest_debt));
    debt_ = 0;
  }

 private:
  static constexpr double shortest = 5e3;  // less than waking a thread takes
  static constexpr double most_credit = 5e6, longest_debt = 1e8;

  double alone_ = 0;
  double debt_ = 0;
  std::int64_t retry_at_ = 0;
};

/// The costs of the kinds of loops met last. Not for several threads at once.
class LoopCosts {
 public:
  LoopCost& of(std::uintptr_t place, Index n, Index grain) noexcept {
    std::uint64_t hash = place;
    for (const Index part : {n, grain}) hash = (hash ^ std::uint64_t(part)) * 0x9e3779b97f4a7c15u;
    Entry& entry = entries_[hash >> 56];
    if (entry.place != place || entry.n != n || entry.grain != grain) entry = {place, n, grain, {}};
    return entry.cost;
  }

  static std::int64_t now() noexcept {
    const auto time = std::chrono::steady_clock::now().time_since_epoch();
    return std::chrono::duration_cast<std::chrono::nanoseconds>(time).count();
  }

 private:
  struct Entry {
    std::uintptr_t place = 0;
    Index n = 0, grain = 0;
    LoopCost cost;
  };
  std::array<Entry, 256> entries_;
};

}  // namespace cafeq::detail
