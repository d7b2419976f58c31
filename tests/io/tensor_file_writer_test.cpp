#include "cafeq/io/tensor_file_writer.hpp"

#include "io/damage.hpp"
#include "io/temporary_directory.hpp"
#include "support/allocations.hpp"
#include "support/catch.hpp"

using namespace cafeq;
using test::error_of;

namespace {

/// "head", then a (3 bytes), padding up to a multiple of 4, b (2 bytes) and c (none).
class SmallWriter : public TensorFileWriter {
 public:
  explicit SmallWriter(const std::string& path)
      : TensorFileWriter(path, layout({{"a", 3}, {"b", 2}, {"c", 0}})) {}
  SmallWriter(const std::string& path, const std::vector<std::pair<std::string, Index>>& tensors)
      : TensorFileWriter(path, layout(tensors)) {}

 private:
  static Layout layout(const std::vector<std::pair<std::string, Index>>& tensors) {
    Layout layout{"head"};
    for (const auto& [name, bytes] : tensors) {
      layout.append(name, bytes);
      layout.pad(4);
    }
    return layout;
  }
};

std::span<const std::byte> bytes(std::string_view text) { return std::as_bytes(std::span(text)); }

}  // namespace

TEST_CASE("tensors are written in any order; what no tensor covers is zero") {
  const test::TemporaryDirectory directory;
  SmallWriter writer(directory / "file");
  writer.write("b", bytes("xy"));
  writer.write("c", {});
  writer.write("a", bytes("123"));
  CHECK_FALSE(directory.names().contains("file"));
  writer.finish();
  CHECK_FALSE(directory.names().contains("file"));
  writer.commit();
  CHECK(directory.read("file") == std::string("head123\0xy\0\0", 12));
  CHECK(directory.names().size() == 1);
}

TEST_CASE("wrong, repeated, unknown and missing tensors leave nothing behind") {
  const test::TemporaryDirectory directory;
  directory.write("file", "before");
  const auto refused = [&](auto write) {
    SmallWriter writer(directory / "file");
    const Error error = error_of([&] { write(writer); });
    CHECK(error.code() == ErrorCode::invalid_argument);
    CHECK(directory.names() == std::set<std::string>{"file"});  // at once, not with the writer
    CHECK(directory.read("file") == "before");
    CHECK(error_of([&] { writer.commit(); }).code() != ErrorCode{-1});
    return error.message();
  };
  CHECK(refused([](auto& w) { w.write("a", bytes("12")); }) ==
        "tensor a has 2 bytes, declared were 3");
  CHECK(refused([](auto& w) { w.write("c", bytes("1")); }) ==
        "tensor c has 1 bytes, declared were 0");
  CHECK(refused([](auto& w) { w.write("d", bytes("1")); }) == "tensor d was not declared");
  CHECK(refused([](auto& w) {
          w.write("a", bytes("123"));
          w.write("a", bytes("123"));
        }) == "tensor a is written twice");
  CHECK(refused([](auto& w) {
          w.write("a", bytes("123"));
          w.write("b", bytes("12"));
          w.commit();
        }) == "tensor c was not written");
  {
    const SmallWriter forgotten(directory / "file");
  }
  CHECK(directory.names() == std::set<std::string>{"file"});
}

TEST_CASE("what cannot be declared is refused before there is a file") {
  const test::TemporaryDirectory directory;
  const auto refused = [&](const std::vector<std::pair<std::string, Index>>& tensors) {
    const Error error = error_of([&] { SmallWriter(directory / "file", tensors); });
    CHECK(error.code() == ErrorCode::invalid_argument);
    CHECK(directory.names().empty());
    return error.message();
  };
  CHECK(refused({{"a", 1}, {"a", 2}}) == "tensor a is declared twice");
  CHECK_THAT(refused({{"a", -1}}), Contains("tensor a of -1 bytes"));
  CHECK_THAT(refused({{"a", std::numeric_limits<Index>::max()}}), Contains("does not fit a file"));
  CHECK_THAT(refused({{"a", Index(1) << 61}, {"b", Index(1) << 61}, {"c", 1}}),
             Contains("tensor c of 1 bytes"));
}

TEST_CASE("targets that cannot be written are io errors that leave nothing behind") {
  const test::TemporaryDirectory directory;
  directory.write("occupied/file", "");
  CHECK_THAT(error_of([&] { SmallWriter(directory / "no/such/file"); }).message(),
             Contains("no/such/file: cannot create"));
  CHECK_THAT(error_of([&] { SmallWriter(directory / "occupied/file/x"); }).message(),
             Contains("Not a directory"));
  const Error error = error_of([&] {
    SmallWriter writer(directory / "occupied");
    writer.write("a", bytes("123"));
    writer.write("b", bytes("xy"));
    writer.write("c", {});
    writer.commit();
  });
  CHECK(error.code() == ErrorCode::io);
  CHECK_THAT(error.message(), Contains("occupied: cannot replace"));
  CHECK(directory.names() == std::set<std::string>{"occupied"});

  using std::filesystem::perms;
  std::filesystem::permissions(directory / "occupied", perms::owner_read | perms::owner_exec |
                                                           perms::others_read | perms::others_exec);
  CHECK_THAT(test::error_as_user([&] { SmallWriter(directory / "occupied/other"); }),
             Contains("occupied/other: cannot create") && Contains("Permission denied"));
  std::filesystem::permissions(directory / "occupied", perms::owner_all);
}

TEST_CASE("a full disk ends a writer, and nothing is left behind") {
  const test::TemporaryDirectory directory;
  directory.write("target", "before");
  for (const rlim_t limit : {rlim_t(0), rlim_t(3), rlim_t(100'000)}) {
    const std::string error = test::error_on_full_disk(limit, [&] {
      SmallWriter writer(directory / "target", {{"a", 200'000}});
      const std::string content(200'000, 'x');
      writer.write("a", bytes(content));
      writer.commit();
    });
    CHECK_THAT(error, Contains("target: cannot write: File too large"));
    CHECK(directory.names() == std::set<std::string>{"target"});
    CHECK(directory.read("target") == "before");
  }
}

TEST_CASE("memory does not hold the file") {
  const test::TemporaryDirectory directory;
  std::vector<std::pair<std::string, Index>> tensors;
  for (int i = 0; i < 100; ++i) tensors.emplace_back(message("tensor", i), 1'000'000);
  const std::string content(1'000'000, 'x');
  const auto before = test::held_bytes();
  test::reset_peak_bytes();
  SmallWriter writer(directory / "file", tensors);
  for (const auto& [name, size] : tensors) writer.write(name, bytes(content));
  writer.commit();
  CHECK(test::peak_bytes() - before < 100'000);
  CHECK(std::filesystem::file_size(directory / "file") == 100'000'004);
}
