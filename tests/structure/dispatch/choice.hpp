/// What choice.cpp calls of choice_unit.cpp, which is compiled for each architecture.
#pragma once

#include <any>
#include <optional>
#include <string>

#include "cafeq/simd/dispatch.hpp"

struct Unit {
  cafeq::cpu::Architecture architecture;
  std::optional<cafeq::cpu::Architecture> (*wish)();
  void (*fail)(const std::string& text);
  std::any (*boxed)(double value);
  float (*sum)(const float* x, int n);
};
