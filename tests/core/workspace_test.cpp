#include "cafeq/core/workspace.hpp"

#include <numeric>

#include "support/allocations.hpp"
#include "support/catch.hpp"

using namespace cafeq;

namespace {

template <class T>
bool aligned(std::span<T> s) {
  return reinterpret_cast<std::uintptr_t>(s.data()) % alignment == 0;
}

/// A kernel's use of scratch: frames in frames, sizes from nothing to much more than a block.
void use(Workspace& workspace, Index scale) {
  const Workspace::Frame frame(workspace);
  const auto floats = workspace.take<float>(33 * scale);
  for (Index i = 0; i < 5; ++i) {
    const Workspace::Frame inner(workspace);
    const auto doubles = workspace.take<double>(100 * scale * i);
    const auto bytes = workspace.take<std::uint8_t>(7);
    std::fill(doubles.begin(), doubles.end(), 1.0);
    std::fill(bytes.begin(), bytes.end(), std::uint8_t(1));
  }
  const auto more = workspace.take<float>(1000 * scale);
  std::fill(floats.begin(), floats.end(), 0.0f);
  std::fill(more.begin(), more.end(), 0.0f);
}

}  // namespace

TEST_CASE("scratch is aligned and does not overlap", "[core][workspace]") {
  Workspace workspace;
  std::vector<std::span<std::uint32_t>> taken;
  for (const Index n : {1, 0, 7, 17, 33, 129, 5000, 1, 100000, 3}) {
    taken.push_back(workspace.take<std::uint32_t>(n));
    CHECK(Index(taken.back().size()) == n);
    CHECK(aligned(taken.back()));
    std::fill(taken.back().begin(), taken.back().end(), std::uint32_t(taken.size()));
  }
  for (std::size_t k = 0; k < taken.size(); ++k)
    for (const std::uint32_t v : taken[k]) REQUIRE(v == k + 1);
}

TEST_CASE("a matrix of scratch is dense and row-major", "[core][workspace]") {
  Workspace workspace;
  const View<double> m = workspace.take<double>(7, 17);
  CHECK(m.rows == 7);
  CHECK(m.cols == 17);
  CHECK(m.contiguous());
}

TEST_CASE("a frame gives back what was taken in it, and nothing else", "[core][workspace]") {
  Workspace workspace;
  const auto kept = workspace.take<int>(10);
  std::iota(kept.begin(), kept.end(), 0);
  const int* first = nullptr;
  for (int pass = 0; pass < 3; ++pass) {
    const Workspace::Frame frame(workspace);
    const auto scratch = workspace.take<int>(100);
    std::fill(scratch.begin(), scratch.end(), -1);
    if (pass == 0) first = scratch.data();
    CHECK(scratch.data() == first);
    CHECK(scratch.data() != kept.data());
  }
  for (int i = 0; i < 10; ++i) CHECK(kept[std::size_t(i)] == i);
}

TEST_CASE("after the first pass no memory is asked of the system", "[core][workspace]") {
  Workspace workspace;
  CHECK(workspace.capacity_bytes() == 0);
  CHECK(test::allocations_of([&] { use(workspace, 50); }) > 0);
  const std::size_t capacity = workspace.capacity_bytes();
  CHECK(capacity >= sizeof(float) * 1033 * 50);
  for (const Index scale : {50, 50, 50})
    CHECK(test::allocations_of([&] { use(workspace, scale); }) == 0);
  CHECK(workspace.capacity_bytes() == capacity);
}

TEST_CASE("a pool has one workspace a worker", "[core][workspace]") {
  detail::WorkspacePool pool(3);
  const auto a = pool[0].take<float>(8);
  const auto b = pool[2].take<float>(8);
  CHECK(a.data() != b.data());
  CHECK(pool[1].capacity_bytes() == 0);
}
