// cafeq-quantize: a model in, a smaller one out. Reads safetensors (Hugging Face), GGUF, llama2.c
// and TensorFlow.js; needs no data.
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

#include "cafeq/core/thread_pool.hpp"
#include "engine/sensitivities.hpp"
#include "quantize_model/command_line.hpp"
#include "quantize_model/evaluate.hpp"
#include "quantize_model/quantizer.hpp"
#include "quantize_model/report.hpp"
#include "support/program.hpp"
#include "support/progress_bar.hpp"

namespace {

using namespace cafeq;

constexpr int interrupted = 130;

/// Everything done is on the disk, so there is nothing to wait for.
extern "C" void stop(int) {
  constexpr char text[] = "\ninterrupted: run again with --resume to go on from here\n";
  [[maybe_unused]] const auto written = ::write(STDERR_FILENO, text, sizeof text - 1);
  ::_exit(interrupted);
}

/// Where something that does not stay is on the disk, it is removed first.
volatile sig_atomic_t asked_to_stop = 0;
extern "C" void stop_soon(int) { asked_to_stop = 1; }

void stop_on_signals(void (*handler)(int)) {
  struct sigaction action{};
  action.sa_handler = handler;
  ::sigaction(SIGINT, &action, nullptr);
  ::sigaction(SIGTERM, &action, nullptr);
  ::signal(SIGXFSZ, SIG_IGN);  // a limit on the size of files then is an error like a full disk
}

std::pair<example::PlannedRun, RunSummary> quantize_with_bars(const example::Quantizer& quantizer,
                                                              const example::CommandLine& line,
                                                              ExecutorRef executor) {
  example::PlannedRun planned;
  example::ProgressBars bars;
  const auto begins = [&](example::PlannedRun run) {
    planned = std::move(run);
    bars.finish();
    example::print_metric(line, planned.plan, planned.forecast, line.json ? stderr : stdout);
    example::print_warnings(planned.forecast, stderr);
  };
  const RunSummary summary = quantizer.quantize(
      line.run, executor, begins,
      [&](std::string_view what, double done, double all) { bars.show(what, done, all); });
  return {std::move(planned), summary};
}

/// A directory that is removed again with all that is in it.
class TemporaryDirectory {
 public:
  TemporaryDirectory() {
    if (::mkdtemp(path_.data()) == nullptr)
      raise(ErrorCode::io, message(path_, ": cannot create it"));
  }
  TemporaryDirectory(const TemporaryDirectory&) = delete;
  TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;
  ~TemporaryDirectory() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  const std::string& path() const { return path_; }

 private:
  std::string path_ = std::filesystem::temp_directory_path() / "cafeq-plan-XXXXXX";
};

/// The plan; what has to be made for it does not stay.
example::PlannedRun plan_with_bars(const example::Quantizer& quantizer, RunOptions options,
                                   ExecutorRef executor) {
  std::optional<TemporaryDirectory> made;
  if (options.sensitivity_maker || (!options.sensitivities.empty() && options.metric_maker)) {
    stop_on_signals(stop_soon);
    options.output = made.emplace().path() + "/output";
  }
  example::ProgressBars bars;
  return quantizer.plan(options, executor, [&](std::string_view what, double done, double all) {
    if (asked_to_stop != 0) {
      made.reset();
      ::_exit(interrupted);
    }
    bars.show(what, done, all);
  });
}

/// Bytes that programs may still take, as Linux sees it; what is not known limits nothing.
double available_memory() {
  std::ifstream file("/proc/meminfo");
  std::string name;
  for (double kib = 0; file >> name >> kib; file.ignore(64, '\n'))
    if (name == "MemAvailable:") return 1024 * kib;
  return std::numeric_limits<double>::infinity();
}

/// Texts that the model writes are the metric wherever the engine can run it; where it cannot, or
/// memory is short, that is an error only if they were asked for.
void choose_metric(example::CommandLine& line, ExecutorRef executor) {
  if (!line.makes_metric()) return;
  try {
    MetricMaker maker =
        engine::metric_maker(line.run.input, line.metric_texts, executor, line.run.tokenizer);
    if (!line.metric_asked_for && double(maker.memory) > available_memory()) {
      line.no_metric_because =
          message("to run the model takes ", example::byte_text(double(maker.memory)),
                  " of memory, more than is left");
      return;
    }
    maker.copy = line.save_metric;
    line.run.metric_maker = std::move(maker);
  } catch (const Error& error) {
    if (line.metric_asked_for) throw;
    line.no_metric_because = error.message();
  }
}

int run(int argc, char** argv) {
  const auto& quantizer = dispatched<example::Quantizer>();
  auto parsed = example::parse_command_line(argc, argv, quantizer.recipes());
  if (const int* status = std::get_if<int>(&parsed)) return *status;
  auto& line = *std::get_if<example::CommandLine>(&parsed);
  if (!line.dry_run) stop_on_signals(stop);

  ThreadPool executor(line.threads);
  choose_metric(line, executor);
  if (line.makes_sensitivities()) {
    SensitivityMaker maker = engine::sensitivity_maker(
        line.run.input, {.seed = line.metric_texts.seed}, executor, line.run.tokenizer);
    maker.copy = line.save_sensitivities;
    line.run.sensitivity_maker = std::move(maker);
  }
  if (line.dry_run) {
    const auto [plan, forecast] = plan_with_bars(quantizer, line.run, executor);
    example::print_warnings(forecast, stderr);
    if (line.json) {
      std::printf("%s\n", example::to_json(plan, forecast).dump(1).c_str());
      return 0;
    }
    example::print_metric(line, plan, forecast, stdout);
    example::print_plan(plan, forecast, stdout);
    return 0;
  }

  std::optional<example::Evaluation> evaluate;
  if (!line.evaluate.empty()) evaluate.emplace(line.run.input, line.run.tokenizer, line.evaluate);
  const auto [planned, summary] = quantize_with_bars(quantizer, line, executor);
  const auto& [plan, forecast] = planned;
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  const double peak = double(usage.ru_maxrss) * 1024;
  std::optional<engine::Comparison> found;
  if (evaluate) found = (*evaluate)(line.run.input, line.run.output, executor);
  if (line.json) {
    auto report = example::to_json(plan, forecast, summary);
    report["peak_bytes"] = peak;
    if (found) report["evaluation"] = to_json(*found);
    std::printf("%s\n", report.dump(1).c_str());
    return 0;
  }
  example::print_summary(plan, summary, stdout);
  std::printf("%s: %s, was %s; %s, peak memory %s\n", line.run.output.c_str(),
              example::byte_text(double(summary.bytes_after)).c_str(),
              example::byte_text(double(summary.bytes_before)).c_str(),
              example::duration_text(summary.seconds).c_str(), example::byte_text(peak).c_str());
  if (found) print(*found, stdout);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  return cafeq::example::run_program("cafeq-quantize", run, argc, argv);
}
