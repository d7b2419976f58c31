#include <stdexcept>
#include <thread>

#include "../examples/support/format.hpp"
#include "../examples/support/progress_bar.hpp"
#include "../examples/support/table.hpp"
#include "io/temporary_directory.hpp"
#include "support/catch.hpp"

using namespace cafeq::example;

namespace {

double clock_now = 0;
double test_clock() { return clock_now; }

/// What a progress bar prints while f runs with it.
template <class F>
std::string printed(bool terminal, double total, F&& f) {
  const cafeq::test::TemporaryDirectory directory;
  std::FILE* file = std::fopen((directory / "out").c_str(), "w");
  clock_now = 100;
  try {
    ProgressBar bar("job", total, {file, terminal, test_clock});
    f(bar);
  } catch (const std::runtime_error&) {
  }
  std::fclose(file);
  return directory.read("out");
}

std::size_t count(const std::string& text, std::string_view part) {
  std::size_t found = 0;
  for (std::size_t at = text.find(part); at != text.npos; at = text.find(part, at + part.size()))
    ++found;
  return found;
}

}  // namespace

TEST_CASE("numbers as people read them") {
  CHECK(fixed(3.14159, 3) == "3.142");
  CHECK(scientific(0.000123) == "1.23e-04");
  CHECK(byte_text(0) == "0 B");
  CHECK(byte_text(1023) == "1023 B");
  CHECK(byte_text(1024) == "1.0 KiB");
  CHECK(byte_text(1048575) == "1.0 MiB");
  CHECK(byte_text(3.5 * 1024 * 1024) == "3.5 MiB");
  CHECK(duration_text(0.84) == "0.8 s");
  CHECK(duration_text(9.96) == "10 s");
  CHECK(duration_text(59.7) == "1 min 00 s");
  CHECK(duration_text(187) == "3 min 07 s");
  CHECK(duration_text(3599.7) == "1 h 00 min");
  CHECK(duration_text(7500) == "2 h 05 min");
  CHECK_FALSE(duration_text(1e300).empty());
}

TEST_CASE("columns are aligned, numbers to the right") {
  Table table({{"matrix", Align::left}, {"bits"}, {"error"}});
  table.row({"qkv", "3.25", "0.1"}).row({"a longer name", "4", "12.5"}).rule().row({"mean", "3.6"});
  CHECK(table.text() ==
        "matrix         bits  error\n"
        "-------------  ----  -----\n"
        "qkv            3.25    0.1\n"
        "a longer name     4   12.5\n"
        "-------------  ----  -----\n"
        "mean            3.6\n");
  CHECK(Table({{"only"}}).text() == "only\n----\n");
}

TEST_CASE("width counts what is seen, not bytes") {
  CHECK(display_width("") == 0);
  CHECK(display_width("abc") == 3);
  CHECK(display_width("\u0174\u0302v") == 2);  // combining circumflex
  CHECK(display_width("‖W − Ŵ‖²") == 8);
  CHECK(display_width("\u91cf\u5316") == 4);
  CHECK(display_width("\U0001f600") == 2);
  CHECK(display_width("\xff\xe2\x80") == 3);
  CHECK(display_width("\xe2") == 1);
  Table table({{"é", Align::left}, {"x"}});
  table.row({"量化", "1"});
  CHECK(table.text() == "é     x\n----  -\n量化  1\n");
}

TEST_CASE("without a terminal a bar is a few plain lines") {
  const std::string text = printed(false, 1000, [](ProgressBar& bar) {
    for (int i = 0; i < 1000; ++i) {
      clock_now += 0.01;
      bar.advance();
    }
  });
  CHECK(count(text, "\n") == 10);
  CHECK(text.starts_with("job  10%, 9.0 s left\njob  20%, 8.0 s left\n"));
  CHECK(text.ends_with("job  90%, 1.0 s left\njob 100% in 10 s\n"));
  CHECK(count(text, "\r") == 0);
  CHECK(count(text, "\x1b") == 0);
}

TEST_CASE("on a terminal the bar moves in place and ends its line") {
  const std::string text = printed(true, 4, [](ProgressBar& bar) {
    for (int i = 0; i < 4; ++i) {
      clock_now += 1;
      bar.advance();
    }
  });
  CHECK(count(text, "\n") == 1);
  CHECK(count(text, "\r") == 6);  // at first, four steps, at last
  CHECK(text.find("job [" + std::string(15, '#') + std::string(15, '.') + "]  50%, 2.0 s left") !=
        text.npos);
  CHECK(text.ends_with("job [" + std::string(30, '#') + "] 100% in 4.0 s\x1b[K\n"));
}

TEST_CASE("a terminal is not redrawn for every step") {
  const std::string text = printed(true, 100'000, [](ProgressBar& bar) {
    for (int i = 0; i < 100'000; ++i) {
      clock_now += 1e-5;
      bar.advance();
    }
  });
  CHECK(count(text, "\r") < 25);
}

TEST_CASE("an exception ends the line without claiming the job done") {
  for (const bool terminal : {false, true}) {
    const std::string text = printed(terminal, 8, [](ProgressBar& bar) {
      bar.advance(3);
      clock_now += 2;
      throw std::runtime_error("broken");
    });
    CHECK_THAT(text, Contains(" 37% reached, ended after 2.0 s"));
    CHECK(text.back() == '\n');
    CHECK(count(text, "100%") == 0);
  }
}

TEST_CASE("odd totals and late calls do no harm") {
  CHECK_THAT(printed(false, 0, [](ProgressBar& bar) { bar.advance(); }), Contains("100% in"));
  CHECK_THAT(printed(false, 2, [](ProgressBar& bar) { bar.advance(5); }), Contains("100% in"));
  const std::string text = printed(true, 2, [](ProgressBar& bar) {
    bar.advance(2);
    bar.finish();
    bar.finish();
    bar.advance();
  });
  CHECK(count(text, "\n") == 1);
  // Ten times a tenth is a little less than one.
  CHECK_THAT(printed(false, 1,
                     [](ProgressBar& bar) {
                       for (int i = 0; i < 10; ++i) bar.advance(0.1);
                     }),
             Contains("100% in"));
}

TEST_CASE("a bar may be advanced from several threads") {
  const std::string text = printed(false, 4000, [](ProgressBar& bar) {
    std::vector<std::thread> threads;
    for (int t = 0; t < 4; ++t)
      threads.emplace_back([&] {
        for (int i = 0; i < 1000; ++i) bar.advance();
      });
    for (auto& thread : threads) thread.join();
  });
  CHECK_THAT(text, Contains("100% in"));
  CHECK(count(text, "\n") == 10);
}
