#include "cafeq/trellis/search.hpp"

#include <cmath>
#include <numeric>
#include <string>
#include <vector>

#include "cafeq/trellis/code_tables.hpp"
#include "cafeq/trellis/search_reference.hpp"
#include "support/allocations.hpp"
#include "support/build.hpp"
#include "support/catch.hpp"
#include "support/golden.hpp"
#include "support/random.hpp"

using namespace cafeq;
using namespace cafeq::test;

namespace {

#if defined(__SSE2__)
using NarrowTrellisArch = xsimd::sse2;
#else
using NarrowTrellisArch = DefaultArch;
#endif

using States = std::vector<std::uint16_t>;

/// Without optimization and under a sanitizer a weight takes a thousand times as long.
bool too_slow_here(int window, Index n) { return test::sanitized && n > (window == 12 ? 70 : 300); }

/// Targets of a chunk and the zeros that follow a short one.
struct TrellisTargets {
  std::vector<float> x;
  std::vector<double> padded;
};

TrellisTargets trellis_targets(Index n, TrellisRate rate, int window, std::uint64_t seed,
                               double scale = 1) {
  const auto source = gaussian<float>(1, n, seed, scale);
  TrellisTargets targets{{source.data(), source.data() + n}, {source.data(), source.data() + n}};
  targets.padded.resize(std::size_t(kernel::TrellisStream{rate, window}.padded(n)));
  return targets;
}

/// Each state begins with the bits that the one before it ends with, and the first follows the
/// last.
bool trellis_cycle_closes(std::span<const std::uint16_t> states, TrellisRate rate, int window) {
  const Index n = Index(states.size());
  for (Index t = 0; t < n; ++t) {
    const int shift =
        int(t == 0 ? rate.begin(n) - rate.begin(n - 1) : rate.begin(t) - rate.begin(t - 1));
    const std::uint32_t before = states[std::size_t(t == 0 ? n - 1 : t - 1)],
                        state = states[std::size_t(t)];
    if (state >> window != 0 || state >> shift != (before & ((1u << (window - shift)) - 1)))
      return false;
  }
  return true;
}

double trellis_cost(const TrellisCode& code, std::span<const double> x,
                    std::span<const std::uint16_t> states) {
  double sum = 0;
  for (std::size_t t = 0; t < x.size(); ++t) {
    const double difference = x[t] - code.level(states[t]) * double(code.unit);
    sum += difference * difference;
  }
  return sum;
}

/// The states that a chunk in memory means, those of padding too.
States trellis_states_in(std::span<const std::uint8_t> chunk, Index padded, TrellisRate rate,
                         int window) {
  States states;
  for (Index t = 0; t < padded; ++t)
    states.push_back(std::uint16_t(kernel::TrellisStream{rate, window}.state(chunk.data(), t)));
  return states;
}

std::vector<std::uint8_t> trellis_chunk(Index n, TrellisRate rate, int window, Index more = 0) {
  return std::vector<std::uint8_t>(std::size_t(kernel::TrellisStream{rate, window}.bytes(n) + more),
                                   std::uint8_t(0xa5));
}

/// The states of all weights of a chunk, those that nobody reads among them, which are also what
/// encode() writes.
States searched_trellis_states(kernel::TrellisSearch<>& search, std::span<const float> x,
                               TrellisRate rate, int window) {
  const Index n = Index(x.size());
  std::vector<float> padded(x.begin(), x.end());
  padded.resize(std::size_t(kernel::TrellisStream{rate, window}.padded(n)));
  States states(padded.size());
  search.tail_biting(padded, states);
  auto chunk = trellis_chunk(n, rate, window);
  search.encode(x, chunk);
  CHECK(trellis_states_in(chunk, Index(padded.size()), rate, window) == states);
  return states;
}

/// Σ error² / Σ x² of chunks of Gaussian weights.
double gaussian_trellis_error(TrellisRate rate, int window, Index n, int chunks) {
  const TrellisCode& code = trellis_code(rate, window);
  kernel::TrellisSearch<> search(code, rate);
  double error = 0, power = 0;
  for (int c = 0; c < chunks; ++c) {
    const auto targets = trellis_targets(n, rate, window, std::uint64_t(100 + c));
    States states(std::size_t(n), 0);
    search.tail_biting(targets.x, states);
    error += trellis_cost(code, targets.padded, states);
    power += std::inner_product(targets.padded.begin(), targets.padded.end(),
                                targets.padded.begin(), 0.0);
  }
  return error / power;
}

constexpr int trellis_windows[]{12, 10};
constexpr int trellis_test_rates[]{16, 17, 24, 31, 32, 33, 35,
                                   47, 48, 51, 64, 79, 80};  // sixteenths

}  // namespace

TEST_CASE("trellis search finds the golden states and writes their bits") {
  const auto file = golden("trellis.json");
  REQUIRE(file["viterbi"].size() == 9);
  for (const auto& wanted : file["viterbi"]) {
    const TrellisRate rate{16 * wanted["R"][0].get<int>() / wanted["R"][1].get<int>()};
    INFO("sixteenths " << rate.sixteenths);
    std::vector<float> x;
    for (const auto& value : wanted["x_times_1024"]) x.push_back(float(value.get<double>() / 1024));
    const auto expected = wanted["tailbiting_states"].get<States>();

    kernel::TrellisSearch<> search(trellis_code(rate, 12), rate);
    States states(x.size());
    search.tail_biting(x, states);
    CHECK(states == expected);
    auto chunk = trellis_chunk(Index(x.size()), rate, 12);
    search.encode(x, chunk);
    const auto hex = wanted["tailbiting_bits_hex"].get<std::string>();
    const Index bits = rate.begin(Index(x.size()));
    REQUIRE(Index(hex.size()) == 2 * ceil_div(bits, Index(8)));
    for (Index byte = 0; byte < Index(hex.size()) / 2; ++byte) {
      const int mask = bits - 8 * byte < 8
                           ? 0xff00 >> (bits - 8 * byte) & 0xff
                           : 0xff;  // golden bits end with zeros, those of a chunk begin again
      CHECK((chunk[std::size_t(byte)] & mask) ==
            std::stoi(hex.substr(2 * std::size_t(byte), 2), nullptr, 16));
    }

    const std::vector<double> targets(x.begin(), x.end());
    const int shift = int(rate.begin(64) - rate.begin(63));
    CHECK(kernel::trellis_search_reference(trellis_code(rate, 12), rate, targets,
                                           expected[0] >> shift, states) ==
          Approx(wanted["tailbiting_cost"].get<double>()).epsilon(1e-6));
    CHECK(states == expected);
    CHECK(kernel::trellis_search_reference(trellis_code(rate, 12), rate, targets, -1, states) ==
          Approx(wanted["open_optimal_cost"].get<double>()).epsilon(1e-6));
    CHECK(states == wanted["open_states"].get<States>());
  }
}

TEST_CASE(
    "trellis search is as good as one in double with the same seam, at awkward sizes and rates") {
  for (const int window : trellis_windows)
    for (const int sixteenths : trellis_test_rates)
      for (const Index n : {1, 2, 5, 6, 7, 63, 200, 1000, 1200, 2500}) {
        if (too_slow_here(window, n)) continue;
        const TrellisRate rate{sixteenths};
        INFO("window " << window << " sixteenths " << sixteenths << " n " << n);
        const TrellisCode& code = trellis_code(rate, window);
        const auto targets = trellis_targets(n, rate, window, std::uint64_t(n));
        const Index padded = Index(targets.padded.size());
        kernel::TrellisSearch<> search(code, rate);
        const States found = searched_trellis_states(search, targets.x, rate, window);
        REQUIRE(trellis_cycle_closes(found, rate, window));

        States expected(targets.padded.size());
        const int across = found[0] >> (rate.begin(padded) - rate.begin(padded - 1));
        const double least =
            kernel::trellis_search_reference(code, rate, targets.padded, across, expected);
        REQUIRE(trellis_cycle_closes(expected, rate, window));
        const double cost = trellis_cost(code, targets.padded, found);
        CHECK(cost >= least * (1 - 1e-9));
        CHECK(cost <= 1.01 * least);
        States real(std::size_t(n), 0);
        search.tail_biting(targets.x, real);
        CHECK(std::equal(real.begin(), real.end(), found.begin()));
      }
}

TEST_CASE("trellis search joins its pieces") {
  for (const int sixteenths : {16, 27, 32, 51, 67}) {
    const TrellisRate rate{sixteenths};
    const TrellisCode& code = trellis_code(rate, 10);
    kernel::TrellisSearch<> search(code, rate);
    for (const Index n : {190, 191, 192, 193, 1087, 1088, 1089, 1090, 2111, 2112, 2113, 3137}) {
      if (test::sanitized && n != 193 && n != 1089) continue;
      INFO("sixteenths " << sixteenths << " n " << n);
      const auto targets = trellis_targets(n, rate, 10, std::uint64_t(n));
      const States found = searched_trellis_states(search, targets.x, rate, 10);
      REQUIRE(trellis_cycle_closes(found, rate, 10));
      States expected(found.size());
      const int across = found[0] >> (rate.begin(n) - rate.begin(n - 1));
      CHECK(trellis_cost(code, targets.padded, found) <=
            1.001 * kernel::trellis_search_reference(code, rate, targets.padded, across, expected));
    }
  }
}

TEST_CASE("trellis search of Gaussian weights has the errors of the design") {
  if (test::sanitized) {
    WARN("left out: takes minutes under a sanitizer");
    return;
  }
  struct Budget {
    int sixteenths, window;
    double error;
  };
  for (const Budget& budget : {Budget{32, 12, .0700},
                               {35, 12, .0550},
                               {48, 12, .0180},
                               {51, 12, .0142},
                               {64, 12, .00467},
                               {67, 12, .00368},
                               {32, 10, .0725},
                               {35, 10, .0569},
                               {48, 10, .0188},
                               {51, 10, .0148},
                               {64, 10, .00500},
                               {67, 10, .00394}}) {
    INFO("sixteenths " << budget.sixteenths << " window " << budget.window);
    const double error = gaussian_trellis_error({budget.sixteenths}, budget.window, 8192, 4);
    CHECK(error <= budget.error);
    CHECK(error >= std::exp2(-2 * budget.sixteenths / 16.0));  // no code is better
  }
}

TEST_CASE("the error of trellis search does not grow with the rate or the window") {
  if (test::sanitized) {
    WARN("left out: takes minutes under a sanitizer");
    return;
  }
  double previous = 1, previous_narrow = 1;
  for (int sixteenths = TrellisRate::least; sixteenths <= TrellisRate::most; ++sixteenths) {
    INFO("sixteenths " << sixteenths);
    const double narrow = gaussian_trellis_error({sixteenths}, 10, 4096, 1);
    CHECK(narrow <= previous_narrow);
    previous_narrow = narrow;
    if (sixteenths % 4 != 0) continue;
    const double error = gaussian_trellis_error({sixteenths}, 12, 4096, 1);
    CHECK(error <= previous);
    CHECK(error <= narrow);
    previous = error;
  }
}

// From 2 bits on: below, the window of the largest level takes the choice from ten neighbours.
TEST_CASE("trellis search gives an outlier the largest level") {
  for (const int window : trellis_windows)
    for (const int sixteenths : {32, 40, 48, 56, 64, 72, 80})
      for (const float outlier : {4.0f, -4.0f, 50.0f, -50.0f, 1e30f, -1e30f}) {
        if (test::sanitized && (window == 12 || sixteenths != 40)) continue;
        const TrellisRate rate{sixteenths};
        const TrellisCode& code = trellis_code(rate, window);
        auto targets = trellis_targets(400, rate, window, 5);
        kernel::TrellisSearch<> search(code, rate);
        States states(400);
        search.tail_biting(targets.x, states);
        const double before = trellis_cost(code, targets.padded, states);
        for (const std::size_t at :
             {std::size_t(0), std::size_t(17), std::size_t(200), std::size_t(399)}) {
          INFO("window " << window << " sixteenths " << sixteenths << " outlier " << outlier
                         << " at " << at);
          auto x = targets.x;
          x[at] = outlier;
          search.tail_biting(x, states);
          CHECK(code.level(states[at]) == (outlier > 0 ? 127 : -127));
          // Its neighbours pay little: all but the outlier are about as good as before.
          auto others = targets.padded;
          others[at] = code.level(states[at]) * double(code.unit);
          CHECK(trellis_cost(code, others, states) <= before + 4);
        }
      }
}

TEST_CASE("trellis search keeps a cycle closed whatever the targets are") {
  const CounterRng rng(3, 9);
  for (const int window : trellis_windows)
    for (const int sixteenths : trellis_test_rates)
      for (const Index n : {1, 3, 7, 64, 300, 1300}) {
        if (too_slow_here(window, n)) continue;
        const TrellisRate rate{sixteenths};
        kernel::TrellisSearch<> search(trellis_code(rate, window), rate);
        std::vector<float> x(std::size_t(n), 0.0f);
        for (int kind = 0; kind < 5; ++kind) {
          if (test::sanitized && n > 7 && kind % 2 == 0) continue;
          INFO("window " << window << " sixteenths " << sixteenths << " n " << n << " kind "
                         << kind);
          for (Index t = 0; t < n; ++t) {
            const float sign = float(rng.sign(std::uint64_t(t)));
            x[std::size_t(t)] = kind == 0    ? 0.0f
                                : kind == 1  ? 1e9f * sign
                                : kind == 2  ? 1e9f
                                : kind == 3  ? -3.9f
                                : t % 2 == 0 ? 4.0f
                                             : -4.0f;
          }
          REQUIRE(
              trellis_cycle_closes(searched_trellis_states(search, x, rate, window), rate, window));
        }
      }
}

TEST_CASE("trellis search closes short cycles whose sums are all saturated") {
  const CounterRng rng(5, 9);
  std::uint64_t drawn = 0;
  for (const int window : trellis_windows)
    for (const int sixteenths : {16, 23, 32, 33, 40, 48, 64, 80}) {
      const TrellisRate rate{sixteenths};
      kernel::TrellisSearch<> search(trellis_code(rate, window), rate);
      for (int round = 0; round < (test::sanitized ? 27 : 200); ++round) {
        std::vector<float> x(
            std::size_t(kernel::TrellisStream{rate, window}.padded(1 + round % 9)));
        for (float& value : x) value = 4 * float(rng.sign(drawn++));
        REQUIRE(
            trellis_cycle_closes(searched_trellis_states(search, x, rate, window), rate, window));
      }
    }
}

TEST_CASE("trellis search gives the same states on every architecture and allocates nothing") {
  for (const int window : trellis_windows)
    for (const int sixteenths : trellis_test_rates) {
      const TrellisRate rate{sixteenths};
      kernel::TrellisSearch<> search(trellis_code(rate, window), rate);
      kernel::TrellisSearch<NarrowTrellisArch> narrow(trellis_code(rate, window), rate);
      for (const Index n : {3, 130, 1500}) {
        if (too_slow_here(window, n)) continue;
        INFO("window " << window << " sixteenths " << sixteenths << " n " << n);
        for (const double scale : {1.0, 3.0}) {
          const auto targets = trellis_targets(n, rate, window, 77, scale);
          States states(std::size_t(n), 0), expected(std::size_t(n), 0);
          auto chunk = trellis_chunk(n, rate, window);
          CHECK(allocations_of([&] {
                  search.tail_biting(targets.x, states);
                  search.encode(targets.x, chunk);
                }) == 0);
          narrow.tail_biting(targets.x, expected);
          CHECK(states == expected);
        }
      }
    }
}

TEST_CASE("trellis encode writes what pack_trellis writes") {
  for (const Index n : {1, 100, 1200}) {
    const TrellisRate rate{35};
    const auto targets = trellis_targets(n, rate, 12, 8);
    kernel::TrellisSearch<> search(trellis_code(rate, 12), rate);
    auto chunk = trellis_chunk(n, rate, 12, 3), packed = chunk;
    search.encode(targets.x, chunk);
    const kernel::TrellisStream stream{rate, 12};
    kernel::pack_trellis(trellis_states_in(chunk, stream.padded(n), rate, 12), stream, packed);
    CHECK(chunk == packed);
  }
}
