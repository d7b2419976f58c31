// Adaptive rounding: LDLQ in a dense and in a block-diagonal metric, with its factorization, and
// coordinate descent with refitted scales.
#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "cafeq/kernel/gram.hpp"
#include "cafeq/quant/affine.hpp"
#include "cafeq/quant/midrise.hpp"
#include "cafeq/rounding/error_feedback.hpp"
#include "support/bench.hpp"

#if CAFEQ_BENCH_HAS_OPENBLAS
#include <cblas.h>
#endif

namespace {

using namespace cafeq;
using Midrise3 = Midrise<3>;

/// AᵀA/rows and a ridge, A heavy-tailed.
Matrix<double> hessian(Index n) {
  const auto A = bench::weights(n * n / 2);
  auto H = kernel::gram<float>(View<const float>{A.data(), n / 2, n, n, 1});
  for (Index i = 0; i < n; ++i) H(i, i) += 0.1 * H(i, i);
  return H;
}

Metric blocks_of(Index n, Index k) {
  std::vector<Matrix<double>> blocks;
  for (Index b = 0; b < n / k; ++b) {
    const auto A = bench::weights(2 * k * k, std::uint64_t(b) + 1);
    blocks.push_back(kernel::gram<float>(View<const float>{A.data(), 2 * k, k, k, 1}));
  }
  return Metric::block_diagonal(std::move(blocks));
}

/// Row by row, as LDLQ is written down: each error is added to the targets before it.
void plain(View<const float> X, View<const float> L, Encoding<Midrise3>& encoding,
           Buffer<float>& target) {
  for (Index i = 0; i < X.rows; ++i) {
    const Midrise3::Params params = encoding.params(i, 0);
    std::copy_n(X.row(i).data(), X.cols, target.data());
    for (Index j = X.cols - 1; j >= 0; --j) {
      const std::uint8_t code = encoding.quantizer().encode(target[std::size_t(j)], params);
      encoding.code(i, j) = code;
      const float e = X(i, j) - encoding.quantizer().decode(code, params);
      const float* l = L.row(j).data();
      float* t = target.data();
      for (Index p = 0; p < j; ++p) t[p] += l[p] * e;
    }
  }
}

#if CAFEQ_BENCH_HAS_OPENBLAS
/// Panels of 128 columns, each row of a panel by itself, then sgemm for the columns before it: how
/// GPTQ implementations go about it.
void with_sgemm(View<const float> X, View<const float> L, Encoding<Midrise3>& encoding,
                Buffer<float>& targets) {
  constexpr Index width = 128;
  const Index m = X.rows, n = X.cols;
  Buffer<float> errors(std::size_t(m * width));
  std::copy_n(X.data, m * n, targets.data());
  for (Index end = n; end > 0; end -= std::min(width, end)) {
    const Index begin = std::max<Index>(0, end - width), w = end - begin;
    for (Index i = 0; i < m; ++i) {
      const Midrise3::Params params = encoding.params(i, 0);
      float* t = targets.data() + i * n + begin;
      float* e = errors.data() + i * width;
      for (Index j = w - 1; j >= 0; --j) {
        const std::uint8_t code = encoding.quantizer().encode(t[j], params);
        encoding.code(i, begin + j) = code;
        e[j] = X(i, begin + j) - encoding.quantizer().decode(code, params);
        const float* l = &L(begin + j, begin);
        for (Index p = 0; p < j; ++p) t[p] += l[p] * e[j];
      }
    }
    if (begin > 0)
      cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, int(m), int(begin), int(w), 1,
                  errors.data(), int(width), &L(begin, 0), int(L.row_stride), 1, targets.data(),
                  int(n));
  }
}
#endif

struct Problem {
  Index rows, cols;
  bench::Floats weights;
  Encoding<Midrise3> encoding;

  Problem(Index m, Index n) : rows(m), cols(n), weights(bench::weights(m * n)), encoding({}, m, n) {
    for (float& w : weights) w *= 65536;
    encoding.fit(X());
  }
  View<const float> X() const { return {weights.data(), rows, cols, cols, 1}; }
};

void dense(Index n) {
  const std::string size = std::to_string(n);
  const double cube = double(n) * double(n) * double(n);
  bench::add("LDLQ", size, [n, cube](bench::Contest& c) {
    Problem problem(n, n);
    const Metric metric = Metric::dense(hessian(n));
    c.ours(bench::Unit::gigaflops, cube, [&] {
      ErrorFeedback{.sweeps = 0}.round(problem.X(), metric, Side::input, problem.encoding);
    });
    c.limit(bench::fma_limit());
    Buffer<float> targets(std::size_t(n * n));
    const Matrix<float> L_copy = to_matrix<float>(metric.blocks()[0].factor.view().transposed());
    const View<const float> L = L_copy.view();
    if (n <= 1024) c.peer("plain loops", [&] { plain(problem.X(), L, problem.encoding, targets); });
#if CAFEQ_BENCH_HAS_OPENBLAS
    openblas_set_num_threads(1);
    c.peer("panels and OpenBLAS", [&] { with_sgemm(problem.X(), L, problem.encoding, targets); });
#endif
    c.run();
  });
  bench::add("LDLQ with factorization", size, [n, cube](bench::Contest& c) {
    Problem problem(n, n);
    const Matrix<double> H = hessian(n);
    c.ours(bench::Unit::gigaflops, cube, [&] {
      ErrorFeedback{.sweeps = 0}.round(problem.X(), Metric::dense(H), Side::input,
                                       problem.encoding);
    });
    c.limit(bench::fma_limit());
    c.run();
  });
  bench::add("factorization in double", size, [n, cube](bench::Contest& c) {
    const Matrix<double> H = hessian(n);
    c.ours(bench::Unit::gigaflops, cube / 3,
           [&] { bench::keep(linalg::factor_ldl_transposed(H.view())); });
    c.limit(bench::double_fma_limit());
    c.run();
  });
}

/// Rows of a matrix as wide as a transformer's in a metric of k × k blocks: what the learned recipe
/// does a dozen times.
template <class Q>
void blocks(const std::string& name, Index k, int sweeps, Side side = Side::input) {
  bench::add(name, "k = " + std::to_string(k), [=](bench::Contest& c) {
    const Index m = side == Side::input ? 256 : 2048, n = side == Side::input ? 2048 : 256;
    Problem problem(m, n);
    Encoding<Q> encoding({}, m, n);
    encoding.fit(problem.X());
    const Metric metric = blocks_of(2048, k);
    c.ours(bench::Unit::megaweights, double(m * n),
           [&] { ErrorFeedback{.sweeps = sweeps}.round(problem.X(), metric, side, encoding); });
    c.run();
  });
}

}  // namespace

void register_benchmarks() {
  dense(1024);
  if (!bench::quick()) dense(4096);
  for (const Index k : {64, 128}) {
    blocks<Midrise3>("LDLQ in blocks", k, 0);
    blocks<Midrise3>("LDLQ, refit and descent in blocks", k, 1);
    blocks<Affine<4>>("the same, affine", k, 1);
    blocks<Midrise3>("LDLQ, refit and 3 sweeps in blocks", k, 3);
    blocks<Midrise3>("LDLQ and descent in blocks, output side", k, 1, Side::output);
  }
}
