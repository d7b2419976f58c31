/// The library's kernels as a table of functions: `cafeq::dispatched<example::Kernels>().fwht(…)`
/// runs the one for the processor at hand. A table is whatever a program calls; this one has a
/// function for each kernel. Their contracts stand in the headers of the same names below.
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
#include "cafeq/simd/dispatch.hpp"

namespace example {

using namespace cafeq;
using kernel::BlockPanels, kernel::Panels, kernel::PackedRows, kernel::ScaleOffset, kernel::Store;
using kernel::SignFlips;

/// Levels of the grids, by kind.
using AffineLevels = kernel::UniformLevels<true, false>;
using SymmetricLevels = kernel::UniformLevels<false, false>;
using MidriseLevels = kernel::UniformLevels<false, true>;

struct Kernels {
  using In = std::span<const float>;
  using Codes = std::span<std::uint8_t>;
  using Floats = std::span<float>;

  cpu::Architecture architecture;

  // fwht.hpp and fwht_columns.hpp
  void (*fwht)(float* x, Index n, float scale) noexcept;
  void (*fwht_rows)(View<float> X, Index n, float scale, SignFlips<float> flips) noexcept;
  void (*fwht_columns)(View<float> X, Index n, float scale, SignFlips<float> flips) noexcept;

  // extremes.hpp, moments.hpp and columns.hpp
  kernel::Range (*range)(In x) noexcept;
  kernel::Moments (*moments)(In x) noexcept;
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

}  // namespace example
