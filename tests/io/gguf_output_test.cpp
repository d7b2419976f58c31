#include "cafeq/io/gguf_output.hpp"

#include "cafeq/model/make_plan.hpp"
#include "cafeq/model/quantize_model.hpp"
#include "cafeq/pipeline/recipes.hpp"
#include "engine/tiny_model.hpp"
#include "io/temporary_directory.hpp"
#include "support/build.hpp"
#include "support/catch.hpp"
#include "support/random.hpp"

using namespace cafeq;
using engine::test::TinyModel;
using test::error_of;
using test::TemporaryDirectory;

namespace {

/// Rows of 32 and 64, so that the simple types fit; `intermediate` may spoil that.
TinyModel tiny_llama(Index intermediate = 64) {
  auto config = engine::test::tiny_config();
  config.hidden = 32, config.head_dim = 8, config.intermediate = intermediate;
  config.attention.rotary->dims = 8;
  return engine::test::tiny_model(config);
}

Plan plan_for(const ModelFile& model, std::optional<GgufType> type, PlanOptions options = {}) {
  if (!options.recipe) options.recipe = recipes::fast<>{};
  if (type) options.recipe = GgufRecipe::make(*type, *options.recipe);
  return make_plan(model.tensors(), model.config(), options);
}

/// All that the tool does for one file.
GgufReader write_gguf(const TemporaryDirectory& directory, const ModelFile& model,
                      const Plan& plan) {
  const GgufOutput output(model, plan);
  const std::string path = directory / "out.gguf";
  PartStore parts(path + ".partial", "", PartStore::Start::anew);
  for (std::size_t job = 0; job < plan.jobs.size(); ++job)
    output.write_part(parts.path(job), plan.jobs[job], quantize_job(model, plan, plan.jobs[job]),
                      {});
  double written = 0;
  output.assemble(path, parts, {}, [&](double bytes) { written += bytes; });
  GgufReader file(path);
  CHECK(file.file_bytes() == output.bytes());
  Index bytes = 0;
  for (const GgufTensor& tensor : file.tensors()) bytes += tensor.bytes;
  CHECK(written == double(bytes));
  return file;
}
GgufReader write_gguf(const TemporaryDirectory& directory, const std::string& model,
                      std::optional<GgufType> type, const PlanOptions& options = {}) {
  const ModelFile file(model);
  return write_gguf(directory, file, plan_for(file, type, options));
}

std::string contents_of(const GgufTensor& tensor) {
  return std::string(cafeq::detail::as_text(tensor.data));
}
std::string contents_of(const Matrix<float>& matrix) {
  return {reinterpret_cast<const char*>(matrix.data()), std::size_t(matrix.size()) * sizeof(float)};
}

std::string quantized(GgufType type, const Matrix<float>& matrix) {
  std::string bytes(std::size_t(matrix.rows() * *gguf_row_bytes(type, matrix.cols())), '\0');
  // Rows are whole blocks.
  gguf::quantize_row(type, std::span(matrix.data(), std::size_t(matrix.size())),
                     std::as_writable_bytes(std::span(bytes)));
  return bytes;
}

const PlanOptions no_pairs{.pairs = false};

}  // namespace

TEST_CASE("a checkpoint's tensors as GGUF: blocks of rows, and floats as they are") {
  const TemporaryDirectory directory;
  const TinyModel model = tiny_llama();
  const std::string path = directory.write("model.bin", engine::test::llama2c_bytes(model));
  for (const GgufType type : {GgufType::f32, GgufType::f16, GgufType::q8_0, GgufType::q4_0,
                              GgufType::q4_1, GgufType::iq4_nl}) {
    INFO(gguf_type_info(type).name);
    const GgufReader file = write_gguf(directory, path, type, no_pairs);
    for (const auto& [gguf, transformers] :
         {std::pair{"token_embd", "model.embed_tokens"},
          {"output_norm", "model.norm"},
          {"blk.1.attn_norm", "model.layers.1.input_layernorm"}}) {
      const GgufTensor& tensor = file.tensor(message(gguf, ".weight"));
      CHECK(tensor.type == GgufType::f32);
      CHECK(contents_of(tensor) == contents_of(model.tensors.at(message(transformers, ".weight"))));
    }
    for (const auto& [gguf, transformers] : {std::pair{"attn_q", "self_attn.q_proj"},
                                             {"attn_v", "self_attn.v_proj"},
                                             {"ffn_down", "mlp.down_proj"},
                                             {"ffn_gate", "mlp.gate_proj"}}) {
      const GgufTensor& tensor = file.tensor(message("blk.1.", gguf, ".weight"));
      const auto& W = model.tensors.at(message("model.layers.1.", transformers, ".weight"));
      CHECK(tensor.type == type);
      CHECK(tensor.shape == std::vector<Index>{W.rows(), W.cols()});
      CHECK(contents_of(tensor) == quantized(type, W));
    }
    CHECK(*file.metadata().find("general.file_type") ==
          GgufValue(cafeq::detail::gguf_file_type(type)));
    CHECK(*file.metadata().find("general.quantization_version") == GgufValue(std::uint32_t(2)));
  }
}

TEST_CASE("the layouts of llama2.c and of transformers give the same tensors") {
  const TemporaryDirectory directory, files;
  const TinyModel model = tiny_llama();
  const std::string checkpoint = directory.write("model.bin", engine::test::llama2c_bytes(model));
  engine::test::write_hugging_face(files, model);
  for (const GgufType type :
       test::sweep({GgufType::f32, GgufType::q8_0, GgufType::q4_0, GgufType::q5_1},
                   {GgufType::f32, GgufType::q5_1}))
    for (const AnyRecipe& recipe :
         {AnyRecipe(recipes::fast<>{}), AnyRecipe(recipes::learned<>{})}) {
      INFO(gguf_type_info(type).name);
      const PlanOptions options{.recipe = recipe, .embeddings = true};
      const TemporaryDirectory other;
      const GgufReader one = write_gguf(directory, checkpoint, type, options),
                       two = write_gguf(other, files.path(), type, options);
      REQUIRE(one.tensors().size() == two.tensors().size());
      for (std::size_t i = 0; i < one.tensors().size(); ++i) {
        const GgufTensor &a = one.tensors()[i], &b = two.tensors()[i];
        CAPTURE(a.name);
        CHECK(a.name == b.name);
        CHECK(a.type == b.type);
        CHECK(a.shape == b.shape);
        CHECK(contents_of(a) == contents_of(b));
      }
      for (const GgufField& field : one.metadata().fields())
        if (field.name != "general.name") CHECK(*two.metadata().find(field.name) == field.value);
    }
}

TEST_CASE("rows of queries that are kept move too") {
  const TemporaryDirectory directory, files;
  const TinyModel model = tiny_llama();
  engine::test::write_hugging_face<fp16>(files, model);
  const GgufReader file = write_gguf(directory, files.path(), GgufType::q4_0,
                                     {.pairs = false, .exclude = {"*q_proj*"}});
  CHECK(file.tensor("blk.0.attn_q.weight").type == GgufType::f16);
  CHECK(contents_of(file.tensor("blk.0.attn_q.weight")) ==
        quantized(GgufType::f16, model.tensors.at("model.layers.0.self_attn.q_proj.weight")));
  CHECK(contents_of(file.tensor("blk.0.attn_k.weight")) ==
        quantized(GgufType::q4_0, model.tensors.at("model.layers.0.self_attn.k_proj.weight")));
}

TEST_CASE("what is kept stays exact: F32, F16, and BF16 as F16 where that can be") {
  const TemporaryDirectory directory, files;
  TinyModel model = tiny_llama();
  Matrix<float>& embedding = model.tensors.at("model.embed_tokens.weight");
  for (const auto& [stored, kept] :
       {std::pair{"F32", GgufType::f32}, {"F16", GgufType::f16}, {"BF16", GgufType::f16}}) {
    INFO(stored);
    if (kept == GgufType::f32) engine::test::write_hugging_face(files, model);
    else if (stored == std::string_view("F16"))
      engine::test::write_hugging_face<fp16>(files, model);
    else engine::test::write_hugging_face<bf16>(files, model);
    const GgufReader file = write_gguf(directory, files.path(), GgufType::q8_0);
    CHECK(file.tensor("token_embd.weight").type == kept);
    CHECK(contents_of(file.tensor("token_embd.weight")) == quantized(kept, embedding));
    CHECK(file.tensor("output_norm.weight").type == GgufType::f32);
    CHECK(contents_of(file.tensor("output_norm.weight")) ==
          contents_of(model.tensors.at("model.norm.weight")));
  }
  embedding.data()[5] = 0x1p-30f;  // too small for a half
  engine::test::write_hugging_face<bf16>(files, model);
  const GgufReader file = write_gguf(directory, files.path(), GgufType::q8_0);
  CHECK(file.tensor("token_embd.weight").type == GgufType::bf16);
  CHECK(contents_of(file.tensor("token_embd.weight")) == quantized(GgufType::bf16, embedding));
}

TEST_CASE("rows that are no whole blocks get the type that llama.cpp takes for them") {
  const TemporaryDirectory directory;
  const std::string path =
      directory.write("model.bin", engine::test::llama2c_bytes(tiny_llama(40)));
  const GgufReader file = write_gguf(directory, path, GgufType::q4_k);
  CHECK(file.tensor("blk.0.attn_q.weight").type == GgufType::q5_0);   // rows of 32
  CHECK(file.tensor("blk.0.ffn_down.weight").type == GgufType::f16);  // rows of 40
  CHECK(file.metadata().get<Index>("general.file_type") == 8);
}

TEST_CASE("Qwen2's biases become fp32 and follow their pairs") {
  const TemporaryDirectory directory, files;
  TinyModel model = tiny_llama();
  for (const char* name : {"q_proj", "k_proj", "v_proj"})
    for (const char* layer : {"0", "1"}) {
      const std::string stem = message("model.layers.", layer, ".self_attn.", name);
      Matrix<float> bias(1, model.tensors.at(stem + ".weight").rows());
      for (Index i = 0; i < bias.cols(); ++i) bias(0, i) = float(i + 1) / 64;
      model.tensors.insert_or_assign(stem + ".bias", bias);
    }
  engine::test::write_safetensors<bf16>(files, model.tensors);
  auto json = engine::test::config_json(model.config);
  json["model_type"] = "qwen2";
  files.write("config.json", json.dump());
  const auto& bias = model.tensors.at("model.layers.1.self_attn.v_proj.bias");
  {
    const GgufReader file = write_gguf(directory, files.path(), GgufType::q8_0, no_pairs);
    for (const char* name : {"attn_q", "attn_k", "attn_v"})
      CHECK(file.tensor(message("blk.1.", name, ".bias")).type == GgufType::f32);
    CHECK(contents_of(file.tensor("blk.1.attn_v.bias")) == contents_of(bias));
    CHECK(contents_of(file.tensor("blk.1.attn_q.weight")) ==
          quantized(GgufType::q8_0, model.tensors.at("model.layers.1.self_attn.q_proj.weight")));
  }
  const GgufReader file =
      write_gguf(directory, files.path(), GgufType::q8_0, {.recipe = recipes::learned<>{}});
  CHECK(file.tensor("blk.1.attn_v.bias").type == GgufType::f32);
  CHECK(contents_of(file.tensor("blk.1.attn_v.bias")) != contents_of(bias));
  CHECK(contents_of(file.tensor("blk.1.attn_q.bias")) ==
        contents_of(model.tensors.at("model.layers.1.self_attn.q_proj.bias")));
}

TEST_CASE("biases of interleaved queries are interleaved") {
  const TemporaryDirectory directory, files;
  TinyModel model = tiny_llama();
  auto tensors = engine::test::half_split(model);
  Matrix<float> bias(1, 32), expected(1, 32);
  for (Index i = 0; i < 32; ++i) {
    bias(0, i) = float(i);
    const Index head = i / 8, j = i % 8;
    expected(0, head * 8 + 2 * (j % 4) + j / 4) = float(i);
  }
  tensors.insert_or_assign("model.layers.0.self_attn.q_proj.bias", bias);
  files.write("config.json", engine::test::config_json(model.config).dump());
  engine::test::write_safetensors(files, tensors);
  CHECK(contents_of(
            write_gguf(directory, files.path(), GgufType::q8_0).tensor("blk.0.attn_q.bias")) ==
        contents_of(expected));
}

namespace {

/// Packed and stacked matrices, a type that nobody knows, and metadata of every kind.
struct AnyGguf : TemporaryDirectory {
  AnyGguf() {
    metadata.add("general.architecture", GgufValue("phi3"));
    metadata.add("general.file_type", GgufValue(std::uint32_t(0)));
    metadata.add("general.alignment", GgufValue(std::uint32_t(64)));
    metadata.add("strange.field", GgufValue(std::vector<std::string>{"a", "b"}));
    for (const auto& [name, number] : {std::pair{"attention.head_count", 2},
                                       {"attention.head_count_kv", 1},
                                       {"embedding_length", 32},
                                       {"attention.key_length", 16}})
      metadata.add(message("phi3.", name), GgufValue(std::uint32_t(number)));
    add("blk.0.attn_qkv.weight", GgufType::f32, {64, 32});
    add("blk.0.ffn_up_exps.weight", GgufType::f32, {3, 8, 64});
    add("blk.0.attn_norm.weight", GgufType::f32, {32});
    add("token_embd.weight", GgufType::q8_0, {16, 32});
    entries.push_back({"strange", GgufType(99), {3}, 128});
    bytes["strange"] = std::string(128, 'x');  // a reader cannot tell padding from it
    GgufWriter writer(*this / "in.gguf", metadata, entries);
    for (const GgufEntry& entry : entries)
      writer.write(entry.name, std::as_bytes(std::span(bytes.at(entry.name))));
    writer.commit();
  }
  void add(const std::string& name, GgufType type, const std::vector<Index>& shape) {
    const auto values = test::gaussian<float>(1, *element_count(shape), stream_of(name));
    Matrix<float> matrix(values.cols() / shape.back(), shape.back());
    std::copy_n(values.data(), values.size(), matrix.data());
    bytes[name] = quantized(type, matrix);
    matrices.insert_or_assign(name, std::move(matrix));
    entries.push_back({name, type, shape});
  }

  GgufMetadata metadata;
  std::vector<GgufEntry> entries;
  std::map<std::string, std::string> bytes;
  std::map<std::string, Matrix<float>> matrices;
};

}  // namespace

TEST_CASE("a GGUF file stays what it is but for what is quantized") {
  const AnyGguf input;
  const GgufReader file = write_gguf(input, input / "in.gguf", GgufType::q4_0);
  REQUIRE(file.tensors().size() == input.entries.size());
  for (std::size_t i = 0; i < input.entries.size(); ++i) {
    const GgufTensor& tensor = file.tensors()[i];
    CAPTURE(tensor.name);
    CHECK(tensor.name == input.entries[i].name);
    CHECK(tensor.shape == input.entries[i].shape);
    const bool matrix = tensor.name.starts_with("blk.") && tensor.shape.size() > 1;
    CHECK(tensor.type == (matrix ? GgufType::q4_0 : input.entries[i].type));
    CHECK(contents_of(tensor) == (matrix ? quantized(GgufType::q4_0, input.matrices.at(tensor.name))
                                         : input.bytes.at(tensor.name)));
  }
  GgufMetadata expected = input.metadata;
  expected.set("general.file_type", GgufValue(std::uint32_t(2)));
  expected.add("general.quantization_version", GgufValue(std::uint32_t(2)));
  CHECK(std::ranges::equal(file.metadata().fields(), expected.fields()));

  // Nothing of it would be smaller with 8 bits.
  const TemporaryDirectory other;
  write_gguf(other, input / "out.gguf", GgufType::q8_0);
  CHECK(other.read("out.gguf") == input.read("out.gguf"));
}

TEST_CASE("plans that a GGUF file cannot follow are refused") {
  const AnyGguf input;
  const ModelFile model(input / "in.gguf");
  const auto error = [&](const Plan& plan) {
    return error_of([&] { GgufOutput(model, plan); }).message();
  };
  CHECK_THAT(error(plan_for(model, std::nullopt)),
             Contains("names no type of GGUF for blk.0.attn_qkv.weight"));
  Plan plan = plan_for(model, GgufType::q4_0);
  plan.steps[1].recipe = GgufRecipe::make(GgufType::q8_0, recipes::fast<>{});
  CHECK_THAT(error(plan), Contains("several types for the matrices of blk.0.attn_qkv.weight"));
  CHECK_THAT(error_of([&] {
               GgufOutput(model, plan_for(model, GgufType::q4_0), "tokenizer.json");
             }).message(),
             Contains("has a vocabulary of its own"));
}
