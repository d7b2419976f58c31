/// Packed integer codes times activations, straight from their bits: y_i = Σ_g scale_ig · Σ_{j in
/// g} c_ij x_j + offset_ig · Σ_{j in g} x_j.
///
/// A row is read as 32-bit words (24-bit ones at 3 bits), each of which holds `fields` consecutive
/// codes: lane l of a vector has word l of a block. A field of all lanes is one mask away, and x is
/// laid out once for all the matrices that read it: field by field of a block, lane by lane.
///   fp32   a field is masked in place and converted: it is 2^(bits·k) times its code, and the x
///          that meets it was divided by that. No shifts.
///   int8   x ≈ step_h · q, q in −127 … 127, one step for every h consecutive entries; codes become
///          bytes, products are summed in int16 while they are certain to fit, then in int32, whose
///          conversion to float is exact. The result is that of the rounded x, which is off by at
///          most step/2 an entry: |Δy_i| <= Σ_j |ŵ_ij| step_j / 2.
/// 2, 3, 4 and 8 bits have kernels; rows of 1, 5, 6 and 7 bits are unpacked to bytes first. The
/// group widths of W and of x must have a common divisor that is a multiple of `fields` (16, 8, 8
/// and 4 weights), or be whole rows; supports() tells.
/// Sums are fp32 in lanes: |error| <= (cols/16 + 16)·2^-24·Σ_j (scale c_max + |offset|)|x_j|. The
/// bits depend on the architecture, but neither on how rows are shared among threads nor on how
/// many vectors are multiplied at once.
/// Longer than most headers: the layout of activations and the loop that reads it are one contract.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <numeric>
#include <span>

#include "cafeq/core/matrix.hpp"
#include "cafeq/kernel/packed_words.hpp"

namespace cafeq::kernel {

/// Codes as core/packed.hpp lays them out. `group` consecutive weights of a row share a scale and
/// an offset.
struct PackedRows {
  const std::uint8_t* data = nullptr;
  Index rows = 0;
  Index cols = 0;
  Index row_bytes = 0;
  int bits = 8;
  Index group = 1;

  Index groups() const noexcept { return ceil_div(cols, group); }
};

/// Activations laid out for the words of one number of bits: T float, or std::int8_t with a step
/// for every `group` entries.
template <class T, class Arch = DefaultArch>
class PackedActivations {
  static_assert(std::is_same_v<T, float> || std::is_same_v<T, std::int8_t>,
                "cafeq: activations are float or int8");

 public:
  template <int Bits>
  using Kernel = std::conditional_t<std::is_same_v<T, float>, detail::FloatKernel<Bits, Arch>,
                                    detail::ByteKernel<Bits, Arch>>;

  PackedActivations() = default;
  /// X [n, cols]: one vector a row, any strides. `group` entries share a step (int8 only; at least
  /// 1): absmax/127, or 0 where absmax is below 2^-100. A group that is not finite makes NaN of
  /// every result.
  PackedActivations(View<const float> X, int bits, Index group = 128);

  Index count() const noexcept { return count_; }
  Index cols() const noexcept { return cols_; }
  int bits() const noexcept { return bits_; }
  /// 0 where there are no steps, or one for a whole vector.
  Index group() const noexcept { return group_; }
  /// What is multiplied: X, or the rounded X.
  View<const float> values() const noexcept { return {exact_.data(), count_, cols_, width_, 1}; }

  const T* data() const noexcept { return values_.data(); }
  const float* steps() const noexcept { return steps_.data(); }
  Index width() const noexcept { return width_; }  ///< entries from one vector to the next
  Index words() const noexcept { return words_; }  ///< steps from one vector to the next

 private:
  void round(Index n, std::int8_t* codes, float* steps);

  Index count_ = 0, cols_ = 0, group_ = 0, width_ = 0, words_ = 0;
  int bits_ = 8;
  Buffer<float> exact_;  // rows of width_, zero past cols_
  Buffer<T> values_;
  Buffer<float> steps_;  // of each word
};

/// W x for codes of Bits bits, or of fewer where Bits is 8. Lines writes the scales of a row's
/// groups, and their offsets plus `bias` scales: lines(row, bias, float* scale, float* offset).
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
  template <class Lines>
  void multiply_rows(Index begin, Index end, const Lines& lines, View<float> Y,
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

  template <class Lines>
  Rows load_rows(Index first, Index count, const Lines& lines,
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

template <class T, class Arch>
PackedActivations<T, Arch>::PackedActivations(View<const float> X, int bits, Index group)
    : count_(X.rows),
      cols_(X.cols),
      group_(std::is_same_v<T, float> || group >= X.cols ? 0 : group),
      bits_(detail::kernel_bits(bits)) {
  CAFEQ_ASSERT(group >= 1);
  detail::with_kernel_bits(bits, [&](auto constant) {
    constexpr int b = decltype(constant)::value;
    using K = Kernel<b>;
    const Index blocks = ceil_div(cols_, K::block);
    width_ = blocks * K::block;
    words_ = blocks * K::lanes;
    exact_.resize(std::size_t(count_ * width_));
    values_.resize(exact_.size());
    copy(X, View<float>{exact_.data(), count_, cols_, width_, 1});
    if constexpr (std::is_same_v<T, float>) {
      for (Index v = 0; v < count_ * blocks; ++v) {
        const float* from = exact_.data() + v * K::block;
        float* to = values_.data() + v * K::block;
        for (Index k = 0; k < K::fields; ++k) {
          const float unit = 1.0f / float(1 << (b * (k % K::half)));
          for (Index l = 0; l < K::lanes; ++l)
            to[k * K::lanes + l] = unit * from[l * K::fields + k];
        }
      }
    } else {
      Buffer<std::int8_t> codes(static_cast<std::size_t>(width_));
      Buffer<float> steps(static_cast<std::size_t>(
          ceil_div(cols_, std::max<Index>(1, group_ == 0 ? cols_ : group_))));
      steps_.resize(std::size_t(count_ * words_));
      for (Index n = 0; n < count_; ++n) {
        round(n, codes.data(), steps.data());
        for (Index w = 0; w < words_; ++w) {
          const Index g = group_ == 0 ? 0 : w * K::fields / group_;
          steps_[std::size_t(n * words_ + w)] = steps[std::min(std::size_t(g), steps.size() - 1)];
        }
        for (Index j = 0; j < width_; j += K::block)
          for (Index s = 0; s < K::streams; ++s)
            for (Index i = 0; i < 4 * K::lanes; ++i)
              values_[std::size_t(n * width_ + j + s * 4 * K::lanes + i)] =
                  codes[std::size_t(j + K::entry(s, i))];
      }
    }
  });
}

template <class T, class Arch>
void PackedActivations<T, Arch>::round(Index n, std::int8_t* codes, float* steps) {
  using V = Batch<float, Arch>;
  constexpr Index w = Index(V::size);
  alignas(64) std::int32_t lane[w];
  float* x = exact_.data() + n * width_;
  std::fill(codes + cols_, codes + width_, std::int8_t(0));
  const Index width = group_ == 0 ? cols_ : group_;
  for (Index g = 0, begin = 0; begin < cols_; ++g, begin += width) {
    const Index end = std::min(begin + width, cols_);
    V most(0.0f), check(0.0f);
    Index j = begin;
    for (; j + w <= end; j += w) {
      const V v = V::load_unaligned(x + j);
      most = xsimd::max(most, xsimd::abs(v));
      check = simd::fma(v, V(0.0f), check);
    }
    float absmax = simd::reduce_max(most), finite = simd::reduce_add(check);
    for (; j < end; ++j) {
      absmax = std::max(absmax, std::abs(x[j]));
      finite = std::fma(x[j], 0.0f, finite);
    }
    const bool sound = finite == 0;
    const bool zero = !sound || absmax < 0x1p-100f;
    const float step =
        sound ? (zero ? 0.0f : absmax / 127.0f) : std::numeric_limits<float>::quiet_NaN();
    const float inverse = zero ? 0.0f : 127.0f / absmax;
    steps[g] = step;
    for (j = begin; j < end; j += w) {
      const Index count = std::min(w, end - j);
      if (zero) {
        std::fill_n(lane, w, 0);
      } else if (count == w) {
        simd::nearest_int32(V::load_unaligned(x + j) * V(inverse)).store_aligned(lane);
      } else {
        for (Index l = 0; l < count; ++l)
          lane[l] = std::int32_t(std::nearbyint(x[j + l] * inverse));
      }
      for (Index l = 0; l < count; ++l) {
        codes[j + l] = std::int8_t(lane[l]);
        x[j + l] = step * float(lane[l]);
      }
    }
  }
}

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
template <class Lines>
void PackedProduct<T, Bits, Arch, Table>::multiply_rows(
    Index begin, Index end, const Lines& lines, View<float> Y,
    std::span<std::byte> scratch) const noexcept {
  CAFEQ_ASSERT(Index(scratch.size()) >= this->scratch() && Y.rows == x_->count());
  for (Index i = begin; i < end; i += tile_rows) {
    const Rows rows = load_rows(i, std::min<Index>(tile_rows, end - i), lines, scratch);
    if (rows.count == tile_rows) multiply_tile<tile_rows>(rows, Y);
    else
      for (Index r = 0; r < rows.count; ++r) multiply_tile<1>(rows.from(r), Y);
  }
}

template <class T, int Bits, class Arch, bool Table>
template <class Lines>
auto PackedProduct<T, Bits, Arch, Table>::load_rows(Index first, Index count, const Lines& lines,
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
    lines(first + r, W_.bits == Bits ? K::bias : 0.0f, scale, offset);
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
  const Index ahead =
      tile_rows *
      W_.row_bytes;  // the rows of the next tile, to which no pattern of addresses leads
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

/// The meaning of PackedProduct for one row, in double.
template <class Lines>
double packed_product_reference(const PackedRows& W, Index row, const Lines& lines,
                                std::span<const float> x) {
  std::vector<float> scale(std::size_t(W.groups())), offset(scale.size());
  lines(row, 0.0f, scale.data(), offset.data());
  double sum = 0;
  for (Index j = 0; j < W.cols; ++j) {
    unsigned code = 0;
    for (int b = 0; b < W.bits; ++b) {
      const Index bit = j * W.bits + b;
      code |= ((W.data[row * W.row_bytes + bit / 8] >> (bit % 8)) & 1u) << b;
    }
    const auto g = std::size_t(j / W.group);
    sum += (double(scale[g]) * code + double(offset[g])) * double(x[std::size_t(j)]);
  }
  return sum;
}

}  // namespace cafeq::kernel
