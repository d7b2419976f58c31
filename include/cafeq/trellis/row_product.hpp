/// Rows of a trellis chunk times activations, straight from their bits: y_i = factor_i · Σ_j
/// level_ij x_j, factor_i = unit · scale_i.
///
/// Activations are rounded and laid out once for all the rows that read them:
///   int16  x ≈ step · q, one step a vector, q in −32767 … 32767. Products are summed in int32
///          lanes, in int64 every 4,096 weights, and meet their factor in double: y is the exact
///          sum, rounded once to float, the same on every architecture. |x_j − step q_j| <= .506
///          step: a half for the rounding to q, the rest for that of the quotient, a float of up to
///          2^15. So |Δy_i| <= .506 step Σ_j |ŵ_ij|.
///   int8   x ≈ step_b · q, a step for every block b of 64 places, q in −127 … 127. A block's
///          products are summed in int32, the blocks in fp32 lanes: |error| <= (cols/32 +
///          8)·2^-24·Σ_j |ŵ_ij x̂_j|, and x̂ itself is off by at most step_b/2 an entry: |Δy_i| <=
///          Σ_j |ŵ_ij| step_b(j) / 2. Blocks are counted from the stretch that the row begins in:
///          rows that begin at another place of a stretch meet an x̂ of their own.
/// No sum overflows. int16: an int32 lane takes 4 products of at most 127·32767 from every 32
/// weights, and 128 such steps make 2,130,641,408 < 2^31. int8: two products of at most 127·127 fit
/// in int16, eight of them, a lane's share of a block, in 2^17, so that the conversion to float is
/// exact. A row is read in stretches of 16 weights from the one that has its first weight on, so
/// x stands shifted by the row's place in that stretch, with zeros on both sides. Rows of one chunk
/// begin at multiples of their width: there are 16/gcd(cols, 16) copies of x, one where cols is a
/// multiple of 16. Results depend neither on how many vectors are multiplied at once nor on how
/// rows are shared among threads.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <numeric>
#include <span>
#include <type_traits>

#include "cafeq/core/matrix.hpp"
#include "cafeq/trellis/decode.hpp"

namespace cafeq::kernel {

/// T: std::int16_t or std::int8_t.
template <class T, class Arch = DefaultArch>
class TrellisActivations {
  static_assert(std::is_same_v<T, std::int16_t> || std::is_same_v<T, std::int8_t>,
                "cafeq: activations of a trellis code are int16 or int8");

 public:
  static constexpr bool is_wide = std::is_same_v<T, std::int16_t>;
  static constexpr int largest = is_wide ? 32767 : 127;
  static constexpr Index block = 64;  ///< places that share a step, where there is more than one

  TrellisActivations() = default;
  /// X [n, cols]: one vector a row, any strides. Rows of weights must begin at multiples of
  /// `starts`: by default of cols, 1 for anywhere in a chunk. There are 16/gcd(starts, 16) copies.
  /// A step is absmax / largest, or 0 where absmax is below 2^-100; what is not finite makes NaN of
  /// every result.
  explicit TrellisActivations(View<const float> X, Index starts = 0);

  Index count() const noexcept { return count_; }
  Index cols() const noexcept { return cols_; }
  /// Entry j of vector n as rows that begin `shift` places into a stretch meet it, and its step.
  float value(Index n, Index j, Index shift = 0) const noexcept {
    return step(n, j, shift) * float(data(n, shift)[place(shift + j)]);
  }
  float step(Index n, Index j, Index shift = 0) const noexcept {
    return steps(n, shift)[is_wide ? 0 : (shift + j) / block];
  }

  const T* data(Index n, Index shift) const noexcept {
    return values_.data() + (shift / starts_ * count_ + n) * width_;
  }
  const float* steps(Index n, Index shift) const noexcept {
    return steps_.data() + (is_wide ? n : (shift / starts_ * count_ + n) * blocks_);
  }
  Index width() const noexcept { return width_; }    ///< entries from one vector to the next
  Index blocks() const noexcept { return blocks_; }  ///< steps from one vector to the next

 private:
  /// Where the activation of a place stands: bytes as TrellisReader has them, one of the first
  /// stretch, one of the second, in turns.
  static constexpr Index place(Index i) noexcept {
    return is_wide ? i : i / 32 * 32 + 2 * (i % 16) + i / 16 % 2;
  }
  /// Rounds entries that share a step, which it returns.
  static float round(std::span<const float> x, std::int32_t* q) noexcept;

  Index count_ = 0, cols_ = 0, starts_ = 16, width_ = 0, blocks_ = 0;
  Buffer<T> values_;
  Buffer<float> steps_;
};

namespace detail {

/// A row times N vectors, as integers. `data` and `steps` are those of the first vector.
template <int N, class Reader, class Ops>
inline void trellis_row(Reader& reader, Index stretches, const std::int16_t* data, Index width,
                        const float* steps, Index, double factor, float* y) noexcept {
  using Vector = typename Ops::Vector;
  constexpr Index run = 256;  // stretches between carries
  static_assert(run * 2 * 127 * 32767 <= std::numeric_limits<std::int32_t>::max());
  std::int64_t total[N] = {};
  Vector sum[N];
  const auto carry = [&] {
    CAFEQ_UNROLL
    for (int n = 0; n < N; ++n) {
      total[n] += Ops::sum32(sum[n]);
      sum[n] = Ops::zero();
    }
  };
  CAFEQ_UNROLL
  for (int n = 0; n < N; ++n) sum[n] = Ops::zero();
  for_stretches(reader, stretches, [&](const auto& levels, Index g) __attribute__((always_inline)) {
    constexpr int P = std::decay_t<decltype(levels)>::pairs;
    if (g % run == 0 && g > 0) carry();
    Vector value[P], first[P], second[P];
    CAFEQ_UNROLL
    for (int p = 0; p < P; ++p) value[p] = levels.value(p);
    CAFEQ_UNROLL
    for (int p = 0; p < P; ++p) first[p] = Ops::even8(value[p]);
    CAFEQ_UNROLL
    for (int p = 0; p < P; ++p) second[p] = Ops::odd8(value[p]);
    CAFEQ_UNROLL
    for (int p = 0; p < P; ++p) {
      const std::int16_t* x = data + (g + 2 * p) * stretch;
      CAFEQ_UNROLL
      for (int n = 0; n < N; ++n) {
        sum[n] = Ops::add_products16(sum[n], first[p], Ops::load(x + n * width));
        sum[n] = Ops::add_products16(sum[n], second[p], Ops::load(x + n * width + stretch));
      }
    }
  });
  carry();
  for (int n = 0; n < N; ++n) y[n] = float(double(total[n]) * (factor * double(steps[n])));
}

/// The same for bytes, a step for each block.
template <int N, class Reader, class Ops>
inline void trellis_row(Reader& reader, Index stretches, const std::int8_t* data, Index width,
                        const float* steps, Index blocks, double factor, float* y) noexcept {
  using Vector = typename Ops::Vector;
  typename Ops::Floats total[N];
  CAFEQ_UNROLL
  for (int n = 0; n < N; ++n) total[n] = Ops::zero_floats();
  for_stretches(reader, stretches, [&](const auto& levels, Index g) __attribute__((always_inline)) {
    constexpr int P = std::decay_t<decltype(levels)>::pairs;
    CAFEQ_UNROLL
    for (int n = 0; n < N; ++n) {
      const std::int8_t* x = data + n * width + g * stretch;
      Vector sum = Ops::zero();
      CAFEQ_UNROLL
      for (int p = 0; p < P; ++p)
        sum = Ops::add_products8(sum, levels.magnitude[p],
                                 Ops::sign8(Ops::load(x + 2 * p * stretch), levels.sign[p]));
      total[n] = Ops::add_scaled32(total[n], sum, steps[n * blocks + g / 4]);
    }
  });
  for (int n = 0; n < N; ++n) y[n] = float(factor) * Ops::sum_floats(total[n]);
}

}  // namespace detail

/// Consecutive rows of a chunk times every vector of x: Y(n, i), Y [count, rows]. Row i begins at
/// weight first + i·cols of the chunk, with scales[i]. Row starts must be multiples of what x was
/// laid out for.
template <class T, class Arch, class Ops>
void multiply_trellis_rows(const TrellisDecoder<Arch, Ops>& decoder, const std::uint8_t* chunk,
                           Index first, std::span<const float> scales,
                           const TrellisActivations<T, Arch>& x, View<float> Y) noexcept {
  CAFEQ_ASSERT(Y.rows == x.count() && Y.cols == Index(scales.size()));
  for (Index i = 0; i < Y.cols; ++i) {
    const Index begin = first + i * x.cols(), shift = begin % detail::stretch;
    const Index stretches = ceil_div(shift + x.cols(), detail::stretch);
    const double factor = double(decoder.factor(scales[std::size_t(i)]));
    const auto multiply = [&](auto constant, Index n) {
      constexpr int N = decltype(constant)::value;
      float y[N];
      decoder.read(chunk, begin / detail::stretch, [&](auto reader) {
        detail::trellis_row<N, decltype(reader), Ops>(reader, stretches, x.data(n, shift),
                                                      x.width(), x.steps(n, shift), x.blocks(),
                                                      factor, y);
      });
      for (int k = 0; k < N; ++k) Y(n + k, i) = y[k];
    };
    Index n = 0;
    for (; n + 8 <= x.count(); n += 8) multiply(std::integral_constant<int, 8>{}, n);
    for (; n + 4 <= x.count(); n += 4) multiply(std::integral_constant<int, 4>{}, n);
    for (; n + 2 <= x.count(); n += 2) multiply(std::integral_constant<int, 2>{}, n);
    for (; n < x.count(); ++n) multiply(std::integral_constant<int, 1>{}, n);
  }
}

template <class T, class Arch>
TrellisActivations<T, Arch>::TrellisActivations(View<const float> X, Index starts)
    : count_(X.rows),
      cols_(X.cols),
      starts_(std::gcd(starts > 0 ? starts : X.cols, detail::stretch)) {
  const Index copies = detail::stretch / starts_;
  width_ = ceil_div(cols_ + detail::stretch - starts_, 2 * detail::stretch) * 2 * detail::stretch;
  blocks_ = is_wide ? 1 : ceil_div(width_, block);
  values_.assign(std::size_t(copies * count_ * width_), T(0));
  steps_.resize(std::size_t((is_wide ? 1 : copies) * count_ * blocks_));
  Buffer<float> x(static_cast<std::size_t>(cols_));
  Buffer<std::int32_t> q(x.size());
  const auto copy_of = [&](Index copy, Index n) {
    return values_.data() + (copy * count_ + n) * width_;
  };
  for (Index n = 0; n < count_; ++n) {
    copy(X.row_block(n, 1), View<float>{x.data(), 1, cols_, cols_, 1});
    const std::span<const float> row(x);
    if constexpr (is_wide) {
      steps_[std::size_t(n)] = round(row, q.data());
      for (Index c = 0; c < copies; ++c)
        std::transform(q.begin(), q.end(), copy_of(c, n) + c * starts_,
                       [](std::int32_t v) { return T(v); });
    } else {
      for (Index c = 0; c < copies; ++c)
        for (Index b = 0, j = 0; j < cols_; ++b) {
          const Index shift = c * starts_, end = std::min(cols_, (b + 1) * block - shift);
          steps_[std::size_t((c * count_ + n) * blocks_ + b)] =
              round(row.subspan(std::size_t(j), std::size_t(end - j)), q.data());
          for (Index i = j; i < end; ++i)
            copy_of(c, n)[place(shift + i)] = T(q[std::size_t(i - j)]);
          j = end;
        }
    }
  }
}

template <class T, class Arch>
float TrellisActivations<T, Arch>::round(std::span<const float> x, std::int32_t* q) noexcept {
  using V = Batch<float, Arch>;
  constexpr std::size_t lanes = V::size;
  V most(0.0f), check(0.0f);
  std::size_t j = 0;
  for (; j + lanes <= x.size(); j += lanes) {
    const V v = V::load_unaligned(x.data() + j);
    most = simd::max(most, simd::abs(v));
    check = simd::fma(v, V(0.0f), check);
  }
  float absmax = simd::reduce_max(most), finite = simd::reduce_add(check);
  for (; j < x.size(); ++j) {
    absmax = std::max(absmax, std::abs(x[j]));
    finite = std::fma(x[j], 0.0f, finite);
  }
  if (finite != 0 || absmax < 0x1p-100f) {
    std::fill_n(q, x.size(), 0);
    return finite == 0 ? 0.0f : std::numeric_limits<float>::quiet_NaN();
  }
  const float inverse = float(largest) / absmax;
  for (j = 0; j + lanes <= x.size(); j += lanes)
    simd::nearest_int32(V::load_unaligned(x.data() + j) * V(inverse)).store_unaligned(q + j);
  for (; j < x.size(); ++j) q[j] = std::int32_t(std::nearbyint(x[j] * inverse));
  return absmax / float(largest);
}

}  // namespace cafeq::kernel
