#include "cafeq/io/model_output.hpp"

#include "cafeq/io/float_output.hpp"
#include "cafeq/io/quantized_file.hpp"
#include "cafeq/io/quantized_output.hpp"
#include "cafeq/model/make_plan.hpp"
#include "cafeq/model/quantize_model.hpp"
#include "cafeq/pipeline/recipes.hpp"
#include "io/saved_model.hpp"
#include "io/tfjs_model.hpp"
#include "support/catch.hpp"

using namespace cafeq;
using test::error_of;
using test::Family;
using test::save_model;
using Names = std::set<std::string>;

namespace {

Family in(std::string_view type, Family family) {
  for (TensorInfo& tensor : family.tensors)
    if (tensor.type != "I64") tensor.type = type;
  return family;
}

/// All jobs but the first `skipped`, which an earlier run has done.
template <class Output>
void write_parts(const Output& output, const ModelFile& model, const Plan& plan,
                 const PartStore& parts, std::size_t skipped = 0) {
  for (std::size_t j = skipped; j < plan.jobs.size(); ++j)
    output.write_part(parts.path(j), plan.jobs[j], quantize_job(model, plan, plan.jobs[j]), {});
}
template <class Output>
void write(const Output& output, const ModelFile& model, const Plan& plan,
           const std::string& path) {
  PartStore parts(path + ".partial", "plan", PartStore::Start::fresh);
  write_parts(output, model, plan, parts);
  double bytes = 0;
  output.assemble(parts.whole(), parts, {{"about", "a test"}},
                  [&](double count) { bytes += count; });
  CHECK(bytes > 0);
  parts.finish(path);
}

std::string bytes_in(const TensorView& tensor) {
  return {reinterpret_cast<const char*>(tensor.bytes.data()), tensor.bytes.size()};
}

/// The tensors of the model with every matrix of a cafeq file put where its places say, in the
/// tensor's own elements.
std::map<std::string, std::string> rebuilt(const ModelFile& model,
                                           const QuantizedFileReader& file) {
  std::map<std::string, Tensor> tensors;
  for (const TensorInfo& info : model.tensors()) {
    const TensorView view = detail::stored_tensor(model, info.name).view;
    tensors[info.name] = {view.type, view.shape,
                          Buffer<std::byte>(view.bytes.begin(), view.bytes.end())};
  }
  for (const auto& [name, view] : file.tensors())
    tensors[name].bytes.assign(view.bytes.begin(), view.bytes.end());
  const auto places = file.metadata().find("cafeq.places");
  const auto json = places == file.metadata().end() ? nlohmann::json::object()
                                                    : nlohmann::json::parse(places->second);
  for (const std::string& name : file.matrices()) {
    const auto place =
        json.value(name, nlohmann::json{{"tensor", name}, {"begin", 0}, {"transposed", false}});
    Tensor& tensor = tensors.at(place["tensor"].get<std::string>());
    const AnyQuantized matrix = file.load(name);
    Matrix<float> hat(matrix.rows(), matrix.cols());
    matrix.dequantize(hat);
    const Index rows = tensor.shape[tensor.shape.size() - 2], cols = tensor.shape.back();
    const auto put = [&](auto* elements) {
      using T = std::remove_pointer_t<decltype(elements)>;
      for (Index i = 0; i < hat.rows(); ++i)
        for (Index j = 0; j < hat.cols(); ++j) {
          const Index out = place["begin"].get<Index>() + i;
          const Index at = place["transposed"].get<bool>() ? j * cols + out : out * cols + j;
          elements[place.value("slice", Index(0)) * rows * cols + at] = T(hat(i, j));
        }
    };
    if (tensor.type == ScalarType::bf16) put(reinterpret_cast<bf16*>(tensor.bytes.data()));
    else if (tensor.type == ScalarType::f16) put(reinterpret_cast<fp16*>(tensor.bytes.data()));
    else put(reinterpret_cast<float*>(tensor.bytes.data()));
  }
  std::map<std::string, std::string> bytes;
  for (const auto& [name, tensor] : tensors) bytes[name] = bytes_in(tensor.view());
  return bytes;
}

/// Both formats hold the same: Ŵ of each matrix in its place, the moved biases, all else as it was.
void check_formats_agree(const Family& family, const PlanOptions& options) {
  const test::TemporaryDirectory directory;
  save_model(family, directory, "model");
  const ModelFile model(directory / "model");
  const Plan plan = make_plan(model.tensors(), model.config(), options);
  write(QuantizedOutput(model, plan), model, plan, directory / "out.safetensors");
  write(FloatOutput(model, plan), model, plan, directory / "out");
  CHECK(directory.names() == Names{"model", "out.safetensors", "out"});

  const QuantizedFileReader file(directory / "out.safetensors");
  CHECK(file.metadata().find("about")->second == "a test");
  std::size_t matrices = 0;
  for (const Step& step : plan.steps) matrices += step.matrices.size();
  CHECK(file.matrices().size() == matrices);
  const ModelFile floats(directory / "out");
  CHECK(floats.config().architecture == model.config().architecture);
  const auto expected = rebuilt(model, file);
  REQUIRE(floats.tensors().size() == model.tensors().size());
  int changed = 0;
  for (const TensorInfo& info : floats.tensors()) {
    INFO(info.name);
    const TensorView found = detail::stored_tensor(floats, info.name).view,
                     before = detail::stored_tensor(model, info.name).view;
    CHECK(found.type == before.type);
    CHECK(found.shape == before.shape);
    CHECK(bytes_in(found) == expected.at(info.name));
    changed += bytes_in(found) != bytes_in(before);
  }
  CHECK(changed > 0);
  for (const KeptTensor& kept : plan.kept)
    CHECK(expected.at(kept.tensor) == bytes_in(detail::stored_tensor(model, kept.tensor).view));
}

Family experts() {
  return {
      R"({"model_type": "mixtral", "hidden_size": 64, "num_hidden_layers": 1,
    "num_local_experts": 3})",
      test::Tensors("F32")
          .add("blk.0.ffn_up_exps.weight", {3, 48, 64})
          .add("blk.0.ffn_down_exps.weight", {3, 64, 48})
          .list()};
}

}  // namespace

TEST_CASE("cafeq's format and floats hold the same model") {
  const PlanOptions usual{.recipe = recipes::fast<>{}};
  for (const char* type : {"F32", "BF16", "F16"}) {
    INFO(type);
    check_formats_agree(in(type, test::llama()), usual);
  }
  PlanOptions all = usual;
  all.embeddings = true;
  check_formats_agree(test::gpt2(), all);  // packed, [in, out], biases that move
  // Queries, keys and values lie in one tensor, gates and ups in another.
  check_formats_agree(test::phi3(), {.recipe = recipes::rtn<>{.bits = 3}});
  check_formats_agree(test::bert(), {.recipe = recipes::learned<>{}});
  check_formats_agree(experts(), usual);  // slices
}

TEST_CASE("A matrix that is not all of its tensor says where it lies") {
  const test::TemporaryDirectory directory;
  save_model(test::gpt2(), directory, "model");
  const ModelFile model(directory / "model");
  const Plan plan = make_plan(model.tensors(), model.config(), {.recipe = recipes::fast<>{}});
  write(QuantizedOutput(model, plan), model, plan, directory / "out");
  const QuantizedFileReader file(directory / "out");
  const auto places = nlohmann::json::parse(file.metadata().find("cafeq.places")->second);
  CHECK(places["h.1.attn.c_attn.weight:value"] ==
        nlohmann::json{{"tensor", "h.1.attn.c_attn.weight"}, {"begin", 64}, {"transposed", true}});
  CHECK(places["h.0.mlp.c_fc.weight"] ==
        nlohmann::json{{"tensor", "h.0.mlp.c_fc.weight"}, {"begin", 0}, {"transposed", true}});

  const test::MemoryModel stack(experts());
  CHECK(matrix_names(find_roles(stack.tensors(), stack.config()))[1] ==
        "blk.0.ffn_up_exps.weight:1");
}

TEST_CASE("A run that goes on from parts ends in the same file") {
  const test::TemporaryDirectory directory;
  save_model(test::llama(), directory, "model");
  const ModelFile model(directory / "model");
  const Plan plan = make_plan(model.tensors(), model.config(), {.recipe = recipes::fast<>{}});
  const QuantizedOutput output(model, plan);
  write(output, model, plan, directory / "whole");
  {
    const PartStore parts(directory / "out.partial", "plan", PartStore::Start::fresh);
    for (std::size_t j = 0; j < 3; ++j)
      output.write_part(parts.path(j), plan.jobs[j], quantize_job(model, plan, plan.jobs[j]), {});
  }
  PartStore parts(directory / "out.partial", "plan", PartStore::Start::resume);
  write_parts(output, model, plan, parts, 3);
  output.assemble(parts.whole(), parts, {{"about", "a test"}}, [](double) {});
  parts.finish(directory / "out");
  CHECK(directory.read("out") == directory.read("whole"));
}

TEST_CASE("A part tells its errors") {
  const test::TemporaryDirectory directory;
  save_model(test::gpt2(), directory, "model");
  const ModelFile model(directory / "model");
  for (const Index group : {Index(64), per_row}) {
    const Plan plan =
        make_plan(model.tensors(), model.config(), {.recipe = recipes::fast<>{.group = group}});
    const JobResult result = quantize_job(model, plan, plan.jobs[0]);
    const std::string path = directory / message("part", group);
    FloatOutput(model, plan).write_part(path, plan.jobs[0], result, {});
    const detail::PartErrors errors = detail::part_errors(path);
    CHECK(errors.matrices.size() == result.matrices.size());
    const auto& first = result.matrices[0];
    const auto& sums = errors.matrices.at(matrix_names(plan.roles)[first.matrix]);
    CHECK(sums.error == first.quantized.squared_error);
    CHECK(sums.norm == first.quantized.squared_norm);
    CHECK(errors.pairs.size() == result.pairs.size());
  }
}

TEST_CASE("A checkpoint of llama2.c stays one") {
  const test::TemporaryDirectory directory;
  const Llama2cHeader header{.version = 1,
                             .hidden = 64,
                             .intermediate = 96,
                             .layers = 1,
                             .heads = 2,
                             .kv_heads = 1,
                             .vocabulary = 5,
                             .context = 3};
  {
    Llama2cWriter writer(directory / "model.bin", header);
    const CounterRng rng(1);
    std::uint64_t n = 0;
    for (const auto& [name, shape, layered] : detail::llama2c_tensors(header)) {
      std::vector<float> values(std::size_t(*element_count(shape)));
      for (float& x : values) x = float(rng.normal(n++));
      writer.write(layered ? message("layers.0.", name) : std::string(name),
                   std::as_bytes(std::span(values)));
    }
    writer.commit();
  }
  const ModelFile model(directory / "model.bin");
  const Plan plan = make_plan(model.tensors(), model.config(), {.recipe = recipes::fast<>{}});
  write(FloatOutput(model, plan), model, plan, directory / "out.bin");
  write(QuantizedOutput(model, plan), model, plan, directory / "out.safetensors");
  CHECK(directory.read("out.bin").size() == directory.read("model.bin").size());
  CHECK(directory.read("out.bin").substr(0, 256) == directory.read("model.bin").substr(0, 256));
  const auto expected = rebuilt(model, QuantizedFileReader(directory / "out.safetensors"));
  const ModelFile floats(directory / "out.bin");
  for (const TensorInfo& info : floats.tensors())
    CHECK(bytes_in(floats.load(info.name).view) == expected.at(info.name));
}

TEST_CASE("A GGUF file keeps its fields, and byte for byte what is not quantized") {
  const test::TemporaryDirectory directory;
  GgufMetadata metadata;
  metadata.add("general.architecture", GgufValue(std::string("llama")));
  const std::vector<GgufEntry> entries{{"blk.0.ffn_up.weight", GgufType::q8_0, {64, 64}},
                                       {"blk.0.ffn_down.weight", GgufType::f16, {64, 64}},
                                       {"token_embd.weight", GgufType::q8_0, {8, 64}},
                                       {"strange", GgufType(24), {5}, 5}};
  {
    GgufWriter writer(directory / "model.gguf", metadata, entries);
    const std::string zeros(64 * 64 * 2, '\0'), blocks = [] {
      std::string bytes;
      for (int b = 0; b < 64 * 2; ++b) {
        bytes += std::string("\x00\x3c", 2);  // a scale of 1
        for (int i = 0; i < 32; ++i) bytes += char(7 * b * i);
      }
      return bytes;
    }();
    const auto write = [&](const std::string& name, std::string_view bytes) {
      writer.write(name, std::as_bytes(std::span(bytes)));
    };
    write("blk.0.ffn_up.weight", blocks);
    write("blk.0.ffn_down.weight", zeros);
    write("token_embd.weight", std::string_view(blocks).substr(0, 8 * 2 * 34));
    write("strange", "\1\2\3\4\5");
    writer.commit();
  }
  const ModelFile model(directory / "model.gguf");
  const Plan plan = make_plan(model.tensors(), model.config(), {.recipe = recipes::fast<>{}});
  write(FloatOutput(model, plan), model, plan, directory / "out.gguf");
  const GgufReader before(directory / "model.gguf"), after(directory / "out.gguf");
  CHECK(after.metadata().get<std::string_view>("general.architecture") == "llama");
  CHECK(after.tensor("blk.0.ffn_up.weight").type == GgufType::f16);  // blocks could not hold Ŵ
  CHECK(after.tensor("blk.0.ffn_down.weight").type == GgufType::f16);
  CHECK(after.tensor("token_embd.weight").type == GgufType::q8_0);
  const auto text = [](std::span<const std::byte> bytes) {
    return std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  };
  CHECK(text(after.tensor("token_embd.weight").data) ==
        text(before.tensor("token_embd.weight").data));
  CHECK(after.metadata().get<Index>("general.file_type") == 1);  // mostly F16
  CHECK(FloatOutput(model, plan).bytes() >= Index(directory.read("out.gguf").size()) - 64);
  CHECK(FloatOutput(model, plan).bytes() <= Index(directory.read("out.gguf").size()) + 64);
  CHECK(after.tensor("strange").type == GgufType(24));
  CHECK(text(after.tensor("strange").data).substr(0, 5) == "\1\2\3\4\5");

  // safetensors have no such elements: that is said before anything is quantized.
  const Error error = error_of([&] { QuantizedOutput(model, plan); });
  CHECK(error.code() == ErrorCode::unsupported);
  CHECK_THAT(error.message(), Contains("tensor strange is of type 24"));
}

TEST_CASE("Blocks whose weights are beyond fp16 become fp32") {
  const test::TemporaryDirectory directory;
  {
    GgufMetadata metadata;
    metadata.add("general.architecture", GgufValue("llama"));
    const std::vector<GgufEntry> entries{{"blk.0.ffn_up.weight", GgufType::q8_0, {32, 32}}};
    GgufWriter writer(directory / "model.gguf", metadata, entries);
    std::string blocks;
    for (int b = 0; b < 32; ++b) blocks += std::string("\x00\x70", 2) + std::string(32, char(b));
    writer.write("blk.0.ffn_up.weight", std::as_bytes(std::span(blocks)));  // up to 8192 · 31
    writer.commit();
  }
  const ModelFile model(directory / "model.gguf");
  const Plan plan = make_plan(model.tensors(), model.config(), {.recipe = recipes::rtn<>{}});
  write(FloatOutput(model, plan), model, plan, directory / "out.gguf");
  const GgufReader after(directory / "out.gguf");
  CHECK(after.tensor("blk.0.ffn_up.weight").type == GgufType::f32);
  CHECK(after.metadata().get<Index>("general.file_type") == 0);
}

TEST_CASE("A model of TensorFlow.js becomes safetensors, numbers that are no weights too") {
  const test::TemporaryDirectory directory;
  std::string weights, ids;
  for (int i = 0; i < 64 * 32; ++i) weights += test::bytes_of<float>({float(i % 37) - 18});
  for (int i = 0; i < 4; ++i) ids += test::bytes_of<std::int32_t>({i});
  directory.write(
      "model.json",
      tfjs_manifest(directory,
                    {{"dense", "float32", {64, 32}, weights}, {"ids", "int32", {4}, ids}}, 1000)
          .dump());
  const ModelFile model(directory.path());
  const Plan plan = make_plan(model.tensors(), model.config(), {.recipe = recipes::fast<>{}});
  CHECK(plan.steps.size() == 1);
  write(FloatOutput(model, plan), model, plan, directory / "out");
  write(QuantizedOutput(model, plan), model, plan, directory / "out.safetensors");
  const SafetensorsReader floats(directory / "out/model.safetensors");
  CHECK(bytes_in(floats.tensors().at("ids")) == ids);
  CHECK(floats.tensors().at("ids").type == ScalarType::i32);
  CHECK(bytes_in(floats.tensors().at("dense")) != weights);
  const QuantizedFileReader file(directory / "out.safetensors");
  CHECK(bytes_in(file.tensors().at("ids")) == ids);
  CHECK(file.matrices() == std::vector<std::string>{"dense"});
  CHECK(model.files().size() == 9 + 1);  // shards and model.json
}
