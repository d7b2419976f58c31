#include "cafeq/rounding/refit.hpp"

#include <cmath>

#include "cafeq/kernel/gram.hpp"
#include "cafeq/linalg/dense.hpp"
#include "cafeq/quant/affine.hpp"
#include "cafeq/quant/midrise.hpp"
#include "rounding/refit_lines.hpp"
#include "support/catch.hpp"
#include "support/random.hpp"
#include "support/toy_quantizer.hpp"

using namespace cafeq;
using test::ToyMidrise;

namespace {

/// The affine sister of ToyMidrise: nothing is rounded, and no sign is refused.
struct ToyAffine {
  struct Params {
    float scale = 0;
    float offset = 0;
  };
  static constexpr bool has_offset = true;
  int bits = 3;
  Index group = per_row;

  Params fit(std::span<const float> x) const {
    const auto [low, high] = std::minmax_element(x.begin(), x.end());
    return {(*high - *low) / float((1 << bits) - 1), *low};
  }
  std::uint8_t encode(float x, Params p) const {
    return p.scale == 0 ? std::uint8_t(0)
                        : std::uint8_t(std::clamp(std::nearbyint((x - p.offset) / p.scale), 0.0f,
                                                  float((1 << bits) - 1)));
  }
  float level(std::uint8_t code) const { return float(code); }
  float decode(std::uint8_t code, Params p) const { return p.scale * float(code) + p.offset; }
  float scale(Params p) const { return p.scale; }
  float offset(Params p) const { return p.offset; }
  Params with_scale(Params p, float scale, float offset) const {
    return std::isfinite(scale) && std::isfinite(offset) ? Params{scale, offset} : p;
  }
};
static_assert(LinearGrid<ToyAffine>);

Matrix<double> refit_metric(Index n, std::uint64_t seed) {
  const auto A = test::gaussian<float>(n + 8, n, seed);
  return kernel::gram<float>(A.view());
}

Matrix<double> dense_of(const Metric& metric) {
  Matrix<double> H(metric.dim(), metric.dim());
  for (const auto& block : metric.blocks())
    for (Index i = 0; i < block.size; ++i) {
      if (block.is_dense())
        for (Index j = 0; j < block.size; ++j)
          H(block.offset + i, block.offset + j) = block.dense(i, j);
      else H(block.offset + i, block.offset + i) = block.weight(i);
    }
  return H;
}

struct Solution {
  double scale, offset;
};

/// The s and z of one group that minimise eᵀHe, e = x − s c − z, by the normal equations written
/// out; `e` holds the errors of the other groups.
Solution least_squares(const Matrix<double>& H, std::vector<double> e, const std::vector<double>& x,
                       const std::vector<double>& c, Index begin, Index end, bool has_offset) {
  for (Index j = begin; j < end; ++j) e[std::size_t(j)] = x[std::size_t(j)];
  double cc = 0, c1 = 0, n1 = 0, cx = 0, x1 = 0;
  for (Index a = begin; a < end; ++a) {
    for (Index b = begin; b < end; ++b) {
      cc += c[std::size_t(a)] * H(a, b) * c[std::size_t(b)];
      c1 += c[std::size_t(a)] * H(a, b);
      n1 += H(a, b);
    }
    for (Index b = 0; b < H.cols(); ++b) {
      cx += c[std::size_t(a)] * H(a, b) * e[std::size_t(b)];
      x1 += H(a, b) * e[std::size_t(b)];
    }
  }
  if (!has_offset) return {cx / cc, 0};
  const double determinant = cc * n1 - c1 * c1;
  return {(cx * n1 - c1 * x1) / determinant, (cc * x1 - c1 * cx) / determinant};
}

double loss(const Matrix<double>& H, const std::vector<double>& e) {
  double sum = 0;
  for (Index a = 0; a < H.rows(); ++a)
    for (Index b = 0; b < H.cols(); ++b) sum += e[std::size_t(a)] * H(a, b) * e[std::size_t(b)];
  return sum;
}

/// What refit_lines starts from: fitted and encoded, errors taken.
template <class Q>
struct Problem {
  Matrix<float> X;  // [rows, n]
  Encoding<Q> encoding;
  Matrix<float> lines;  // [n, rows]
  Matrix<float> E;      // [n, rows]

  Problem(const Q& quantizer, Index rows, Index n, std::uint64_t seed, double scale = 1.0)
      : X(test::heavy_tailed(rows, n, seed, 0, scale)),
        encoding(quantizer, rows, n),
        lines(to_matrix<float>(X.view().transposed())),
        E(n, rows) {
    encoding.fit(X.view());
    encoding.encode(X.view());
    for (Index i = 0; i < rows; ++i)
      for (Index j = 0; j < n; ++j) E(j, i) = X(i, j) - encoding.value(i, j);
  }
  void refit(const Metric& metric) {
    Workspace workspace;
    test::refit_lines(lines.view(), E.view(), rounding::MetricFloats(metric), encoding, 0,
                      workspace);
  }
  std::vector<double> errors(Index i) const {
    std::vector<double> e;
    for (Index j = 0; j < X.cols(); ++j)
      e.push_back(double(X(i, j)) - double(encoding.value(i, j)));
    return e;
  }
};

std::vector<Matrix<double>> two_blocks() {
  std::vector<Matrix<double>> blocks;
  blocks.push_back(refit_metric(10, 1));
  blocks.push_back(refit_metric(14, 2));
  return blocks;
}

std::vector<double> weights(Index n) {
  std::vector<double> result;
  for (Index i = 0; i < n; ++i) result.push_back(std::pow(3.0, double(i % 5) - 2));
  return result;
}

/// Every kind of metric of dimension 24.
std::vector<Metric> metrics() {
  return {Metric::dense(refit_metric(24, 3)), Metric::block_diagonal(two_blocks()),
          Metric::diagonal(weights(24)), Metric::identity(24)};
}

/// Group after group, as refit_slab promises, but by dense algebra in fp64. tolerance: of a
/// parameter, relative to scale and offset together; where both are rounded only the loss counts.
template <class Q>
void check_closed_form(const Q& quantizer, const Metric& metric, double tolerance,
                       double magnitude = 1.0) {
  Problem<Q> problem(quantizer, 5, metric.dim(), 4, magnitude);
  const Encoding<Q> before = problem.encoding;
  const Matrix<double> H = dense_of(metric);
  std::vector<double> losses;
  for (Index i = 0; i < 5; ++i) losses.push_back(loss(H, problem.errors(i)));
  problem.refit(metric);
  const Q& q = problem.encoding.quantizer();
  const Index width = problem.encoding.grouping().width();
  for (Index i = 0; i < 5; ++i) {
    std::vector<double> x, c, e;
    for (Index j = 0; j < metric.dim(); ++j) {
      x.push_back(double(problem.X(i, j)));
      c.push_back(double(q.level(before.code(i, j))));
      e.push_back(double(problem.X(i, j)) - double(before.value(i, j)));
    }
    for (Index begin = 0; begin < metric.dim(); begin += width) {
      const Index end = std::min(begin + width, metric.dim());
      const Solution expected = least_squares(H, e, x, c, begin, end, Q::has_offset);
      const auto& params = problem.encoding.params(i, begin);
      const double unit = std::abs(expected.scale) + std::abs(expected.offset);
      INFO("row " << i << ", group at " << begin << " of width " << width);
      if (!std::is_same_v<Q, Affine<3>>) {
        CHECK(std::abs(double(q.scale(params)) - expected.scale) <=
              tolerance * std::abs(expected.scale));
        CHECK(std::abs(double(q.offset(params)) - expected.offset) <= tolerance * unit);
      }
      const auto loss_of = [&](const typename Q::Params& p) {
        for (Index j = begin; j < end; ++j)
          e[std::size_t(j)] = x[std::size_t(j)] - double(q.decode(before.code(i, j), p));
        return loss(H, e);
      };
      const double noise = 1e-9 * loss(H, x);
      const double rounded = loss_of(
          q.with_scale(before.params(i, begin), float(expected.scale), float(expected.offset)));
      const double unchanged = loss_of(before.params(i, begin));
      CHECK(loss_of(params) <=
            std::min(rounded, unchanged) * (1 + 1e-4) + noise);  // and e is as stored
    }
    for (Index j = 0; j < metric.dim(); ++j) {
      CHECK(problem.encoding.code(i, j) == before.code(i, j));
      CHECK(problem.E(j, i) == problem.X(i, j) - problem.encoding.value(i, j));
    }
    CHECK(loss(H, problem.errors(i)) <= losses[std::size_t(i)] * (1 + 1e-5) + 1e-9 * loss(H, x));
  }
}

}  // namespace

TEST_CASE(
    "The closed form is the least-squares solution: one group or several, inside the metric's "
    "blocks or across them") {
  for (const Metric& metric : metrics())
    for (const Index group :
         {per_row, Index(24), Index(12), Index(8), Index(7), Index(1)}) {  // the blocks meet at 10
      check_closed_form(ToyMidrise{.bits = 3, .group = group}, metric, 2e-5);
      if (group != 1) check_closed_form(ToyAffine{.bits = 3, .group = group}, metric, 5e-4);
    }
}

TEST_CASE("Stored parameters are the solution to the rounding of a half") {
  for (const Metric& metric : metrics())
    for (const Index group : {per_row, Index(12), Index(7)}) {
      check_closed_form(Midrise<3>{.group = group}, metric, 0x1p-11 + 2e-5, 1000);
      check_closed_form(Affine<3>{.group = group}, metric, 0x1p-11 + 5e-4, 1000);
    }
}

TEST_CASE("No other half would be a better scale") {
  const auto metric = Metric::block_diagonal(two_blocks());
  const Matrix<double> H = dense_of(metric);
  Problem<Midrise<2>> problem({}, 4, 24, 9, 1000);
  problem.refit(metric);
  for (Index i = 0; i < 4; ++i) {
    auto& params = problem.encoding.params(i, 0);
    const auto best = params;
    const double least = loss(H, problem.errors(i));
    for (const int step : {-1, 1}) {
      params.scale = fp16::from_bits(std::uint16_t(best.scale.bits + step));
      CHECK(loss(H, problem.errors(i)) >= least * (1 - 1e-6));
    }
    params = best;
  }
}

TEST_CASE("A scale of the whole tensor is left alone") {
  Problem<ToyMidrise> problem({.bits = 2, .group = per_tensor}, 5, 24, 5);
  const float scale = problem.encoding.params(0, 0).scale;
  const Matrix<float> E = problem.E;
  problem.refit(Metric::dense(refit_metric(24, 3)));
  CHECK(problem.encoding.params(0, 0).scale == scale);
  CHECK(std::equal(E.data(), E.data() + E.size(), problem.E.data()));
}

TEST_CASE("Rows in the middle are refitted as all rows at once are") {
  const auto metric = Metric::block_diagonal(two_blocks());
  Problem<ToyAffine> whole({.bits = 3, .group = 8}, 9, 24, 6);
  auto part = whole;
  whole.refit(metric);
  Workspace workspace;
  const rounding::MetricFloats floats(metric);
  const Matrix<float> lines = to_matrix<float>(part.lines.view().col_block(4, 3));
  auto E = to_matrix<float>(part.E.view().col_block(4, 3));
  const auto untouched = part.encoding;
  test::refit_lines(lines.view(), E.view(), floats, part.encoding, 4, workspace);
  for (Index i = 0; i < 9; ++i)
    for (Index j = 0; j < 24; j += 8) {
      const auto& expected = i >= 4 && i < 7 ? whole.encoding : untouched;
      CHECK(part.encoding.params(i, j).scale == expected.params(i, j).scale);
      CHECK(part.encoding.params(i, j).offset == expected.params(i, j).offset);
    }
}

TEST_CASE(
    "Codes of one level cannot tell slope from offset: both keep their ratio, and no noise "
    "decides") {
  const auto check = [](auto quantizer, double tolerance) {
    using Q = decltype(quantizer);
    for (const Metric& metric : metrics()) {
      Problem<Q> problem(quantizer, 2, 24, 7, 1000);
      const Matrix<double> H = dense_of(metric);
      for (Index i = 0; i < 2; ++i)
        for (auto& c : problem.encoding.codes(i)) c = 5;
      const auto before = problem.encoding;
      problem.refit(metric);
      for (Index i = 0; i < 2; ++i) {
        double one = 0, x = 0;  // 1ᵀH1 and 1ᵀHx
        for (Index a = 0; a < 24; ++a)
          for (Index b = 0; b < 24; ++b) {
            one += H(a, b);
            x += H(a, b) * double(problem.X(i, b));
          }
        const Q& q = problem.encoding.quantizer();
        const double ratio =
            double(q.offset(before.params(i, 0))) / double(q.scale(before.params(i, 0)));
        const auto& p = problem.encoding.params(i, 0);
        const double best = x / one;
        // Where the sign allows it, the value is the mean in the metric.
        if (best / (5 + ratio) > 0) {
          CHECK(double(q.decode(5, p)) ==
                Approx(best).margin(tolerance * (std::abs(double(q.offset(p))) + std::abs(best))));
          CHECK(double(q.offset(p)) == Approx(ratio * double(q.scale(p))).epsilon(tolerance));
        }
      }
    }
  };
  check(ToyAffine{}, 1e-4);
  check(Affine<3>{}, 2e-3);
}

TEST_CASE("Codes of nothing but zero leave the scale: any would do") {
  Problem<Symmetric<3>> problem({}, 2, 24, 7, 1000);
  for (Index i = 0; i < 2; ++i)
    for (auto& c : problem.encoding.codes(i)) c = 4;
  const auto before = problem.encoding;
  for (const Metric& metric : metrics()) problem.refit(metric);
  rounding::refit_row(problem.encoding, 0, std::as_const(problem.X).row(0));
  for (Index i = 0; i < 2; ++i)
    CHECK(float(problem.encoding.params(i, 0).scale) == float(before.params(i, 0).scale));
}

TEST_CASE("A scale that the format cannot hold is not taken") {
  Problem<ToyMidrise> problem({.bits = 3}, 2, 24, 8);
  for (Index i = 0; i < 2; ++i)
    for (auto& c : problem.encoding.codes(i))
      c = std::uint8_t(7 - c);  // all signs wrong: the best scale is negative
  const float scale = problem.encoding.params(1, 0).scale;
  problem.refit(Metric::identity(24));
  CHECK(problem.encoding.params(1, 0).scale == scale);
  for (Index j = 0; j < 24; ++j)
    CHECK(problem.E(j, 1) == problem.X(1, j) - problem.encoding.value(1, j));
}

TEST_CASE("A row is refitted in plain squared error, group by group") {
  const auto check = [](auto quantizer, double tolerance) {
    for (const Index n : {1, 7, 17, 33, 129}) {
      quantizer.group = n > 8 ? 8 : per_row;
      using Q = decltype(quantizer);
      if (Q::has_offset && n == 1) continue;
      Problem<Q> problem(quantizer, 3, n, std::uint64_t(n) + 40);
      const auto before = problem.encoding;
      const auto H = identity_matrix<double>(n);
      rounding::refit_row(problem.encoding, 1, std::as_const(problem.X).row(1));
      std::vector<double> x, c;
      for (Index j = 0; j < n; ++j) {
        x.push_back(double(problem.X(1, j)));
        c.push_back(double(quantizer.level(before.code(1, j))));
      }
      const Index width = problem.encoding.grouping().width();
      for (Index begin = 0; begin < n; begin += width) {
        const Index end = std::min(begin + width, n);
        if (Q::has_offset && end - begin == 1) continue;
        const auto expected = least_squares(H, x, x, c, begin, end, Q::has_offset);
        CHECK(double(quantizer.scale(problem.encoding.params(1, begin))) ==
              Approx(expected.scale).epsilon(tolerance));
        CHECK(double(quantizer.offset(problem.encoding.params(1, begin))) ==
              Approx(expected.offset).margin(tolerance * std::abs(expected.scale)));
        for (const Index other : {0, 2})
          CHECK(problem.encoding.params(other, begin).scale == before.params(other, begin).scale);
      }
    }
  };
  check(ToyMidrise{.bits = 3}, 1e-6);
  check(ToyAffine{.bits = 3}, 1e-6);
}
