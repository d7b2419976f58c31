#include "cafeq/trellis/budget.hpp"

#include <array>
#include <cmath>

#include "support/catch.hpp"

using namespace cafeq;

namespace {

/// The error that is expected of a trellis: by its rate and by the steps of its scales. Only which
/// of two is larger matters here.
double expected_error(const Trellis& q) {
  const double range = q.sequence == Sequence::scaled_column ? 0.5 : 2.0;
  const double step = range / double(1 << q.scale_bits);
  return 0.0694 * std::exp2(-2 * (q.rate.bits() - 2)) + step * step / 12;
}

const std::array<detail::TrellisLoad, 6> trellis_loads{
    detail::TrellisLoad{1, 1},
    detail::TrellisLoad{64, 64},
    detail::TrellisLoad{300, 1000, Sequence::row, 80},
    detail::TrellisLoad{4096, 17, Sequence::column, 1000},
    detail::TrellisLoad{192, 576, Sequence::scaled_column, 80},
    detail::TrellisLoad{1536, 576, Sequence::scaled_column, 80}};

}  // namespace

TEST_CASE("Bits of loads are those of their codes and what is stored beside them") {
  const Trellis q{.rate = {40}, .scale_bits = 6};
  for (const detail::TrellisLoad& load : trellis_loads) {
    Trellis of_load = q;
    of_load.sequence = load.sequence;
    const auto bits = Codes<Trellis>::storage_bits(of_load, load.rows, load.cols) + load.other_bits;
    CHECK(load.storage_bits(q) == bits);
    CHECK(detail::bits_of_loads({&load, 1}, q) * load.weights() == Approx(double(bits)));
  }
  double bits = 0, weights = 0;
  for (const detail::TrellisLoad& load : trellis_loads) {
    bits += double(load.storage_bits(q));
    weights += double(load.rows * load.cols);
  }
  CHECK(detail::bits_of_loads(trellis_loads, q) == Approx(bits / weights));
}

TEST_CASE("An affordable trellis keeps the budget, and no better one does") {
  for (const detail::TrellisLoad& load : trellis_loads)
    for (const int window : {14, 12, 10}) {
      INFO(load.rows << " x " << load.cols << ", window " << window);
      double before = 2;
      for (double bits = 1; bits <= 12; bits += 1.0 / 32) {
        const auto q = detail::affordable_trellis({&load, 1}, bits, window);
        REQUIRE(q.has_value() == (detail::least_trellis_bits({&load, 1}, window) <= bits));
        if (!q) continue;
        REQUIRE_FALSE(fault_of(*q, load.rows, load.cols));
        REQUIRE(detail::bits_of_loads({&load, 1}, *q) <= bits);
        REQUIRE(q->window == window);
        REQUIRE(q->sequence == load.sequence);
        const double error = expected_error(*q);
        REQUIRE(error <= before);  // more bits are never worse
        before = error;

        for (const int scale_bits : detail::TrellisScales(load.sequence).bits)
          for (int rate = TrellisRate::least; rate <= TrellisRate::most; ++rate) {
            const Trellis other{.rate = {rate},
                                .scale_bits = scale_bits,
                                .window = window,
                                .sequence = load.sequence};
            if (detail::bits_of_loads({&load, 1}, other) <= bits)
              REQUIRE(error <= expected_error(other) * (1 + 1e-12));
          }
      }
    }
}

TEST_CASE("What is stored with a matrix counts, and several share one budget") {
  const detail::TrellisLoad plain{128, 256}, laden{128, 256, Sequence::rows, 128 * 256 / 2};
  const auto a = detail::affordable_trellis({&plain, 1}, 3.5),
             b = detail::affordable_trellis({&laden, 1}, 3.5);
  REQUIRE((a && b));
  CHECK(a->rate.sixteenths - b->rate.sixteenths == 8);

  const std::array both{plain, laden};
  const auto shared = detail::affordable_trellis(both, 3.5);
  REQUIRE(shared);
  CHECK(detail::bits_of_loads(both, *shared) <= 3.5);
  CHECK(shared->rate.sixteenths < a->rate.sixteenths);
  CHECK(shared->rate.sixteenths > b->rate.sixteenths);
}

TEST_CASE("Narrow rows have scales of 6 bits, wide ones of 8") {
  const detail::TrellisLoad narrow{512, 32}, wide{64, 4096};
  for (const double bits : {2.5, 3.0, 3.25}) {
    CHECK(detail::affordable_trellis({&narrow, 1}, bits)->scale_bits == 6);
    CHECK(detail::affordable_trellis({&wide, 1}, bits)->scale_bits == 8);
  }
}

TEST_CASE("Nothing is affordable where the lowest rate takes more, or nobody says how much") {
  const detail::TrellisLoad load{64, 64};
  const double least = detail::least_trellis_bits({&load, 1});
  CHECK(detail::affordable_trellis({&load, 1}, least)->rate.sixteenths == TrellisRate::least);
  CHECK_FALSE(detail::affordable_trellis({&load, 1}, std::nextafter(least, 0.0)));
  CHECK_FALSE(detail::affordable_trellis({&load, 1}, -1));
  CHECK_FALSE(detail::affordable_trellis({&load, 1}, NAN));
  CHECK(detail::affordable_trellis({&load, 1}, 100)->rate.sixteenths == TrellisRate::most);
}
