#include "cafeq/model/tensor.hpp"

#include <numeric>

#include "io/temporary_directory.hpp"
#include "support/catch.hpp"

using namespace cafeq;
using test::error_of;

TEST_CASE("scalar types have names, and names have types") {
  for (int i = 0; i < 16; ++i) {
    const auto type = ScalarType(i);
    CHECK(scalar_type_named(name_of(type)) == type);
    CHECK((cafeq::bytes_of(type) == 1 || is_power_of_two(cafeq::bytes_of(type))));
  }
  CHECK(name_of(ScalarType::bf16) == "BF16");
  CHECK(cafeq::bytes_of(ScalarType::i64) == 8);
  CHECK(cafeq::bytes_of(ScalarType::f8_e4m3) == 1);
  CHECK_FALSE(scalar_type_named("F33"));
  CHECK_FALSE(scalar_type_named("f32"));
  CHECK(scalar_type_of<const fp16> == ScalarType::f16);
  CHECK(scalar_type_of<std::int8_t> == ScalarType::i8);
}

TEST_CASE("elements of matrices are of four scalar types") {
  std::string elements;
  for (int i = 0; i < 16; ++i)
    if (is_element(ScalarType(i))) elements += message(name_of(ScalarType(i)), " ");
  CHECK(elements == "F16 BF16 F32 F64 ");
}

TEST_CASE("sizes are multiplied without overflow") {
  const auto count = [](std::vector<Index> shape) { return element_count(shape); };
  constexpr Index huge = std::numeric_limits<Index>::max();
  CHECK(count({}) == 1);
  CHECK(count({2, 3, 5}) == 30);
  CHECK(count({7, 0, 3}) == 0);
  CHECK(count({huge, 0, huge}) == 0);
  CHECK(count({huge, 1}) == huge);
  CHECK_FALSE(count({huge, 2}));
  CHECK_FALSE(count({Index(1) << 32, Index(1) << 32}));
  CHECK_FALSE(count({-1, -1}));
  CHECK_FALSE(count({0, -1}));
  const std::vector<Index> shape{huge};
  CHECK(byte_count(ScalarType::u8, shape) == huge);
  CHECK_FALSE(byte_count(ScalarType::u16, shape));
}

TEST_CASE("a tensor is seen as a matrix where it is one") {
  Tensor tensor{ScalarType::f32, {1, 1, 2, 3}, Buffer<std::byte>(24)};
  CHECK(std::uintptr_t(tensor.bytes.data()) % alignment == 0);
  auto* values = reinterpret_cast<float*>(tensor.bytes.data());
  std::iota(values, values + 6, 0.0f);
  const auto view = tensor.matrix();
  CHECK(view.rows == 2);
  CHECK(view.cols == 3);
  CHECK(view(1, 0) == 3.0f);
  CHECK(tensor.values<float>().size() == 6);

  for (const std::vector<Index>& shape : {std::vector<Index>{6}, {2, 1, 3}, {2, 3, 1, 1}}) {
    tensor.shape = shape;
    const Error error = error_of([&] { tensor.matrix("W"); });
    CHECK(error.code() == ErrorCode::invalid_shape);
    CHECK_THAT(error.message(), Contains("W: "));
  }
}

TEST_CASE("a view checks type, size and alignment") {
  Buffer<std::byte> bytes(17);
  const auto all = std::span<const std::byte>(bytes);
  CHECK_THAT(error_of([&] {
               TensorView{ScalarType::i32, {4}, all.first(16)}.values<float>("b");
             }).message(),
             Contains("b: is I32 [4], not F32"));
  CHECK(error_of([&] { TensorView{ScalarType::f32, {5}, all.first(16)}.values<float>(); }).code() ==
        ErrorCode::invalid_shape);
  CHECK(error_of([&] {
          TensorView{ScalarType::f32, {4}, all.subspan(1)}.values<float>();
        }).code() == ErrorCode::invalid_stride);
  CHECK(TensorView{ScalarType::u8, {16}, all.subspan(1)}.values<std::uint8_t>().size() == 16);
}

TEST_CASE("a matrix is a tensor without a copy") {
  Matrix<fp16> m(3, 4);
  const TensorView tensor = as_tensor(m.view());
  CHECK(tensor.type == ScalarType::f16);
  CHECK(tensor.shape == std::vector<Index>{3, 4});
  CHECK(tensor.matrix<fp16>().data == m.data());
  CHECK(error_of([&] { as_tensor(m.view().transposed()); }).code() == ErrorCode::invalid_stride);
  CHECK(error_of([&] { as_tensor(m.view().col_block(0, 2)); }).code() == ErrorCode::invalid_stride);
  const std::vector<std::int64_t> v{1, 2};
  CHECK(as_tensor(std::span(v)).values<std::int64_t>()[1] == 2);
}

TEST_CASE("a missing tensor is named") {
  const TensorMap tensors;
  CHECK_THAT(error_of([&] { tensor_at(tensors, "layer.9"); }).message(), Contains("layer.9"));
}
