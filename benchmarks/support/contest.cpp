#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>

#include "cafeq/core/rng.hpp"
#include "support/bench.hpp"

namespace {

using Clock = std::chrono::steady_clock;

bool quick_look = false;
bool smoke_test = false;
nlohmann::json rows = nlohmann::json::array();

const char* name_of(bench::Unit unit) {
  switch (unit) {
    case bench::Unit::gigabytes: return "GB/s";
    case bench::Unit::gigaflops: return "GFLOP/s";
    default: return "Mweights/s";
  }
}

double scale_of(bench::Unit unit) { return unit == bench::Unit::megaweights ? 1e6 : 1e9; }

double seconds_of(const std::function<void()>& body, long calls) {
  const auto start = Clock::now();
  for (long c = 0; c < calls; ++c) body();
  return std::chrono::duration<double>(Clock::now() - start).count();
}

double median(std::vector<double> values) {
  const auto middle = values.begin() + std::ptrdiff_t(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

}  // namespace

bool bench::quick() { return quick_look; }
bool bench::smoke() { return smoke_test; }

bench::Floats bench::weights(Index n, std::uint64_t seed) {
  const cafeq::CounterRng rng(seed, cafeq::stream_of("bench"));
  // A million draws are enough; larger buffers repeat them.
  const Index distinct = std::min<Index>(n, 1 << 20);
  Floats result(static_cast<std::size_t>(n));
  for (Index i = 0; i < distinct; ++i)
    result[std::size_t(i)] = float(0.02 * rng.normal(std::uint64_t(i)) * (i % 64 == 17 ? 8 : 1));
  for (Index i = distinct; i < n; i += distinct)
    std::copy_n(result.begin(), std::min(distinct, n - i), result.begin() + std::ptrdiff_t(i));
  return result;
}

void bench::Contest::run() {
  const double enough = smoke_test ? 0 : (quick_look ? 2e-4 : 1e-3);  // seconds a sample, at least
  std::vector<long> calls;
  double slowest = 0;
  for (auto& contender : contenders_) {
    contender.body();  // page faults, plans and caches are not what is measured
    const double once = smoke_test ? 1e-9 : seconds_of(contender.body, 1);
    slowest = std::max(slowest, once);
    calls.push_back(std::max(1L, long(enough / std::max(once, 1e-9))));
    while (!smoke_test && seconds_of(contender.body, calls.back()) < 0.5 * enough)
      calls.back() *= 2;
  }
  const int rounds = smoke_test ? 1 : (slowest > 0.2 ? 3 : (quick_look ? 7 : 21));
  std::vector<std::vector<double>> times(contenders_.size());
  for (auto _ : state_) {
    for (int r = 0; r < rounds; ++r)
      for (std::size_t c = 0; c < contenders_.size(); ++c) {
        if (calls[c] > 1) contenders_[c].body();  // the one before has the cache
        times[c].push_back(seconds_of(contenders_[c].body, calls[c]) / double(calls[c]));
      }
    state_.SetIterationTime(median(times[0]));
  }

  const auto rate = [&](std::size_t c) {
    const double work = contenders_[c].work > 0 ? contenders_[c].work : work_;
    return work / median(times[c]) / scale_of(unit_);
  };
  nlohmann::json row{{"kernel", kernel_},      {"case", name_},        {"value", rate(0)},
                     {"unit", name_of(unit_)}, {"limit", nullptr},     {"limit_ratio", nullptr},
                     {"peer", nullptr},        {"peer_ratio", nullptr}};
  state_.counters[name_of(unit_)] = rate(0);
  // The order in which ours(), limit() and peer() were called is the case's own; ours is always
  // first.
  if (has_limit_) {
    std::size_t at = 0;
    for (std::size_t c = 1; c < contenders_.size(); ++c)
      if (contenders_[c].work > 0) at = c;
    row["limit"] = contenders_[at].name;
    row["limit_ratio"] = rate(0) / rate(at);
    state_.counters["of limit"] = rate(0) / rate(at);
  }
  bool alone = true;
  for (std::size_t c = 1; c < contenders_.size(); ++c) {
    if (contenders_[c].work > 0) continue;
    alone = false;
    row["peer"] = contenders_[c].name;
    row["peer_ratio"] = rate(0) / rate(c);
    state_.counters["x " + contenders_[c].name] = rate(0) / rate(c);
    rows.push_back(row);
  }
  if (alone) rows.push_back(row);
}

void bench::add(std::string kernel, std::string name, std::function<void(Contest&)> body) {
  const std::string title = kernel + "/" + name;
  benchmark::RegisterBenchmark(title.c_str(),
                               [kernel = std::move(kernel), name = std::move(name),
                                body = std::move(body)](benchmark::State& state) {
                                 Contest contest(state, kernel, name);
                                 body(contest);
                               })
      ->UseManualTime()
      ->Iterations(1)
      ->Unit(benchmark::kMicrosecond);
}

void bench::add_job(std::string name, std::function<void()> body) {
  benchmark::RegisterBenchmark(
      name.c_str(),
      [body = std::move(body)](benchmark::State& state) {
        for (auto _ : state) {
          const auto start = Clock::now();
          body();
          state.SetIterationTime(std::chrono::duration<double>(Clock::now() - start).count());
        }
      })
      ->UseManualTime()
      ->Iterations(1)
      ->Unit(benchmark::kSecond);
}

void bench::record(std::string kernel, std::string name, double value, std::string unit) {
  rows.push_back({{"kernel", std::move(kernel)},
                  {"case", std::move(name)},
                  {"value", value},
                  {"unit", std::move(unit)},
                  {"limit", nullptr},
                  {"limit_ratio", nullptr},
                  {"peer", nullptr},
                  {"peer_ratio", nullptr}});
}

// --quick: fewer rounds. --smoke: each body once, to see that it runs. --json=FILE: the rows of
// scripts/bench's result.json.
int main(int argc, char** argv) {
  std::string json;
  std::vector<char*> rest;
  for (int i = 0; i < argc; ++i) {
    const std::string argument = argv[i];
    if (argument == "--quick") quick_look = true;
    else if (argument == "--smoke") quick_look = smoke_test = true;
    else if (argument.rfind("--json=", 0) == 0) json = argument.substr(7);
    else rest.push_back(argv[i]);
  }
  int count = int(rest.size());
  register_benchmarks();
  benchmark::Initialize(&count, rest.data());
  if (benchmark::ReportUnrecognizedArguments(count, rest.data())) return 2;
  if (benchmark::RunSpecifiedBenchmarks() == 0) return 1;
  benchmark::Shutdown();
  if (!json.empty()) {
    std::ofstream file(json);
    file << rows.dump(1) << '\n';
    if (!file.flush()) {
      std::cerr << "cannot write " << json << '\n';
      return 1;
    }
  }
  return 0;
}
