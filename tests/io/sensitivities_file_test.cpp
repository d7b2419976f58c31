#include "cafeq/io/sensitivities_file.hpp"

#include "io/temporary_directory.hpp"
#include "support/catch.hpp"
#include "support/error_of.hpp"

using namespace cafeq;
using test::error_of;

TEST_CASE("Sensitivities come back from their file") {
  const Sensitivities all({{.tensor = "a", .rows = 8, .value = 0.1234567890123},
                           {.tensor = "b", .slice = 3, .first_row = 8, .rows = 4, .value = 0}},
                          "0123456789abcdef");
  const test::TemporaryDirectory directory;
  auto json = to_json(all);
  json["how"] = {"whatever", 1};
  directory.write("file", json.dump());
  const Sensitivities read = read_sensitivities(directory / "file");
  CHECK(read.model() == all.model());
  REQUIRE(read.all().size() == 2);
  for (std::size_t i = 0; i < 2; ++i) {
    CHECK(read.all()[i].tensor == all.all()[i].tensor);
    CHECK(read.all()[i].slice == all.all()[i].slice);
    CHECK(read.all()[i].first_row == all.all()[i].first_row);
    CHECK(read.all()[i].rows == all.all()[i].rows);
    CHECK(read.all()[i].value == all.all()[i].value);
  }

  // What may be left out.
  directory.write("file", R"({"format": "cafeq sensitivities", "version": 1,
                              "matrices": [{"tensor": "c", "rows": 2, "sensitivity": 3}]})");
  const Sensitivities short_one = read_sensitivities(directory / "file");
  CHECK(short_one.model().empty());
  REQUIRE(short_one.all().size() == 1);
  CHECK(short_one.all()[0].first_row == 0);
  CHECK(short_one.all()[0].slice == -1);
  CHECK(short_one.all()[0].value == 3);
}

TEST_CASE("A file that holds no sensitivities is refused") {
  const test::TemporaryDirectory directory;
  const auto refusal = [&](const std::string& text, ErrorCode code) {
    directory.write("file", text);
    const Error error = error_of([&] { read_sensitivities(directory / "file"); });
    CHECK(error.code() == code);
    CHECK_THAT(error.message(), Contains("file"));
    return error.message();
  };
  const auto of = [](const std::string& matrices, const std::string& version = "1") {
    return message(R"({"format": "cafeq sensitivities", "version": )", version, R"(, "matrices": )",
                   matrices, "}");
  };
  CHECK(error_of([&] { read_sensitivities(directory / "none"); }).code() == ErrorCode::io);
  for (const char* other : {"[]", "3", "{}", R"({"format": "gguf"})"})
    CHECK_THAT(refusal(other, ErrorCode::unsupported), Contains("no sensitivities"));
  refusal("{", ErrorCode::corrupt);
  refusal(R"({"format": "cafeq sensitivities"})", ErrorCode::corrupt);
  CHECK_THAT(refusal(of("[]", "2"), ErrorCode::unsupported), Contains("version 2"));
  refusal(of("[]", "-1"), ErrorCode::corrupt);
  refusal(of("{}"), ErrorCode::corrupt);
  refusal(of("[3]"), ErrorCode::corrupt);
  CHECK_THAT(refusal(of(R"([{"tensor": "a", "sensitivity": 1}])"), ErrorCode::corrupt),
             Contains("a: rows"));
  CHECK_THAT(refusal(of(R"([{"tensor": "a", "rows": -1, "sensitivity": 1}])"), ErrorCode::corrupt),
             Contains("a: rows"));
  CHECK_THAT(refusal(of(R"([{"tensor": "a", "rows": 1, "first_row": 0.5, "sensitivity": 1}])"),
                     ErrorCode::corrupt),
             Contains("a: first_row"));
  CHECK_THAT(refusal(of(R"([{"tensor": "a", "rows": 1}])"), ErrorCode::corrupt),
             Contains("sensitivity is no number"));
  CHECK_THAT(refusal(of(R"([{"tensor": "a", "rows": 1, "sensitivity": -1}])"), ErrorCode::corrupt),
             Contains("that of a is -1"));
  CHECK_THAT(refusal(of(R"([{"tensor": "a", "rows": 1, "sensitivity": 1},
                            {"tensor": "a", "rows": 1, "sensitivity": 1}])"),
                     ErrorCode::corrupt),
             Contains("twice"));
}
