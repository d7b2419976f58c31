#include "cafeq/io/path.hpp"

#include "io/temporary_directory.hpp"
#include "support/catch.hpp"

using namespace cafeq;
using namespace cafeq::detail;

TEST_CASE("a path is a directory and a name") {
  CHECK(directory_of("a/b/c") == "a/b");
  CHECK(directory_of("c") == ".");
  CHECK(directory_of("/c") == "/");
  CHECK(name_in_directory("a/b/c") == "c");
  CHECK(name_in_directory("c") == "c");
}

TEST_CASE("names of a directory come in order") {
  const test::TemporaryDirectory directory;
  for (const char* name : {"b", "a", ".c", "d/e"}) directory.write(name, "");
  CHECK(names_in(directory.path()) == std::vector<std::string>{".c", "a", "b", "d"});
  CHECK(is_directory(directory / "d"));
  CHECK_FALSE(is_directory(directory / "a"));
  CHECK(kind_of(directory / "missing") == 0);
  const Error error = test::error_of([&] { names_in(directory / "missing"); });
  CHECK(error.code() == ErrorCode::io);
  CHECK_THAT(error.message(), Contains("missing: cannot open: No such file"));
}

TEST_CASE("paths that lead out of a directory are seen by their text") {
  for (const char* path : {"a", "a/b", "a..b", "..a", "a/...", "./a"}) {
    INFO(path);
    CHECK(is_inside(path));
  }
  for (const std::string_view path :
       {"", "/a", "..", "../a", "a/..", "a/../b", "a\\b", "a/./../.."}) {
    INFO(path);
    CHECK_FALSE(is_inside(path));
  }
  CHECK_FALSE(is_inside(std::string_view("a\0b", 3)));
}
