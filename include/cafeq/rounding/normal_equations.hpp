/// The scale and the offset that fit codes best: the normal equations of a group, for one row or
/// for many rows at once.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <span>

#include "cafeq/core/workspace.hpp"
#include "cafeq/quant/quantizer.hpp"

namespace cafeq::rounding::detail {

/// The normal equations of x ≈ s·c + z for the levels c of a group: c·c, c·1, 1·1, c·x and 1·x,
/// inner products in a metric.
struct NormalEquations {
  double cc = 0, c1 = 0, n1 = 0, cx = 0, x1 = 0;

  /// s²·cc + 2 s z·c1 + z²·1 − 2 s·cx − 2 z·x1: the squared error but for a constant.
  double error(double s, double z) const noexcept {
    // By explicit fma, as all that follows: the same bits whether or not the compiler contracts.
    return std::fma(s, std::fma(s, cc, 2 * std::fma(z, c1, -cx)), z * std::fma(z, n1, -2 * x1));
  }

  /// The best parameters that can be stored: the least-squares solution, for affine grids also the
  /// one that keeps offset/scale (a format may round its offset), or `params` where neither is
  /// better.
  template <LinearGrid Q>
  typename Q::Params solve(const Q& q, const typename Q::Params& params) const {
    typename Q::Params best = params;
    double least = error(double(q.scale(params)), double(q.offset(params)));
    const auto offer = [&](double s, double z) {
      if (!std::isfinite(s) || !std::isfinite(z)) return;
      const auto candidate = q.with_scale(params, float(s), float(z));
      const double now = error(double(q.scale(candidate)), double(q.offset(candidate)));
      if (now < least) {
        least = now;
        best = candidate;
      }
    };

    if constexpr (Q::has_offset) {
      // The sums carry the rounding of float products: a determinant below that is noise.
      const double determinant = std::fma(cc, n1, -(c1 * c1));
      if (determinant > 1e-6 * cc * n1)
        offer(std::fma(cx, n1, -(c1 * x1)) / determinant,
              std::fma(cc, x1, -(c1 * cx)) / determinant);

      // x ≈ s·(c + r), r = offset/scale as it is.
      if (q.scale(params) != 0) {
        const double r = double(q.offset(params)) / double(q.scale(params));
        const double square = std::fma(r, std::fma(r, n1, 2 * c1), cc);
        if (square > 0) offer(std::fma(r, x1, cx) / square, r * std::fma(r, x1, cx) / square);
      }
    } else if (cc > 0) {
      offer(cx / cc, 0.0);
    }
    return best;
  }
};

/// The sums of columns [begin, end), in eight lanes of doubles, column j in lane (j − begin) mod 8,
/// then lane after lane: a fixed order that hides the latency of additions. `weigh(j)` is what a
/// column counts for.
template <LinearGrid Q, class Weigh>
NormalEquations row_sums(const Q& q, std::span<const std::uint8_t> codes, std::span<const float> t,
                         Index begin, Index end, Weigh&& weigh) noexcept {
  constexpr Index lanes = 8;
  double cc[lanes] = {}, c1[lanes] = {}, n1[lanes] = {}, cx[lanes] = {}, x1[lanes] = {};
  const auto add = [&](Index j, Index l) {
    const double c = double(q.level(codes[std::size_t(j)]));
    const double x = double(t[std::size_t(j)]);
    const double w = weigh(j), wc = w * c;
    cc[l] = std::fma(wc, c, cc[l]);
    cx[l] = std::fma(wc, x, cx[l]);
    if constexpr (Q::has_offset) {
      c1[l] += wc;
      x1[l] = std::fma(w, x, x1[l]);
      n1[l] += w;
    }
  };

  Index j = begin;
  for (; j + lanes <= end; j += lanes)
    for (Index l = 0; l < lanes; ++l) add(j + l, l);
  for (Index l = 0; j < end; ++j, ++l) add(j, l);

  NormalEquations sums;
  for (Index l = 0; l < lanes; ++l) {
    sums.cc += cc[l];
    sums.c1 += c1[l];
    sums.n1 += n1[l];
    sums.cx += cx[l];
    sums.x1 += x1[l];
  }
  return sums;
}
/// Of plain squared error.
template <LinearGrid Q>
NormalEquations row_sums(const Q& q, std::span<const std::uint8_t> codes, std::span<const float> t,
                         Index begin, Index end) noexcept {
  return row_sums(q, codes, t, begin, end, [](Index) { return 1.0; });
}

/// NormalEquations of many rows at once, one a lane. Blocks of a metric have scales of their own,
/// so what one of them adds is a part by itself until it is scaled.
class LaneSums {
 public:
  LaneSums(Index lanes, bool has_offset, Workspace& workspace)
      : lanes_(lanes),
        kinds_(has_offset ? 4 : 2),
        sums_(workspace.take<double>(2 * kinds_ * lanes)) {}

  void clear() noexcept {
    std::fill(sums_.begin(), sums_.end(), 0.0);
    n1_ = 0;
  }
  std::span<double> part_cc() noexcept { return part(0); }
  std::span<double> part_cx() noexcept { return part(1); }
  /// Empty without an offset, as the next one.
  std::span<double> part_c1() noexcept { return part(2); }
  std::span<double> part_x1() noexcept { return part(3); }
  /// Ends a part: adds scale times it, and scale · n1.
  void add_part(double scale, double n1) noexcept {
    double* total = sums_.data();
    double* now = total + kinds_ * lanes_;
    for (Index i = 0; i < kinds_ * lanes_; ++i) {
      total[i] += scale * now[i];  // a power of two: exact
      now[i] = 0;
    }
    n1_ += scale * n1;
  }
  NormalEquations lane(Index l) const noexcept {
    const double* sum = sums_.data() + l;
    NormalEquations equations;
    equations.cc = sum[0];
    equations.cx = sum[lanes_];
    if (kinds_ == 4) {
      equations.c1 = sum[2 * lanes_];
      equations.x1 = sum[3 * lanes_];
    }
    equations.n1 = n1_;
    return equations;
  }

 private:
  std::span<double> part(Index kind) noexcept {
    if (kind >= kinds_) return {};
    return sums_.subspan(std::size_t((kinds_ + kind) * lanes_), std::size_t(lanes_));
  }

  Index lanes_;
  Index kinds_;
  double n1_ = 0;
  std::span<double> sums_;  // of what is scaled, then of the part: each kind a row of lanes
};

}  // namespace cafeq::rounding::detail
