#include "cafeq/io/part_store.hpp"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "io/temporary_directory.hpp"
#include "support/catch.hpp"

using namespace cafeq;
using test::error_of;
using Start = PartStore::Start;
using Names = std::set<std::string>;

namespace {

void put(const std::string& path, std::string_view content) {
  AtomicFile file(path);
  file.write(std::as_bytes(std::span(content)));
  file.commit();
}

/// What lies in the store at "out.partial".
Names parts_in(const test::TemporaryDirectory& directory) {
  Names names;
  for (const auto& entry : std::filesystem::directory_iterator(directory / "out.partial"))
    names.insert(entry.path().filename().string());
  return names;
}

}  // namespace

TEST_CASE("Parts stay until the whole is in its place") {
  const test::TemporaryDirectory directory;
  const std::string path = directory / "out.partial";
  {
    PartStore store(path, "plan", Start::fresh);
    CHECK(store.empty());
    CHECK_FALSE(store.has(3));
    put(store.path(3), "three");
    CHECK(store.has(3));
    CHECK_FALSE(store.empty());
    CHECK(parts_in(directory) == Names{"plan", "3.part"});
  }
  PartStore store(path, "plan", Start::resume);
  CHECK(store.has(3));
  CHECK(directory.read("out.partial/3.part") == "three");
  put(store.whole(), "all");
  store.finish(directory / "out");
  CHECK(directory.names() == Names{"out"});
  CHECK(directory.read("out") == "all");
}

TEST_CASE("A store belongs to one job") {
  const test::TemporaryDirectory directory;
  const std::string path = directory / "out.partial";
  {
    PartStore store(path, "plan", Start::resume);  // of a run that had not begun
    put(store.path(0), "zero");
  }
  const Error fresh = error_of([&] { PartStore(path, "plan", Start::fresh); });
  CHECK(fresh.code() == ErrorCode::invalid_argument);
  CHECK_THAT(fresh.message(), Contains("out.partial: is there already"));
  const Error other = error_of([&] { PartStore(path, "plan of another", Start::resume); });
  CHECK(other.code() == ErrorCode::invalid_argument);
  CHECK_THAT(other.message(), Contains("out.partial: belongs to another plan"));
  CHECK(parts_in(directory) == Names{"plan", "0.part"});
  PartStore store(path, "plan of another", Start::anew);
  CHECK(store.empty());
  CHECK(directory.read("out.partial/plan") == "plan of another");
  store.remove();
  CHECK(directory.names().empty());
}

TEST_CASE("What an interrupted run leaves half done goes, what is somebody's stays") {
  const test::TemporaryDirectory directory;
  const std::string path = directory / "out.partial";
  {
    const PartStore store(path, "plan", Start::fresh);
    put(store.path(10), "ten");
  }
  for (const char* name : {"11.part.42.0.tmp", "whole.42.1.tmp", "whole/model.safetensors.42.2.tmp",
                           "plan.42.3.tmp", "notes.txt", ".part", "1x.part", "x1.part"})
    directory.write(message("out.partial/", name), "x");
  PartStore store(path, "plan", Start::resume);
  CHECK(store.has(10));
  CHECK_FALSE(store.has(11));
  CHECK(parts_in(directory) ==
        Names{"plan", "10.part", "notes.txt", ".part", "1x.part", "x1.part"});
  store.remove();
  CHECK(parts_in(directory) == Names{"notes.txt", ".part", "1x.part", "x1.part"});
}

TEST_CASE("Parts without a plan are what is left of a run that had finished") {
  const test::TemporaryDirectory directory;
  for (const Start start : {Start::fresh, Start::resume, Start::anew}) {
    directory.write("out.partial/5.part", "five");
    PartStore store(directory / "out.partial", "plan", start);
    CHECK(store.empty());
    store.remove();
  }
}

TEST_CASE("A directory is put in its place too") {
  const test::TemporaryDirectory directory;
  PartStore store(directory / "out.partial", "plan", Start::fresh);
  directory.write("out.partial/whole/config.json", "{}");
  store.finish(directory / "out");
  CHECK(directory.names() == Names{"out"});
  CHECK(directory.read("out/config.json") == "{}");

  PartStore second(directory / "out.partial", "plan", Start::fresh);
  directory.write("out.partial/whole/config.json", "{}");
  CHECK(error_of([&] { second.finish(directory / "out"); }).code() == ErrorCode::io);
  CHECK(directory.names() == Names{"out", "out.partial"});
}

TEST_CASE("One process at a time") {
  const test::TemporaryDirectory directory;
  const std::string path = directory / "out.partial";
  const PartStore store(path, "plan", Start::fresh);
  for (const Start start : {Start::fresh, Start::resume, Start::anew}) {
    const Error error = error_of([&] { PartStore(path, "plan", start); });
    CHECK(error.code() == ErrorCode::io);
    CHECK_THAT(error.message(), Contains("out.partial: another run is at work in it"));
  }
  CHECK(parts_in(directory) == Names{"plan"});
}

TEST_CASE("A process that is killed lets go") {
  const test::TemporaryDirectory directory;
  const std::string path = directory / "out.partial";
  const pid_t child = ::fork();
  if (child == 0) {
    const PartStore store(path, "plan", Start::fresh);
    put(store.path(0), "zero");
    ::raise(SIGKILL);
  }
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  CHECK(WIFSIGNALED(status));
  CHECK(PartStore(path, "plan", Start::resume).has(0));
}

TEST_CASE("Places where no store can be") {
  const test::TemporaryDirectory directory;
  const Error missing =
      error_of([&] { PartStore(directory / "none/out.partial", "plan", Start::fresh); });
  CHECK(missing.code() == ErrorCode::io);
  CHECK_THAT(missing.message(), Contains("none/out.partial: cannot create"));
  directory.write("file", "x");
  CHECK_THAT(error_of([&] { PartStore(directory / "file", "plan", Start::anew); }).message(),
             Contains("Not a directory"));
  CHECK(directory.read("file") == "x");
}
