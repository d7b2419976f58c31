/// A program and the cafeq::compiled that it links must be compiled for one architecture, and both
/// with exceptions or both without. The linker misses BuiltFor<…>::mark where they are not:
/// set CAFEQ_COMPILED_OPTIONS (cmake/CafeqCompiled.cmake).
#pragma once

#include "cafeq/compiled/instance.hpp"
#include "cafeq/simd/arch.hpp"

namespace cafeq::compiled {

template <class Arch, bool Exceptions>
struct BuiltFor {
  static const int mark;
};

[[gnu::used]] static const int* const built_for = &BuiltFor<DefaultArch, CAFEQ_EXCEPTIONS>::mark;

}  // namespace cafeq::compiled
