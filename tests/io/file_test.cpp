#include "cafeq/io/file.hpp"

#include <sys/stat.h>

#include <array>
#include <fstream>
#include <optional>

#include "io/temporary_directory.hpp"
#include "support/catch.hpp"

using namespace cafeq;
using test::error_of;

namespace {

/// What of this process is in memory; nothing on systems that do not tell.
std::optional<Index> resident_bytes() {
  std::ifstream statm("/proc/self/statm");
  Index pages = 0, resident = 0;
  if (!(statm >> pages >> resident)) return std::nullopt;
  return resident * Index(::sysconf(_SC_PAGESIZE));
}

}  // namespace

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
  CHECK(std::equal(content.begin(), content.end(),
                   reinterpret_cast<const char*>(mapped.bytes().data())));
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
  CHECK_THAT(error_of([&] { read_file(directory / "missing"); }).message(),
             Contains("No such file"));
}

TEST_CASE("a part of a file is read; what reaches past the end is an error") {
  const test::TemporaryDirectory directory;
  const InputFile file(directory.write("file", "12345"));
  CHECK(file.size() == 5);
  std::array<std::byte, 3> three;
  file.read_at(2, three);
  CHECK(char(three[0]) == '3');
  CHECK(char(three[2]) == '5');
  file.read_at(0, three);
  CHECK(char(three[0]) == '1');
  for (const Index offset : {Index(3), Index(5), Index(1) << 40}) {
    const Error error = error_of([&] { file.read_at(offset, three); });
    CHECK(error.code() == ErrorCode::io);
    CHECK_THAT(error.message(),
               Contains(message("ends ", std::min<Index>(offset - 2, 3), " bytes early")));
  }
}

TEST_CASE("released pages leave memory and come back") {
  const test::TemporaryDirectory directory;
  constexpr std::size_t size = std::size_t(48) << 20;
  {
    AtomicFile file(directory / "file");
    Buffer<std::byte> bytes(size);
    for (std::size_t i = 0; i < size; ++i) bytes[i] = std::byte(i * 7 >> 3);
    file.write(bytes);
    file.commit();
  }
  const MappedFile mapped(directory / "file");
  const auto bytes = mapped.bytes();
  const auto sum = [&] {
    unsigned total = 0;
    for (const std::byte b : bytes) total += unsigned(b);
    return total;
  };
  const auto before = resident_bytes();
  if (!before) {
    WARN("no /proc/self/statm: what leaves memory is not seen here");
    return;
  }
  const unsigned first = sum();
  const auto touched = *resident_bytes();
  REQUIRE(touched - *before > Index(size) * 9 / 10);

  mapped.release(bytes.subspan(size / 2 + 100, size / 4));
  const Index fallen = touched - *resident_bytes();
  CHECK(fallen > Index(size / 4) - (Index(1) << 20));
  CHECK(fallen < Index(size / 4) + (Index(8) << 20));  // large pages leave as a whole
  mapped.release(bytes);
  CHECK(*resident_bytes() - *before < Index(1) << 20);
  mapped.release(bytes.subspan(5, 0));
  mapped.release(bytes.last(1));
  CHECK(sum() == first);
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

TEST_CASE("an atomic file is written at any place; what is left out is zero") {
  const test::TemporaryDirectory directory;
  AtomicFile file(directory / "target");
  file.write_at(3, std::as_bytes(std::span("late", 4)));
  file.write_at(0, std::as_bytes(std::span("a", 1)));
  file.write(std::as_bytes(std::span("!", 1)));
  file.resize(10);
  file.finish();
  CHECK_FALSE(directory.names().contains("target"));
  file.commit();
  CHECK(directory.read("target") == std::string("a\0\0late!\0\0", 10));
}

TEST_CASE("a discarded file is gone and takes no more") {
  const test::TemporaryDirectory directory;
  AtomicFile file(directory / "target");
  file.discard();
  CHECK(directory.names().empty());
  CHECK(error_of([&] { file.write(std::as_bytes(std::span("x", 1))); }).code() == ErrorCode::io);
  CHECK(error_of([&] { file.commit(); }).code() == ErrorCode::io);
  CHECK(directory.names().empty());
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
  CHECK_THAT(error_of([&] { AtomicFile file(directory / "no/such/target"); }).message(),
             Contains("no/such/target"));
  // A directory cannot be replaced by a file; the temporary file goes all the same.
  directory.write("occupied/file", "");
  const Error error = error_of([&] {
    AtomicFile file(directory / "occupied");
    file.commit();
  });
  CHECK(error.code() == ErrorCode::io);
  CHECK(directory.names() == std::set<std::string>{"occupied"});
}
