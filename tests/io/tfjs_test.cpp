#include "cafeq/io/tfjs.hpp"

#include "io/damage.hpp"
#include "io/tfjs_model.hpp"
#include "support/catch.hpp"

using namespace cafeq;
using test::bytes_of;
using test::error_of;

namespace {

/// Three tensors, 24 + 8 + 3 bytes, in shards of ten.
nlohmann::json small_model(const test::TemporaryDirectory& directory) {
  return test::tfjs_manifest(
      directory,
      {{"kernel", "float32", {1, 1, 2, 3}, bytes_of<float>({1, 2, 3, 4, 5, 6})},
       {"steps", "int32", {2}, bytes_of<std::int32_t>({-7, 9})},
       {"mask", "bool", {3}, bytes_of<char>({1, 0, 1})},
       {"nothing", "float32", {0, 4}, ""}},
      10);
}

Error read_error(const test::TemporaryDirectory& directory, const nlohmann::json& model) {
  directory.write("model.json", model.dump());
  return error_of([&] { read_tfjs(directory.path()); });
}

}  // namespace

TEST_CASE("tensors are read by name across shards") {
  const test::TemporaryDirectory directory;
  directory.write("model.json", small_model(directory).dump());
  REQUIRE(directory.names().size() == 5);
  const TensorMap tensors = read_tfjs(directory.path());
  REQUIRE(tensors.size() == 4);
  const auto kernel = tensor_at(tensors, "kernel").matrix();
  CHECK(kernel.rows == 2);
  CHECK(kernel.cols == 3);
  CHECK(kernel(0, 2) == 3.0f);
  CHECK(kernel(1, 2) == 6.0f);
  CHECK(tensor_at(tensors, "steps").values<std::int32_t>()[0] == -7);
  CHECK(tensor_at(tensors, "mask").values<bool>()[2]);
  CHECK(tensor_at(tensors, "nothing").bytes.empty());
  CHECK(std::uintptr_t(tensor_at(tensors, "steps").bytes.data()) % alignment == 0);
}

TEST_CASE("tensors are listed in the manifest's order and read one by one") {
  const test::TemporaryDirectory directory;
  auto model = small_model(directory);
  directory.write("more", bytes_of<std::uint8_t>({3, 5}));
  model["weightsManifest"].push_back(
      {{"paths", {"more"}},
       {"weights",
        {{{"name", "codes"},
          {"dtype", "float32"},
          {"shape", {2}},
          {"quantization", {{"dtype", "uint8"}, {"scale", 2}, {"min", 0}}}}}}});
  const TfjsReader file(directory.write("model.json", model.dump()));
  REQUIRE(file.tensors().size() == 5);
  CHECK(file.tensors()[0].name == "kernel");
  CHECK(file.tensors()[2].name == "mask");
  CHECK(file.tensor("steps").stored_bytes() == 8);
  CHECK(file.tensor("codes").type == ScalarType::f32);
  CHECK(file.tensor("codes").stored == ScalarType::u8);
  CHECK(file.tensor("codes").stored_bytes() == 2);
  CHECK(file.file_bytes() == 37);
  CHECK(file.load("codes").values<float>()[1] == 10.0f);
  CHECK(file.load("steps").values<std::int32_t>()[1] == 9);
  CHECK(file.load("kernel").values<float>()[5] == 6.0f);
  CHECK(error_of([&] { (void)file.load("other"); }).code() == ErrorCode::invalid_argument);

  directory.write("shard2", "");  // cut after it was opened
  const Error error = error_of([&] { (void)file.load("kernel"); });
  CHECK(error.code() == ErrorCode::io);
  CHECK_THAT(error.message(), Contains("shard2: ends 4 bytes early"));
}

TEST_CASE("entries of the manifest have shards of their own, which may lie in subdirectories") {
  const test::TemporaryDirectory directory;
  auto model = small_model(directory);
  directory.write("more/shard..0", bytes_of<float>({8}));
  model["weightsManifest"].push_back(
      {{"paths", {"more/shard..0"}},
       {"weights",
        {{{"name", "last"}, {"dtype", "float32"}, {"shape", nlohmann::json::array()}}}}});
  directory.write("other.json", model.dump());
  const TensorMap tensors = read_tfjs(directory.path(), "other.json");
  CHECK(tensors.size() == 5);
  CHECK(tensor_at(tensors, "last").values<float>()[0] == 8.0f);
}

TEST_CASE("quantized weights are returned as what they stand for") {
  const test::TemporaryDirectory directory;
  directory.write("shard",
                  bytes_of<std::uint8_t>({0, 1, 255}) + bytes_of<std::uint16_t>({0, 65535}) +
                      bytes_of<std::uint16_t>({0x3c00, 0xc000}) + bytes_of<std::uint8_t>({3, 5}));
  const auto entry = [](const char* name, const char* dtype, Index size,
                        nlohmann::json quantization) {
    return nlohmann::json{{"name", name},
                          {"dtype", dtype},
                          {"shape", {size}},
                          {"quantization", std::move(quantization)}};
  };
  const nlohmann::json model{
      {"weightsManifest",
       {{{"paths", {"shard"}},
         {"weights",
          {entry("bytes", "float32", 3, {{"dtype", "uint8"}, {"scale", 0.5}, {"min", -1}}),
           entry("words", "float32", 2, {{"dtype", "uint16"}, {"scale", 2.0}, {"min", 0.25}}),
           entry("halves", "float32", 2, {{"dtype", "float16"}}),
           entry("integers", "int32", 2, {{"dtype", "uint8"}, {"scale", 0.5}, {"min", -9}})}}}}}};
  directory.write("model.json", model.dump());
  const TensorMap tensors = read_tfjs(directory.path());
  const auto is = [&](const char* name, std::vector<float> expected) {
    const auto values = tensor_at(tensors, name).values<float>();
    return std::equal(values.begin(), values.end(), expected.begin(), expected.end());
  };
  CHECK(is("bytes", {-1.0f, -0.5f, 126.5f}));
  CHECK(is("words", {0.25f, 131070.25f}));
  CHECK(is("halves", {1.0f, -2.0f}));
  const auto integers = tensor_at(tensors, "integers").values<std::int32_t>();
  CHECK(integers[0] == -7);  // -7.5 to the nearest, ties up
  CHECK(integers[1] == -6);

  for (const nlohmann::json& bad : {nlohmann::json{{"dtype", "uint4"}, {"scale", 1}, {"min", 0}},
                                    {{"dtype", "uint8"}},
                                    {{"dtype", "uint8"}, {"scale", "1"}, {"min", 0}},
                                    nlohmann::json(7)}) {
    auto broken = model;
    broken["weightsManifest"][0]["weights"][0]["quantization"] = bad;
    const Error error = read_error(directory, broken);
    CHECK(error.code() == ErrorCode::corrupt);
    CHECK_THAT(error.message(), Contains("tensor bytes"));
  }
}

TEST_CASE("missing and mismatching files are named") {
  const test::TemporaryDirectory directory;
  CHECK(error_of([&] { read_tfjs(directory.path()); }).code() == ErrorCode::io);
  const auto model = small_model(directory);

  directory.write("shard3", "1234");  // one byte short
  Error error = read_error(directory, model);
  CHECK(error.code() == ErrorCode::corrupt);
  CHECK_THAT(error.message(), Contains("tensor mask") && Contains("shard3"));

  directory.write("shard3", "123456");  // one too many
  error = read_error(directory, model);
  CHECK(error.code() == ErrorCode::corrupt);
  CHECK_THAT(error.message(), Contains("35 of the 36 bytes"));

  std::filesystem::remove(directory / "shard1");
  error = read_error(directory, model);
  CHECK(error.code() == ErrorCode::io);
  CHECK_THAT(error.message(), Contains("shard1"));
}

TEST_CASE("contradictions in the manifest are refused") {
  const test::TemporaryDirectory directory;
  const auto model = small_model(directory);
  const auto broken = [&](auto change) {
    auto copy = model;
    change(copy["weightsManifest"][0]);
    const Error error = read_error(directory, copy);
    CHECK_THAT(error.message(), Contains("model.json"));
    return error;
  };
  const auto weight = [&](const char* member, nlohmann::json value) {
    return broken([&](nlohmann::json& entry) { entry["weights"][0][member] = value; });
  };

  SECTION("shapes") {
    constexpr Index huge = std::numeric_limits<Index>::max();
    for (const nlohmann::json& shape : {nlohmann::json{-2, -3},
                                        {2.5, 2},
                                        {huge, huge},
                                        {Index(1) << 40, Index(1) << 40},
                                        {3, 3},
                                        nlohmann::json("6"),
                                        nlohmann::json(),
                                        {18446744073709551615u, 2},
                                        {huge},
                                        {Index(1) << 40}}) {
      INFO(shape.dump());
      const Error error = weight("shape", shape);
      CHECK(error.code() == ErrorCode::corrupt);
      CHECK_THAT(error.message(), Contains("kernel"));
    }
  }
  SECTION("types") {
    CHECK_THAT(weight("dtype", "float33").message(), Contains("float33") && Contains("kernel"));
    CHECK(weight("dtype", "float33").code() == ErrorCode::corrupt);
    CHECK(weight("dtype", 5).code() == ErrorCode::corrupt);
    CHECK(weight("dtype", "string").code() == ErrorCode::unsupported);
  }
  SECTION("names") {
    CHECK_THAT(weight("name", "steps").message(), Contains("steps appears twice"));
    CHECK(weight("name", nlohmann::json()).code() == ErrorCode::corrupt);
  }
  SECTION("shard paths that lead out of the directory") {
    for (const char* path :
         {"../shard0", "/etc/hostname", "a/../../b", "", "..", "a\\..\\b", "sub/.."}) {
      INFO(path);
      const Error error = broken([&](nlohmann::json& entry) { entry["paths"][0] = path; });
      CHECK(error.code() == ErrorCode::corrupt);
      CHECK_THAT(error.message(), Contains("shard path"));
    }
    CHECK(broken([](nlohmann::json& entry) {
            entry["paths"][0] = std::string("a\0b", 3);
          }).code() == ErrorCode::corrupt);
    CHECK(broken([](nlohmann::json& entry) { entry["paths"][0] = 3; }).code() ==
          ErrorCode::corrupt);
  }
  SECTION("structure") {
    CHECK(broken([](nlohmann::json& entry) { entry.erase("paths"); }).code() == ErrorCode::corrupt);
    CHECK(broken([](nlohmann::json& entry) { entry["weights"] = 1; }).code() == ErrorCode::corrupt);
    CHECK(broken([](nlohmann::json& entry) {
            entry["weights"][1] = nlohmann::json::array();
          }).code() == ErrorCode::corrupt);
    CHECK(broken([](nlohmann::json& entry) { entry = "x"; }).code() == ErrorCode::corrupt);
    CHECK(broken([](nlohmann::json& entry) { entry["paths"] = nlohmann::json::array(); }).code() ==
          ErrorCode::corrupt);
    CHECK(read_error(directory, {{"weightsManifest", {{"paths", 1}}}}).code() ==
          ErrorCode::corrupt);
    CHECK(read_error(directory, nlohmann::json::array()).code() == ErrorCode::corrupt);
  }
}

TEST_CASE(
    "every truncation and many changes of model.json, every truncation of a shard are read or "
    "refused") {
  const test::TemporaryDirectory directory;
  const std::string text = small_model(directory).dump();
  const auto read = [&](std::string_view content) {
    directory.write("model.json", content);
    for (const auto& [name, tensor] : read_tfjs(directory.path()))
      CHECK(Index(tensor.bytes.size()) == byte_count(tensor.type, tensor.shape));
  };
  test::check_prefixes(text, read);
  CHECK(test::check_bit_flips(text, 1000, 4, read) < 900);
  directory.write("model.json", text);
  test::check_prefixes(directory.read("shard1"), [&](std::string_view content) {
    directory.write("shard1", content);
    read_tfjs(directory.path());
  });
}
