/// What the main function of every program here does.
#pragma once

#include <cstdio>
#include <exception>

namespace cafeq::example {

/// run(argc, argv); what it throws goes to stderr behind the program's name, with exit status 1.
template <class Run>
int run_program(const char* name, Run&& run, int argc, char** argv) {
  try {
    return run(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s: %s\n", name, error.what());
    return 1;
  }
}

}  // namespace cafeq::example
