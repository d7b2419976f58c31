// design-trellis: finds the constants of a trellis code (trellis/code.hpp): a multiplier and a
// table of magnitudes with which simulated Gaussians are coded with little error. Prints the code
// as it stands in that header, and its error on other Gaussians.
//
// Candidates are odd multipliers. Each starts with the magnitudes of equally likely slices of a
// Gaussian, which are then trained as Lloyd does: code a sample, move each magnitude to the mean of
// the weights that it stands for. The candidates that are best after one round are trained on.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <thread>
#include <vector>

#include "cafeq/core/rng.hpp"
#include "cafeq/core/thread_pool.hpp"
#include "cafeq/trellis/code_tables.hpp"
#include "cafeq/trellis/search.hpp"
#include "support/program.hpp"
#include "support/progress_bar.hpp"

namespace {

using namespace cafeq;

constexpr Index chunk = 8192;

struct Options {
  int window = 12, bits = 2, levels = 0, offset = 3;
  Index candidates = 256, finalists = 8, rounds = 12, weights = Index(1) << 17;
  std::uint64_t seed = 1;
};

/// A code whose magnitudes are real numbers, for weights of variance 1.
struct Design {
  std::uint16_t multiplier = 1;
  std::vector<double> magnitudes;
  double error = 0;
};

std::vector<float> gaussians(Index count, std::uint64_t seed) {
  const CounterRng rng(seed, 0);
  std::vector<float> x(static_cast<std::size_t>(count));
  for (std::size_t i = 0; i < x.size(); ++i) x[i] = float(rng.normal(i));
  return x;
}

/// The mean magnitude of each of `levels` equally likely slices of |x|.
std::vector<double> slices(int levels) {
  auto x = gaussians(Index(1) << 20, 77);
  for (float& v : x) v = std::abs(v);
  std::sort(x.begin(), x.end());
  std::vector<double> means(static_cast<std::size_t>(levels));
  const std::size_t each = x.size() / means.size();
  for (std::size_t i = 0; i < means.size(); ++i) {
    for (std::size_t j = i * each; j < (i + 1) * each; ++j) means[i] += x[j];
    means[i] /= double(each);
  }
  return means;
}

TrellisCode to_code(const Design& design, int window) {
  const double largest = *std::max_element(design.magnitudes.begin(), design.magnitudes.end());
  TrellisCode code{
      window, design.multiplier, int(design.magnitudes.size()), float(largest / 127), {}};
  for (std::size_t i = 0; i < design.magnitudes.size(); ++i)
    code.magnitudes[i] =
        std::int8_t(std::lround(std::max(0.0, design.magnitudes[i]) / double(code.unit)));
  return code;
}

/// The mean squared error of coding x; f(weight, state) for each.
template <class F>
double code_all(const TrellisCode& code, TrellisRate rate, std::span<const float> x, F&& f) {
  kernel::TrellisSearch<> search(code, rate);
  std::vector<std::uint16_t> states(chunk);
  double error = 0;
  for (std::size_t begin = 0; begin + chunk <= x.size(); begin += chunk) {
    search.tail_biting(x.subspan(begin, chunk), states);
    for (std::size_t t = 0; t < states.size(); ++t) {
      const double e = double(x[begin + t]) - double(code.level(states[t])) * double(code.unit);
      error += e * e;
      f(double(x[begin + t]), states[t]);
    }
  }
  return error / double(x.size() / chunk * chunk);
}

/// One round: codes the sample, says what the error was, and moves the magnitudes.
void train(Design& design, const Options& o, std::span<const float> x) {
  const TrellisCode code = to_code(design, o.window);
  const int slice = 128 / code.levels;
  std::vector<double> sums(design.magnitudes.size()), counts(sums.size());
  design.error =
      code_all(code, {16 * o.bits + o.offset}, x, [&](double weight, std::uint32_t state) {
        const int h = int((state * code.multiplier & 0xffff) >> 8);
        const auto i = std::size_t((h >= 128 ? h - 128 : 127 - h) / slice);
        sums[i] += h >= 128 ? weight : -weight;
        ++counts[i];
      });
  constexpr double prior =
      4;  // weights that vote for the old value, so that rare magnitudes do not jump
  for (std::size_t i = 0; i < sums.size(); ++i)
    design.magnitudes[i] = (sums[i] + prior * design.magnitudes[i]) / (counts[i] + prior);
  std::sort(design.magnitudes.begin(), design.magnitudes.end());
}

void print(const Design& design, const Options& o) {
  const TrellisCode code = to_code(design, o.window);
  std::printf("TrellisCode{%d, %d, %d, %.8ff, {", code.window, int(code.multiplier), code.levels,
              double(code.unit));
  for (int i = 0; i < code.levels; ++i)
    std::printf("%s%d", i > 0 ? ", " : "", int(code.magnitudes[std::size_t(i)]));
  std::printf("}}\n");
  const auto x = gaussians(Index(1) << 18, o.seed + 1000);
  for (const int sixteenths : {0, 2, 4, 8, 12}) {
    const TrellisRate rate{16 * o.bits + sixteenths};
    if (!rate.is_valid()) continue;
    const double error = code_all(code, rate, x, [](double, std::uint32_t) {});
    std::printf("%.4f bits: error %.5f, %.3f times the rate-distortion bound\n", rate.bits(), error,
                error * std::exp2(2 * rate.bits()));
  }
}

/// The library's own codes against the rate–distortion bound 4^-R.
void print_library(const Options& o) {
  const auto x = gaussians(o.weights, o.seed + 1000);
  std::printf("bits    bound    error with windows of 10, 12, 14 (times the bound)\n");
  for (int sixteenths = TrellisRate::least; sixteenths <= TrellisRate::most; sixteenths += 4) {
    const TrellisRate rate{sixteenths};
    const double bound = std::exp2(-2 * rate.bits());
    std::printf("%.4f  %.5f", rate.bits(), bound);
    for (const int window : {10, 12, 14}) {
      const double error =
          code_all(trellis_code(rate, window), rate, x, [](double, std::uint32_t) {});
      std::printf("  %.5f (%.3f)", error, error / bound);
    }
    std::printf("\n");
    std::fflush(stdout);
  }
}

int run(int argc, char** argv) {
  Options o;
  bool library = false;
  Index threads = Index(std::max(1u, std::thread::hardware_concurrency()));
  CLI::App app{"Designs a trellis code on simulated Gaussians."};
  app.add_option("--window", o.window, "bits of a state")
      ->check(CLI::Range(10, 16))
      ->capture_default_str();
  app.add_option("--bits", o.bits, "the class of rates: from so many bits a weight up to one more")
      ->check(CLI::Range(1, 4))
      ->capture_default_str();
  app.add_option("--levels", o.levels, "magnitudes (default: 32 below 3 bits, else 128)")
      ->check(CLI::IsMember({16, 32, 64, 128}));
  app.add_option("--offset", o.offset,
                 "sixteenths of a bit above --bits that the table is trained for")
      ->check(CLI::Range(0, 15))
      ->capture_default_str();
  app.add_option("--candidates", o.candidates, "multipliers to try")
      ->check(CLI::Range(1, 32768))
      ->capture_default_str();
  app.add_option("--finalists", o.finalists, "of them that are trained")
      ->check(CLI::Range(1, 32768))
      ->capture_default_str();
  app.add_option("--rounds", o.rounds, "of training")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  app.add_option("--weights", o.weights, "of the sample")
      ->check(CLI::Range(chunk, Index(1) << 26))
      ->capture_default_str();
  app.add_flag("--list", library, "design nothing: print what the library's codes reach");
  app.add_option("--threads", threads, "threads (default: all cores)")->check(CLI::Range(1, 1024));
  app.add_option("--seed", o.seed, "of multipliers and sample")->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  if (library) {
    print_library(o);
    return 0;
  }
  if (o.levels == 0) o.levels = o.bits <= 2 ? 32 : 128;
  o.finalists = std::min(o.finalists, o.candidates);

  const CounterRng rng(o.seed, 1);
  const auto sample = gaussians(o.weights, o.seed);
  const std::span<const float> few =
      std::span(sample).first(std::size_t(std::max<Index>(chunk, o.weights / 4)));
  std::vector<Design> designs(std::size_t(o.candidates), Design{.magnitudes = slices(o.levels)});
  for (std::size_t c = 0; c < designs.size(); ++c)
    designs[c].multiplier = std::uint16_t(2 * rng.below(c, 32768) + 1);

  example::ProgressBar bar("designing", double(o.candidates) / 4 + double(o.finalists * o.rounds));
  ThreadPool pool(threads);
  pool.parallel_for(o.candidates, 1, [&](Index c, Index, Index) {
    train(designs[std::size_t(c)], o, few);
    bar.advance(0.25);
  });
  std::sort(designs.begin(), designs.end(),
            [](const Design& a, const Design& b) { return a.error < b.error; });
  designs.resize(std::size_t(o.finalists));
  pool.parallel_for(o.finalists, 1, [&](Index c, Index, Index) {
    for (Index round = 0; round < o.rounds; ++round) {
      train(designs[std::size_t(c)], o, sample);
      bar.advance();
    }
  });
  print(*std::min_element(designs.begin(), designs.end(),
                          [](const Design& a, const Design& b) { return a.error < b.error; }),
        o);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  return cafeq::example::run_program("design-trellis", run, argc, argv);
}
