/// Choosing one of several variants of a table of functions, each compiled for another
/// architecture.
///
/// Variants are compiled in units of their own (cafeq_add_dispatch() in cmake/CafeqDispatch.cmake);
/// a Table is any struct of function pointers.
#pragma once

#include <span>
#include <string>

#include "cafeq/simd/cpu.hpp"

namespace cafeq::simd {

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

/// The same; the error is raised.
template <class Table>
const Table& best_variant(std::span<const Variant<Table>> variants) {
  const Result<const Table*> table = try_best_variant(variants);
  if (!table) raise(table.error());
  return *table.value();
}

}  // namespace cafeq::simd
