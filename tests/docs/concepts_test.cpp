// The code of docs/reference/concepts.md: the smallest complete model of each concept, used once.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <string_view>
#include <thread>
#include <vector>

#include "cafeq/cafeq.hpp"
#include "cafeq/optimize/learn_transform.hpp"
#include "support/catch.hpp"
#include "support/random.hpp"

// [my_tensor]
/// An engine's own matrix.
struct MyTensor {
  float* data;
  int rows, cols, stride;

  cafeq::View<float> view() const { return {data, rows, cols, stride, 1}; }
};
static_assert(cafeq::MatrixView<MyTensor&>);
// [my_tensor end]

// [ternary]
/// Levels -s, 0, s.
struct Ternary {
  struct Params {
    cafeq::fp16 scale;
  };
  static constexpr int bits = 2;
  cafeq::Index group = cafeq::per_row;

  Params fit(std::span<const float> x) const {
    double sum = 0;
    for (float v : x) sum += std::abs(double(v));
    return {cafeq::fp16(x.empty() ? 0.0f : float(1.5 * sum / double(x.size())))};
  }
  std::uint8_t encode(float x, Params p) const {
    return x > 0.5f * p.scale ? 2 : (x < -0.5f * p.scale ? 0 : 1);
  }
  float decode(std::uint8_t code, Params p) const { return p.scale * float(int(code) - 1); }
};
static_assert(cafeq::ScalarQuantizer<Ternary>);
// [ternary end]

// [linear_ternary]
/// The same as a linear grid: rounders may refit its scale by least squares.
struct LinearTernary : Ternary {
  static constexpr bool has_offset = false;

  float level(std::uint8_t code) const { return float(int(code) - 1); }
  float scale(Params p) const { return p.scale; }
  float offset(Params) const { return 0; }
  Params with_scale(Params p, float scale, float) const {
    return scale >= 0 && scale <= cafeq::fp16_max ? Params{cafeq::fp16(scale)} : p;
  }
};
static_assert(cafeq::LinearGrid<LinearTernary>);
// [linear_ternary end]

// [balanced]
/// -7 … 7 at 4 bits: as many levels below zero as above.
struct BalancedLevels {
  static constexpr std::string_view name = "balanced";
  static constexpr cafeq::UniformLevels<false> of(int bits) {
    const float top = float((1 << (bits - 1)) - 1);
    return {-top, top};
  }
};
template <int Bits = cafeq::runtime_bits>
using Balanced = cafeq::Grid<BalancedLevels, cafeq::Fp16Scale<>, Bits>;

static_assert(cafeq::UniformGrid<Balanced<4>>);  // packed, rounded and multiplied at full speed
// [balanced end]

// [bf16_scale]
/// One bfloat16 a group.
struct Bf16Scale {
  struct Params {
    cafeq::bf16 scale;
  };
  static constexpr bool has_offset = false;
  static constexpr int scale_digits = 8;
  static constexpr std::int64_t bits() { return 16; }

  static float scale(const Params& p) { return p.scale; }
  static float offset(const Params&) { return 0; }
  static Params nearest(const Params& p, float scale, float) {
    return std::isfinite(scale) && scale >= 0 ? Params{cafeq::bf16(scale)} : p;
  }
};
static_assert(cafeq::UniformGrid<cafeq::Grid<BalancedLevels, Bf16Scale, 4>>);
// [bf16_scale end]

/// The levels of Midrise once more.
struct OwnMidriseLevels {
  static constexpr cafeq::UniformLevels<false, true> of(int bits) {
    const float half = float(1 << (bits - 1));
    return {-half, half - 1};
  }
};
template <int Bits = cafeq::runtime_bits>
using OwnMidrise = cafeq::Grid<OwnMidriseLevels, cafeq::Fp16Scale<>, Bits>;

// [reflection]
/// M = I - 2 v vᵀ / |v|². Symmetric and its own inverse, so that op makes no difference.
struct Reflection {
  std::vector<double> v;

  cafeq::Index dim() const { return cafeq::Index(v.size()); }
  template <class E>
  void apply(cafeq::View<E> X, cafeq::Op) const {
    double norm = 0;
    for (double a : v) norm += a * a;
    for (cafeq::Index i = 0; i < X.rows; ++i) {
      double dot = 0;
      for (cafeq::Index j = 0; j < X.cols; ++j) dot += double(X(i, j)) * v[std::size_t(j)];
      for (cafeq::Index j = 0; j < X.cols; ++j)
        X(i, j) = E(double(X(i, j)) - 2 * dot / norm * v[std::size_t(j)]);
    }
  }
  bool is_orthogonal() const { return true; }
  std::int64_t storage_bits() const { return 64 * std::int64_t(v.size()); }
};
static_assert(cafeq::Transform<Reflection>);
// [reflection end]

// [reflection_spec]
/// Becomes the reflection that spreads the strongest column of W over all of them.
struct SpreadStrongestColumn {
  Reflection fit(cafeq::View<const float> W, cafeq::ExecutorRef = {}) const {
    std::vector<double> energy(std::size_t(W.cols));
    for (cafeq::Index i = 0; i < W.rows; ++i)
      for (cafeq::Index j = 0; j < W.cols; ++j)
        energy[std::size_t(j)] += double(W(i, j)) * double(W(i, j));
    const auto strongest = std::max_element(energy.begin(), energy.end()) - energy.begin();
    std::vector<double> v(std::size_t(W.cols),
                          -1 / std::sqrt(double(W.cols)));  // e_strongest - (1, …, 1)/√n
    v[std::size_t(strongest)] += 1;
    return {std::move(v)};
  }
};
static_assert(cafeq::TransformSpec<SpreadStrongestColumn>);
// [reflection_spec end]

// [dithered]
/// Rounds up or down at random; the mean over many seeds is the weight itself. Deterministic for a
/// seed, on any number of threads.
struct Dithered {
  static constexpr bool uses_metric = false;
  std::uint64_t seed = 0;

  template <cafeq::LinearGrid Q>
  void round(cafeq::View<const float> X, const cafeq::Metric&, cafeq::Side,
             cafeq::Encoding<Q>& encoding, cafeq::ExecutorRef executor = {}) const {
    const cafeq::CounterRng rng(seed);
    executor.parallel_for(X.rows, 16, [&](cafeq::Index begin, cafeq::Index end, cafeq::Index) {
      std::vector<float> target(std::size_t(X.cols)), decoded(std::size_t(X.cols));
      for (cafeq::Index i = begin; i < end; ++i) {
        for (cafeq::Index j = 0; j < X.cols; ++j) {
          const double dither = rng.uniform(std::uint64_t(i * X.cols + j)) - 0.5;
          target[std::size_t(j)] = float(std::fma(
              double(encoding.quantizer().scale(encoding.params(i, j))), dither, double(X(i, j))));
        }
        encoding.encode_row(i, 0, target, decoded);
      }
    });
  }
};
static_assert(cafeq::RounderFor<Dithered, cafeq::Symmetric<4>>);
// [dithered end]

// [fourth_power]
/// R² = √S, S = mean_j x_j⁴, from sums of φ(x) = (x/peak)⁴ and slopes (x/peak)³, φ'(x) up to a
/// factor.
struct FourthPower {
  struct Kernel {
    cafeq::kernel::PeakParameters prepare(float peak) const noexcept {
      return {peak > 0 ? 1 / peak : 0, 0};
    }
    template <class V>  // a SIMD batch
    void operator()(V x, V inverse_peak, V, V& value, V& slope) const noexcept {
      const V r = x * inverse_peak;
      slope = r * r * r;
      value = slope * r;
    }
  };

  Kernel kernel() const noexcept { return {}; }
  cafeq::SetRange range(float peak, double sum, cafeq::Index n) const noexcept {
    if (!(sum > 0)) return {sum, 0};
    const double root = std::sqrt(sum / double(n));
    return {double(peak) * double(peak) * root,
            2 * double(peak) / (root * double(n))};  // R², and what makes the slopes ∂R²/∂x
  }
  cafeq::PeakChange change(float from, float to) const noexcept {
    if (from == to) return {};
    const double ratio = double(from) / double(to);
    return {std::pow(ratio, 4), std::pow(ratio, 3)};
  }
};
static_assert(cafeq::RangeSurrogate<FourthPower>);
// [fourth_power end]

// [gradient_descent]
/// Steps that grow after a success and shrink after a failure.
struct GradientDescent {
  cafeq::Index steps = 100;

  cafeq::Minimum minimize(cafeq::ObjectiveRef f, std::vector<double> x0) const {
    const std::size_t n = x0.size();
    std::vector<double> gradient(n), trial(n), trial_gradient(n);
    cafeq::Minimum best;
    best.x = std::move(x0);
    best.value = f(best.x, gradient);
    double rate = 1e-2;
    for (; best.iterations < steps; ++best.iterations) {
      for (std::size_t i = 0; i < n; ++i) trial[i] = best.x[i] - rate * gradient[i];
      const double value = f(trial, trial_gradient);
      if (value < best.value) {  // never where it is NaN or infinite: outside the domain
        best.value = value;
        best.x.swap(trial);
        gradient.swap(trial_gradient);
        rate *= 1.2;
      } else {
        rate *= 0.5;
      }
    }
    best.evaluations = best.iterations + 1;
    return best;
  }
};
static_assert(cafeq::Optimizer<GradientDescent>);
// [gradient_descent end]

// [my_pool]
/// What a host's thread pool has to offer. A real one keeps its threads.
struct MyPool {
  int threads = 2;

  cafeq::Index concurrency() const { return threads; }
  void parallel_for(cafeq::Index n, cafeq::Index grain, cafeq::LoopBody f) const {
    std::atomic<cafeq::Index> next{0};
    const auto work = [&](cafeq::Index worker) {
      for (cafeq::Index begin; (begin = next.fetch_add(grain)) < n;)
        f(begin, std::min(begin + grain, n), worker);
    };
    std::vector<std::thread> helpers;
    for (int worker = 1; worker < threads; ++worker) helpers.emplace_back(work, worker);
    work(0);
    for (auto& helper : helpers) helper.join();
  }
};
static_assert(cafeq::Executor<MyPool>);
// [my_pool end]

// [recipe]
/// MXFP4 after a Hadamard of the same width as its groups.
struct HadamardFp4 {
  auto pipeline(cafeq::Index /*rows*/, cafeq::Index /*cols*/) const {
    return cafeq::Pipeline{cafeq::BlockHadamard{.block = 32}, cafeq::MxFp4{}, cafeq::Nearest{}};
  }
  auto pair(const cafeq::PairShape&) const {
    return cafeq::PairPipeline<cafeq::MxFp4>{.alternations = 4};
  }
};
static_assert(cafeq::Recipe<HadamardFp4> && cafeq::PairRecipe<HadamardFp4>);
// [recipe end]

namespace {

using namespace cafeq;
using detail::learn_transform;
using detail::RangeTerm;

TEST_CASE("docs: a matrix of one's own") {
  auto W = test::gaussian(12, 40, 1);
  MyTensor tensor{W.data(), 12, 32, 40};
  const auto q = quantize(tensor, recipes::rtn<4>{});
  CHECK(q.cols() == 32);
  CHECK(q.error(tensor) < 0.02);
  q.dequantize(tensor);
  CHECK(q.error(tensor) < 1e-12);
}

TEST_CASE("docs: a quantizer and a linear grid of one's own") {
  const auto W = test::gaussian(24, 96, 2);
  const auto plain = Pipeline{Identity{}, Ternary{.group = 32}, Nearest{}}.quantize(W);
  CHECK(plain.error(W) < 0.25);
  CHECK(plain.bits_per_weight() == Approx(2 + 16.0 / 32 + 16.0 / double(W.size())));
  LinearTernary grid;
  grid.group = 32;
  // In the plain metric the sweeps only refit scales and codes.
  const auto refitted = Pipeline{Identity{}, grid, ErrorFeedback{.sweeps = 4}}.quantize(W);
  CHECK(refitted.error(W) < plain.error(W));
}

TEST_CASE("docs: a grid of one's own levels, a scale format of one's own") {
  const auto W = test::heavy_tailed(40, 96, 3, 2);
  const auto codes = [&](const auto& quantizer, const auto& rounder) {
    const auto q = Pipeline{RandomizedHadamard{}, quantizer, rounder}.quantize(W);
    return std::vector<std::uint8_t>(q.codes().packed().bytes().begin(),
                                     q.codes().packed().bytes().end());
  };
  // With the levels of Midrise it has the bytes of Midrise, whoever rounds.
  CHECK(codes(OwnMidrise<3>{.group = 32}, Nearest{}) == codes(Midrise<3>{.group = 32}, Nearest{}));
  CHECK(codes(OwnMidrise<>{.bits = 3}, ErrorFeedback{}) == codes(Midrise<3>{}, ErrorFeedback{}));

  const auto error = [&](const auto& quantizer) {
    return Pipeline{RandomizedHadamard{}, quantizer, ErrorFeedback{}}.quantize(W).error(W);
  };
  const double balanced = error(Balanced<4>{.group = 32});
  CHECK(balanced < 1.3 * error(Symmetric<4>{.group = 32}));
  CHECK(error(Grid<BalancedLevels, Bf16Scale, 4>{.group = 32}) == Approx(balanced).epsilon(0.05));
  CHECK(fault_of(Balanced<>{.bits = 9}, 40, 96));
  // What is wrong comes back from try_ functions, the levels of a table too.
  CHECK_FALSE(try_quantize(W, Pipeline{Identity{}, Balanced<>{.bits = 9}, Nearest{}}));
  CHECK_FALSE(try_quantize(W, Pipeline{Identity{}, Codebook{.levels = {1}}, Nearest{}}));
}

TEST_CASE("docs: a transform of one's own") {
  auto W = test::gaussian(40, 64, 3);
  for (Index i = 0; i < W.rows(); ++i) W(i, 5) *= 30.0f;
  const auto M = fit_transform(SpreadStrongestColumn{}, W.view());
  const auto dense = to_dense<double>(M);
  for (Index i = 0; i < 64; ++i) CHECK(std::abs(dense(5, i)) == Approx(0.125));
  const auto plain = Pipeline{Identity{}, Midrise<4>{}, Nearest{}}.quantize(W);
  const auto spread = Pipeline{SpreadStrongestColumn{}, Midrise<4>{}, Nearest{}}.quantize(W);
  CHECK(spread.error(W) < 0.7 * plain.error(W));
  // It composes like the library's own.
  CHECK(Pipeline{SpreadStrongestColumn{} * BlockHadamard{16}, Midrise<4>{}}.quantize(W).error(W) <
        0.7 * plain.error(W));
}

TEST_CASE("docs: metrics") {
  const Index in = 24;
  const auto X = test::gaussian(100, in, 4);
  std::vector<double> importance(std::size_t(in), 1.0);
  importance[3] = 50;
  const Matrix<double> H = kernel::gram<float>(X.view());
  const auto W = test::gaussian(16, in, 5);
  const Symmetric<3> grid{.group = 8};

  // [metric]
  const cafeq::Metric plain = cafeq::Metric::identity(in);
  const cafeq::Metric weighted =
      cafeq::Metric::diagonal(importance);                // one positive weight an input channel
  const cafeq::Metric hessian = cafeq::Metric::dense(H);  // symmetric positive definite [in, in]
  const auto encoding =
      cafeq::round(cafeq::ErrorFeedback{}, W.view(), grid, hessian, cafeq::Side::input);
  // [metric end]
  CHECK(plain.is_identity());
  CHECK(weighted.blocks()[0].weight(3) == 50);
  const auto nearest = cafeq::round(Nearest{}, W.view(), grid, hessian);
  const auto cost = [&](const auto& e) {
    Matrix<float> decoded(W.rows(), W.cols());
    e.decode(decoded.view());
    double sum = 0;
    for (Index i = 0; i < W.rows(); ++i)
      for (Index a = 0; a < in; ++a)
        for (Index b = 0; b < in; ++b)
          sum += double(W(i, a) - decoded(i, a)) * H(a, b) * double(W(i, b) - decoded(i, b));
    return sum;
  };
  CHECK(cost(encoding) < cost(nearest));
}

TEST_CASE("docs: a rounder of one's own") {
  const auto W = test::gaussian(10, 50, 6);
  Matrix<double> mean(10, 50);
  for (std::uint64_t seed = 0; seed < 200; ++seed) {
    const auto q = Pipeline{Identity{}, Symmetric<4>{.group = 25, .search = ScaleSearch::absmax},
                            Dithered{.seed = seed}}
                       .quantize(W);
    Matrix<float> restored(10, 50);
    q.dequantize(restored);
    for (Index i = 0; i < 500; ++i) mean.data()[i] += double(restored.data()[i]) / 200;
  }
  const auto nearest =
      Pipeline{Identity{}, Symmetric<4>{.group = 25, .search = ScaleSearch::absmax}}.quantize(W);
  CHECK(test::relative_error(View<const float>(W.view()), View<const double>(mean.view())) <
        0.05 * nearest.error(W));
}

TEST_CASE("docs: a surrogate and an optimizer of one's own") {
  const auto W = test::heavy_tailed(30, 37, 7, 2);
  const PNorm same{.p = 4};
  Matrix<float> gradient(30, 37), expected(30, 37);
  CHECK(detail::log_mean_range(FourthPower{}, W, ScaleSets::groups(16), gradient.view()) ==
        Approx(detail::log_mean_range(same, W, ScaleSets::groups(16), expected.view()))
            .epsilon(1e-6));
  CHECK(test::relative_error(View<const float>(expected.view()),
                             View<const float>(gradient.view())) < 1e-8);
  CHECK(detail::log_mean_range(FourthPower{}, W, ScaleSets::columns()) ==
        Approx(detail::log_mean_range(same, W, ScaleSets::columns())).epsilon(1e-6));

  const std::vector<Index> sizes{32, 4, 1};
  std::vector<RangeTerm> terms;
  terms.emplace_back(W);
  const auto learned =
      learn_transform(std::move(terms), detail::hadamard_blocks(sizes, 0), FourthPower{},
                      Parametrization::orthogonal, GradientDescent{});
  CHECK(learned.value < learned.start - 0.02);
}

TEST_CASE("docs: an executor of one's own") {
  const auto W = test::heavy_tailed(200, 96, 8, 3);
  MyPool pool{3};
  const auto here = quantize(W, recipes::fast<3>{});
  const auto there = quantize(W, recipes::fast<3>{}, pool);
  CHECK(std::equal(here.codes().packed().bytes().begin(), here.codes().packed().bytes().end(),
                   there.codes().packed().bytes().begin()));
}

TEST_CASE("docs: a recipe of one's own") {
  const auto W = test::gaussian(64, 128, 9);
  const auto q = quantize(W, HadamardFp4{});
  CHECK(q.error(W) < 0.02);
  CHECK(q.bits_per_weight() == Approx(4 + 8.0 / 32 + 80.0 / double(W.size())));
}

}  // namespace
