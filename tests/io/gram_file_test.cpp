#include "cafeq/io/gram_file.hpp"

#include "io/damage.hpp"
#include "io/temporary_directory.hpp"
#include "support/build.hpp"
#include "support/catch.hpp"
#include "support/error_of.hpp"
#include "support/random.hpp"

using namespace cafeq;
using test::error_of;
using test::TemporaryDirectory;

namespace {

const std::string query = "model.layers.2.self_attn.q_proj.weight";
const std::string key = "model.layers.2.self_attn.k_proj.weight";
const std::string down = "model.layers.2.mlp.down_proj.weight";

/// Adds so many random inputs.
void add(GramCollector& grams, const std::string& name, Index count, Index dim,
         std::uint64_t seed) {
  const auto X = test::gaussian<float>(count, dim, seed);
  grams.add(name, X);
}

GramCollector some_grams(GramKind kind) {
  GramCollector grams(kind);
  grams.share(query, {key});
  add(grams, query, 40, 12, 1);
  add(grams, down, 40, 20, 2);
  return grams;
}

/// A file with this text about its Grams, and a tensor of each name.
void write_file(const std::string& path, const std::string& about,
                const std::map<std::string, std::vector<float>>& tensors) {
  TensorViewMap views;
  for (const auto& [name, values] : tensors)
    views.emplace(
        name,
        TensorView{ScalarType::f32, {Index(values.size())}, std::as_bytes(std::span(values))});
  write_safetensors(path, views, {{"cafeq.grams", about}});
}

}  // namespace

TEST_CASE("Grams come back from their file, one at a time or all") {
  const TemporaryDirectory directory;
  for (const GramKind kind : {GramKind::whole, GramKind::diagonal}) {
    const GramCollector grams = some_grams(kind);
    write_grams(directory / "grams", grams, "a model");
    const GramFile file(directory / "grams");
    CHECK(file.model() == "a model");
    REQUIRE(file.inputs().size() == 2);
    REQUIRE(file.find(key) != nullptr);
    CHECK(file.find(key) == file.find(query));
    CHECK(file.find("lm_head.weight") == nullptr);
    const InputGram loaded = file.load(*file.find(key));
    const InputGram& expected = *grams.find(query);
    CHECK(loaded.kind() == kind);
    CHECK(loaded.count() == expected.count());
    for (Index i = 0; i < 12; ++i)
      for (Index j = 0; j < 12; ++j)
        CHECK(loaded.product(i, j) == Approx(expected.product(i, j)).epsilon(1e-6).margin(1e-5));

    const GramCollector again = read_grams(directory / "grams");
    CHECK(again.inputs().size() == 2);
    write_grams(directory / "again", again, "a model");
    CHECK(directory.read("again") == directory.read("grams"));
    std::vector<GramEntry> entries;
    for (const auto& input : grams.inputs()) entries.push_back(detail::entry_of(input));
    CHECK(GramFileWriter::file_bytes(entries, "a model") == Index(directory.read("grams").size()));
  }
}

TEST_CASE("Diagonals are an imatrix too, by the names that llama.cpp has") {
  const TemporaryDirectory directory;
  const GramCollector grams = some_grams(GramKind::whole);
  const std::map<std::string, std::string> names{{query, "blk.2.attn_q.weight"},
                                                 {key, "blk.2.attn_k.weight"},
                                                 {down, "blk.2.ffn_down.weight"}};
  write_imatrix(directory / "imatrix.gguf", grams, "a text", names);
  const GgufReader file(directory / "imatrix.gguf");
  CHECK(*file.metadata().get<std::string_view>("general.type") == "imatrix");
  CHECK(file.tensor("blk.2.attn_k.weight.in_sum2").shape == std::vector<Index>{1, 12});

  // It is understood for a model of Hugging Face's names.
  const GramFile imatrix(directory / "imatrix.gguf");
  for (const std::string& name : {query, key, down}) {
    REQUIRE(imatrix.find(name) != nullptr);
    const InputGram loaded = imatrix.load(*imatrix.find(name));
    CHECK(loaded.kind() == GramKind::diagonal);
    CHECK(loaded.count() == 40);
    for (Index j = 0; j < loaded.dim(); ++j)
      CHECK(loaded.square(j) == Approx(grams.find(name)->square(j)));
  }
  CHECK(imatrix.find("model.layers.1.mlp.down_proj.weight") == nullptr);
}

TEST_CASE("A writer of Grams wants what was announced") {
  const TemporaryDirectory directory;
  const std::vector<GramEntry> entries{{.name = "a", .dim = 3, .count = 5}};
  GramFileWriter writer(directory / "grams", entries);
  InputGram gram(3, GramKind::whole);
  CHECK_THAT(error_of([&] { writer.write("a", gram); }).message(), Contains("a"));  // its count
  const auto X = test::gaussian<float>(5, 3, 1);
  gram.add(X);
  CHECK(error_of([&] { writer.write("b", gram); }).code() == ErrorCode::invalid_argument);
  writer.write("a", gram);
  writer.commit();
  CHECK(GramFile(directory / "grams").inputs().size() == 1);
}

TEST_CASE("Files that are no Grams are refused, and what is wrong is named") {
  const TemporaryDirectory directory;
  const std::string path = directory / "file";
  const auto problem = [&](const std::string& about,
                           const std::map<std::string, std::vector<float>>& tensors) {
    write_file(path, about, tensors);
    return error_of([&] {
      const GramFile file(path);
      for (const GramEntry& entry : file.inputs()) file.load(entry);
    });
  };
  const std::vector<float> three{1, 2, 3};
  const auto inputs = [](const std::string& entry) {
    return R"({"version": 1, "inputs": {"a": )" + entry + "}}";
  };
  const std::string diagonal = R"({"dim": 3, "kind": "diagonal", "count": 2})";
  const std::string whole = R"({"dim": 2, "kind": "whole", "count": 2, "readers": []})";
  write_file(path, inputs(diagonal), {{"a", three}});
  CHECK(GramFile(path).load(GramFile(path).inputs()[0]).square(2) == 6);
  write_file(path, inputs(whole), {{"a", three}});
  CHECK(GramFile(path).load(GramFile(path).inputs()[0]).product(1, 0) == 4);

  CHECK_THAT(problem("[", {}).message(), Contains("JSON"));
  CHECK_THAT(problem("{}", {}).message(), Contains("version"));
  CHECK(problem(R"({"version": 2, "inputs": {}})", {}).code() == ErrorCode::unsupported);
  CHECK_THAT(problem(R"({"version": 1})", {}).message(), Contains("inputs"));
  CHECK_THAT(problem(inputs("{}"), {{"a", three}}).message(), Contains("a:"));
  CHECK_THAT(problem(inputs(diagonal), {}).message(), Contains("no tensor"));
  CHECK_THAT(problem(inputs(diagonal), {{"a", {1, 2}}}).message(), Contains("expected F32 [3]"));
  CHECK_THAT(problem(inputs(diagonal), {{"a", {1, -2, 3}}}).message(), Contains("input 1 is -4"));
  CHECK_THAT(problem(inputs(whole), {{"a", {1, NAN, 3}}}).message(), Contains("nan"));
  CHECK_THAT(problem(inputs(R"({"dim": 3, "kind": "diagonal", "count": 2, "readers": ["a"]})"),
                     {{"a", three}})
                 .message(),
             Contains("twice"));
  CHECK(problem(inputs(R"({"dim": 99999999999, "kind": "whole", "count": 2})"), {{"a", three}})
            .code() == ErrorCode::corrupt);

  write_safetensors(path, {});
  CHECK(error_of([&] { GramFile file(path); }).code() == ErrorCode::unsupported);
  GgufMetadata metadata;
  metadata.add("general.type", GgufValue(std::string_view("model")));
  write_file(path, GgufWriter::without_tensors(metadata));
  CHECK(error_of([&] { GramFile file(path); }).code() == ErrorCode::unsupported);
  CHECK(error_of([&] { GramFile file(directory / "missing"); }).code() == ErrorCode::io);
}
