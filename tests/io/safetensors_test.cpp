#include "cafeq/io/safetensors.hpp"

#include "io/damage.hpp"
#include "io/temporary_directory.hpp"
#include "support/catch.hpp"
#include "support/random.hpp"

using namespace cafeq;
using test::error_of;
using Access = SafetensorsReader::Access;

namespace {

/// A file with this header and data, as any program might write it.
std::string file_of(std::string_view header, std::string_view data,
                    std::uint64_t claimed = ~std::uint64_t(0)) {
  return test::bytes_of<std::uint64_t>({claimed == ~std::uint64_t(0) ? header.size() : claimed}) +
         std::string(header) + std::string(data);
}

Error read_error(std::string_view content) {
  const test::TemporaryDirectory directory;
  const std::string path = directory.write("file.safetensors", content);
  const Error error = error_of([&] { SafetensorsReader{path, Access::read}; });
  const Error mapped = error_of([&] { SafetensorsReader{path, Access::map}; });
  CHECK(error.message() == mapped.message());
  CHECK_THAT(error.message(), Contains("file.safetensors"));
  return error;
}

}  // namespace

TEST_CASE("what is written is read, byte for byte, type by type") {
  const test::TemporaryDirectory directory;
  Buffer<std::byte> bytes(24 * 8);
  for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = std::byte(37 * i);
  TensorViewMap tensors;
  for (int i = 0; i < 16; ++i) {
    const auto type = ScalarType(i);
    tensors[message("a ", name_of(type), " \u00e9\"\\")] = {
        type, {2, 3, 4}, std::span(bytes).first(std::size_t(24 * bytes_of(type)))};
  }
  tensors["scalar"] = {ScalarType::f32, {}, std::span(bytes).first(4)};
  tensors["empty"] = {ScalarType::f64, {3, 0}, {}};
  const Metadata metadata{{"format", "pt"}, {"note", "line\nbreak \u2581"}};
  write_safetensors(directory / "file", tensors, metadata);
  CHECK(directory.names() == std::set<std::string>{"file"});

  for (const Access access : {Access::map, Access::read}) {
    const SafetensorsReader file(directory / "file", access);
    CHECK(file.metadata() == metadata);
    REQUIRE(file.tensors().size() == tensors.size());
    for (const auto& [name, tensor] : tensors) {
      INFO(name);
      const TensorView& found = tensor_at(file.tensors(), name);
      CHECK(found.type == tensor.type);
      CHECK(found.shape == tensor.shape);
      CHECK(std::equal(found.bytes.begin(), found.bytes.end(), tensor.bytes.begin(),
                       tensor.bytes.end()));
      if (!found.bytes.empty())
        CHECK(std::uintptr_t(found.bytes.data()) % std::uintptr_t(bytes_of(found.type)) == 0);
      const Tensor copy = file.load(name);
      CHECK(std::equal(copy.bytes.begin(), copy.bytes.end(), tensor.bytes.begin(),
                       tensor.bytes.end()));
      CHECK(std::uintptr_t(copy.bytes.data()) % alignment == 0);
    }
  }
}

TEST_CASE("a file follows the format: header length, padding, order") {
  const test::TemporaryDirectory directory;
  const std::vector<std::uint8_t> small{1, 2, 3};
  const std::vector<float> large{4, 5};
  write_safetensors(directory / "file",
                    {{"a", as_tensor(std::span(small))}, {"b", as_tensor(std::span(large))}});
  const std::string content = directory.read("file");
  std::uint64_t header_size = 0;
  std::memcpy(&header_size, content.data(), 8);
  CHECK((8 + header_size) % 64 == 0);
  CHECK(content.size() == 8 + header_size + 11);
  const auto header = nlohmann::json::parse(content.substr(8, header_size));
  CHECK(header ==
        nlohmann::json::parse(R"({"a": {"dtype": "U8", "shape": [3], "data_offsets": [8, 11]},
                                            "b": {"dtype": "F32", "shape": [2], )"
                              R"("data_offsets": [0, 8]}})"));
  CHECK(content.substr(8 + header_size) == test::bytes_of<float>({4, 5}) + "\1\2\3");
  write_safetensors(directory / "again",
                    {{"b", as_tensor(std::span(large))}, {"a", as_tensor(std::span(small))}});
  CHECK(directory.read("again") == content);
}

TEST_CASE("a reader may be moved; its views stay") {
  const test::TemporaryDirectory directory;
  const auto m = test::gaussian<float>(5, 7, 1);
  write_safetensors(directory / "file", {{"W", as_tensor(m.view())}});
  for (const Access access : {Access::map, Access::read}) {
    SafetensorsReader first(directory / "file", access);
    const auto view = first.tensors().at("W").matrix();
    const SafetensorsReader second(std::move(first));
    CHECK(second.tensors().at("W").matrix().data == view.data);
    CHECK(test::relative_error(view, m.view()) == 0);
  }
}

TEST_CASE("files of other writers are read: no padding, any order, metadata") {
  const test::TemporaryDirectory directory;
  const std::string header =
      R"({"b":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"__metadata__":{"k":"v"},)"
      R"("a":{"dtype":"F32","shape":[1,1],"data_offsets":[1,5]}})";
  const SafetensorsReader file(
      directory.write("file", file_of(header, "x" + test::bytes_of<float>({2.5f}))));
  CHECK(file.metadata().at("k") == "v");
  CHECK(file.load("a").values<float>()[0] == 2.5f);
  CHECK(SafetensorsReader(directory.write("none", file_of("{}   ", ""))).tensors().empty());
}

TEST_CASE("headers that lie about their length are refused") {
  for (const std::uint64_t claimed : {std::uint64_t(1) << 63, ~std::uint64_t(0) - 1,
                                      std::uint64_t(3), std::uint64_t(100'000'001)})
    CHECK_THAT(read_error(file_of("{}", "", claimed)).message(),
               Contains(message(claimed, " bytes")));
  CHECK(read_error("").code() == ErrorCode::corrupt);
  CHECK(read_error("1234567").code() == ErrorCode::corrupt);
  CHECK(read_error(file_of("", "")).code() == ErrorCode::corrupt);
}

TEST_CASE("headers that break the format are refused") {
  const auto refused = [](std::string_view header, std::string_view data = "12345678") {
    INFO(header);
    const Error error = read_error(file_of(header, data));
    CHECK(error.code() == ErrorCode::corrupt);
    return error.message();
  };
  refused("[]");
  refused(" {}", "");
  refused("{\"a\":");
  refused("{}");  // data without a tensor
  refused(R"({"a":1})");
  CHECK_THAT(refused(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},)"
                     R"("a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})"),
             Contains("appears twice"));
  CHECK_THAT(refused(R"({"a":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}})"),
             Contains("F32 [3] does not take 8 bytes"));
  CHECK_THAT(
      refused(R"({"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,8]}})"),
      Contains("does not take"));
  CHECK_THAT(refused(R"({"a":{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}})"),
             Contains("shape"));
  CHECK_THAT(refused(R"({"a":{"dtype":"F32","shape":[2.0],"data_offsets":[0,8]}})"),
             Contains("shape"));
  CHECK_THAT(refused(R"({"a":{"shape":[2],"data_offsets":[0,8]}})"), Contains("dtype"));
  CHECK_THAT(refused(R"({"a":{"dtype":"F32","shape":[2]}})"), Contains("data_offsets"));
  CHECK_THAT(refused(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0]}})"),
             Contains("data_offsets"));
  CHECK_THAT(refused(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[8,0]}})"),
             Contains("outside"));
  CHECK_THAT(refused(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[8,16]}})"),
             Contains("outside"));
  CHECK_THAT(refused(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[-8,0]}})"),
             Contains("data_offsets"));
  CHECK_THAT(
      refused(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,18446744073709551615]}})"),
      Contains("data_offsets"));
  CHECK_THAT(refused(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8],"more":1}})"),
             Contains("other than"));
  CHECK_THAT(refused(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})"),
             Contains("cover 4 of the 8"));
  CHECK_THAT(refused(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})"), Contains("gap"));
  CHECK_THAT(refused(R"({"a":{"dtype":"U8","shape":[5],"data_offsets":[0,5]},)"
                     R"("b":{"dtype":"U8","shape":[4],"data_offsets":[4,8]}})"),
             Contains("overlaps"));
  CHECK_THAT(refused(R"({"a":{"dtype":"U8","shape":[8],"data_offsets":[0,8]},)"
                     R"("b":{"dtype":"U8","shape":[0],"data_offsets":[3,3]}})"),
             Contains("overlaps"));
  CHECK_THAT(refused(R"({"__metadata__":{"k":1}})", ""), Contains("k is not a string"));
  CHECK_THAT(refused(R"({"__metadata__":"x"})", ""), Contains("not an object"));
  CHECK(
      read_error(file_of(R"({"a":{"dtype":"F4","shape":[2],"data_offsets":[0,1]}})", "1")).code() ==
      ErrorCode::unsupported);
}

TEST_CASE("every changed header byte is read or refused, never worse") {
  const test::TemporaryDirectory directory;
  const std::vector<float> values{1, 2, 3};
  write_safetensors(directory / "file",
                    {{"a", as_tensor(std::span(values))}, {"b", as_tensor(std::span(values))}},
                    {{"k", "v"}});
  const std::string content = directory.read("file");
  const auto attempt = [&](const std::string& changed) {
    const auto bytes = test::exact_bytes(changed);
    return test::raises([&] { (void)detail::parse_safetensors("file", bytes); });
  };
  for (std::size_t i = 0; i < content.size() - 24; ++i)
    for (const char c : {'\0', '"', '9', '}', '\xff', '-'}) {
      std::string changed = content;
      changed[i] = c;
      attempt(changed);  // an exception of another type would end the test
    }
  CHECK_FALSE(attempt(content));
}

TEST_CASE("the writer refuses what the format cannot hold") {
  const test::TemporaryDirectory directory;
  const std::vector<float> values{1, 2};
  const TensorView good = as_tensor(std::span(values));
  const auto refused = [&](const TensorViewMap& tensors, const Metadata& metadata = {}) {
    const Error error = error_of([&] { write_safetensors(directory / "file", tensors, metadata); });
    CHECK(error.code() == ErrorCode::invalid_argument);
    CHECK(directory.names().empty());
    return error.message();
  };
  CHECK_THAT(refused({{"W", {ScalarType::f32, {3}, good.bytes}}}),
             Contains("W has 8 bytes, declared were 12"));
  CHECK_THAT(refused({{"W", {ScalarType::f32, {-1, -2}, good.bytes}}}),
             Contains("W: F32 [-1, -2] has no size"));
  refused({{"__metadata__", good}});
  refused({{"bad \xff name", good}});
  refused({{"W", good}}, {{"k", "\xc3"}});
}

TEST_CASE("a full disk is an io error that leaves nothing behind") {
  const test::TemporaryDirectory directory;
  const Matrix<float> m(300, 300);
  directory.write("target", "what was here before");
  for (const rlim_t limit : {rlim_t(0), rlim_t(50), rlim_t(100'000)}) {
    CHECK_THAT(
        test::error_on_full_disk(
            limit, [&] { write_safetensors(directory / "target", {{"W", as_tensor(m.view())}}); }),
        Contains("target: cannot write"));
    CHECK(directory.names() == std::set<std::string>{"target"});
    CHECK(directory.read("target") == "what was here before");
  }
}

TEST_CASE("tensors are streamed in any order into the file that is written at once") {
  const test::TemporaryDirectory directory;
  const std::vector<std::uint8_t> small{1, 2, 3};
  const std::vector<float> large{4, 5};
  write_safetensors(directory / "whole",
                    {{"a", as_tensor(std::span(small))}, {"b", as_tensor(std::span(large))}},
                    {{"k", "v"}});
  const std::vector<SafetensorsEntry> entries{{"a", ScalarType::u8, {3}},
                                              {"b", ScalarType::f32, {2}}};
  SafetensorsWriter writer(directory / "streamed", entries, {{"k", "v"}});
  writer.write("a", std::as_bytes(std::span(small)));
  writer.write("b", std::as_bytes(std::span(large)));
  writer.commit();
  CHECK(directory.read("streamed") == directory.read("whole"));
}

TEST_CASE("entries of one size keep their order") {
  const test::TemporaryDirectory directory;
  const std::vector<SafetensorsEntry> entries{
      {"z", ScalarType::u8, {1}}, {"y", ScalarType::bf16, {1}}, {"a", ScalarType::f16, {1}}};
  SafetensorsWriter writer(directory / "file", entries);
  for (const auto& [name, value] : {std::pair("z", "z"), {"y", "yY"}, {"a", "aA"}})
    writer.write(name, std::as_bytes(std::span(value, std::strlen(value))));
  writer.commit();
  CHECK(directory.read("file").ends_with("yYaAz"));
  const auto refused = [&](std::vector<SafetensorsEntry> changed) {
    CHECK(error_of([&] { SafetensorsWriter(directory / "other", changed); }).code() ==
          ErrorCode::invalid_argument);
    CHECK(directory.names().size() == 1);
  };
  refused({{"a", ScalarType::u8, {1}}, {"a", ScalarType::u8, {1}}});
  refused({{"a", ScalarType::f32, {Index(1) << 62}}});
  refused({{"a", ScalarType::u8, {Index(1) << 61}}, {"b", ScalarType::f32, {Index(1) << 60}}});
}

TEST_CASE("releasing a tensor keeps its view") {
  const test::TemporaryDirectory directory;
  const auto m = test::gaussian<float>(50, 70, 1);
  write_safetensors(directory / "file", {{"W", as_tensor(m.view())}});
  for (const Access access : {Access::map, Access::read}) {
    const SafetensorsReader file(directory / "file", access);
    const auto view = file.tensors().at("W").matrix();
    file.release("W");
    CHECK(test::relative_error(view, m.view()) == 0);
    CHECK(error_of([&] { file.release("V"); }).code() == ErrorCode::invalid_argument);
    CHECK(file.file_bytes() == Index(directory.read("file").size()));
  }
}

TEST_CASE("damaged files are read or refused") {
  const test::TemporaryDirectory directory;
  const std::vector<float> values{1, 2, 3};
  write_safetensors(directory / "file",
                    {{"a", as_tensor(std::span(values))}, {"bc", as_tensor(std::span(values))}},
                    {{"k", "v"}});
  unsigned sum = 0;
  const auto read = [&](std::string_view content) {
    const auto bytes = test::exact_bytes(content);
    const auto parsed = detail::parse_safetensors("file", bytes);
    for (const auto& [name, tensor] : parsed.tensors)
      for (const std::byte b : tensor.bytes) sum += unsigned(b);
  };
  const std::string content = directory.read("file");
  test::check_prefixes(content, read);
  const int accepted = test::check_bit_flips(content, 4000, 1, read);
  CHECK(accepted > 0);
  CHECK(accepted < 4000);
  CHECK(sum > 0);
}
