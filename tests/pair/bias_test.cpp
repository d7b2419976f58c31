#include "cafeq/pair/bias.hpp"

#include "support/catch.hpp"

using namespace cafeq;

TEST_CASE("a bias is absent, fits, or says why not", "[pair][bias]") {
  std::vector<float> values{1, 2, 3};
  const VectorView<float> bias{values.data(), 3, 1};
  CHECK_FALSE(detail::bias_fault(VectorView<float>{}, 3, "bias"));
  CHECK_FALSE(detail::bias_fault(VectorView<float>{values.data(), 0, 1}, 3, "bias"));
  CHECK_FALSE(detail::bias_fault(bias, 3, "bias"));

  const auto mismatch = detail::bias_fault(bias, 4, "up bias");
  CHECK(mismatch->code() == ErrorCode::invalid_shape);
  CHECK(mismatch->message() == "up bias: 3 entries, but the matrix has 4 rows");
  const auto nowhere = detail::bias_fault(VectorView<float>{nullptr, 3, 1}, 3, "up bias");
  CHECK(nowhere->code() == ErrorCode::invalid_stride);
  CHECK(nowhere->message() == "up bias: no data for 3 entries");
}

TEST_CASE("biases as columns, copies and views of copies", "[pair][bias]") {
  std::vector<float> values{1, 2, 3, 4, 5};
  const auto column = detail::as_column(VectorView<float>{values.data(), 3, 2});
  CHECK((column.rows == 3 && column.cols == 1 && column(2, 0) == 5));

  auto copied = detail::copy_bias(VectorView<const float>{values.data() + 4, 3, -2});
  CHECK(copied == std::vector<float>{5, 3, 1});
  CHECK(detail::bias_view(copied)[1] == 3);
  CHECK(detail::copy_bias({}).empty());
  std::vector<float> none;
  CHECK(detail::bias_view(none).data == nullptr);
}
