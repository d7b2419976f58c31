// What every linear grid must obey, and the groups that tempt it not to.
#pragma once
#include <cmath>
#include <vector>

#include "cafeq/quant/encoding.hpp"
#include "cafeq/quant/grid.hpp"
#include "support/catch.hpp"
#include "support/random.hpp"

namespace cafeq::test {

template <class Q>
double squared_error(const Q& q, std::span<const float> x, const typename Q::Params& p) {
  double sum = 0;
  for (const float v : x) {
    const double r = double(v) - double(q.decode(q.encode(v, p), p));
    sum += r * r;
  }
  return sum;
}

/// Sums of uniforms: the same bits with every compiler and library.
inline std::vector<float> bell(Index n, std::uint64_t seed, float scale = 1000, float shift = 0) {
  const CounterRng rng(seed);
  std::vector<float> x(static_cast<std::size_t>(n));
  for (Index i = 0; i < n; ++i) {
    double sum = -2;
    for (std::uint64_t k = 0; k < 4; ++k) sum += rng.uniform(4 * std::uint64_t(i) + k);
    x[std::size_t(i)] = std::fma(float(sum), scale, shift);
  }
  return x;
}

inline std::vector<std::vector<float>> awkward_groups() {
  std::vector<std::vector<float>> groups;
  for (const Index n : {1, 2, 7, 16, 17, 33, 64, 129, 5000})
    groups.push_back(bell(n, std::uint64_t(n)));
  groups.push_back(bell(64, 3, 1000, 5000));      // far from zero
  groups.push_back(bell(64, 3, 1, -8000));        // farther than fp16 tells apart
  groups.push_back(bell(64, 3, 0.01f, 8001.9f));  // steps that a float offset swallows
  groups.push_back(bell(64, 4, 1e-3f));
  groups.push_back(bell(64, 5, 1e-38f));
  groups.push_back(bell(64, 5, 1e38f));
  groups.push_back({3.4e38f, -3.4e38f, 0, 1});
  groups.push_back({1e-45f, -1e-45f});
  groups.push_back({0.0f, -0.0f, 0.0f});
  groups.push_back(std::vector<float>(40, 0.25f));
  groups.push_back(std::vector<float>(40, -4097.3f));
  auto outlier = bell(512, 6, 10);
  outlier[100] = 8000;
  groups.push_back(outlier);
  outlier[100] = -8000;
  groups.push_back(outlier);
  return groups;
}

template <class Q>
void check_group(const Q& q, std::span<const float> x) {
  const auto p = q.fit(x);
  REQUIRE(std::isfinite(q.scale(p)));
  REQUIRE(std::isfinite(q.offset(p)));
  const auto same = [&](const typename Q::Params& r) {
    return q.scale(r) == q.scale(p) && q.offset(r) == q.offset(p);
  };
  CHECK(same(q.with_scale(p, q.scale(p), q.offset(p))));
  CHECK(same(q.with_scale(p, std::nanf(""), 0)));
  CHECK(same(q.with_scale(p, INFINITY, 0)));
  bool stable = true, nearest = true, linear = true;
  for (const float v : x) {
    const std::uint8_t code = q.encode(v, p);
    const float value = q.decode(code, p);
    REQUIRE(std::isfinite(value));
    REQUIRE(code < (1 << q.bits));
    stable &= q.encode(value, p) == code;
    linear &= value == float(double(q.scale(p)) * double(q.level(code)) + double(q.offset(p)));
    const double distance = std::abs(double(v) - double(value));
    for (int c = 0; c < (1 << q.bits); ++c) {
      const double other = std::abs(double(v) - double(q.decode(std::uint8_t(c), p)));
      nearest &= !(other < distance - 1e-6 * (std::abs(double(v)) + std::abs(double(q.scale(p)))));
    }
  }
  CHECK(stable);
  CHECK(nearest);
  CHECK(linear);
}

template <LinearGrid Q>
void check_laws(Q q) {
  check(q, 1, 5000);
  for (const ScaleSearch search : {ScaleSearch::minmax, ScaleSearch::absmax, ScaleSearch::mse}) {
    q.search = search;
    for (const auto& x : awkward_groups()) {
      const auto fitted =
          for_tensor(q, View<const float>{x.data(), 1, Index(x.size()), Index(x.size()), 1});
      CAPTURE(int(search), x.size(), x[0]);
      check_group(fitted, x);
    }
    const std::vector<float> zeros(20, 0.0f);
    const auto p = q.fit(zeros);
    for (const float v : zeros) CHECK(q.decode(q.encode(v, p), p) == 0);
    CHECK(std::isfinite(q.scale(q.fit({}))));
  }
  // More search never costs error, at the precision in which parameters are stored.
  for (const auto& x : awkward_groups()) {
    if (std::abs(x[0]) > 1e30f) continue;
    Q best = for_tensor(q, View<const float>{x.data(), 1, Index(x.size()), Index(x.size()), 1});
    Q plain = best;
    best.search = ScaleSearch::mse;
    plain.search = ScaleSearch::minmax;
    CAPTURE(x.size(), x[0]);
    CHECK(squared_error(best, x, best.fit(x)) <=
          squared_error(plain, x, plain.fit(x)) * (1 + 1e-5) + 1e-30);
  }
}

/// errors[g] = Σ (x − x̂)² over group g of a row, by the kernel that the search for scales runs on
/// where the grid has uniform levels.
template <ScalarQuantizer Q>
void row_errors(const Q& q, std::span<const float> x, Index width,
                std::span<const typename Q::Params> params, std::span<double> errors) {
  if constexpr (UniformGrid<Q> && Q::shares_levels) {
    detail::for_each_groups(x, width, [&](std::size_t first, const detail::GroupSpan& groups) {
      const std::size_t count = std::size_t(groups.count());
      const ScaleOffsets at = q.scale_offsets(params.subspan(first, count));
      kernel::group_errors(groups, q.level_set(), at.scale, at.offset,
                           errors.subspan(first, count));
    });
  } else {
    for (std::size_t g = 0; g < params.size(); ++g) {
      const std::size_t begin = g * std::size_t(width);
      errors[g] = squared_error(q, x.subspan(begin, std::min(std::size_t(width), x.size() - begin)),
                                params[g]);
    }
  }
}

template <ScalarQuantizer Q>
double matrix_error(const Q& q, View<const float> X) {
  Encoding<Q> encoding(q, X.rows, X.cols);
  encoding.fit(X);
  encoding.encode(X);
  Matrix<float> decoded(X.rows, X.cols);
  encoding.decode(decoded.view());
  return relative_error(X, View<const float>(decoded.view()));
}

/// The group kernel agrees with encode().
template <class Q>
void check_encode_group(const Q& q) {
  for (const auto& x : awkward_groups()) {
    const auto p = q.fit(x);
    std::vector<std::uint8_t> codes(x.size());
    q.encode_group(x, p, codes);
    bool same = true;
    for (std::size_t i = 0; i < x.size(); ++i) same &= codes[i] == q.encode(x[i], p);
    CHECK(same);
  }
}

}  // namespace cafeq::test
