#include "cafeq/transform/transform.hpp"

#include "laws.hpp"

using namespace cafeq;
using namespace cafeq::test;

namespace {

// M = [[1, 2], [0, 1]] by hand: the smallest transform that is neither symmetric nor orthogonal.
struct Shear {
  Index dim() const { return 2; }
  template <class E>
  void apply(View<E> X, Op op) const {
    if (X.cols != 2)
      raise(ErrorCode::invalid_shape, message("Shear: ", X.cols, " columns, not its dimension 2"));
    const E s = op == Op::forward || op == Op::transpose ? E(2) : E(-2);
    const bool transposed = op == Op::transpose || op == Op::inverse_transpose;
    for (Index i = 0; i < X.rows; ++i)
      if (transposed) X(i, 0) += s * X(i, 1);
      else X(i, 1) += s * X(i, 0);
  }
  bool is_orthogonal() const { return false; }
  std::int64_t storage_bits() const { return 32; }
};

struct ShearSpec {
  Shear fit(View<const float>, ExecutorRef) const { return {}; }
};
struct NeverFits : ShearSpec {
  std::optional<Error> fault(Index rows, Index cols) const {
    return Error(ErrorCode::unsupported, message("not for ", rows, " x ", cols));
  }
};
struct NotATransform {
  Index dim() const { return 2; }
};

static_assert(Transform<Shear> && TransformSpec<Shear> && TransformSpec<ShearSpec> &&
              !Transform<ShearSpec>);
static_assert(!TransformSpec<NotATransform> && !TransformSpec<int> &&
              !TransformSpec<Matrix<float>>);
static_assert(TransformSpec<Identity> && Transform<Identity::Fitted>);
static_assert(std::is_same_v<FittedTransform<ShearSpec>, Shear> &&
              std::is_same_v<FittedTransform<Shear>, Shear>);
static_assert(transposed(Op::forward) == Op::transpose &&
              transposed(Op::inverse) == Op::inverse_transpose);
static_assert(transposed(transposed(Op::forward)) == Op::forward &&
              transposed(transposed(Op::inverse)) == Op::inverse);

}  // namespace

TEST_CASE("a transform written by hand obeys the laws") { check_laws(Shear{}); }

TEST_CASE("to_dense is the matrix of the operation") {
  const auto M = to_dense<double>(Shear{});
  CHECK(M(0, 0) == 1);
  CHECK(M(0, 1) == 2);
  CHECK(M(1, 0) == 0);
  CHECK(M(1, 1) == 1);
  CHECK(to_dense<double>(Shear{}, Op::inverse)(0, 1) == -2);
  CHECK(to_dense<double>(Shear{}, Op::transpose)(1, 0) == 2);
  CHECK(to_dense<double>(Shear{}, Op::inverse_transpose)(1, 0) == -2);
}

TEST_CASE("fit_transform fits specs and checks the dimension of transforms") {
  const auto W = gaussian<float>(3, 2, 1);
  CHECK(fit_transform(ShearSpec{}, W.view()).dim() == 2);
  CHECK(fit_transform(Shear{}, W.view()).dim() == 2);
  const auto wide = gaussian<float>(3, 5, 1);
  check_error([&] { (void)fit_transform(Shear{}, wide.view()); }, ErrorCode::invalid_shape,
              "5 columns");
  check_error([&] { (void)detail::fit_to_weights(Shear{}, wide.view()); }, ErrorCode::invalid_shape,
              "5 columns");
}

TEST_CASE("a transform of known dimension has a fault where it does not fit") {
  CHECK_FALSE(fault_of(Shear{}, 3, 2));
  CHECK(fault_of(Shear{}, 2, 3)->code() == ErrorCode::invalid_shape);
  CHECK(fault_of(Shear{}, 2, 3)->message() == "transform: dimension 2 does not fit 3 columns");
  CHECK_FALSE(fault_of(ShearSpec{}, 3, 7));
  CHECK_FALSE(fault_of(Identity{}, 3, 7));
}

TEST_CASE("a spec with a fault is not fitted") {
  const auto W = gaussian<float>(3, 2, 1);
  check_error([&] { (void)fit_transform(NeverFits{}, W.view()); }, ErrorCode::unsupported,
              "not for 3 x 2");
  check_error([&] { (void)detail::fit_to_weights(NeverFits{}, W.view()); }, ErrorCode::unsupported,
              "not for 3 x 2");
}

TEST_CASE("the identity changes nothing and takes no room") {
  for (const Index n : {0, 1, 7, 64}) {
    const auto W = gaussian<float>(5, n, 2);
    const auto t = fit_transform(Identity{}, W.view());
    auto X = W;
    for (const Op op : all_ops) apply_right(t, X.view(), op);
    CHECK(same_bits(X.view(), W));
    CHECK(t.dim() == n);
    CHECK(t.is_orthogonal());
    CHECK(t.storage_bits() == 0);
  }
}

TEST_CASE("on_row_panels visits every row once, in place or through copies") {
  Matrix<float> X(37, 5);
  Index visited = 0;
  const auto add_one = [&](View<float> rows) {
    REQUIRE(rows.rows_contiguous());
    visited += rows.rows;
    for (Index i = 0; i < rows.rows; ++i)
      for (float& x : rows.row(i)) x += 1;
  };
  cafeq::detail::on_row_panels(X.view(), add_one);
  CHECK(visited == 37);
  cafeq::detail::on_row_panels(X.view().transposed(), add_one);
  CHECK(visited == 42);
  for (Index i = 0; i < X.size(); ++i) REQUIRE(X.data()[i] == 2);
}
