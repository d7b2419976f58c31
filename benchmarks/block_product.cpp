// Products by the blocks of a block-diagonal matrix, in place from either side and out of place,
// and the products that its objective consists of.
#include "cafeq/kernel/block_product.hpp"

#include <Eigen/Core>
#include <Eigen/LU>

#include "cafeq/linalg/dense.hpp"
#include "cafeq/optimize/parametrization.hpp"
#include "support/bench.hpp"
#if CAFEQ_BENCH_HAS_OPENBLAS
#include <cblas.h>
#endif

namespace {

using namespace cafeq;
using EigenMap = Eigen::Map<Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>,
                            0, Eigen::OuterStride<>>;

// What is multiplied: a matrix in DRAM, or what a streaming job has in L2 at a time.
struct Shape {
  const char* where;
  Index rows;
  Index cols;
};
constexpr Shape dram{"DRAM", 2048, 4096};
constexpr Shape l2{"L2", 128, 1024};

// Rotations, so that a matrix keeps its size however often it is multiplied.
std::vector<Matrix<float>> rotations(Index k, Index count) {
  const auto M = linalg::random_orthogonal(k, CounterRng(1));
  return std::vector<Matrix<float>>(std::size_t(count), to_matrix<float>(M.view()));
}

EigenMap eigen(View<float> X) {
  return {X.data, X.rows, X.cols, Eigen::OuterStride<>(X.row_stride)};
}

#if CAFEQ_BENCH_HAS_OPENBLAS
void sgemm(View<const float> A, View<const float> B, View<float> C) {
  cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, int(A.rows), int(B.cols), int(A.cols), 1,
              A.data, int(A.row_stride), B.data, int(B.row_stride), 0, C.data, int(C.row_stride));
}
#endif

// W ← W·blockdiag(M)
void add_right(Index k, const Shape& shape) {
  bench::add("block product right", "k " + std::to_string(k) + ", " + shape.where,
             [k, shape](bench::Contest& c) {
               const Index rows = shape.rows;
               const Index cols = shape.cols;
               auto w = bench::weights(rows * cols);
               const View<float> W{w.data(), rows, cols, cols, 1};
               const auto M = rotations(k, cols / k);
               std::vector<kernel::PackedMatrix<float>> packed;
               for (const auto& m : M) packed.emplace_back(m.view());
               Buffer<float> scratch(std::size_t(kernel::packed_in_place_scratch<float>(k)));
               const auto block = [&](Index b) { return packed[std::size_t(b)].panels(); };
               c.ours(bench::Unit::gigaflops, 2.0 * double(rows * cols * k), [&] {
                 kernel::multiply_blocks_in_place<float>(W, cols / k, block, scratch);
               });
               c.limit(bench::fma_limit());
               // The peers have no product in place: a strip of rows goes to a buffer and back.
               constexpr Index strip = 192;
               Matrix<float> buffer(strip, k);
               const auto for_each_block = [&](auto&& f) {
                 for (Index i = 0; i < rows; i += strip)
                   for (Index b = 0; b < cols / k; ++b)
                     f(W.block(i, b * k, std::min(strip, rows - i), k), M[std::size_t(b)]);
               };
#if CAFEQ_BENCH_HAS_OPENBLAS
               openblas_set_num_threads(1);
               c.peer("OpenBLAS", [&] {
                 for_each_block([&](View<float> X, const Matrix<float>& m) {
                   const auto result = buffer.view().row_block(0, X.rows);
                   sgemm(X, m.view(), result);
                   copy(result, X);
                 });
               });
#endif
               Matrix<float> m = M[0];
               c.peer("Eigen", [&] {
                 for_each_block([&](View<float> X, const Matrix<float>&) {
                   eigen(X) = (eigen(X) * eigen(m.view())).eval();
                 });
               });
               c.run();
             });
}

// W ← blockdiag(M)·W
void add_left(Index k, const Shape& shape) {
  bench::add("block product left", "k " + std::to_string(k) + ", " + shape.where,
             [k, shape](bench::Contest& c) {
               const Index rows = shape.rows;
               const Index cols = shape.cols;
               auto w = bench::weights(rows * cols);
               const View<float> W{w.data(), rows, cols, cols, 1};
               auto m = rotations(k, 1)[0];
               const kernel::PackedMatrix<float> packed(View<const float>(m.view()).transposed());
               Buffer<float> scratch(std::size_t(kernel::packed_in_place_scratch<float>(k)));
               const auto block = [&](Index) { return packed.panels(); };
               c.ours(bench::Unit::gigaflops, 2.0 * double(rows * cols * k), [&] {
                 kernel::multiply_blocks_in_place<float>(W.transposed(), rows / k, block, scratch);
               });
               c.limit(bench::fma_limit());
               Matrix<float> buffer(k, cols);
#if CAFEQ_BENCH_HAS_OPENBLAS
               openblas_set_num_threads(1);
               c.peer("OpenBLAS", [&] {
                 for (Index i = 0; i < rows; i += k) {
                   sgemm(m.view(), W.row_block(i, k), buffer.view());
                   copy(buffer.view(), W.row_block(i, k));
                 }
               });
#endif
               c.peer("Eigen", [&] {
                 for (Index i = 0; i < rows; i += k)
                   eigen(W.row_block(i, k)) = (eigen(m.view()) * eigen(W.row_block(i, k))).eval();
               });
               c.run();
             });
}

// The two products of the objective of learned transforms: X = W M and Z += Wᵀ G, on a chunk of
// rows that lies in cache.
void add_objective(Index k) {
  constexpr Index n = 96;
  const std::string name = "k " + std::to_string(k);
  bench::add("product X = W M", name, [k](bench::Contest& c) {
    auto w = bench::weights(n * k);
    const View<float> W{w.data(), n, k, k, 1};
    auto m = rotations(k, 1)[0];
    const kernel::PackedMatrix<float> packed(m.view());
    Matrix<float> X(n, k);
    c.ours(bench::Unit::gigaflops, 2.0 * double(n * k * k),
           [&] { kernel::multiply<float>(W, packed.panels(), X.view()); });
    c.limit(bench::fma_limit());
#if CAFEQ_BENCH_HAS_OPENBLAS
    openblas_set_num_threads(1);
    c.peer("OpenBLAS", [&] { sgemm(W, m.view(), X.view()); });
#endif
    c.peer("Eigen", [&] { eigen(X.view()).noalias() = eigen(W) * eigen(m.view()); });
    c.run();
  });
  bench::add("product Z += Wt G", name, [k](bench::Contest& c) {
    auto w = bench::weights(n * k, 1);
    auto g = bench::weights(n * k, 2);
    const View<float> W{w.data(), n, k, k, 1};
    const View<float> G{g.data(), n, k, k, 1};
    Matrix<float> Z(k, k);
    c.ours(bench::Unit::gigaflops, 2.0 * double(n * k * k),
           [&] { kernel::multiply<float>(W.transposed(), G, Z.view(), kernel::Store::add); });
    c.limit(bench::fma_limit());
#if CAFEQ_BENCH_HAS_OPENBLAS
    openblas_set_num_threads(1);
    c.peer("OpenBLAS", [&] {
      cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, int(k), int(k), int(n), 1, W.data,
                  int(k), G.data, int(k), 1, Z.data(), int(k));
    });
#endif
    c.peer("Eigen", [&] { eigen(Z.view()).noalias() += eigen(W).transpose() * eigen(G); });
    c.run();
  });
}

// What a rotation costs beside that: its inverse, and all of Cayley's transform with its gradient
// (an inverse and three products).
void add_rotation(Index k) {
  using EigenMatrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  const std::string name = "k " + std::to_string(k);
  bench::add("inverse", name, [k](bench::Contest& c) {
    const auto A = linalg::random_orthogonal(k, CounterRng(1));
    Matrix<double> X(k, k);
    linalg::Inverter inverter;
    c.ours(bench::Unit::gigaflops, 2.0 * double(k * k * k),
           [&] { bench::keep(inverter.invert(A.view(), X.view())); });
    c.limit(bench::double_fma_limit());
    const EigenMatrix a = Eigen::Map<const EigenMatrix>(A.data(), k, k);
    EigenMatrix x(k, k);
    c.peer("Eigen", [&] {
      x = a.partialPivLu().inverse();
      bench::keep(x.data());
    });
    c.run();
  });
  bench::add("Cayley with gradient", name, [k](bench::Contest& c) {
    std::vector<Matrix<double>> M{linalg::random_orthogonal(k, CounterRng(1))};
    const auto by_M = M;
    detail::CayleyParametrization cayley(M);
    const std::vector<double> unknowns(std::size_t(cayley.size()), 0.01);
    std::vector<double> gradient(unknowns.size());
    c.ours(bench::Unit::gigaflops, 8.0 * double(k * k * k), [&] {
      cayley.matrices(unknowns, M);
      cayley.gradient(by_M, gradient);
    });
    c.limit(bench::double_fma_limit());
    c.run();
  });
}

}  // namespace

void register_benchmarks() {
  for (const Index k : {16, 64, 128}) {
    for (const Shape& shape : {l2, dram}) {
      add_right(k, shape);
      add_left(k, shape);
    }
  }
  for (const Index k : {16, 64, 128}) add_objective(k);
  for (const Index k : {64, 128}) add_rotation(k);
}
