/// Packed integer codes times activations, straight from their bits: y_i = Σ_g scale_ig · Σ_{j in
/// g} c_ij x_j + offset_ig · Σ_{j in g} x_j.
///
/// Rows are read as words (kernel/code_words.hpp), x as kernel/packed_activations.hpp lays it out.
///   fp32   a field is masked in place and converted: it is 2^(bits·k) times its code, and the x
///          that meets it was divided by that. No shifts.
///   int8   codes become bytes, products are summed in int16 while they are certain to fit, then in
///          int32, whose conversion to float is exact. The result is that of the rounded x, which
///          is off by at most step/2 an entry: |Δy_i| <= Σ_j |ŵ_ij| step_j / 2.
/// 2, 3, 4 and 8 bits have kernels; rows of 1, 5, 6 and 7 bits are unpacked to bytes first. The
/// group widths of W and of x must have a common divisor that is a multiple of `fields` (16, 8, 8
/// and 4 weights), or be whole rows; supports() tells.
/// Sums are fp32 in lanes: |error| <= (cols/16 + 16)·2^-24·Σ_j (scale c_max + |offset|)|x_j|. The
/// bits depend on the architecture, but neither on how rows are shared among threads nor on how
/// many vectors are multiplied at once.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <numeric>
#include <span>

#include "cafeq/core/matrix.hpp"
#include "cafeq/kernel/packed_activations.hpp"

namespace cafeq::kernel {

/// W x for codes of Bits bits, or of fewer where Bits is 8. Scales writes those of a row's
/// groups, and their offsets plus `bias` scales: scales(row, bias, float* scale, float* offset).
/// Where Table, codes of 2 to 4 bits name the levels of a table instead of being levels, for fp32
/// activations.
template <class T, int Bits, class Arch = DefaultArch, bool Table = false>
class PackedProduct {
  static_assert(!Table || std::is_same_v<T, float>,
                "cafeq: a table of levels multiplies fp32 activations");

 public:
  using X = PackedActivations<T, Arch>;
  using K = std::conditional_t<Table, detail::FloatKernel<Bits <= 4 ? Bits : 4, Arch, true>,
                               typename X::template Kernel<Bits>>;

  /// Whether the groups of the weights and those of the activations meet at words. Where they do
  /// not the caller decodes rows.
  static bool supports(const PackedRows& W, const X& x) noexcept {
    return W.cols > 0 && segment_of(W, x) % K::fields == 0;
  }

  /// Sums x over the groups of W. x must be laid out for W's bits, and outlive the product.
  PackedProduct(const PackedRows& W, const X& x, std::span<const float> levels = {});

  /// Bytes that a worker needs.
  Index scratch() const noexcept {
    return tile_rows * (4 * row_floats() + (in_place() ? 0 : x_->width() * Bits / 8));
  }

  /// Rows [begin, end) of W times every vector: Y(n, i) for Y [count, rows of W].
  template <class Scales>
  void multiply_rows(Index begin, Index end, const Scales& scales, View<float> Y,
                     std::span<std::byte> scratch) const noexcept;

 private:
  static constexpr int tile_rows = 3;  // as many as leave registers for masks and fields

  /// Rows of codes, their scales and offsets.
  struct Rows {
    Index first;
    Index count;
    const std::uint8_t* codes[tile_rows];
    const float* scale[tile_rows];  // of each segment, or of each word
    const float* offset[tile_rows];
    Rows from(Index r) const noexcept {
      return {first + r, 1, {codes[r]}, {scale[r]}, {offset[r]}};
    }
  };

  static Index segment_of(const PackedRows& W, const X& x) noexcept {
    return std::gcd(W.group >= W.cols ? 0 : W.group, x.group());
  }
  Index row_floats() const noexcept {
    return 2 * detail::padded(groups_) + detail::padded(pieces_);
  }
  /// Whether a row of W is whole blocks of Bits bits.
  bool in_place() const noexcept { return W_.bits == Bits && W_.cols % K::block == 0; }

  template <class Scales>
  Rows load_rows(Index first, Index count, const Scales& scales,
                 std::span<std::byte> scratch) const noexcept;
  template <int R>
  void multiply_tile(const Rows& rows, View<float> Y) const noexcept;
  template <int R, int N>
  void multiply_tile(const Rows& rows, Index vector, View<float> Y) const noexcept;
  template <int R, int N, bool Lanewise, int Blocks>
  void multiply_tile(const Rows& rows, Index vector, View<float> Y) const noexcept;

  PackedRows W_;
  const X* x_;
  Index groups_ = 0;   // of a row of W
  Index segment_ = 0;  // consecutive weights that share a scale and a step; 0: the whole row
  bool lanewise_ = false;
  Index pieces_ = 0;  // scales that a row needs where they are not those of its groups
  Matrix<float> sums_;
  Buffer<float> table_;  // 16 levels for each place
};

template <class T, int Bits, class Arch, bool Table>
PackedProduct<T, Bits, Arch, Table>::PackedProduct(const PackedRows& W, const X& x,
                                                   std::span<const float> levels)
    : W_(W),
      x_(&x),
      groups_(W.groups()),
      segment_(segment_of(W, x)),
      lanewise_(segment_ % K::block != 0),
      sums_(x.count(), detail::padded(groups_)) {
  CAFEQ_ASSERT(supports(W, x) && W.cols == x.cols() && Bits == x.bits() &&
               Bits == detail::kernel_bits(W.bits));

  // How often a row needs a scale: for each segment, or for each word where a segment is no whole
  // number of blocks.
  if (!lanewise_) segment_ = std::gcd(segment_, K::longest);
  if (lanewise_) pieces_ = x.words();
  else if (segment_ != W.group) pieces_ = ceil_div(W.cols, segment_);

  if constexpr (Table) {
    CAFEQ_ASSERT(levels.size() >= std::size_t(1) << Bits);
    for (int k = 0; k < K::half; ++k)
      for (std::size_t c = 0; c < 16; ++c)
        table_.push_back(levels[c % (std::size_t(1) << Bits)] * float(1 << (Bits * k)));
  }

  using V = Batch<float, Arch>;
  constexpr Index w = Index(V::size);
  for (Index n = 0; n < x.count(); ++n)
    for (Index g = 0; g < groups_; ++g) {
      const auto group = x.values().row(n).subspan(
          std::size_t(g * W.group), std::size_t(std::min(W.group, W.cols - g * W.group)));
      V lanes(0.0f);
      std::size_t j = 0;
      for (; j + std::size_t(w) <= group.size(); j += std::size_t(w))
        lanes += V::load_unaligned(group.data() + j);
      float sum = simd::reduce_add(lanes);
      for (; j < group.size(); ++j) sum += group[j];
      sums_(n, g) = sum;
    }
}

template <class T, int Bits, class Arch, bool Table>
template <class Scales>
void PackedProduct<T, Bits, Arch, Table>::multiply_rows(
    Index begin, Index end, const Scales& scales, View<float> Y,
    std::span<std::byte> scratch) const noexcept {
  CAFEQ_ASSERT(Index(scratch.size()) >= this->scratch() && Y.rows == x_->count());
  for (Index i = begin; i < end; i += tile_rows) {
    const Rows rows = load_rows(i, std::min<Index>(tile_rows, end - i), scales, scratch);
    if (rows.count == tile_rows) multiply_tile<tile_rows>(rows, Y);
    else
      for (Index r = 0; r < rows.count; ++r) multiply_tile<1>(rows.from(r), Y);
  }
}

template <class T, int Bits, class Arch, bool Table>
template <class Scales>
auto PackedProduct<T, Bits, Arch, Table>::load_rows(Index first, Index count, const Scales& scales,
                                                    std::span<std::byte> scratch) const noexcept
    -> Rows {
  Rows rows{first, count, {}, {}, {}};
  float* space = reinterpret_cast<float*>(scratch.data());
  std::uint8_t* bytes = reinterpret_cast<std::uint8_t*>(space + tile_rows * row_floats());
  const Index groups = detail::padded(groups_);
  const Index padded_bytes = x_->width() * Bits / 8;
  for (Index r = 0; r < count; ++r, space += row_floats()) {
    float* scale = space;
    float* offset = space + groups;
    float* piece = space + 2 * groups;
    std::fill(offset + groups_, offset + groups, 0.0f);
    scales(first + r, W_.bits == Bits ? K::bias : 0.0f, scale, offset);

    if (pieces_ > 0) {
      const Index width = lanewise_ ? K::fields : segment_;
      Index p = 0;
      for (Index g = 0; g < groups_; ++g)
        for (const Index end = g + 1 < groups_ ? (g + 1) * W_.group / width : pieces_; p < end; ++p)
          piece[p] = scale[g];
    }

    rows.scale[r] = pieces_ > 0 ? piece : scale;
    rows.offset[r] = offset;
    rows.codes[r] = W_.data + (first + r) * W_.row_bytes;
    if (in_place()) continue;

    const Index size = W_.bits == Bits ? ceil_div(W_.cols * Bits, 8) : W_.cols;
    if (W_.bits == Bits) std::memcpy(bytes, rows.codes[r], std::size_t(size));
    else detail::unpack_row<Arch>(rows.codes[r], W_.bits, W_.cols, std::uint8_t(K::bias), bytes);
    std::fill(bytes + size, bytes + padded_bytes, std::uint8_t(0));
    rows.codes[r] = bytes;
    bytes += padded_bytes;
  }
  return rows;
}

template <class T, int Bits, class Arch, bool Table>
template <int R>
void PackedProduct<T, Bits, Arch, Table>::multiply_tile(const Rows& rows,
                                                        View<float> Y) const noexcept {
  Index n = 0;
  for (; n + 4 <= x_->count(); n += 4)
    for (Index r = 0; r < R; ++r) multiply_tile<1, 4>(rows.from(r), n, Y);
  for (; n < x_->count(); ++n) multiply_tile<R, 1>(rows, n, Y);
}

/// Segments of the usual lengths are loops without a branch.
template <class T, int Bits, class Arch, bool Table>
template <int R, int N>
void PackedProduct<T, Bits, Arch, Table>::multiply_tile(const Rows& rows, Index vector,
                                                        View<float> Y) const noexcept {
  if (lanewise_) return multiply_tile<R, N, true, 1>(rows, vector, Y);
  switch (segment_ / K::block) {
    case 1: return multiply_tile<R, N, false, 1>(rows, vector, Y);
    case 2: return multiply_tile<R, N, false, 2>(rows, vector, Y);
    case 4: return multiply_tile<R, N, false, 4>(rows, vector, Y);
    default: return multiply_tile<R, N, false, 0>(rows, vector, Y);
  }
}

/// Blocks: those of a segment, 0 for any number.
template <class T, int Bits, class Arch, bool Table>
template <int R, int N, bool Lanewise, int Blocks>
void PackedProduct<T, Bits, Arch, Table>::multiply_tile(const Rows& rows, Index vector,
                                                        View<float> Y) const noexcept {
  using V = typename K::V;
  constexpr Index lanes = K::lanes;
  const std::uint8_t* codes[R];
  const float* scale[R];
  V total[R][N];

  // Offsets: one product for each group, with the sums of x over the groups.
  const Index groups = detail::padded(groups_);
  CAFEQ_UNROLL
  for (int r = 0; r < R; ++r) {
    codes[r] = rows.codes[r];
    scale[r] = rows.scale[r];
    CAFEQ_UNROLL
    for (int n = 0; n < N; ++n) {
      V sum(0.0f);
      for (Index g = 0; g < groups; g += lanes)
        sum = simd::fma(V::load_unaligned(rows.offset[r] + g),
                        V::load_unaligned(sums_.data() + (vector + n) * groups + g), sum);
      total[r][n] = sum;
    }
  }

  const Index width = x_->width(), words = x_->words();
  const auto* x = x_->data() + vector * width;
  const Index blocks = width / K::block;
  const Index segment = Blocks > 0 ? Blocks : segment_ / K::block;
  // The rows of the next tile are asked for: no pattern of addresses leads there.
  const Index ahead = tile_rows * W_.row_bytes;
  for (Index first = 0, s = 0; first < blocks; ++s) {
    constexpr bool Short = Blocks > 0 && Blocks <= K::run;
    typename K::template Tile<R, N, Short> tile(table_.data());
    const auto add = [&](Index b) { tile.add(codes, b * K::block_bytes, x + b * K::block, width); };
    if (Blocks > 0 && first + Blocks <= blocks) {
      CAFEQ_UNROLL
      for (int b = 0; b < Blocks; ++b) {
        add(first + b);
        if ((b + 1) % K::run == 0 || b + 1 == Blocks) tile.carry();
      }
    } else {
      const Index end = std::min(first + segment, blocks);
      for (Index b = first; b < end; tile.carry())
        for (const Index stop = std::min<Index>(b + K::run, end); b < stop; ++b) add(b);
    }

    CAFEQ_UNROLL
    for (int r = 0; r < R; ++r) {
      for (Index at = first * K::block_bytes; at < (first + segment) * K::block_bytes; at += 64)
        simd::prefetch(codes[r], ahead + at);
      const V factor = Lanewise ? V::load_unaligned(scale[r] + s * lanes) : V(scale[r][s]);
      CAFEQ_UNROLL
      for (int n = 0; n < N; ++n)
        total[r][n] = simd::fma(
            tile.total(r, n), K::factor(factor, x_->steps(), (vector + n) * words + first * lanes),
            total[r][n]);
    }
    first += segment;
  }

  CAFEQ_UNROLL
  for (int r = 0; r < R; ++r) {
    CAFEQ_UNROLL
    for (int n = 0; n < N; ++n) Y(vector + n, rows.first + r) = simd::reduce_add(total[r][n]);
  }
}

}  // namespace cafeq::kernel
