#include "cafeq/io/named_list.hpp"

#include "io/temporary_directory.hpp"
#include "support/catch.hpp"

using namespace cafeq;

namespace {

struct Item {
  std::string name;
  int value;
};

}  // namespace

TEST_CASE("items stay in order, have one name each and are found by it") {
  detail::NamedList<Item> list;
  CHECK(list.add({"b", 1}));
  CHECK(list.add({"a", 2}));
  CHECK_FALSE(list.add({"b", 3}));
  REQUIRE(list.size() == 2);
  CHECK(list.items()[0].name == "b");
  CHECK(list.items()[0].value == 1);
  CHECK(list.at("a").value == 2);
  CHECK(list.find("c") == nullptr);
  list.at("b").value = 7;
  const auto moved = std::move(list);
  CHECK(moved.find("b")->value == 7);
  const Error error = test::error_of([&] { (void)moved.at("c"); });
  CHECK(error.code() == ErrorCode::invalid_argument);
  CHECK_THAT(error.message(), Contains("no tensor is named c"));
}
