// A unit that may not be linked: its constructor runs before any table is chosen, whatever the
// processor.
#include <cstdlib>

#include "cafeq/simd/dispatch.hpp"

struct Unfit {
  bool (*asked)();
};

static const bool asked = std::getenv("CAFEQ_ARCH") != nullptr;

template <>
constinit const Unfit cafeq::Dispatched<Unfit>::table{.asked = [] { return asked; }};
