/// How far a job is and how long it will take: a bar that moves in place on a terminal, a line each
/// tenth of the way anywhere else.
#pragma once

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "format.hpp"

namespace cafeq::example {

/// Counts up to `total`, in whatever unit the caller counts: bytes, weights, sentences. May be
/// advanced from any thread. The destructor ends the line: with the time taken where the job is
/// done, with the percentage reached where an exception cut it short.
class ProgressBar {
 public:
  struct Output {
    std::FILE* file = stderr;
    bool terminal = ::isatty(::fileno(stderr)) != 0;
    double (*seconds)() = steady_seconds;
  };

  ProgressBar(std::string label, double total) : ProgressBar(std::move(label), total, Output{}) {}
  ProgressBar(std::string label, double total, Output output)
      : label_(std::move(label)),
        total_(total),
        output_(output),
        start_(output.seconds()),
        last_drawn_(start_) {
    if (output_.terminal) draw();
  }
  ProgressBar(const ProgressBar&) = delete;
  ProgressBar& operator=(const ProgressBar&) = delete;
  ~ProgressBar() { finish(); }

  void advance(double amount = 1) {
    const std::lock_guard lock(mutex_);
    if (finished_) return;
    done_ += amount;
    const double now = output_.seconds();
    if (output_.terminal) {
      constexpr double redraw_interval = 0.05;
      if (now - last_drawn_ < redraw_interval) return;
      last_drawn_ = now;
      draw();
    } else if (const int tenth = percent() / 10; tenth > last_tenth_ && tenth < 10) {
      last_tenth_ = tenth;
      draw();
    }
  }

  /// Draws the last state and ends the line; later calls do nothing.
  void finish() {
    const std::lock_guard lock(mutex_);
    if (std::exchange(finished_, true)) return;
    const std::string time = duration_text(output_.seconds() - start_);
    print(state() + (percent() == 100 ? " in " : " reached, ended after ") + time);
    if (output_.terminal) std::fputc('\n', output_.file);
    std::fflush(output_.file);
  }

  static double steady_seconds() {
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch())
        .count();
  }

 private:
  double fraction() const { return total_ > 0 ? std::clamp(done_ / total_, 0.0, 1.0) : 1.0; }
  /// Rounded down, so that 100 means done; sums of amounts may fall short by rounding errors.
  int percent() const { return int(std::floor(100 * fraction() + 1e-6)); }

  std::string state() const {
    char number[8];
    std::snprintf(number, sizeof number, "%3d%%", percent());
    if (!output_.terminal) return label_ + " " + number;
    constexpr std::size_t width = 30;
    const auto filled = std::size_t(fraction() * double(width));
    return label_ + " [" + std::string(filled, '#') + std::string(width - filled, '.') + "] " +
           number;
  }

  void draw() {
    std::string text = state();
    const double elapsed = output_.seconds() - start_;
    if (done_ > 0 && percent() < 100)
      text += ", " + duration_text(elapsed * (1 - fraction()) / fraction()) + " left";
    print(text);
  }

  void print(const std::string& text) {
    // "Erase to the end of the line": what was there may have been longer.
    if (output_.terminal) std::fprintf(output_.file, "\r%s\x1b[K", text.c_str());
    else std::fprintf(output_.file, "%s\n", text.c_str());
    std::fflush(output_.file);
  }

  std::string label_;
  double total_;
  Output output_;
  double start_;
  double last_drawn_;
  double done_ = 0;
  int last_tenth_ = 0;
  bool finished_ = false;
  std::mutex mutex_;
};

/// A bar for each thing that a job does in turn, as cafeq::RunProgress tells of them.
class ProgressBars {
 public:
  void show(std::string_view what, double done, double all) {
    if (!bar_ || what != shown_) {
      shown_ = what;
      before_ = 0;
      bar_.emplace(shown_, all);
    }
    bar_->advance(done - before_);
    before_ = done;
  }
  /// Ends the line of the last one.
  void finish() { bar_.reset(); }

 private:
  std::optional<ProgressBar> bar_;
  std::string shown_;
  double before_ = 0;
};

}  // namespace cafeq::example
