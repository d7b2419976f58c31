/// The kernels as a table of functions, one table an architecture, chosen when the program runs.
///
///     const cafeq::kernel::Table& kernels = cafeq::kernel::table();   // once
///     kernels.fwht(x, n, scale);
///
/// In CMake, cafeq_add_dispatch(engine) compiles a table for each architecture and links them to `engine`; without it table() does not link. Entries
/// are the functions of the same name in the headers below, where their contracts stand. See docs/how-to/dispatch-at-run-time.md.
#pragma once

#include "cafeq/kernel/block_product.hpp"
#include "cafeq/kernel/codec.hpp"
#include "cafeq/kernel/fwht.hpp"
#include "cafeq/kernel/product.hpp"
#include "cafeq/kernel/stats.hpp"
#include "cafeq/simd/dispatch.hpp"

namespace cafeq::kernel {

/// Levels of the grids, by kind.
using AffineLevels = UniformLevels<true, false>;
using SymmetricLevels = UniformLevels<false, false>;
using MidriseLevels = UniformLevels<false, true>;

struct Table {
  using In = std::span<const float>;
  using Codes = std::span<std::uint8_t>;
  using Scratch = std::span<float>;

  cpu::Architecture architecture;

  // fwht.hpp
  void (*fwht)(float* x, Index n, float scale) noexcept;
  void (*fwht_blocks)(float* x, Index n, Index count, float scale) noexcept;
  void (*fwht_rows)(View<float> X, Index n, float scale) noexcept;

  // stats.hpp
  Range (*range)(In x) noexcept;
  Moments (*moments)(In x) noexcept;

  // codec.hpp
  void (*encode_affine)(In x, const AffineLevels& levels, Line line, Codes codes) noexcept;
  void (*encode_symmetric)(In x, const SymmetricLevels& levels, Line line, Codes codes) noexcept;
  void (*encode_midrise)(In x, const MidriseLevels& levels, Line line, Codes codes) noexcept;

  // product.hpp and block_product.hpp; in_place_scratch(k) floats of scratch for M or A [k, k]
  void (*multiply)(View<const float> A, View<const float> B, View<float> C, Store store) noexcept;
  Index (*in_place_scratch)(Index k) noexcept;
  void (*multiply_right_in_place)(View<float> X, View<const float> M, Scratch scratch) noexcept;
  void (*multiply_left_in_place)(View<const float> A, View<float> X, Scratch scratch) noexcept;
};

/// The table of what this translation unit is compiled for.
template <class Arch = DefaultArch>
constexpr Table make_table(cpu::Architecture architecture) noexcept {
  using In = Table::In;
  using Codes = Table::Codes;
  using Scratch = Table::Scratch;
  return {
      .architecture = architecture,
      .fwht = [](float* x, Index n, float scale) noexcept { fwht<float, Arch>(x, n, scale); },
      .fwht_blocks = [](float* x, Index n, Index count, float scale) noexcept { fwht_blocks<float, Arch>(x, n, count, scale); },
      .fwht_rows = [](View<float> X, Index n, float scale) noexcept { fwht_rows<float, Arch>(X, n, scale); },
      .range = [](In x) noexcept { return range<Arch>(x); },
      .moments = [](In x) noexcept { return moments<Arch>(x); },
      .encode_affine = [](In x, const AffineLevels& levels, Line line, Codes codes) noexcept { encode<Arch>(x, levels, line, codes); },
      .encode_symmetric = [](In x, const SymmetricLevels& levels, Line line, Codes codes) noexcept { encode<Arch>(x, levels, line, codes); },
      .encode_midrise = [](In x, const MidriseLevels& levels, Line line, Codes codes) noexcept { encode<Arch>(x, levels, line, codes); },
      .multiply = [](View<const float> A, View<const float> B, View<float> C, Store store) noexcept { multiply<float, Arch>(A, B, C, store); },
      .in_place_scratch = [](Index k) noexcept { return in_place_scratch<float, Arch>(k); },
      .multiply_right_in_place = [](View<float> X, View<const float> M, Scratch s) noexcept { multiply_right_in_place<float, Arch>(X, M, s); },
      .multiply_left_in_place = [](View<const float> A, View<float> X, Scratch s) noexcept { multiply_left_in_place<float, Arch>(A, X, s); },
  };
}

/// The tables that were compiled into this program. Defined by what cafeq_add_dispatch() links.
std::span<const simd::Variant<Table>> compiled_tables() noexcept;

/// The table of the architecture that cpu::require() or CAFEQ_ARCH asks for, else of the best that the processor runs. Looks at the processor and at
/// the environment each time, so take it once and keep it.
inline Result<const Table*> try_table() { return simd::try_select(compiled_tables()); }
inline const Table& table() { return simd::select(compiled_tables()); }

}  // namespace cafeq::kernel
