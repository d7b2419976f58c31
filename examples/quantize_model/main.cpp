// cafeq-quantize: a model in, a smaller one out. Reads safetensors (Hugging Face), GGUF, llama2.c
// and TensorFlow.js; needs no data.
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cstdio>
#include <fstream>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "cafeq/core/thread_pool.hpp"
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

void stop_on_signals() {
  struct sigaction action{};
  action.sa_handler = stop;
  ::sigaction(SIGINT, &action, nullptr);
  ::sigaction(SIGTERM, &action, nullptr);
  ::signal(SIGXFSZ, SIG_IGN);  // a limit on the size of files then is an error like a full disk
}

/// A bar for each thing that the run does.
std::pair<example::PlannedRun, RunSummary> quantize_with_bars(const example::Quantizer& quantizer,
                                                              const example::CommandLine& line,
                                                              ExecutorRef executor) {
  example::PlannedRun planned;
  const auto begins = [&](example::PlannedRun run) {
    planned = std::move(run);
    example::print_metric(line, planned.plan, planned.forecast, line.json ? stderr : stdout);
    example::print_warnings(planned.forecast, stderr);
  };
  std::optional<example::ProgressBar> bar;
  std::string shown;
  double before = 0;
  const RunSummary summary = quantizer.quantize(
      line.run, executor, begins, [&](std::string_view what, double done, double all) {
        if (what != shown) {
          shown = what;
          before = 0;
          bar.emplace(shown, all);
        }
        bar->advance(done - before);
        before = done;
      });
  return {std::move(planned), summary};
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
    if (!line.save_metric.empty())
      maker.make = [make = std::move(maker.make), to = line.save_metric](
                       const std::string& path, const RunProgress& progress) {
        make(path, progress);
        const auto bytes = read_file(path);
        write_file(to, cafeq::detail::as_text(bytes));
      };
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
  stop_on_signals();

  ThreadPool executor(line.threads);
  choose_metric(line, executor);
  if (line.dry_run) {
    const auto [plan, forecast] = quantizer.plan(line.run, executor);
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
