/// Activations laid out for products with packed codes, once for all the matrices that read them:
/// field by field of a block of words, lane by lane.
///
/// As fp32, what meets field k of a word was divided by 2^(bits·k), which is what the field is
/// worth in its place. As int8, x ≈ step_h · q with q in −127 … 127 and one step for every h
/// consecutive entries, in the order in which ByteKernel unpacks codes to bytes.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <type_traits>

#include "cafeq/core/matrix.hpp"
#include "cafeq/kernel/byte_words.hpp"
#include "cafeq/kernel/float_words.hpp"

namespace cafeq::kernel {

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
  template <int Bits>
  void lay_out_floats();
  template <int Bits>
  void lay_out_bytes();
  /// Vector n as codes and one step a group; exact_ becomes what they stand for.
  void round(Index n, std::int8_t* codes, float* steps);

  Index count_ = 0, cols_ = 0, group_ = 0, width_ = 0, words_ = 0;
  int bits_ = 8;
  Buffer<float> exact_;  // rows of width_, zero past cols_
  Buffer<T> values_;
  Buffer<float> steps_;  // of each word
};

template <class T, class Arch>
PackedActivations<T, Arch>::PackedActivations(View<const float> X, int bits, Index group)
    : count_(X.rows),
      cols_(X.cols),
      group_(std::is_same_v<T, float> || group >= X.cols ? 0 : group),
      bits_(detail::kernel_bits(bits)) {
  CAFEQ_ASSERT(group >= 1);
  detail::with_kernel_bits(bits, [&](auto constant) {
    using K = Kernel<decltype(constant)::value>;
    const Index blocks = ceil_div(cols_, K::block);
    width_ = blocks * K::block;
    words_ = blocks * K::lanes;
    exact_.resize(std::size_t(count_ * width_));
    values_.resize(exact_.size());
    copy(X, View<float>{exact_.data(), count_, cols_, width_, 1});

    if constexpr (std::is_same_v<T, float>) lay_out_floats<decltype(constant)::value>();
    else lay_out_bytes<decltype(constant)::value>();
  });
}

template <class T, class Arch>
template <int Bits>
void PackedActivations<T, Arch>::lay_out_floats() {
  using K = Kernel<Bits>;
  for (Index at = 0; at < count_ * width_; at += K::block) {
    const float* from = exact_.data() + at;
    float* to = values_.data() + at;
    for (Index k = 0; k < K::fields; ++k) {
      const float unit = 1.0f / float(1 << (Bits * (k % K::half)));
      for (Index l = 0; l < K::lanes; ++l) to[k * K::lanes + l] = unit * from[l * K::fields + k];
    }
  }
}

template <class T, class Arch>
template <int Bits>
void PackedActivations<T, Arch>::lay_out_bytes() {
  using K = Kernel<Bits>;
  Buffer<std::int8_t> codes(static_cast<std::size_t>(width_));
  Buffer<float> steps(
      static_cast<std::size_t>(ceil_div(cols_, std::max<Index>(1, group_ == 0 ? cols_ : group_))));
  steps_.resize(std::size_t(count_ * words_));
  for (Index n = 0; n < count_; ++n) {
    round(n, codes.data(), steps.data());

    // A word past the end has the last step, which meets zeros only.
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

    // The largest magnitude, and a sum of zeros that is not zero where an entry is not finite.
    V most(0.0f), check(0.0f);
    Index j = begin;
    for (; j + w <= end; j += w) {
      const V v = V::load_unaligned(x + j);
      most = simd::max(most, simd::abs(v));
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

}  // namespace cafeq::kernel
