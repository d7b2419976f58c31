#include "choice.hpp"

namespace {

float sum(const float* x, int n) {
  float s = 0;
  for (int i = 0; i < n; ++i) s += x[i];
  return s;
}

}  // namespace

template <>
constinit const Unit cafeq::Dispatched<Unit>::table{
    .architecture = cpu::compiled_for,
    .wish = [] { return cpu::requested().value(); },
    .fail = [](const std::string& text) { raise(ErrorCode::io, text); },
    .boxed = [](double value) { return std::any(value); },
    .sum = sum};
