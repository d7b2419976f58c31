#include "cafeq/io/file.hpp"

#include <sys/stat.h>

#include "io/temporary_directory.hpp"
#include "support/catch.hpp"

using namespace cafeq;
using test::error_of;

TEST_CASE("a file is read as it is") {
  const test::TemporaryDirectory directory;
  std::string content(100'001, 'x');
  content[77] = '\0';
  directory.write("file", content);
  CHECK(directory.read("file") == content);
  directory.write("empty", "");
  CHECK(directory.read("empty").empty());
  const MappedFile mapped(directory / "file");
  REQUIRE(mapped.bytes().size() == content.size());
  CHECK(std::equal(content.begin(), content.end(), reinterpret_cast<const char*>(mapped.bytes().data())));
  CHECK(MappedFile(directory / "empty").bytes().empty());
}

TEST_CASE("a mapping survives a move") {
  const test::TemporaryDirectory directory;
  MappedFile first(directory.write("file", "abc"));
  MappedFile second(std::move(first));
  CHECK(first.bytes().empty());
  first = std::move(second);
  REQUIRE(first.bytes().size() == 3);
  CHECK(char(first.bytes()[2]) == 'c');
}

TEST_CASE("what is not a readable file is refused by name") {
  const test::TemporaryDirectory directory;
  const std::string pipe = directory / "pipe";
  REQUIRE(::mkfifo(pipe.c_str(), 0600) == 0);
  for (const std::string& path : {directory / "missing", directory.path(), pipe}) {
    const Error error = error_of([&] { read_file(path); });
    CHECK(error.code() == ErrorCode::io);
    CHECK_THAT(error.message(), Contains(path));
    CHECK(error_of([&] { MappedFile{path}; }).code() == ErrorCode::io);
  }
  CHECK_THAT(error_of([&] { read_file(directory / "missing"); }).message(), Contains("No such file"));
}

TEST_CASE("reading past the end is an error") {
  const test::TemporaryDirectory directory;
  InputFile file(directory.write("file", "12345"));
  CHECK(file.size() == 5);
  std::array<std::byte, 3> three;
  file.read(three);
  const Error error = error_of([&] { file.read(three); });
  CHECK(error.code() == ErrorCode::io);
  CHECK_THAT(error.message(), Contains("ends 1 bytes early"));
}

TEST_CASE("an atomic file appears on commit and replaces what was there") {
  const test::TemporaryDirectory directory;
  directory.write("target", "before");
  {
    AtomicFile file(directory / "target");
    file.write(std::as_bytes(std::span("after", 5)));
    CHECK(directory.read("target") == "before");
    CHECK(directory.names().size() == 2);
    file.commit();
    CHECK(directory.read("target") == "after");
  }
  CHECK(directory.names() == std::set<std::string>{"target"});
}

TEST_CASE("an atomic file without commit leaves nothing") {
  const test::TemporaryDirectory directory;
  directory.write("target", "before");
  {
    AtomicFile file(directory / "target");
    file.write(std::as_bytes(std::span("after", 5)));
  }
  CHECK(directory.read("target") == "before");
  CHECK(directory.names() == std::set<std::string>{"target"});
}

TEST_CASE("two writers of one target do not meet") {
  const test::TemporaryDirectory directory;
  AtomicFile first(directory / "target");
  AtomicFile second(directory / "target");
  first.write(std::as_bytes(std::span("first", 5)));
  second.write(std::as_bytes(std::span("second", 6)));
  second.commit();
  first.commit();
  CHECK(directory.read("target") == "first");
  CHECK(directory.names() == std::set<std::string>{"target"});
}

TEST_CASE("a target that cannot be written is an error") {
  const test::TemporaryDirectory directory;
  CHECK_THAT(error_of([&] { AtomicFile file(directory / "no/such/target"); }).message(), Contains("no/such/target"));
  // A directory cannot be replaced by a file; the temporary file goes all the same.
  directory.write("occupied/file", "");
  const Error error = error_of([&] {
    AtomicFile file(directory / "occupied");
    file.commit();
  });
  CHECK(error.code() == ErrorCode::io);
  CHECK(directory.names() == std::set<std::string>{"occupied"});
}
