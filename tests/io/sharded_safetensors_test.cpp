#include "cafeq/io/sharded_safetensors.hpp"

#include <unistd.h>

#include "io/damage.hpp"
#include "io/temporary_directory.hpp"
#include "support/catch.hpp"

using namespace cafeq;
using test::error_of;

namespace {

/// Tensors of u8: name and values.
using Bytes = std::vector<std::pair<std::string, std::string>>;

/// A safetensors file with these tensors.
void write_shard(const std::string& path, const Bytes& tensors,
                 const Metadata& metadata = {{"format", "pt"}}) {
  std::vector<SafetensorsEntry> entries;
  for (const auto& [name, values] : tensors)
    entries.push_back({name, ScalarType::u8, {Index(values.size())}});
  SafetensorsWriter writer(path, entries, metadata);
  for (const auto& [name, values] : tensors) writer.write(name, std::as_bytes(std::span(values)));
  writer.commit();
}

std::string index_of(nlohmann::json weight_map) {
  return nlohmann::json{{"metadata", {{"total_size", 6}}}, {"weight_map", std::move(weight_map)}}
      .dump();
}

/// Two shards and their index; tensors are not in the order of their names.
void write_model(const test::TemporaryDirectory& directory) {
  write_shard(directory / "model-00001-of-00002.safetensors", {{"c", "cc"}, {"a", "a"}});
  write_shard(directory / "model-00002-of-00002.safetensors", {{"b", "bbb"}});
  directory.write("model.safetensors.index.json",
                  index_of({{"a", "model-00001-of-00002.safetensors"},
                            {"b", "model-00002-of-00002.safetensors"},
                            {"c", "model-00001-of-00002.safetensors"}}));
}

Bytes content_of(const SafetensorsModel& model) {
  Bytes content;
  for (const auto& tensor : model.tensors()) {
    model.release(tensor.name);
    content.emplace_back(tensor.name, detail::as_text(tensor.view.bytes));
  }
  return content;
}

const Bytes expected{{"c", "cc"}, {"a", "a"}, {"b", "bbb"}};

}  // namespace

TEST_CASE("a sharded model is one list in the order of its files") {
  const test::TemporaryDirectory directory;
  write_model(directory);
  directory.write("config.json", "{}");
  for (const std::string& path : {directory.path(), directory / "model.safetensors.index.json"}) {
    const SafetensorsModel model(path);
    CHECK(content_of(model) == expected);
    CHECK(model.tensor("b").shard == 1);
    CHECK(model.tensor("b").view.shape == std::vector<Index>{3});
    CHECK(error_of([&] { (void)model.tensor("d"); }).code() == ErrorCode::invalid_argument);
    CHECK(error_of([&] { model.release("d"); }).code() == ErrorCode::invalid_argument);
    CHECK(model.metadata() == Metadata{{"format", "pt"}});
    CHECK(model.directory() == directory.path());
    CHECK(model.files().size() == 2);
    CHECK(model.files()[1] == "model-00002-of-00002.safetensors");
    CHECK(model.file_bytes() ==
          Index(directory.read(model.files()[0]).size() + directory.read(model.files()[1]).size()));
  }
}

TEST_CASE("without an index a directory's files are one model, unless one is missing") {
  const test::TemporaryDirectory directory;
  write_model(directory);
  std::filesystem::remove(directory / "model.safetensors.index.json");
  CHECK(content_of(SafetensorsModel(directory.path())) == expected);
  CHECK(content_of(SafetensorsModel(directory / "model-00002-of-00002.safetensors")) ==
        Bytes{{"b", "bbb"}});

  std::filesystem::remove(directory / "model-00001-of-00002.safetensors");
  const Error error = error_of([&] { SafetensorsModel{directory.path()}; });
  CHECK(error.code() == ErrorCode::io);
  CHECK_THAT(error.message(), Contains("holds 1 safetensors files and no index, but "
                                       "model-00002-of-00002.safetensors is one of 2"));

  write_shard(directory / "model.safetensors", {{"d", "d"}});
  CHECK(content_of(SafetensorsModel(directory.path())) == Bytes{{"d", "d"}});

  const test::TemporaryDirectory other;
  CHECK(error_of([&] { SafetensorsModel{other.path()}; }).code() == ErrorCode::io);
  write_shard(other / "weights-of-mine.safetensors", {{"d", "d"}});
  CHECK(content_of(SafetensorsModel(other.path())) == Bytes{{"d", "d"}});
}

TEST_CASE("shards may be symbolic links, as in a cache of downloads") {
  const test::TemporaryDirectory directory;
  for (const char* name : {"blobs", "snapshot"})
    std::filesystem::create_directory(directory / name);
  write_shard(directory / "blobs/0123", {{"a", "a"}});
  std::filesystem::create_symlink("../blobs/0123", directory / "snapshot/model.safetensors");
  CHECK(content_of(SafetensorsModel(directory / "snapshot")) == Bytes{{"a", "a"}});
}

TEST_CASE("files that contradict the index or each other are refused") {
  const test::TemporaryDirectory directory;
  write_model(directory);
  const std::string first = "model-00001-of-00002.safetensors",
                    second = "model-00002-of-00002.safetensors";
  const nlohmann::json places{{"a", first}, {"b", second}, {"c", first}};
  const auto refused = [&](const nlohmann::json& changed) {
    INFO(changed.dump());
    directory.write("model.safetensors.index.json", index_of(changed));
    const Error error = error_of([&] { SafetensorsModel{directory.path()}; });
    CHECK(error.code() == ErrorCode::corrupt);
    return error.message();
  };
  const auto with = [&](const char* name, nlohmann::json file) {
    auto changed = places;
    changed[name] = std::move(file);
    return changed;
  };
  CHECK_THAT(refused(with("d", second)),
             Contains(second + ": has no tensor d, which the index places there"));
  CHECK_THAT(refused(with("a", second)),
             Contains(first + ": has tensor a, which the index places in " + second));
  CHECK_THAT(refused({{"a", first}, {"b", second}}),
             Contains(first + ": has tensor c, which the index does not list"));
  for (const nlohmann::json& file : {nlohmann::json("../" + second),
                                     {"/etc/hostname"},
                                     {"sub/" + second},
                                     {"./" + second},
                                     {".."},
                                     {""},
                                     {"a\\b"},
                                     nlohmann::json(std::string("a\0b", 3)),
                                     nlohmann::json(7),
                                     nlohmann::json()})
    CHECK_THAT(refused(with("a", file.is_array() ? file[0] : file)),
               Contains("tensor a") && Contains("is not the name of a file beside the index"));
  refused(nlohmann::json::array());
  refused("x");
  CHECK(error_of([&] {
          directory.write("model.safetensors.index.json",
                          index_of(with("b", "missing.safetensors")));
          SafetensorsModel{directory.path()};
        }).code() == ErrorCode::io);
  for (const char* text :
       {"", "[]", "{}", "{\"weight_map\": ", "{\"weight_map\": {\"a\": \"x\", \"a\": \"x\"}}"}) {
    directory.write("model.safetensors.index.json", text);
    CHECK(error_of([&] { SafetensorsModel{directory.path()}; }).code() == ErrorCode::corrupt);
  }

  SECTION("one tensor in two files") {
    write_shard(directory / second, {{"b", "bbb"}, {"a", "a"}});
    CHECK_THAT(refused(places),
               Contains(second + ": has tensor a, which the index places in " + first));
    std::filesystem::remove(directory / "model.safetensors.index.json");
    const Error error = error_of([&] { SafetensorsModel{directory.path()}; });
    CHECK(error.code() == ErrorCode::corrupt);
    CHECK_THAT(error.message(), Contains(second + ": tensor a is in another file too"));
  }
  SECTION("metadata") {
    write_shard(directory / second, {{"b", "bbb"}}, {{"format", "tf"}, {"more", "x"}});
    CHECK_THAT(refused(places), Contains("its metadata format is tf, in another file it is pt"));
  }
  SECTION("a damaged shard") {
    directory.write(second, directory.read(second).substr(0, 70));
    CHECK_THAT(refused(places), Contains(second));
  }
}

TEST_CASE("every truncation and many changes of an index are read or refused") {
  const test::TemporaryDirectory directory;
  write_model(directory);
  const auto read = [&](std::string_view content) {
    directory.write("model.safetensors.index.json", content);
    SafetensorsModel{directory.path()};
  };
  const std::string content = directory.read("model.safetensors.index.json");
  test::check_prefixes(content, read);
  test::check_bit_flips(content, 1000, 2, read);
}

TEST_CASE("a model is written back in shards and read again") {
  const test::TemporaryDirectory directory;
  const Bytes tensors{
      {"x", "12345"}, {"long", "123456789012"}, {"b", "12"}, {"a", "123"}, {"empty", ""}};
  std::vector<SafetensorsEntry> entries;
  for (const auto& [name, values] : tensors)
    entries.push_back({name, ScalarType::u8, {Index(values.size())}});
  const auto write = [&](const std::string& target, Index shard_bytes) {
    std::filesystem::create_directory(target);
    ShardedSafetensorsWriter writer(target, entries, {{"format", "pt"}}, shard_bytes);
    for (auto tensor = tensors.rbegin(); tensor != tensors.rend(); ++tensor)
      writer.write(tensor->first, std::as_bytes(std::span(tensor->second)));
    writer.commit();
    const SafetensorsModel model(target);
    CHECK(content_of(model) == tensors);
    CHECK(model.metadata() == Metadata{{"format", "pt"}});
    return detail::names_in(target);
  };
  CHECK(write(directory / "one", 22) == std::vector<std::string>{"model.safetensors"});
  CHECK(write(directory / "two", 17) == std::vector<std::string>{"model-00001-of-00002.safetensors",
                                                                 "model-00002-of-00002.safetensors",
                                                                 "model.safetensors.index.json"});
  CHECK(write(directory / "three", 10).size() == 4);
  CHECK(write(directory / "two", 17).size() == 3);  // replaces what is there
  CHECK(write(directory / "all", 1).size() == 6);   // what is empty joins the one before
  CHECK(nlohmann::json::parse(directory.read("two/model.safetensors.index.json")) ==
        nlohmann::json{{"metadata", {{"total_size", 22}}},
                       {"weight_map",
                        {{"x", "model-00001-of-00002.safetensors"},
                         {"long", "model-00001-of-00002.safetensors"},
                         {"b", "model-00002-of-00002.safetensors"},
                         {"a", "model-00002-of-00002.safetensors"},
                         {"empty", "model-00002-of-00002.safetensors"}}}});

  // Files of another layout would be read as a part of the model.
  for (const Index shard_bytes : {Index(100), Index(10)}) {
    const Error error =
        error_of([&] { ShardedSafetensorsWriter(directory / "two", entries, {}, shard_bytes); });
    CHECK(error.code() == ErrorCode::invalid_argument);
    CHECK_THAT(error.message(), Contains("two: holds model-00001-of-00002.safetensors"));
  }
  CHECK(detail::names_in(directory / "two").size() == 3);
  directory.write("indexed/model.safetensors.index.json", "{}");
  CHECK_THAT(error_of([&] { ShardedSafetensorsWriter(directory / "indexed", entries); }).message(),
             Contains("holds model.safetensors.index.json"));
}

TEST_CASE("a sharded writer that fails leaves nothing behind") {
  const test::TemporaryDirectory directory;
  const std::string large(100'000, 'x');
  const std::vector<SafetensorsEntry> entries{
      {"a", ScalarType::u8, {2}}, {"b", ScalarType::u8, {2}}, {"c", ScalarType::u8, {100'000}}};
  const auto bytes = [](std::string_view text) { return std::as_bytes(std::span(text)); };
  const auto refused = [&](const std::vector<SafetensorsEntry>& declared, auto use) {
    const Error error = error_of([&] {
      ShardedSafetensorsWriter writer(directory.path(), declared, {}, 3);
      use(writer);
    });
    CHECK(error.code() == ErrorCode::invalid_argument);
    CHECK(directory.names().empty());
    return error.message();
  };
  CHECK(refused(entries, [&](auto& w) { w.write("a", bytes("1")); }) ==
        "tensor a has 1 bytes, declared were 2");
  CHECK(refused(entries, [&](auto& w) { w.write("d", bytes("1")); }) ==
        "tensor d was not declared");
  CHECK(refused(entries, [&](auto& w) {
          w.write("a", bytes("12"));
          w.write("b", bytes("12"));
          w.commit();
        }) == "tensor c was not written");
  auto repeated = entries;
  repeated.push_back(entries[0]);
  CHECK(refused(repeated, [](auto&) {}) == "tensor a is declared twice");
  CHECK_THAT(refused({{"a", ScalarType::f32, {-1}}, {"b", ScalarType::u8, {1}}}, [](auto&) {}),
             Contains("a: F32 [-1] has no size"));
  refused({{"bad \xff", ScalarType::u8, {3}}, {"b", ScalarType::u8, {1}}}, [](auto&) {});

  for (const rlim_t limit : {rlim_t(0), rlim_t(100), rlim_t(50'000)}) {
    CHECK_THAT(test::error_on_full_disk(limit,
                                        [&] {
                                          ShardedSafetensorsWriter writer(directory.path(), entries,
                                                                          {}, 3);
                                          writer.write("c", bytes(large));
                                        }),
               Contains("cannot write"));
    CHECK(directory.names().empty());
  }
  CHECK(error_of([&] { ShardedSafetensorsWriter(directory / "missing", entries); }).code() ==
        ErrorCode::io);
}
