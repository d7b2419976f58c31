/// Scratch memory that a caller can reuse from one call to the next.
#pragma once

#include <cstring>
#include <memory>
#include <span>
#include <type_traits>
#include <vector>

#include "cafeq/core/matrix.hpp"

namespace cafeq {

/// A stack of 64-byte-aligned scratch. take() hands out uninitialised storage; the Frame that
/// encloses it gives it back. After the first pass through a loop no further memory is asked of the
/// system. One workspace serves one thread.
class Workspace {
 public:
  /// Everything taken while a Frame lives is free again when it ends.
  class Frame {
   public:
    explicit Frame(Workspace& workspace) noexcept
        : workspace_(workspace), block_(workspace.block_), used_(workspace.used_) {}
    Frame(const Frame&) = delete;
    Frame& operator=(const Frame&) = delete;
    ~Frame() {
      workspace_.block_ = block_;
      workspace_.used_ = used_;
    }

   private:
    Workspace& workspace_;
    std::size_t block_;
    std::size_t used_;
  };

  template <class T>
  std::span<T> take(Index count) {
    static_assert(std::is_trivially_copyable_v<T>);
    const std::size_t bytes =
        (std::size_t(count) * sizeof(T) + alignment - 1) / alignment * alignment;

    // Past blocks that are too full; a new one, twice as large, where none is left.
    while (block_ < blocks_.size() && used_ + bytes > blocks_[block_].size()) {
      ++block_;
      used_ = 0;
    }
    if (block_ == blocks_.size()) {
      blocks_.emplace_back(
          std::max<std::size_t>(bytes, blocks_.empty() ? 4096 : 2 * blocks_.back().size()));
      used_ = 0;
    }

    T* p = reinterpret_cast<T*>(blocks_[block_].data() + used_);
    used_ += bytes;
    return {p, std::size_t(count)};
  }
  /// The same as a dense matrix.
  template <class T>
  View<T> take(Index rows, Index cols) {
    return {take<T>(rows * cols).data(), rows, cols, cols, 1};
  }

  /// What the workspace holds from the system.
  std::size_t capacity_bytes() const noexcept {
    std::size_t sum = 0;
    for (const auto& block : blocks_) sum += block.size();
    return sum;
  }

 private:
  std::vector<Buffer<std::byte>> blocks_;
  std::size_t block_ = 0;
  std::size_t used_ = 0;
};

namespace detail {

/// One workspace a worker of an executor.
class WorkspacePool {
 public:
  explicit WorkspacePool(Index workers) : workspaces_(std::size_t(workers)) {}
  Workspace& operator[](Index worker) noexcept {
    CAFEQ_ASSERT(worker >= 0 && worker < Index(workspaces_.size()));
    return workspaces_[std::size_t(worker)];
  }

 private:
  std::vector<Workspace> workspaces_;
};

}  // namespace detail

}  // namespace cafeq
