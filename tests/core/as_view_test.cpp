#include "cafeq/core/as_view.hpp"

#include <Eigen/Core>
#include <array>
#include <vector>

#include "cafeq/core/matrix.hpp"
#include "cafeq/core/view_fault.hpp"
#include "support/error_of.hpp"

using namespace cafeq;
using test::error_of;

namespace {

using ColMajor = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::ColMajor>;
using RowMajor = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

/// What std::mdspan of rank 2 looks like.
template <class T>
struct Mdspan {
  T* data;
  std::array<std::size_t, 2> sizes;
  std::array<std::size_t, 2> strides;

  static constexpr std::size_t rank() noexcept { return 2; }
  T* data_handle() const noexcept { return data; }
  std::size_t extent(std::size_t d) const noexcept { return sizes[d]; }
  std::size_t stride(std::size_t d) const noexcept { return strides[d]; }
};

struct Mdspan3 : Mdspan<float> {
  static constexpr std::size_t rank() noexcept { return 3; }
};

/// Whether a view shows exactly the elements of an Eigen object, at their own addresses.
template <class V, class M>
bool shows(V view, const M& m) {
  if (view.rows != m.rows() || view.cols != m.cols()) return false;
  for (Index i = 0; i < view.rows; ++i)
    for (Index j = 0; j < view.cols; ++j)
      if (&view(i, j) != &m.coeffRef(i, j)) return false;
  return true;
}

template <class M>
void check_eigen_family(M& m) {
  for (Index i = 0; i < m.rows(); ++i)
    for (Index j = 0; j < m.cols(); ++j) m(i, j) = typename M::Scalar(10 * i + j);
  CHECK(shows(as_view(m), m));
  CHECK(shows(as_view(std::as_const(m)), m));
  CHECK(shows(as_view(m.block(1, 2, 3, 2)), m.block(1, 2, 3, 2)));
  CHECK(shows(as_view(m.topRows(2)), m.topRows(2)));
  CHECK(shows(as_view(m.rightCols(3)), m.rightCols(3)));
  CHECK(shows(as_view(m.col(1)), m.col(1)));
  CHECK(shows(as_view(m.row(1)), m.row(1)));
  const auto transposed = as_view(m.transpose());
  CHECK((transposed.rows == m.cols() && transposed.cols == m.rows() &&
         &transposed(2, 1) == &m(1, 2)));
  const auto transposed_block = as_view(m.block(1, 2, 3, 2).transpose());
  CHECK((transposed_block.rows == 2 && transposed_block.cols == 3 &&
         &transposed_block(0, 1) == &m(2, 2)));
  as_view(m)(2, 3) = typename M::Scalar(-1);
  CHECK(m(2, 3) == typename M::Scalar(-1));
}

template <class M>
constexpr bool accepts = MatrixView<M>;

}  // namespace

// Owners by lvalue only; what only refers to elements also as a temporary; expressions never.
static_assert(accepts<ColMajor&> && accepts<const RowMajor&> && !accepts<ColMajor> &&
              !accepts<const RowMajor>);
static_assert(accepts<Eigen::Map<ColMajor>> && accepts<Eigen::Map<const RowMajor>&>);
static_assert(accepts<decltype(std::declval<ColMajor&>().block(0, 0, 1, 1))> &&
              accepts<decltype(std::declval<const ColMajor&>().transpose())>);
static_assert(accepts<Eigen::Ref<ColMajor>&> && accepts<const Eigen::Ref<const ColMajor>&> &&
              !accepts<Eigen::Ref<const ColMajor>>);
static_assert(!accepts<decltype(std::declval<ColMajor&>() + std::declval<ColMajor&>())>);
static_assert(!accepts<decltype(std::declval<ColMajor&>() * std::declval<ColMajor&>())&>);
static_assert(!accepts<decltype((std::declval<ColMajor&>() * 2.0f).block(0, 0, 1, 1))>);
static_assert(accepts<Matrix<float>&> && accepts<const Matrix<float>&> && !accepts<Matrix<float>> &&
              !accepts<const Matrix<float>>);
static_assert(accepts<View<float>> && accepts<View<const double>&>);
static_assert(accepts<Mdspan<float>> && accepts<const Mdspan<const double>&> && !accepts<Mdspan3&>);
static_assert(!accepts<int&> && !accepts<float*&> && !accepts<std::vector<float>&>);

// Const elements stay const.
static_assert(std::is_same_v<decltype(as_view(std::declval<ColMajor&>())), View<float>>);
static_assert(
    std::is_same_v<decltype(as_view(std::declval<const ColMajor&>())), View<const float>>);
static_assert(std::is_same_v<decltype(as_view(std::declval<Eigen::Map<const ColMajor>&>())),
                             View<const float>>);
static_assert(
    std::is_same_v<decltype(as_view(std::declval<const Matrix<double>&>())), View<const double>>);
static_assert(
    std::is_same_v<decltype(as_view(std::declval<Mdspan<const float>>())), View<const float>>);

TEST_CASE("views of Eigen matrices, maps, blocks and transposes, in both orders",
          "[core][as_view]") {
  ColMajor col(5, 7);
  RowMajor row(5, 7);
  Eigen::Matrix<double, 5, 7> fixed;
  check_eigen_family(col);
  check_eigen_family(row);
  check_eigen_family(fixed);
  CHECK(as_view(row).contiguous());
  CHECK(as_view(col).transposed().contiguous());

  std::vector<float> storage(200);
  Eigen::Map<RowMajor, 0, Eigen::Stride<Eigen::Dynamic, Eigen::Dynamic>> map(
      storage.data(), 5, 7, Eigen::Stride<Eigen::Dynamic, Eigen::Dynamic>(20, 2));
  check_eigen_family(map);
  CHECK(as_view(map).row_stride == 20);
  CHECK(as_view(map).col_stride == 2);
}

TEST_CASE("views of Eigen references show what they refer to", "[core][as_view]") {
  ColMajor m = ColMajor::Random(5, 7);
  Eigen::Ref<ColMajor> ref(m);
  CHECK(shows(as_view(ref), m));
  Eigen::Ref<ColMajor, 0, Eigen::OuterStride<>> block(m.block(1, 1, 3, 4));
  CHECK(shows(as_view(block), m.block(1, 1, 3, 4)));
  const Eigen::Ref<const ColMajor> constant(m);
  CHECK(shows(as_view(constant), m));
  static_assert(std::is_same_v<decltype(as_view(constant)), View<const float>>);
}

TEST_CASE("views of an mdspan", "[core][as_view]") {
  std::vector<double> data(24);
  const Mdspan<double> span{data.data(), {3, 4}, {1, 5}};
  const auto view = as_view(span);
  CHECK((view.rows == 3 && view.cols == 4 && view.row_stride == 1 && view.col_stride == 5));
  CHECK(&view(2, 3) == &data[17]);
}

TEST_CASE("views of a pointer with strides, also negative ones", "[core][as_view]") {
  std::vector<float> data(12);
  for (std::size_t i = 0; i < data.size(); ++i) data[i] = float(i);
  const auto dense = as_view(data.data(), 3, 4);
  CHECK(dense(2, 1) == 9);
  CHECK(dense.contiguous());
  const auto strided = as_view(data.data(), 2, 3, 1, 4);
  CHECK(strided(1, 2) == 9);
  CHECK_FALSE(strided.rows_contiguous());
  const auto upside_down = as_view(data.data() + 8, 3, 4, -4);
  CHECK(upside_down(0, 0) == 8);
  CHECK(upside_down(2, 3) == 3);
  const auto backwards = as_view(data.data() + 11, 3, 4, -4, -1);
  CHECK(backwards(0, 0) == 11);
  CHECK(backwards(2, 3) == 0);
  check_view(upside_down, "W");
  check_view(backwards, "W");
}

TEST_CASE("views of a span, row by row", "[core][as_view]") {
  std::array<float, 12> data{};
  const auto view = as_view(std::span(data), 4);
  CHECK((view.rows == 3 && view.cols == 4 && &view(1, 1) == &data[5]));
  CHECK(as_view(std::span<const float>(), 4).rows == 0);
  for (const Index cols : {5, 0, -4}) {
    const Error error = error_of([&] { as_view(std::span(data), cols); });
    CHECK(error.code() == ErrorCode::invalid_shape);
    CHECK(error.message() == message("as_view: a span of 12 elements is not rows of ", cols));
  }
}

TEST_CASE("vectors from containers, spans and matrices of one line", "[core][as_view]") {
  std::vector<float> data{1, 2, 3};
  CHECK(as_vector(data)[2] == 3);
  CHECK(as_vector(data).size == 3);
  static_assert(std::is_same_v<decltype(as_vector(std::as_const(data))), VectorView<const float>>);
  CHECK(as_vector(std::span<const float>(data)).data == data.data());
  Eigen::VectorXf v(4);
  v << 1, 2, 3, 4;
  CHECK(as_vector(v)[3] == 4);
  RowMajor m(3, 4);
  CHECK(as_vector(m.col(1)).stride == 4);
  CHECK(&as_vector(m.col(1))[2] == &m(2, 1));
  CHECK(&as_vector(m.row(1))[2] == &m(1, 2));
  CHECK(as_vector(as_vector(v)).size == 4);
  const Error error = error_of([&] { as_vector(m); });
  CHECK(error.code() == ErrorCode::invalid_shape);
  CHECK(error.message() == "as_vector: a matrix of 3 x 4 is not a vector");
}
