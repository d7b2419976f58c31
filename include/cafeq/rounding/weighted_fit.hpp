/// Scales for columns that count differently: where an input is a hundred times as loud as others,
/// a group's scale has to suit its weight first.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <span>
#include <vector>

#include "cafeq/core/executor.hpp"
#include "cafeq/linalg/metric.hpp"
#include "cafeq/quant/encoding.hpp"
#include "cafeq/quant/rows.hpp"
#include "cafeq/rounding/normal_equations.hpp"

namespace cafeq::rounding {

namespace detail {

/// The search for the parameters of one group after another that leave least of Σ w (x − x̂)².
template <LinearGrid Q>
class WeightedFit {
 public:
  using Params = typename Q::Params;

  explicit WeightedFit(const Q& q) : q_(q) {
    for (int code = 0; code < 1 << int(q.bits); ++code) {
      const float level = q.level(std::uint8_t(code));
      low_ = std::min(low_, double(level));
      high_ = std::max(high_, double(level));
    }
  }

  /// For a group x, from the parameters that plain error has chosen: those, ranges about the
  /// weighted mean from all of x down to a fraction of it, each improved by least squares.
  Params operator()(std::span<const float> x, std::span<const double> weights,
                    const Params& plain) {
    x_ = x, weights_ = weights;
    codes_.resize(x.size());
    best_ = plain, least_ = std::numeric_limits<double>::max();
    descend(plain);

    const auto ends = std::minmax_element(x.begin(), x.end());
    const double least = double(*ends.first), greatest = double(*ends.second);
    const auto offer = [&](double scale, double offset) {
      descend(q_.with_scale(plain, float(scale), float(offset)));
    };
    const double mean = Q::has_offset ? weighted_mean() : 0;
    for (int k = 0; k < ranges; ++k) {
      const double part = 1 - (1 - narrowest) * k / (ranges - 1);
      if constexpr (Q::has_offset) {
        const double scale = part * (greatest - least) / (high_ - low_);
        offer(scale, mean - part * (mean - least) - scale * low_);
      } else {
        // Either end of the levels may reach either end of the weights.
        const auto reach = [&](double low, double high) {
          return part * std::max(high > 0 ? greatest / high : 0.0, low < 0 ? least / low : 0.0);
        };
        offer(reach(low_, high_), 0);
        if (low_ != -high_) offer(-reach(-high_, -low_), 0);
      }
    }
    return best_;
  }

 private:
  static constexpr int ranges = 14;
  static constexpr double narrowest = 0.35;
  static constexpr int rounds = 3;  // of codes and least squares

  /// Codes and least squares in alternation; whatever is best on the way is kept.
  void descend(Params params) {
    for (int round = 0; round < rounds; ++round) {
      encode_group(q_, x_, params, codes_);
      const NormalEquations sums = row_sums(q_, codes_, x_, 0, Index(x_.size()),
                                            [&](Index j) { return weights_[std::size_t(j)]; });
      const double error = sums.error(double(q_.scale(params)), double(q_.offset(params)));
      if (error < least_) least_ = error, best_ = params;
      else if (round > 0) return;
      params = sums.solve(q_, params);
    }
  }
  double weighted_mean() const {
    double sum = 0, all = 0;
    for (std::size_t j = 0; j < x_.size(); ++j) {
      sum = std::fma(weights_[j], double(x_[j]), sum);
      all += weights_[j];
    }
    return sum / all;
  }

  const Q& q_;
  double low_ = 0, high_ = 0;  // levels
  std::vector<std::uint8_t> codes_;
  std::span<const float> x_;
  std::span<const double> weights_;
  Params best_{};
  double least_ = 0;
};

}  // namespace detail

/// Fits the parameters of an encoding of X [rows, cols] anew, each column weighted by the diagonal
/// of an input-side metric; where that is the identity they stay as plain error has chosen them. In
/// that error none is worse than it was. A scale of the whole tensor stays too.
template <LinearGrid Q>
void fit_weighted(View<const float> X, const Metric& metric, Encoding<Q>& encoding,
                  ExecutorRef executor = {}) {
  if (metric.is_identity() || encoding.grouping().group == per_tensor) return;
  std::vector<double> weights;
  for (const Metric::Block& block : metric.blocks())
    for (Index j = 0; j < block.size; ++j) weights.push_back(block.weight(j));

  const Index width = encoding.grouping().width();
  executor.parallel_for(X.rows, 4, [&](Index begin, Index end, Index) {
    detail::WeightedFit<Q> fit(encoding.quantizer());
    for (Index i = begin; i < end; ++i)
      for (Index j = 0; j < X.cols; j += width) {
        const auto first = std::size_t(j), n = std::size_t(std::min(width, X.cols - j));
        auto& params = encoding.params(i, j);
        params = fit(X.row(i).subspan(first, n), std::span(weights).subspan(first, n), params);
      }
  });
}

}  // namespace cafeq::rounding
