#include "cafeq/loss/head_layout.hpp"

#include "cafeq/core/fault.hpp"
#include "support/error_of.hpp"

using namespace cafeq;
using test::error_of;

TEST_CASE("heads that share one of the second matrix", "[loss][head_layout]") {
  const HeadLayout layout{.head_dim = 4, .heads = 6, .kv_heads = 2};
  CHECK(layout.group() == 3);
  CHECK((layout.kv_head(0) == 0 && layout.kv_head(2) == 0 && layout.kv_head(5) == 1));
  CHECK((HeadLayout{.head_dim = 4, .heads = 6}.kv_heads) == 6);
  CHECK((channel_layout(9).heads == 9 && channel_layout(9).head_dim == 1));
}

TEST_CASE("layouts that do not fit name the argument and the numbers", "[loss][head_layout]") {
  const auto bad = [](const HeadLayout& layout, const char* text) {
    const Error error = error_of([&] { check(layout.fault()); });
    CHECK(fault_of(layout, 1, 1)->message() == error.message());
    return error.code() == ErrorCode::invalid_argument &&
           error.message().find(text) != std::string::npos;
  };
  CHECK(bad({.head_dim = 0, .heads = 2}, "head_dim is 0"));
  CHECK(bad({.head_dim = 4, .heads = 0}, "heads is 0"));
  CHECK(bad({.head_dim = 4, .heads = 4, .kv_heads = 0}, "kv_heads is 0"));
  CHECK(bad({.head_dim = 4, .heads = 6, .kv_heads = 4},
            "heads (6) is not a multiple of kv_heads (4)"));
}

TEST_CASE("matrices that do not fit a layout are named", "[loss][head_layout]") {
  const HeadLayout layout{.head_dim = 4, .heads = 6, .kv_heads = 2};
  CHECK_FALSE(layout.fault());
  CHECK_FALSE(layout.first_fault(24, "Wq"));
  CHECK_FALSE(layout.second_fault(8, "Wk"));
  CHECK(layout.first_fault(8, "Wo", "columns")->code() == ErrorCode::invalid_shape);
  CHECK(layout.first_fault(8, "Wo", "columns")->message() ==
        "Wo: 8 columns, but heads * head_dim is 6 * 4 = 24");
  CHECK(layout.second_fault(24, "Wk")->message() ==
        "Wk: 24 rows, but kv_heads * head_dim is 2 * 4 = 8");
}
