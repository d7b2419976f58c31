#include "cafeq/io/quantized_model.hpp"

#include "cafeq/io/float_output.hpp"
#include "cafeq/io/quantized_output.hpp"
#include "cafeq/model/make_plan.hpp"
#include "cafeq/pipeline/recipes.hpp"
#include "engine/tiny_model.hpp"
#include "io/saved_model.hpp"
#include "io/written.hpp"
#include "support/catch.hpp"
#include "support/random.hpp"

using namespace cafeq;
using test::error_of;
using test::Family;
using test::save_model;
using test::TemporaryDirectory;
using test::write_output;

namespace {

std::map<std::string, std::vector<Index>> shapes_of(const ModelFile& model) {
  std::map<std::string, std::vector<Index>> shapes;
  for (const TensorInfo& tensor : model.tensors()) shapes[tensor.name] = tensor.shape;
  return shapes;
}

std::vector<float> floats_of(const TensorView& view) {
  std::vector<float> floats;
  detail::with_elements(view, "tensor", [&](auto elements) {
    for (const auto x : elements) floats.push_back(float(x));
  });
  return floats;
}

std::vector<float> floats_of(const Matrix<float>& matrix) {
  return floats_of(as_tensor(View<const float>(matrix.view())));
}

/// Whether elements are those of `expected` once they are rounded to its type.
bool same_in_its_type(const TensorView& found, const TensorView& expected) {
  bool same = found.shape == expected.shape;
  const std::vector<float> floats = floats_of(found);
  detail::with_elements(expected, "tensor", [&](auto elements) {
    using T = std::remove_const_t<typename decltype(elements)::element_type>;
    for (std::size_t i = 0; i < elements.size(); ++i) same &= T(floats[i]) == elements[i];
  });
  return same;
}
bool equal(const TensorView& a, const TensorView& b) {
  return a.type == b.type && same_in_its_type(a, b);
}
bool equal(const TensorView& tensor, const Matrix<float>& matrix) {
  return floats_of(tensor) == floats_of(matrix);
}

/// `quantized` is opened as the model that it came from; `floats` holds the same results in the
/// format of that model. Returns how many matrices are packed.
int check_same_model(const ModelFile& model, const ModelFile& quantized, const ModelFile& floats) {
  CHECK(quantized.format() == ModelFormat::quantized);
  CHECK(shapes_of(quantized) == shapes_of(model));
  for (const TensorInfo& tensor : quantized.tensors()) {
    INFO(tensor.name);
    if (!tensor.loadable) continue;
    const LoadedTensor found = quantized.load(tensor.name), expected = floats.load(tensor.name);
    quantized.release(tensor.name);
    CHECK(found.view.shape == tensor.shape);
    CHECK(same_in_its_type(found.view, expected.view));
  }

  // An engine finds the matrices by their roles.
  const auto& reader = *quantized.as<QuantizedModelReader>();
  const ModelRoles roles = find_roles(quantized.tensors(), quantized.config()),
                   before = find_roles(model.tensors(), model.config());
  CHECK(roles.matrices.size() == before.matrices.size());
  CHECK(roles.pairs.size() == before.pairs.size());
  int packed = 0;
  for (const MatrixRole& matrix : roles.matrices) {
    INFO(matrix.place.tensor << " " << name_of(matrix.role));
    const auto own = reader.load_quantized(matrix.place);
    if (!own) continue;
    ++packed;
    Matrix<float> hat(own->rows(), own->cols());
    own->dequantize(hat);
    const bool same = floats_of(hat) == floats_of(load_matrix(quantized, matrix.place));
    CHECK(same);
  }
  return packed;
}

void check_hugging_face(const Family& family, const PlanOptions& options) {
  const TemporaryDirectory directory;
  save_model(family, directory, "model");
  directory.write("model/tokenizer.json", R"({"model": "µ"})");
  directory.write("model/chat_template.jinja", "");
  const ModelFile model(directory / "model");
  const Plan plan = make_plan(model.tensors(), model.config(), options);
  write_output(QuantizedOutput(model, plan), model, plan, directory / "out.safetensors");
  write_output(FloatOutput(model, plan), model, plan, directory / "out");

  const ModelFile quantized(directory / "out.safetensors");
  CHECK(quantized.file_bytes() <= QuantizedOutput(model, plan).bytes());
  std::size_t matrices = 0;
  for (const Step& step : plan.steps) matrices += step.matrices.size();
  CHECK(check_same_model(model, quantized, ModelFile(directory / "out")) == int(matrices));
  CHECK(quantized.companion("config.json") == family.config);
  CHECK(quantized.companion("tokenizer.json") == R"({"model": "µ"})");
  CHECK(quantized.companion("chat_template.jinja") == "");
  CHECK_FALSE(quantized.companion("merges.txt"));
  CHECK(quantized.metadata() == nullptr);
  CHECK(quantized.companions().empty());
  CHECK(quantized.files() == std::vector<std::string>{directory / "out.safetensors"});
  CHECK(quantized.config().architecture == model.config().architecture);
  CHECK(quantized.config().layers == model.config().layers);
  CHECK(quantized.config().head_dim == model.config().head_dim);
}

/// A GGUF file whose tensors are blocks of several types.
std::string write_gguf(const TemporaryDirectory& directory) {
  GgufMetadata metadata;
  metadata.add("general.architecture", GgufValue("llama"));
  metadata.add("llama.block_count", GgufValue(std::uint32_t(1)));
  metadata.add("llama.attention.head_count", GgufValue(std::uint32_t(2)));
  metadata.add("llama.embedding_length", GgufValue(std::uint32_t(256)));
  metadata.add("tokenizer.ggml.tokens", GgufValue(std::vector<std::string_view>{"a", "b\xff"}));
  metadata.add("nan", GgufValue(std::nanf("1")));
  const std::vector<GgufEntry> entries{{"token_embd.weight", GgufType::q8_0, {8, 256}},
                                       {"output.weight", GgufType::q6_k, {8, 256}},
                                       {"blk.0.attn_norm.weight", GgufType::f32, {256}},
                                       {"blk.0.ffn_up.weight", GgufType::q4_1, {64, 256}},
                                       {"blk.0.ffn_down.weight", GgufType::f16, {256, 64}}};
  const std::string path = directory / "model.gguf";
  GgufWriter writer(path, metadata, entries);
  std::uint64_t seed = 1;
  for (const GgufEntry& entry : entries) {
    const auto values = test::gaussian<float>(1, *element_count(entry.shape), seed++);
    std::vector<std::byte> bytes(std::size_t(*detail::gguf_bytes(entry.type, entry.shape)));
    gguf::quantize_row(entry.type, values.row(0), bytes);
    writer.write(entry.name, bytes);
  }
  writer.commit();
  return path;
}

}  // namespace

TEST_CASE("A quantized model of Hugging Face is the model again, with all that lay beside it") {
  const PlanOptions usual{.recipe = recipes::fast<>{}};
  PlanOptions all = usual;
  all.embeddings = true;
  check_hugging_face(test::llama(), usual);
  check_hugging_face(test::llama(), all);
  check_hugging_face(test::gpt2(), all);  // packed, [in, out], biases that move, a tied head
  check_hugging_face(test::phi3(), {.recipe = recipes::rtn<>{.bits = 3}});
  check_hugging_face(test::qwen2(), {.recipe = recipes::learned<>{}});
  check_hugging_face(test::llama(), {.recipe = recipes::smallest{}});
  check_hugging_face({R"({"model_type": "mixtral", "hidden_size": 64, "num_hidden_layers": 1,
                          "num_local_experts": 3})",
                      test::Tensors("F32")
                          .add("blk.0.ffn_up_exps.weight", {3, 48, 64})
                          .add("blk.0.ffn_down_exps.weight", {3, 64, 48})
                          .list()},
                     usual);
}

TEST_CASE("A quantized GGUF model keeps its fields, and the blocks of what is not quantized") {
  const TemporaryDirectory directory;
  const ModelFile model(write_gguf(directory));
  const Plan plan = make_plan(model.tensors(), model.config(), {.recipe = recipes::rtn<>{}});
  write_output(QuantizedOutput(model, plan), model, plan, directory / "out.safetensors");
  const ModelFile quantized(directory / "out.safetensors");
  CHECK(quantized.config().heads == 2);
  CHECK(quantized.file_bytes() <= QuantizedOutput(model, plan).bytes());
  REQUIRE(quantized.metadata() != nullptr);
  const auto fields = quantized.metadata()->fields(), expected = model.metadata()->fields();
  const bool same_fields =
      std::equal(fields.begin(), fields.end(), expected.begin(), expected.end());
  CHECK(same_fields);
  CHECK_FALSE(quantized.companion("metadata.gguf"));

  CHECK(shapes_of(quantized) == shapes_of(model));
  for (const KeptTensor& kept : plan.kept) {
    INFO(kept.tensor);
    CHECK(equal(quantized.load(kept.tensor).view, model.load(kept.tensor).view));
  }
  const auto& file = quantized.as<QuantizedModelReader>()->file();
  for (const char* name : {"token_embd.weight", "output.weight"}) {
    const GgufTensor& before = model.as<GgufReader>()->tensor(name);
    const bool same =
        detail::as_text(file.tensors().at(name).bytes) == detail::as_text(before.data);
    CHECK(same);
  }
  const auto down = quantized.as<QuantizedModelReader>()->load_quantized(
      {.tensor = "blk.0.ffn_down.weight", .out = 256, .in = 64});
  REQUIRE(down);
  Matrix<float> hat(256, 64);
  down->dequantize(hat);
  CHECK(equal(quantized.load("blk.0.ffn_down.weight").view, hat));

  // What is half a place is none.
  CHECK_FALSE(quantized.as<QuantizedModelReader>()->load_quantized(
      {.tensor = "blk.0.ffn_down.weight", .out = 128, .in = 64}));
  CHECK_FALSE(quantized.as<QuantizedModelReader>()->load_quantized(
      {.tensor = "token_embd.weight", .out = 8, .in = 256}));
}

TEST_CASE("A quantized checkpoint of llama2.c says of itself what GGUF would") {
  const TemporaryDirectory directory;
  const auto tiny = engine::test::tiny_model(engine::test::tiny_config());
  const ModelFile model(directory.write("model.bin", engine::test::llama2c_bytes(tiny)));
  const Plan plan = make_plan(model.tensors(), model.config(), {.recipe = recipes::fast<>{}});
  write_output(QuantizedOutput(model, plan), model, plan, directory / "out.safetensors");
  write_output(FloatOutput(model, plan), model, plan, directory / "out.bin");
  const ModelFile quantized(directory / "out.safetensors");
  check_same_model(model, quantized, ModelFile(directory / "out.bin"));
  const ModelConfig &found = quantized.config(), &expected = model.config();
  CHECK(found.architecture == expected.architecture);
  CHECK(found.head_dim == expected.head_dim);
  CHECK(found.kv_heads == expected.kv_heads);
  CHECK(found.context == expected.context);
  CHECK(found.vocabulary == expected.vocabulary);
  CHECK(found.norm_epsilon == float(expected.norm_epsilon));
  CHECK(found.attention.rotary->pairing == expected.attention.rotary->pairing);
  CHECK(quantized.metadata()->get<std::string_view>("tokenizer.ggml.model") == "no_vocab");

  // A tokenizer joins it.
  const std::string tokenizer =
      directory.write("tokenizer.json", R"({"model": {"type": "BPE", "vocab": {}, "merges": []}})");
  CHECK_THAT(error_of([&] { QuantizedOutput(model, plan, tokenizer); }).message(),
             Contains(tokenizer));
}

TEST_CASE("A tokenizer for a model that has one is refused") {
  const TemporaryDirectory directory;
  save_model(test::llama(), directory, "model");
  const ModelFile model(directory / "model"), gguf(write_gguf(directory));
  for (const ModelFile* file : {&model, &gguf}) {
    const Plan plan = make_plan(file->tensors(), file->config(), {.recipe = recipes::fast<>{}});
    CHECK(error_of([&] { QuantizedOutput(*file, plan, "tokenizer.json"); }).code() ==
          ErrorCode::invalid_argument);
  }
}

TEST_CASE("A file without a model's places and files is opened too") {
  const TemporaryDirectory directory;
  const auto W = test::gaussian<float>(8, 64, 1);
  const auto q = quantize(W, recipes::fast<>{});
  QuantizedFileWriter writer;
  writer.add("W", AnyQuantized(q));
  writer.write(directory / "out");
  const ModelFile model(directory / "out");
  CHECK(model.format() == ModelFormat::quantized);
  CHECK(model.config().architecture.empty());
  REQUIRE(model.tensors().size() == 1);
  CHECK(model.tensors()[0].shape == std::vector<Index>{8, 64});
  CHECK(model.tensors()[0].type == "affine");
  Matrix<float> hat(8, 64);
  q.dequantize(hat);
  CHECK(equal(model.load("W").view, hat));
  CHECK(error_of([&] { (void)model.load("V"); }).code() == ErrorCode::invalid_argument);
}

TEST_CASE("Matrices that do not make up their tensor, and blocks that are none, are refused") {
  const TemporaryDirectory directory;
  const auto W = test::gaussian<float>(8, 64, 1);
  const AnyQuantized q(quantize(W, recipes::rtn<>{}));
  const auto refused = [&](const Metadata& metadata, ErrorCode code, const char* words) {
    INFO(words);
    QuantizedFileWriter writer;
    writer.add("a", q);
    writer.add("b", q);
    writer.add_tensor("kept", {ScalarType::u8, {2, 34}, Buffer<std::byte>(68)});
    writer.write(directory / "out", metadata);
    const Error error = error_of([&] { ModelFile{directory / "out"}; });
    CHECK(error.code() == code);
    CHECK_THAT(error.message(), Contains(words));
  };
  const auto places = [&](const char* json, const char* words) {
    refused({{"cafeq.places", json}}, ErrorCode::corrupt, words);
  };
  places(R"({"a": {"tensor": "T", "begin": 0, "transposed": false},
             "b": {"tensor": "T", "begin": 9, "transposed": false}})",
         "tensor T is not made up by its matrices: b does not fit");
  places(R"({"a": {"tensor": "T", "begin": 0, "transposed": false},
             "b": {"tensor": "T", "begin": 8, "transposed": true}})",
         "b does not fit");
  places(R"({"a": {"tensor": "T", "begin": 0, "transposed": false, "slice": 0},
             "b": {"tensor": "T", "begin": 0, "transposed": false, "slice": 2}})",
         "slice 2 does not fit");
  places(R"({"a": {"tensor": "T", "begin": 0, "transposed": false},
             "b": {"tensor": "T", "begin": 0, "transposed": false, "slice": 0}})",
         "slice 0 does not fit");
  places(R"({"a": {"tensor": "kept", "begin": 0, "transposed": false}})",
         "tensor kept is kept, and quantized too");
  places(R"({"a": {"tensor": "T", "begin": 0}})", "has no flag transposed");
  places(R"({"a": {"tensor": "T", "begin": -1, "transposed": false}})", "begin is -1");
  places(R"({"a": {"begin": 0, "transposed": false}})", "has no text tensor");
  places("[]", "cafeq.places is not an object");

  const auto blocks = [&](const char* json, ErrorCode code, const char* words) {
    refused({{"cafeq.blocks", json}}, code, words);
  };
  blocks(R"({"kept": {"type": "Q8_0", "shape": [2, 64]}})", ErrorCode::corrupt,
         "does not have the bytes of its blocks");
  blocks(R"({"kept": {"type": "Q9_0", "shape": [2, 32]}})", ErrorCode::unsupported,
         "in blocks of Q9_0, which is not known");
  blocks(R"({"kept": {"type": "Q8_0"}})", ErrorCode::corrupt, "no shape");
  blocks(R"({"gone": {"type": "Q8_0", "shape": [2, 32]}})", ErrorCode::corrupt,
         "does not have the bytes");
}
