#include "cafeq/io/json.hpp"

#include "io/temporary_directory.hpp"
#include "support/catch.hpp"

using namespace cafeq;
using cafeq::detail::parse_json;
using test::error_of;

TEST_CASE("valid JSON is parsed") {
  const auto value = parse_json(R"({"a": [1, 2], "b": {"a": null}, "c": {"a": "x"}})", "text");
  CHECK(cafeq::detail::to_sizes(cafeq::detail::find_member(value, "a")) ==
        std::vector<Index>{1, 2});
  CHECK(cafeq::detail::find_member(value, "z") == nullptr);
  CHECK(cafeq::detail::find_member(value["a"], "a") == nullptr);
  CHECK(*cafeq::detail::find_string(value["c"], "a") == "x");
  CHECK(cafeq::detail::find_string(value["b"], "a") == nullptr);
}

TEST_CASE("malformed JSON is corrupt, never another exception") {
  for (const std::string text :
       {"", "{", "{\"a\": }", "[1, 2", "nul", "{} {}", "\"\xff\"", "{\"a\": 1,}", "1e999"}) {
    INFO(text);
    const Error error = error_of([&] { parse_json(text, "file.json"); });
    CHECK(error.code() == ErrorCode::corrupt);
    CHECK_THAT(error.message(), Contains("file.json"));
  }
}

TEST_CASE("a key may appear once in each object") {
  for (const std::string text :
       {R"({"a": 1, "a": 1})", R"({"x": [{"a": 1}, {"a": 1, "b": {}, "a": 2}]})",
        R"({"a": {"a": 1}, "a": 2})"}) {
    const Error error = error_of([&] { parse_json(text, "file"); });
    CHECK(error.code() == ErrorCode::corrupt);
    CHECK_THAT(error.message(), Contains("\"a\" appears twice"));
  }
  CHECK_NOTHROW(parse_json(R"([{"a": 1}, {"a": {"a": {"a": 1}}}, {"a": 2}])", "file"));
}

TEST_CASE("depth is limited") {
  const auto nested = [](std::size_t depth) {
    return std::string(depth, '[') + std::string(depth, ']');
  };
  CHECK_NOTHROW(parse_json(nested(60), "file"));
  for (const std::size_t depth : {std::size_t(70), std::size_t(1'000'000)}) {
    CHECK_THAT(error_of([&] { parse_json(nested(depth), "file"); }).message(), Contains("deep"));
    CHECK(error_of([&] { parse_json(std::string(depth, '['), "file"); }).code() ==
          ErrorCode::corrupt);
  }
  std::string objects;
  for (int i = 0; i < 1000; ++i) objects += "{\"a\":";
  CHECK(error_of([&] { parse_json(objects + "1" + std::string(1000, '}'), "file"); }).code() ==
        ErrorCode::corrupt);
}

TEST_CASE("sizes are whole numbers that fit") {
  const auto size = [](const char* text) { return cafeq::detail::to_size(parse_json(text, "n")); };
  CHECK(size("0") == 0);
  CHECK(size("9223372036854775807") == std::numeric_limits<Index>::max());
  for (const char* text : {"-1", "1.0", "9223372036854775808", "18446744073709551616", "\"1\"",
                           "null", "[]", "true"}) {
    INFO(text);
    CHECK_FALSE(size(text));
  }
}
