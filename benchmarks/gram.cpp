// Gram matrices in fp64 of column blocks of a row-major fp32 matrix, as the polish of a transform
// takes them.
#include "cafeq/kernel/gram.hpp"

#include <Eigen/Core>

#include "support/bench.hpp"
#if CAFEQ_BENCH_HAS_OPENBLAS
#include <cblas.h>
#endif

namespace {

using namespace cafeq;
using EigenMap =
    Eigen::Map<const Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>, 0,
               Eigen::OuterStride<>>;
using EigenMatrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

constexpr Index rows = 1536;
constexpr Index stride = 4096;

void add(Index k) {
  const std::string name = "k " + std::to_string(k);
  const double work = 2.0 * double(rows * k * k);
  bench::add("cross_gram", name, [=](bench::Contest& c) {
    const auto a = bench::weights(rows * stride, 1);
    const auto b = bench::weights(rows * stride, 2);
    const View<const float> A{a.data(), rows, k, stride, 1};
    const View<const float> B{b.data(), rows, k, stride, 1};
    Matrix<double> G(k, k);
    Buffer<double> scratch(std::size_t(kernel::gram_scratch(k)));
    c.ours(bench::Unit::gigaflops, work, [&] {
      std::fill_n(G.data(), G.size(), 0.0);
      kernel::cross_gram_add<float>(A, B, G.view(), scratch);
    });
    c.limit(bench::double_fma_limit());
    EigenMatrix wide_a(rows, k), wide_b(rows, k), result(k, k);
    const EigenMap map_a(A.data, rows, k, Eigen::OuterStride<>(stride)),
        map_b(B.data, rows, k, Eigen::OuterStride<>(stride));
#if CAFEQ_BENCH_HAS_OPENBLAS
    openblas_set_num_threads(1);
    c.peer("OpenBLAS", [&] {
      wide_a = map_a.cast<double>();
      wide_b = map_b.cast<double>();
      cblas_dgemm(CblasRowMajor, CblasTrans, CblasNoTrans, int(k), int(k), int(rows), 1,
                  wide_a.data(), int(k), wide_b.data(), int(k), 0, result.data(), int(k));
    });
#endif
    c.peer("Eigen", [&] {
      wide_a = map_a.cast<double>();
      wide_b = map_b.cast<double>();
      result.noalias() = wide_a.transpose() * wide_b;
    });
    c.run();
  });
  // Counted as if the whole matrix were computed: a triangle is enough, so the rate may pass the
  // limit.
  bench::add("gram", name, [=](bench::Contest& c) {
    const auto a = bench::weights(rows * stride, 1);
    const View<const float> A{a.data(), rows, k, stride, 1};
    Matrix<double> G(k, k);
    Buffer<double> scratch(std::size_t(kernel::gram_scratch(k)));
    c.ours(bench::Unit::gigaflops, work, [&] {
      std::fill_n(G.data(), G.size(), 0.0);
      kernel::gram_add<float>(A, G.view(), scratch);
    });
    c.limit(bench::double_fma_limit());
    EigenMatrix wide(rows, k), result(k, k);
    const EigenMap map(A.data, rows, k, Eigen::OuterStride<>(stride));
#if CAFEQ_BENCH_HAS_OPENBLAS
    openblas_set_num_threads(1);
    c.peer("OpenBLAS", [&] {
      wide = map.cast<double>();
      cblas_dsyrk(CblasRowMajor, CblasUpper, CblasTrans, int(k), int(rows), 1, wide.data(), int(k),
                  0, result.data(), int(k));
    });
#endif
    c.peer("Eigen", [&] {
      wide = map.cast<double>();
      result.setZero();
      result.selfadjointView<Eigen::Upper>().rankUpdate(wide.transpose());
    });
    c.run();
  });
  // What a layer reads, summed in fp32; counted as if the whole matrix were computed too.
  bench::add("gram_floats", name, [=](bench::Contest& c) {
    const auto a = bench::weights(rows * stride, 1);
    const View<const float> A{a.data(), rows, k, stride, 1};
    Matrix<double> G(k, k);
    c.ours(bench::Unit::gigaflops, work, [&] {
      std::fill_n(G.data(), G.size(), 0.0);
      kernel::gram_add_floats<>(A, G.view());
    });
    c.limit(bench::fma_limit());
    Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor> result(k, k);
    const EigenMap map(A.data, rows, k, Eigen::OuterStride<>(stride));
#if CAFEQ_BENCH_HAS_OPENBLAS
    openblas_set_num_threads(1);
    c.peer("OpenBLAS", [&] {
      cblas_ssyrk(CblasRowMajor, CblasUpper, CblasTrans, int(k), int(rows), 1, A.data, int(stride),
                  0, result.data(), int(k));
    });
#endif
    c.peer("Eigen", [&] {
      result.setZero();
      result.selfadjointView<Eigen::Upper>().rankUpdate(map.transpose());
    });
    c.run();
  });
}

}  // namespace

void register_benchmarks() {
  for (const Index k : {64, 128, 512}) add(k);
}
