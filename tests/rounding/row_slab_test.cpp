#include "cafeq/rounding/row_slab.hpp"

#include "cafeq/core/thread_pool.hpp"
#include "cafeq/kernel/gram.hpp"
#include "cafeq/quant/affine.hpp"
#include "cafeq/quant/codebook.hpp"
#include "cafeq/quant/midrise.hpp"
#include "cafeq/rounding/error_feedback.hpp"
#include "support/allocations.hpp"
#include "support/build.hpp"
#include "support/catch.hpp"
#include "support/random.hpp"
#include "support/toy_quantizer.hpp"

using namespace cafeq;

namespace {

/// The same grid, but weight by weight.
template <class Q>
struct OneByOne : Q {
  using Levels = void;
};

static_assert(UniformGrid<Midrise<3>> && UniformGrid<Symmetric<4>> && UniformGrid<Affine<2>> &&
              UniformGrid<AffineIntegerZero<4>>);
static_assert(!UniformGrid<OneByOne<Midrise<3>>> && !UniformGrid<Codebook> &&
              !UniformGrid<test::ToyMidrise>);
static_assert(LinearGrid<OneByOne<Midrise<3>>> && LinearGrid<OneByOne<AffineIntegerZero<4>>>);

Matrix<double> random_metric(Index n, std::uint64_t seed) {
  const auto A = test::gaussian<float>(n + 8, n, seed);
  return kernel::gram<float>(A.view());
}

Metric in_blocks(std::initializer_list<Index> sizes) {
  std::vector<Matrix<double>> blocks;
  for (const Index n : sizes) blocks.push_back(random_metric(n, std::uint64_t(n)));
  return Metric::block_diagonal(std::move(blocks));
}

Matrix<float> weights(Index rows, Index cols) {
  auto X = test::heavy_tailed(rows, cols, std::uint64_t(rows + cols), 0, 1000);
  for (Index j = 0; j < std::min<Index>(cols, 9); ++j) X(0, j) = 0;
  return X;
}

template <class Q>
bool same_params(const Q& q, const typename Q::Params& a, const typename Q::Params& b) {
  return q.scale(a) == q.scale(b) && q.offset(a) == q.offset(b);
}

/// A weight of one encoding and of another; what passes is not counted, which takes longer.
template <class Q, class A, class B>
void check_same_at(const Q& quantizer, const A& a, Index i, Index j, const B& b, Index k, Index l) {
  if (int(a.code(i, j)) != int(b.code(k, l))) REQUIRE(int(a.code(i, j)) == int(b.code(k, l)));
  if (!same_params(quantizer, a.params(i, j), b.params(k, l)))
    FAIL("other parameters at " << i << ", " << j);
}

template <class R, class Q>
void check_same(const R& rounder, const Q& quantizer, const Matrix<float>& X,
                const Metric& metric) {
  const OneByOne<Q> slow{quantizer};
  const auto a = round(rounder, X.view(), quantizer, metric);
  const auto b = round(rounder, X.view(), slow, metric);
  INFO(X.rows() << " rows of " << X.cols() << ", group " << quantizer.group << ", bits "
                << detail::fixed_bits<Q>());
  for (Index i = 0; i < X.rows(); ++i)
    for (Index j = 0; j < X.cols(); ++j) check_same_at(quantizer, a, i, j, b, i, j);
}

}  // namespace

#if defined(__FMA__) || defined(__ARM_FEATURE_FMA)
TEST_CASE("Lines through vectors get the codes and parameters of weight by weight") {
  const auto check = [](const Matrix<float>& X, const Metric& metric, Index group) {
    check_same(ErrorFeedback{.sweeps = 2}, Midrise<3>{.group = group}, X, metric);
    check_same(ErrorFeedback{.sweeps = 1}, Midrise<2>{.group = group}, X, metric);
    check_same(ErrorFeedback{.sweeps = 1}, Symmetric<4>{.group = group}, X, metric);
    check_same(ErrorFeedback{.sweeps = 2}, Affine<3>{.group = group}, X, metric);
    check_same(ErrorFeedback{.sweeps = 1}, AffineIntegerZero<8>{.group = group}, X, metric);
    check_same(ErrorFeedback{.sweeps = 2, .feedback = false}, AffineIntegerZero<3>{.group = group},
               X, metric);
  };
  for (const Index rows : test::sweep<Index>({1, 7, 17, 65}, {1, 17}))
    check(weights(rows, 48), in_blocks({16, 25, 7}), 16);
  for (const Index group :
       test::sweep<Index>({per_row, per_tensor, 1, 7, 32}, {per_row, per_tensor, 7}))
    check(weights(19, 48), in_blocks({16, 25, 7}), group);
  check(weights(9, 40), Metric::identity(40), 16);
  check(weights(9, 40), Metric::diagonal(std::vector<double>(40, 2.5)), 7);
  check(weights(9, 150), in_blocks({150}), per_row);  // more than one panel
  check(weights(9, 150), in_blocks({150}), 64);
}
#endif

TEST_CASE("Some of the rows are rounded as all of them are, on any number of threads") {
  const auto check = [](const auto& quantizer, const Metric& metric, const Matrix<float>& X) {
    using Q = std::remove_cvref_t<decltype(quantizer)>;
    const ErrorFeedback rounder{.sweeps = 2};
    const auto whole = round(rounder, X.view(), quantizer, metric);
    ThreadPool pool(2);
    for (const Index step : test::sweep<Index>({1, 37, 64, 100}, {37, 100})) {
      if (step == 1 && X.cols() > 100) continue;
      for (Index begin = 0; begin < X.rows(); begin += step) {
        const Index n = std::min(step, X.rows() - begin);
        Encoding<Q> part(quantizer, n, X.cols());
        part.fit(X.view().row_block(begin, n));
        if (step == 37)
          rounder.round(X.view().row_block(begin, n), metric, Side::input, part, pool);
        else rounder.round(X.view().row_block(begin, n), metric, Side::input, part);
        for (Index i = 0; i < n; ++i)
          for (Index j = 0; j < X.cols(); ++j)
            check_same_at(quantizer, part, i, j, whole, begin + i, j);
      }
    }
  };
  check(Midrise<3>{}, in_blocks({16, 25}), weights(150, 41));
  check(Affine<4>{.group = 16}, in_blocks({16, 25}), weights(150, 41));
  check(nf4(32), in_blocks({16, 25}), weights(70, 41));
  check(Midrise<3>{}, in_blocks({260}), weights(140, 260));  // chunks of 128 rows
}

TEST_CASE("A warm workspace is all the memory that loops over lines need") {
  const auto X = weights(24, 150);
  const Metric metric = in_blocks({150});
  const rounding::MetricFloats floats(metric);
  Encoding<Midrise<3>> encoding({}, 24, 150);
  encoding.fit(X.view());
  Workspace workspace;
  const auto run = [&] {
    const Workspace::Frame frame(workspace);
    rounding::RowSlab<Midrise<3>> slab(encoding, 0, 24, workspace);
    const auto lines = workspace.take<float>(150, slab.lanes());
    const auto E = workspace.take<float>(150, slab.lanes());
    for (Index i = 0; i < lines.size(); ++i) lines.data[i] = 0;
    kernel::rows_to_lines(X.view(), lines.col_block(0, 24));
    rounding::feed_back(lines, floats.blocks[0].L, E, workspace, slab);
    rounding::refit_slab(lines, E, floats, slab, workspace);
    rounding::descend(lines, floats.blocks[0].H.view(), E, workspace, slab);
    slab.store();
  };
  run();
  CHECK(test::allocations_of(run) == 0);
}

TEST_CASE("A quantizer of three bits of every kind keeps its codes within them") {
  const auto check = [](const auto& quantizer) {
    auto X = weights(33, 48);
    for (float& x : X.row(3)) x *= 1e4f;
    const auto encoding = round(ErrorFeedback{}, X.view(), quantizer, in_blocks({48}));
    for (Index i = 0; i < X.rows(); ++i)
      for (Index j = 0; j < X.cols(); ++j) REQUIRE(int(encoding.code(i, j)) < 8);
  };
  check(Midrise<3>{});
  check(Symmetric<3>{.group = 16});
  check(Affine<3>{.group = 7});
  check(AffineIntegerZero<3>{});
}
