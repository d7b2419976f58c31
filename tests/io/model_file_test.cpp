#include "cafeq/io/model_file.hpp"

#include "cafeq/io/sharded_safetensors.hpp"
#include "io/damage.hpp"
#include "io/temporary_directory.hpp"
#include "io/tfjs_model.hpp"
#include "support/catch.hpp"
#include "support/random.hpp"

using namespace cafeq;
using test::bytes_of;
using test::error_of;

namespace {

TensorInfo info_of(const ModelFile& file, std::string_view name) {
  for (const auto& info : file.tensors())
    if (info.name == name) return info;
  FAIL("no tensor " << name);
  return {};
}

/// The tensor as floats, whatever it lies in.
std::vector<double> values_of(const ModelFile& file, std::string_view name) {
  const LoadedTensor tensor = file.load(name);
  const auto read = [&]<class T>(T) {
    const auto values = tensor.view.values<T>();
    return std::vector<double>(values.begin(), values.end());
  };
  switch (tensor.view.type) {
    case ScalarType::f32: return read(float{});
    case ScalarType::f16: return read(fp16{});
    case ScalarType::bf16: return read(bf16{});
    default: return read(double{});
  }
}

bool owns_nothing(const LoadedTensor& tensor) { return tensor.owner == nullptr; }

/// The data of this file begins at a multiple of 8.
std::string safetensors_file(std::string header, std::string_view data) {
  header.resize((header.size() + 7) / 8 * 8, ' ');
  return bytes_of<std::uint64_t>({header.size()}) + header + std::string(data);
}

}  // namespace

TEST_CASE("a safetensors file is opened whatever its name is") {
  const test::TemporaryDirectory directory;
  const std::vector<float> f32{1, 2};
  const std::vector<double> f64{3, 4};
  const std::vector<fp16> f16{fp16(5), fp16(6)};
  const std::vector<bf16> brain{bf16(7.0f), bf16(8.0f)};
  const std::vector<std::int64_t> i64{9, 10};
  write_safetensors(directory / "weights", {{"f32", as_tensor(std::span(f32))},
                                            {"f64", as_tensor(std::span(f64))},
                                            {"f16", as_tensor(std::span(f16))},
                                            {"bf16", as_tensor(std::span(brain))},
                                            {"i64", as_tensor(std::span(i64))}});
  const ModelFile file(directory / "weights");
  CHECK(file.format() == ModelFormat::safetensors);
  CHECK(file.path() == directory / "weights");
  CHECK(file.file_bytes() == Index(directory.read("weights").size()));
  CHECK(file.as<SafetensorsModel>() != nullptr);
  CHECK(file.as<GgufReader>() == nullptr);
  CHECK(file.config().architecture.empty());
  CHECK(file.companions().empty());
  CHECK(file.files() == std::vector<std::string>{directory / "weights"});
  REQUIRE(file.tensors().size() == 5);
  CHECK(info_of(file, "bf16").type == "BF16");
  CHECK(info_of(file, "f64").bytes == 16);
  CHECK(info_of(file, "f64").shape == std::vector<Index>{2});
  CHECK(values_of(file, "f32") == std::vector<double>{1, 2});
  CHECK(values_of(file, "f64") == std::vector<double>{3, 4});
  CHECK(values_of(file, "f16") == std::vector<double>{5, 6});
  CHECK(values_of(file, "bf16") == std::vector<double>{7, 8});
  CHECK_FALSE(info_of(file, "i64").loadable);
  for (const char* name : {"f32", "f64", "f16", "bf16"}) {
    CHECK(info_of(file, name).loadable);
    CHECK(owns_nothing(file.load(name)));
    file.release(name);
  }
  CHECK(values_of(file, "f64") == std::vector<double>{3, 4});
  const Error error = error_of([&] { (void)file.load("i64"); });
  CHECK(error.code() == ErrorCode::unsupported);
  CHECK_THAT(error.message(), Contains("tensor i64 is of type I64"));
  CHECK(error_of([&] { (void)file.load("other"); }).code() == ErrorCode::invalid_argument);
  CHECK(error_of([&] { file.release("other"); }).code() == ErrorCode::invalid_argument);
}

TEST_CASE("tensors that are not aligned in the file are copied") {
  const test::TemporaryDirectory directory;
  const std::string header = R"({"b":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
                             R"("a":{"dtype":"F32","shape":[2],"data_offsets":[1,9]},)"
                             R"("n":{"dtype":"F32","shape":[0],"data_offsets":[9,9]}})";
  const ModelFile file(directory.write(
      "file.safetensors", safetensors_file(header, "x" + bytes_of<float>({2.5f, 3.5f}))));
  CHECK(file.tensors()[0].name == "b");
  CHECK_FALSE(owns_nothing(file.load("a")));
  CHECK(values_of(file, "a") == std::vector<double>{2.5, 3.5});
  CHECK(values_of(file, "n").empty());
  const LoadedTensor copy = file.load("a");
  file.release("a");
  CHECK(copy.view.values<float>()[1] == 3.5f);
}

TEST_CASE("a directory of Hugging Face is opened with its configuration") {
  const test::TemporaryDirectory directory;
  const auto m = test::gaussian<float>(4, 6, 1);
  const std::vector<SafetensorsEntry> entries{
      {"model.embed_tokens.weight", ScalarType::f32, {4, 6}},
      {"lm_head.weight", ScalarType::f32, {4, 6}}};
  ShardedSafetensorsWriter writer(directory.path(), entries, {{"format", "pt"}}, 1);
  for (const auto& entry : entries) writer.write(entry.name, as_tensor(m.view()).bytes);
  writer.commit();
  for (const char* name :
       {"tokenizer.json", "LICENSE", "merges.txt", "pytorch_model.bin",
        "pytorch_model.bin.index.json", ".gitattributes", "onnx/config.json", "old.gguf"})
    directory.write(name, "x");
  CHECK(ModelFile(directory.path()).companions().empty());
  directory.write("config.json",
                  R"({"model_type": "llama", "hidden_size": 6, "num_hidden_layers": 3})");
  for (const std::string& path : {directory.path(), directory / "model.safetensors.index.json"}) {
    const ModelFile file(path);
    CHECK(file.format() == ModelFormat::safetensors);
    REQUIRE(file.tensors().size() == 2);
    CHECK(file.tensors()[1].name == "lm_head.weight");
    CHECK(test::relative_error(file.load("lm_head.weight").view.matrix(), m.view()) == 0);
    CHECK(file.config().architecture == "llama");
    CHECK(file.config().layers == 3);
    CHECK(file.companions() ==
          std::vector<std::string>{directory / "LICENSE", directory / "config.json",
                                   directory / "merges.txt", directory / "tokenizer.json"});
    CHECK(file.files() == std::vector<std::string>{directory / "model-00001-of-00002.safetensors",
                                                   directory / "model-00002-of-00002.safetensors",
                                                   directory / "config.json"});
  }
  directory.write("config.json", "{");
  CHECK(error_of([&] { ModelFile{directory.path()}; }).code() == ErrorCode::corrupt);
}

TEST_CASE("a GGUF file is opened and its floats are views") {
  const test::TemporaryDirectory directory;
  const std::vector<float> f32{1, 2, 3, 4};
  const std::vector<fp16> f16{fp16(5), fp16(6)};
  const std::vector<bf16> brain{bf16(7.0f)};
  GgufMetadata metadata;
  metadata.add("general.architecture", GgufValue("llama"));
  metadata.add("llama.block_count", GgufValue(std::uint32_t(3)));
  const std::vector<GgufEntry> entries{{"f32", GgufType::f32, {2, 2}},
                                       {"f16", GgufType::f16, {2}},
                                       {"bf16", GgufType::bf16, {1}},
                                       {"other", GgufType(24), {3}, 3}};
  const auto write = [&](const std::string& path) {
    GgufWriter writer(path, metadata, entries);
    writer.write("f32", std::as_bytes(std::span(f32)));
    writer.write("f16", std::as_bytes(std::span(f16)));
    writer.write("bf16", std::as_bytes(std::span(brain)));
    writer.write("other", test::exact_bytes("xyz"));
    writer.commit();
  };
  write(directory / "weights");
  const ModelFile file(directory / "weights");
  CHECK(file.format() == ModelFormat::gguf);
  CHECK(file.config().architecture == "llama");
  CHECK(file.config().layers == 3);
  REQUIRE(file.tensors().size() == 4);
  CHECK(info_of(file, "f32").type == "F32");
  CHECK(info_of(file, "f32").shape == std::vector<Index>{2, 2});
  CHECK(info_of(file, "other").type == "24");
  CHECK(info_of(file, "f16").loadable);
  CHECK_FALSE(info_of(file, "other").loadable);
  CHECK(values_of(file, "f32") == std::vector<double>{1, 2, 3, 4});
  CHECK(values_of(file, "f16") == std::vector<double>{5, 6});
  CHECK(values_of(file, "bf16") == std::vector<double>{7});
  CHECK(owns_nothing(file.load("f32")));
  file.release("f32");
  CHECK(values_of(file, "f32") == std::vector<double>{1, 2, 3, 4});
  const Error error = error_of([&] { (void)file.load("other"); });
  CHECK(error.code() == ErrorCode::unsupported);
  CHECK_THAT(error.message(), Contains("tensor other is of type 24"));
  CHECK(file.as<GgufReader>()->metadata().get<Index>("llama.block_count") == 3);

  metadata.add("general.alignment", GgufValue(std::uint32_t(1)));
  metadata.add("odd", GgufValue(true));
  write(directory / "unaligned");
  const ModelFile unaligned(directory / "unaligned");
  CHECK(values_of(unaligned, "f32") == std::vector<double>{1, 2, 3, 4});
  CHECK(values_of(unaligned, "bf16") == std::vector<double>{7});

  metadata.add("split.count", GgufValue(std::uint16_t(2)));
  write(directory / "part");
  CHECK(error_of([&] { ModelFile{directory / "part"}; }).code() == ErrorCode::unsupported);
  CHECK_THAT(error_of([&] { ModelFile{directory / "part"}; }).message(),
             Contains("one of 2 parts"));
}

TEST_CASE("the blocks of a GGUF file are decoded") {
  const test::TemporaryDirectory directory;
  const auto m = test::gaussian<float>(3, 512, 2);
  std::vector<GgufEntry> entries;
  for (const auto& info : gguf_types)
    entries.push_back({std::string(info.name), info.type, {3, 512}});
  GgufWriter writer(directory / "file", {}, entries);
  std::map<std::string, Matrix<float>> expected;
  for (const auto& [name, type, shape, unused] : entries) {
    const auto row_bytes = std::size_t(*gguf_row_bytes(type, 512));
    Buffer<std::byte> bytes(3 * row_bytes);
    Matrix<float> decoded(3, 512);
    for (Index i = 0; i < 3; ++i) {
      const auto row = std::span(bytes).subspan(std::size_t(i) * row_bytes, row_bytes);
      gguf::quantize_row(type, m.row(i), row);
      gguf::dequantize_row(type, row, decoded.row(i));
    }
    writer.write(name, bytes);
    expected.emplace(name, std::move(decoded));
  }
  writer.commit();
  const ModelFile file(directory / "file");
  for (const auto& [name, decoded] : expected) {
    INFO(name);
    const auto values = values_of(file, name);
    CHECK(
        std::equal(values.begin(), values.end(), decoded.data(), decoded.data() + decoded.size()));
    const LoadedTensor tensor = file.load(name);
    CHECK(tensor.view.shape == std::vector<Index>{3, 512});
    CHECK(owns_nothing(tensor) == (name == "F32" || name == "F16" || name == "BF16"));
    CHECK(info_of(file, name).type == name);
    CHECK(info_of(file, name).loadable);
  }
}

TEST_CASE("a llama2.c checkpoint is opened by its header") {
  const test::TemporaryDirectory directory;
  for (const int version : {0, 1}) {
    const Llama2cHeader header{.version = version,
                               .hidden = 4,
                               .intermediate = 2,
                               .layers = 1,
                               .heads = 2,
                               .kv_heads = 1,
                               .vocabulary = 3,
                               .context = 2};
    Llama2cWriter writer(directory / "weights", header);
    detail::for_each_llama2c_tensor(header, [&](const std::string& name, const auto&, Index bytes) {
      const std::vector<float> values(std::size_t(bytes) / 4, name == "norm.weight" ? 1.5f : 0.0f);
      writer.write(name, std::as_bytes(std::span(values)));
    });
    writer.commit();
    const ModelFile file(directory / "weights");
    CHECK(file.format() == ModelFormat::llama2c);
    CHECK(file.config().hidden == 4);
    CHECK(file.config().tied_embeddings);
    CHECK(info_of(file, "layers.0.attention.wk.weight").shape == std::vector<Index>{2, 4});
    CHECK(info_of(file, "layers.0.attention.wk.weight").type == "F32");
    CHECK(info_of(file, "layers.0.attention.wk.weight").loadable);
    CHECK(values_of(file, "norm.weight") == std::vector<double>{1.5, 1.5, 1.5, 1.5});
    CHECK(owns_nothing(file.load("norm.weight")));
    file.release("norm.weight");

    // A header that is sound names the format, even where the rest is missing.
    const std::string content = directory.read("weights");
    CHECK_THAT(error_of([&] {
                 ModelFile{directory.write("cut", content.substr(0, content.size() - 1))};
               }).message(),
               Contains("bytes of tensors"));
  }
}

TEST_CASE("a TensorFlow.js model is opened by its file or its directory") {
  const test::TemporaryDirectory directory;
  const auto manifest =
      test::tfjs_manifest(directory,
                          {{"kernel", "float32", {2, 2}, bytes_of<float>({1, 2, 3, 4})},
                           {"steps", "int32", {1}, bytes_of<std::int32_t>({7})}},
                          10);
  directory.write("model.json", manifest.dump());
  for (const std::string& path : {directory.path(), directory / "model.json"}) {
    const ModelFile file(path);
    CHECK(file.format() == ModelFormat::tfjs);
    CHECK(info_of(file, "kernel").type == "float32");
    CHECK(info_of(file, "steps").type == "int32");
    CHECK(info_of(file, "steps").bytes == 4);
    CHECK(info_of(file, "kernel").loadable);
    CHECK_FALSE(info_of(file, "steps").loadable);
    CHECK(file.file_bytes() == 20);
    CHECK(values_of(file, "kernel") == std::vector<double>{1, 2, 3, 4});
    file.release("kernel");
    CHECK(error_of([&] { (void)file.load("steps"); }).code() == ErrorCode::unsupported);
  }
}

TEST_CASE("quantized tensors of TensorFlow.js are weights where they stand for floats") {
  const test::TemporaryDirectory directory;
  auto manifest = test::tfjs_manifest(
      directory, {{"kernel", "float32", {2}, "\x01\x02"}, {"steps", "int32", {2}, "\x03\x04"}}, 10);
  for (auto& weight : manifest["weightsManifest"][0]["weights"])
    weight["quantization"] = {{"dtype", "uint8"}, {"scale", 2}, {"min", 0}};
  directory.write("model.json", manifest.dump());
  const ModelFile file(directory.path());
  CHECK(info_of(file, "kernel").type == "uint8");
  CHECK(info_of(file, "kernel").loadable);
  CHECK(values_of(file, "kernel") == std::vector<double>{2, 4});
  CHECK(info_of(file, "steps").type == "uint8");
  CHECK_FALSE(info_of(file, "steps").loadable);
  CHECK(error_of([&] { (void)file.load("steps"); }).code() == ErrorCode::unsupported);
}

TEST_CASE("what is no model is refused with a list of what is") {
  const test::TemporaryDirectory directory;
  const auto refused = [&](const std::string& path) {
    const Error error = error_of([&] { ModelFile{path}; });
    CHECK(error.code() == ErrorCode::unsupported);
    CHECK_THAT(error.message(), Contains(path) && Contains("safetensors") && Contains("GGUF") &&
                                    Contains("llama2.c") && Contains("TensorFlow.js"));
  };
  refused(directory.path());
  refused(directory.write("empty", ""));
  refused(directory.write("text",
                          "It was a dark and stormy night; the rain fell in torrents, except at "
                          "occasional intervals."));
  refused(directory.write("braces", "12345678{}"));
  refused(directory.write("zip.bin", "PK\3\4" + std::string(100, '\0')));
  refused(directory.write("config.json", "{}"));
  CHECK(error_of([&] { ModelFile{directory / "missing"}; }).code() == ErrorCode::io);
  CHECK(error_of([&] { ModelFile{directory.write("broken.json", "{")}; }).code() ==
        ErrorCode::corrupt);
}

TEST_CASE("what contradicts its name is refused as what it is named") {
  const test::TemporaryDirectory directory;
  CHECK_THAT(error_of([&] { ModelFile{directory.write("a.safetensors", "1234567890")}; }).message(),
             Contains("its header claims"));
  CHECK_THAT(error_of([&] { ModelFile{directory.write("a.gguf", "1234567890")}; }).message(),
             Contains("does not begin with GGUF"));
  CHECK_THAT(error_of([&] { ModelFile{directory.write("a.bin", "GGUF")}; }).message(),
             Contains("the version"));
}

TEST_CASE("a trained model is opened") {
  const std::string path = CAFEQ_SCRIPTS_DIR "/../../shared/data/stories260K.bin";
  if (!std::filesystem::exists(path)) {
    WARN(path << " is not there: the trained model is left out");
    return;
  }
  const ModelFile file(path);
  CHECK(file.format() == ModelFormat::llama2c);
  CHECK(file.config().layers == 5);
  CHECK(file.config().head_dim == 8);
  CHECK(file.load("layers.4.feed_forward.w2.weight").view.matrix().cols == 172);
}
