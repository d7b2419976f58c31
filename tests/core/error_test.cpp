#include "cafeq/core/error.hpp"

#include <memory>
#include <stdexcept>

#include "support/error_of.hpp"

using namespace cafeq;
using test::error_of;

TEST_CASE("raise throws an Error with its code and message", "[core][error]") {
  const Error error = error_of([] { raise(ErrorCode::invalid_shape, "W: 3 x 4"); });
  CHECK(error.code() == ErrorCode::invalid_shape);
  CHECK(error.message() == "W: 3 x 4");
  CHECK(std::string(error.what()) == "W: 3 x 4");
  CHECK_THROWS_AS(raise(error), std::exception);
}

TEST_CASE("message puts its parts together", "[core][error]") {
  CHECK(message() == "");
  CHECK(message("W: row ", 3, ", column ", std::size_t(7), " is ", -0.5) ==
        "W: row 3, column 7 is -0.5");
  CHECK(message('a', std::string("b"), std::string_view("c"), 0.25f,
                std::int64_t(-9223372036854775807)) == "abc0.25-9223372036854775807");
  CHECK(message(1e300, ' ', std::numeric_limits<double>::quiet_NaN(), ' ',
                std::numeric_limits<double>::infinity()) == "1e+300 nan inf");
}

TEST_CASE("a Result holds a value or the Error that kept it from being made", "[core][error]") {
  Result<std::string> value(std::string("codes"));
  CHECK(value.has_value());
  CHECK(bool(value));
  CHECK(value.value() == "codes");
  value.value() += "!";
  CHECK(std::as_const(value).value() == "codes!");
  CHECK(std::move(value).value() == "codes!");

  const Result<std::string> failed(Error(ErrorCode::io, "no such file"));
  CHECK_FALSE(failed.has_value());
  CHECK_FALSE(bool(failed));
  CHECK(failed.error().message() == "no such file");
  const Error thrown = error_of([&] { (void)failed.value(); });
  CHECK(thrown.code() == ErrorCode::io);
  CHECK(thrown.message() == "no such file");
}

TEST_CASE("a Result may hold what can only be moved", "[core][error]") {
  Result<std::unique_ptr<int>> result(std::make_unique<int>(3));
  const std::unique_ptr<int> taken = std::move(result).value();
  CHECK(*taken == 3);
}

TEST_CASE("catch_error turns an Error into a Result and lets other exceptions through",
          "[core][error]") {
  CHECK(catch_error([] { return 5; }).value() == 5);
  const auto failed = catch_error([]() -> int { raise(ErrorCode::singular, "M"); });
  CHECK(failed.error().code() == ErrorCode::singular);
  CHECK_THROWS_AS(catch_error([]() -> int { throw std::out_of_range("not ours"); }),
                  std::out_of_range);
}

TEST_CASE("set_error_handler returns the handler before", "[core][error]") {
  const ErrorHandler handler = [](const Error&) {};
  const ErrorHandler before = set_error_handler(handler);
  CHECK(before != nullptr);
  CHECK(set_error_handler(nullptr) == handler);
  CHECK(set_error_handler(before) == before);
}
