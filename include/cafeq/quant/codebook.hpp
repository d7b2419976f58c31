/// Codebook: x̂ = s · level, for any table of levels; NF4, NF3 and the Lloyd–Max tables of a
/// Gaussian. One positive fp16 scale a group.
#pragma once

#include <array>
#include <initializer_list>

#include "cafeq/quant/grid.hpp"
#include "cafeq/quant/scale_search.hpp"

namespace cafeq {

/// 2 to 256 finite levels in ascending order, kept in place: copies never allocate. Raises where a
/// table is none.
class LevelTable {
 public:
  static constexpr Index max_size = 256;

  LevelTable() : LevelTable({-1.0f, 1.0f}) {}
  LevelTable(std::initializer_list<float> levels)
      : LevelTable(std::span<const float>(levels.begin(), levels.size())) {}
  explicit LevelTable(std::span<const float> levels);

  Index size() const noexcept { return size_; }
  /// ⌈log2 size⌉.
  int bits() const noexcept { return bits_; }
  /// The largest magnitude among the levels.
  float reach() const noexcept { return std::max(-levels_[0], levels_[std::size_t(size_ - 1)]); }
  /// The level of a code; codes past the end, which the bits allow but encode never gives, have the
  /// last.
  float level(std::uint8_t code) const noexcept {
    return levels_[std::size_t(std::min<Index>(code, size_ - 1))];
  }
  float root_mean_square() const noexcept { return root_mean_square_; }

  /// The code of the level nearest to u, the lower one of equals.
  std::uint8_t code(float u) const noexcept {
    const auto end = thresholds_.begin() + (size_ - 1);
    return std::uint8_t(std::lower_bound(thresholds_.begin(), end, u) - thresholds_.begin());
  }
  /// The level nearest to u.
  float nearest(float u) const noexcept { return levels_[code(u)]; }
  template <class A>
  Batch<float, A> nearest(const Batch<float, A>& u) const noexcept;

 private:
  std::array<float, max_size> levels_{};
  std::array<float, max_size>
      thresholds_{};  // thresholds_[k] is the middle between levels k and k + 1
  Index size_ = 0;
  int bits_ = 0;
  float root_mean_square_ = 0;
};

/// Use a table of your own, `Codebook{.levels = {-1, -0.3f, 0.3f, 1}}`, or one of the factories
/// below.
struct Codebook {
  struct Params {
    fp16 scale;
  };
  /// The table as kernels take it.
  struct Levels {
    static constexpr bool has_offset = false;
    const LevelTable& table;
    template <class V>
    V operator()(const V& u) const noexcept {
      return table.nearest(u);
    }
  };
  static constexpr bool has_offset = false;

  LevelTable levels;
  int bits = levels.bits();
  Index group = per_row;
  ScaleSearch search =
      ScaleSearch::mse;  ///< minmax and absmax: the level of largest magnitude is absmax

  Params fit(std::span<const float> x) const noexcept {
    Params p{};
    fit_row(x, std::max<Index>(1, Index(x.size())), {&p, 1});
    return p;
  }
  void fit_row(std::span<const float> x, Index width, std::span<Params> params) const noexcept {
    detail::fit_scales(x, width, Levels{levels}, search, levels.reach(),
                       1.0f / levels.root_mean_square(), bits, params);
  }
  std::uint8_t encode(float x, const Params& p) const noexcept {
    return levels.code(x * kernel::inverse_scale(p.scale));
  }
  /// Rounded from the exact product, which no contraction can reach.
  float decode(std::uint8_t code, const Params& p) const noexcept {
    return float(double(scale(p)) * double(level(code)));
  }

  float level(std::uint8_t code) const noexcept { return levels.level(code); }
  float scale(const Params& p) const noexcept { return p.scale; }
  float offset(const Params&) const noexcept { return 0; }
  Params with_scale(const Params& p, float scale, float) const noexcept {
    return std::isfinite(scale) && scale >= 0 ? Params{detail::finite_fp16(scale)} : p;
  }
  void check() const {
    if (bits != levels.bits())
      raise(ErrorCode::invalid_argument, message("codebook: bits is ", bits, ", a table of ",
                                                 levels.size(), " levels has ", levels.bits()));
  }
};

/// 4-bit NormalFloat (Dettmers et al., "QLoRA", 2023), scaled by absmax as there.
inline Codebook nf4(Index group = 64, ScaleSearch search = ScaleSearch::absmax) {
  return {.levels = {-1.0f, -0.6961928009986877f, -0.5250730514526367f, -0.39491748809814453f,
                     -0.28444138169288635f, -0.18477343022823334f, -0.09105003625154495f, 0.0f,
                     0.07958029955625534f, 0.16093020141124725f, 0.24611230194568634f,
                     0.33791524171829224f, 0.44070982933044434f, 0.5626170039176941f,
                     0.7229568362236023f, 1.0f},
          .group = group,
          .search = search};
}

/// The same construction with 8 levels.
inline Codebook nf3(Index group = 64, ScaleSearch search = ScaleSearch::absmax) {
  return {.levels = {-1.0f, -0.5350227085f, -0.2469314318f, 0.0f, 0.1833374803f, 0.3819939543f,
                     0.6229857417f, 1.0f},
          .group = group,
          .search = search};
}

/// The best 2^Bits levels for a unit Gaussian (Lloyd, Max): errors .117482, .034548, .009501 at 2,
/// 3 and 4 bits.
template <int Bits>
Codebook lloyd_max_gaussian(Index group = per_row, ScaleSearch search = ScaleSearch::mse) {
  static_assert(Bits >= 2 && Bits <= 4, "cafeq: lloyd_max_gaussian has tables for 2 to 4 bits");
  if constexpr (Bits == 2) {
    return {.levels = {-1.5104176085f, -0.4527800346f, 0.4527800346f, 1.5104176085f},
            .group = group,
            .search = search};
  } else if constexpr (Bits == 3) {
    return {.levels = {-2.1519457045f, -1.3439092785f, -0.7560052812f, -0.2450941789f,
                       0.2450941789f, 0.7560052812f, 1.3439092785f, 2.1519457045f},
            .group = group,
            .search = search};
  } else {
    return {.levels = {-2.732589571f, -2.0690172265f, -1.618046386f, -1.2562311973f, -0.9423404565f,
                       -0.6567591185f, -0.3880482995f, -0.1283950299f, 0.1283950299f, 0.3880482995f,
                       0.6567591185f, 0.9423404565f, 1.2562311973f, 1.618046386f, 2.0690172265f,
                       2.732589571f},
            .group = group,
            .search = search};
  }
}

inline LevelTable::LevelTable(std::span<const float> levels) : size_(Index(levels.size())) {
  if (size_ < 2 || size_ > max_size)
    raise(ErrorCode::invalid_argument,
          message("levels: ", size_, " of them, must be 2 to ", max_size));
  double squares = 0;
  for (std::size_t k = 0; k < levels.size(); ++k) {
    if (!std::isfinite(levels[k]))
      raise(ErrorCode::non_finite, message("levels: number ", k, " is ", double(levels[k])));
    if (k > 0 && !(levels[k - 1] < levels[k]))
      raise(ErrorCode::invalid_argument,
            message("levels: must ascend, but number ", k, " is ", double(levels[k]), " after ",
                    double(levels[k - 1])));
    levels_[k] = levels[k];
    if (k > 0) thresholds_[k - 1] = float(0.5 * (double(levels[k - 1]) + double(levels[k])));
    squares += double(levels[k]) * double(levels[k]);
  }
  bits_ = int(std::bit_width(std::size_t(size_ - 1)));
  root_mean_square_ = float(std::sqrt(squares / double(size_)));
}

template <class A>
Batch<float, A> LevelTable::nearest(const Batch<float, A>& u) const noexcept {
  using V = Batch<float, A>;
  if (size_ <= 16) {
    V level(levels_[0]);
    for (std::size_t k = 1; k < std::size_t(size_); ++k)
      level = xsimd::select(u > V(thresholds_[k - 1]), V(levels_[k]), level);
    return level;
  }
  alignas(64) float lane[V::size];
  u.store_aligned(lane);
  for (float& value : lane) value = nearest(value);
  return V::load_aligned(lane);
}

}  // namespace cafeq
