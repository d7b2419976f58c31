/// The kernels as a table of functions, one table an architecture, chosen when the program runs.
///
///     const cafeq::kernel::Table& kernels = cafeq::kernel::table();   // once
///     kernels.fwht(x, n, scale);
///
/// In CMake, cafeq_add_dispatch(engine) compiles a table for each architecture and links them to
/// `engine`; without it table() does not link. Entries are the functions of the same name in the
/// headers below, where their contracts stand. See docs/how-to/dispatch-at-run-time.md.
#pragma once

#include "cafeq/kernel/block_product.hpp"
#include "cafeq/kernel/block_vector.hpp"
#include "cafeq/kernel/codec.hpp"
#include "cafeq/kernel/columns.hpp"
#include "cafeq/kernel/dense_product.hpp"
#include "cafeq/kernel/extremes.hpp"
#include "cafeq/kernel/fwht.hpp"
#include "cafeq/kernel/fwht_columns.hpp"
#include "cafeq/kernel/moments.hpp"
#include "cafeq/kernel/pack_codes.hpp"
#include "cafeq/kernel/packed_product.hpp"
#include "cafeq/simd/variants.hpp"

namespace cafeq::kernel {

/// Levels of the grids, by kind.
using AffineLevels = UniformLevels<true, false>;
using SymmetricLevels = UniformLevels<false, false>;
using MidriseLevels = UniformLevels<false, true>;

struct Table {
  using In = std::span<const float>;
  using Codes = std::span<std::uint8_t>;
  using Floats = std::span<float>;

  cpu::Architecture architecture;

  // fwht.hpp and fwht_columns.hpp
  void (*fwht)(float* x, Index n, float scale) noexcept;
  void (*fwht_rows)(View<float> X, Index n, float scale, SignFlips<float> flips) noexcept;
  void (*fwht_columns)(View<float> X, Index n, float scale, SignFlips<float> flips) noexcept;

  // extremes.hpp, moments.hpp and columns.hpp
  Range (*range)(In x) noexcept;
  Moments (*moments)(In x) noexcept;
  void (*group_ranges)(In x, Index width, Floats low, Floats high) noexcept;
  void (*column_absmax)(View<const float> X, float* peak) noexcept;
  void (*column_ranges)(View<const float> X, float* low, float* high) noexcept;

  // codec.hpp
  void (*encode_affine)(In x, const AffineLevels& levels, ScaleOffset at, Codes codes) noexcept;
  void (*encode_symmetric)(In x, const SymmetricLevels& levels, ScaleOffset at,
                           Codes codes) noexcept;
  void (*encode_midrise)(In x, const MidriseLevels& levels, ScaleOffset at, Codes codes) noexcept;

  // pack_codes.hpp; scale and offset of consecutive groups of `width`
  void (*pack)(std::span<const std::uint8_t> codes, int bits, Codes packed) noexcept;
  void (*encode_packed_affine)(In x, Index width, const AffineLevels& levels, const float* scale,
                               const float* offset, int bits, Codes packed) noexcept;
  void (*encode_packed_symmetric)(In x, Index width, const SymmetricLevels& levels,
                                  const float* scale, const float* offset, int bits,
                                  Codes packed) noexcept;
  void (*encode_packed_midrise)(In x, Index width, const MidriseLevels& levels, const float* scale,
                                const float* offset, int bits, Codes packed) noexcept;
  void (*decode_packed)(std::span<const std::uint8_t> packed, int bits, Index width,
                        const float* scale, const float* start, Floats out) noexcept;

  // panels.hpp, dense_product.hpp and block_product.hpp; factors that were packed by one
  // architecture may be used by another
  Panels<float> (*pack_panels)(View<const float> B, float* to) noexcept;
  void (*multiply)(View<const float> A, View<const float> B, View<float> C, Store store) noexcept;
  void (*multiply_packed)(View<const float> A, Panels<float> B, View<float> C,
                          Store store) noexcept;
  void (*multiply_right_in_place)(View<float> X, View<const float> M, Floats scratch) noexcept;
  void (*multiply_packed_right_in_place)(View<float> X, Panels<float> M, Floats scratch) noexcept;
  void (*multiply_left_in_place)(View<const float> A, View<float> X, Floats scratch) noexcept;

  // packed_product.hpp: Y(n, i) = Σ_j (scale(i, g) c_ij + offset(i, g)) X(n, j), g the group of j;
  // offset may be empty. X is laid out anew in each call. The int8 one rounds X by groups of that
  // many entries. False where W's groups and X's do not meet at words of codes: nothing was done.
  bool (*multiply_codes)(const PackedRows& W, View<const float> scale, View<const float> offset,
                         View<const float> X, View<float> Y);
  bool (*multiply_codes_int8)(const PackedRows& W, View<const float> scale,
                              View<const float> offset, View<const float> X, Index group,
                              View<float> Y);

  // block_vector.hpp: what undoes a block-diagonal transform on activations, by how its blocks are
  // stored
  void (*block_multiply)(const BlockPanels<float>& N, Index begin, Index end, View<float> X,
                         Floats scratch) noexcept;
  void (*block_multiply_fp16)(const BlockPanels<fp16>& N, Index begin, Index end, View<float> X,
                              Floats scratch) noexcept;
  void (*block_multiply_int8)(const BlockPanels<std::int8_t>& N, Index begin, Index end,
                              View<float> X, Floats scratch) noexcept;
};

namespace detail {

template <class Arch, class Levels>
void encode_packed(Table::In x, Index width, const Levels& levels, const float* scale,
                   const float* offset, int bits, Table::Codes packed) noexcept {
  kernel::encode_packed<Arch>(x, width, levels, scale, offset, bits, packed);
}

template <class T, class Arch>
bool multiply_codes(const PackedRows& W, View<const float> scale, View<const float> offset,
                    View<const float> X, Index group, View<float> Y) {
  const PackedActivations<T, Arch> x(X, W.bits, group);
  const auto lines = [&](Index row, float bias, float* scales, float* offsets) {
    for (Index g = 0; g < W.groups(); ++g) {
      scales[g] = scale(row, g);
      offsets[g] = (offset.empty() ? 0.0f : offset(row, g)) + bias * scales[g];
    }
  };
  bool supported = false;
  with_kernel_bits(W.bits, [&](auto bits) {
    using Product = PackedProduct<T, decltype(bits)::value, Arch>;
    supported = Product::supports(W, x);
    if (!supported) return;
    const Product product(W, x);
    Buffer<std::byte> scratch(std::size_t(product.scratch()));
    product.multiply_rows(0, W.rows, lines, Y, scratch);
  });
  return supported;
}

}  // namespace detail

/// The table of what this translation unit is compiled for.
template <class Arch = DefaultArch>
constexpr Table make_table(cpu::Architecture architecture) noexcept {
  using In = Table::In;
  using Codes = Table::Codes;
  using Floats = Table::Floats;
  using Matrix = View<const float>;
  using Flips = SignFlips<float>;
  return {
      .architecture = architecture,
      .fwht = [](float* x, Index n, float scale) noexcept { fwht<float, Arch>(x, n, scale); },
      .fwht_rows = [](View<float> X, Index n, float scale,
                      Flips flips) noexcept { fwht_rows<float, Arch>(X, n, scale, flips); },
      .fwht_columns = [](View<float> X, Index n, float scale,
                         Flips flips) noexcept { fwht_columns<float, Arch>(X, n, scale, flips); },
      .range = [](In x) noexcept { return range<Arch>(x); },
      .moments = [](In x) noexcept { return moments<Arch>(x); },
      .group_ranges = [](In x, Index width, Floats low,
                         Floats high) noexcept { group_ranges<Arch>(x, width, low, high); },
      .column_absmax = [](Matrix X, float* peak) noexcept { column_absmax<Arch>(X, peak); },
      .column_ranges = [](Matrix X, float* low,
                          float* high) noexcept { column_ranges<Arch>(X, low, high); },
      .encode_affine = [](In x, const AffineLevels& levels, ScaleOffset at,
                          Codes codes) noexcept { encode<Arch>(x, levels, at, codes); },
      .encode_symmetric = [](In x, const SymmetricLevels& levels, ScaleOffset at,
                             Codes codes) noexcept { encode<Arch>(x, levels, at, codes); },
      .encode_midrise = [](In x, const MidriseLevels& levels, ScaleOffset at,
                           Codes codes) noexcept { encode<Arch>(x, levels, at, codes); },
      .pack = [](std::span<const std::uint8_t> codes, int bits,
                 Codes packed) noexcept { pack<Arch>(codes, bits, packed); },
      .encode_packed_affine = detail::encode_packed<Arch, AffineLevels>,
      .encode_packed_symmetric = detail::encode_packed<Arch, SymmetricLevels>,
      .encode_packed_midrise = detail::encode_packed<Arch, MidriseLevels>,
      .decode_packed =
          [](std::span<const std::uint8_t> packed, int bits, Index width, const float* scale,
             const float* start,
             Floats out) noexcept { decode_packed<Arch>(packed, bits, width, scale, start, out); },
      .pack_panels = [](Matrix B, float* to) noexcept { return pack_panels<float, Arch>(B, to); },
      .multiply = [](Matrix A, Matrix B, View<float> C,
                     Store store) noexcept { multiply<float, Arch>(A, B, C, store); },
      .multiply_packed = [](Matrix A, Panels<float> B, View<float> C,
                            Store store) noexcept { multiply<float, Arch>(A, B, C, store); },
      .multiply_right_in_place =
          [](View<float> X, Matrix M, Floats scratch) noexcept {
            multiply_right_in_place<float, Arch>(X, M, scratch);
          },
      .multiply_packed_right_in_place =
          [](View<float> X, Panels<float> M, Floats scratch) noexcept {
            multiply_right_in_place<float, Arch>(X, M, scratch);
          },
      .multiply_left_in_place =
          [](Matrix A, View<float> X, Floats scratch) noexcept {
            multiply_left_in_place<float, Arch>(A, X, scratch);
          },
      .multiply_codes =
          [](const PackedRows& W, Matrix scale, Matrix offset, Matrix X, View<float> Y) {
            return detail::multiply_codes<float, Arch>(W, scale, offset, X, 1, Y);
          },
      .multiply_codes_int8 =
          [](const PackedRows& W, Matrix scale, Matrix offset, Matrix X, Index group,
             View<float> Y) {
            return detail::multiply_codes<std::int8_t, Arch>(W, scale, offset, X, group, Y);
          },
      .block_multiply =
          [](const BlockPanels<float>& N, Index begin, Index end, View<float> X,
             Floats scratch) noexcept { block_multiply<Arch>(N, begin, end, X, scratch); },
      .block_multiply_fp16 =
          [](const BlockPanels<fp16>& N, Index begin, Index end, View<float> X,
             Floats scratch) noexcept { block_multiply<Arch>(N, begin, end, X, scratch); },
      .block_multiply_int8 =
          [](const BlockPanels<std::int8_t>& N, Index begin, Index end, View<float> X,
             Floats scratch) noexcept { block_multiply<Arch>(N, begin, end, X, scratch); },
  };
}

/// The tables that were compiled into this program. Defined by what cafeq_add_dispatch() links.
std::span<const simd::Variant<Table>> compiled_tables() noexcept;

/// The table of the architecture that cpu::require() or CAFEQ_ARCH asks for, else of the best that
/// the processor runs. Looks at the processor and at the environment each time, so take it once and
/// keep it.
inline Result<const Table*> try_table() { return simd::try_best_variant(compiled_tables()); }
inline const Table& table() { return simd::best_variant(compiled_tables()); }

}  // namespace cafeq::kernel
