/// Functions of yours that are compiled for several architectures and chosen when the program runs.
///
///     struct Kernels { void (*rotate)(float* x, Index n); };            // kernels.hpp
///
///     template <>                                                       // kernels.cpp
///     constinit const Kernels cafeq::Dispatched<Kernels>::table{.rotate = rotate};
///
///     cafeq::dispatched<Kernels>().rotate(x, n);                        // anywhere in the program
///
/// In CMake, cafeq_add_dispatch(engine SOURCES kernels.cpp) compiles kernels.cpp once for each
/// architecture; as any other source of the program it is compiled once, for its flags. See
/// docs/how-to/dispatch-at-run-time.md.
#pragma once

#include <span>
#include <string>

#include "cafeq/simd/cpu.hpp"

namespace cafeq {

/// The Table, any struct of pointers to functions, of one architecture: that of the translation
/// unit which defines it.
template <class Table, cpu::Architecture A = cpu::compiled_for>
struct Dispatched {
  static const Table table;
};

namespace simd {

/// A table that was compiled for `architecture` and is reached without running any of its code.
template <class Table>
struct Variant {
  cpu::Architecture architecture;
  const Table* table;
};

/// The variant that require() or CAFEQ_ARCH asks for, else the best that the processor runs. An
/// error that tells what there is where the wanted one was not compiled or does not run here.
template <class Table>
Result<const Table*> try_best_variant(std::span<const Variant<Table>> variants) {
  const auto requested = cpu::requested();
  if (!requested) return requested.error();
  const std::optional<cpu::Architecture> wanted = requested.value();

  const Variant<Table>* best = nullptr;
  std::string available;
  bool compiled = false;
  for (const Variant<Table>& variant : variants) {
    compiled = compiled || variant.architecture == wanted;
    if (!cpu::supports(variant.architecture)) continue;
    if (variant.architecture == wanted) return variant.table;
    if (best == nullptr || variant.architecture > best->architecture) best = &variant;
    available += " ";
    available += cpu::name(variant.architecture);
  }
  if (wanted) {
    const std::string_view fault =
        compiled ? ": this processor cannot run it" : ": this program was built without it";
    return Error(ErrorCode::unsupported,
                 message("architecture ", cpu::name(*wanted), fault, "; available:", available));
  }
  if (best == nullptr)
    return Error(ErrorCode::unsupported,
                 "no architecture that this program was built for runs on this processor");
  return best->table;
}

namespace detail {

// A program's own definition: where it is missing, the linker names Dispatched<...>::table.
#if defined(__clang__)
#pragma clang diagnostic push
#pragma clang diagnostic ignored "-Wundefined-var-template"
#endif
template <class Table, cpu::Architecture... A>
inline constexpr Variant<Table> variants_of[] = {{A, &Dispatched<Table, A>::table}...};
#if defined(__clang__)
#pragma clang diagnostic pop
#endif

}  // namespace detail

/// What a unit was compiled for, in every program that calls it.
template <class Table>
std::span<const Variant<Table>> dispatched_variants() noexcept {
#if defined(CAFEQ_DISPATCH_ARCHS)
  using enum cpu::Architecture;
  return detail::variants_of<Table, CAFEQ_DISPATCH_ARCHS>;
#else
  return detail::variants_of<Table, cpu::compiled_for>;
#endif
}

}  // namespace simd

/// The table of the architecture that cpu::require() or CAFEQ_ARCH asks for, else of the best that
/// the processor runs. Looks at the processor and at the environment each time, so take it once and
/// keep it. For sources of the target that cafeq_add_dispatch() was called for.
template <class Table>
Result<const Table*> try_dispatched() {
  return simd::try_best_variant(simd::dispatched_variants<Table>());
}
/// The same; the error is raised.
template <class Table>
const Table& dispatched() {
  const Result<const Table*> table = try_dispatched<Table>();
  if (!table) raise(table.error());
  return *table.value();
}

}  // namespace cafeq
