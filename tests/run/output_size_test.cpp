#include "cafeq/run/output_size.hpp"

#include "cafeq/model/make_plan.hpp"
#include "cafeq/pipeline/recipes.hpp"
#include "cafeq/run/model_run.hpp"
#include "io/saved_model.hpp"
#include "support/catch.hpp"

using namespace cafeq;

namespace {

/// Of a file.
double bytes_at(const std::string& path) { return double(std::filesystem::file_size(path)); }

}  // namespace

TEST_CASE("Kept tensors take what they take in the model's file") {
  const test::TemporaryDirectory directory;
  test::save_model(test::llama(), directory, "model");
  const ModelFile model(directory / "model");
  const Plan plan = make_plan(model.tensors(), model.config(), {});
  double quantized = 0, all = 0;
  for (const Step& step : plan.steps) quantized += 2.0 * double(plan.weights(step));  // bf16
  for (const TensorInfo& tensor : model.tensors()) all += double(tensor.bytes);
  CHECK(detail::kept_bytes(model, plan) == all - quantized);

  Plan nothing = plan;
  nothing.kept.clear();
  CHECK(detail::kept_bytes(model, nothing) == 0);
}

TEST_CASE("A file has no more beside its weights than is said, and not much less") {
  for (const test::Family& family : {test::llama(), test::gpt2(), test::bert()}) {
    const test::TemporaryDirectory directory;
    test::save_model(family, directory, "model");
    for (const AnyRecipe& recipe :
         {AnyRecipe(recipes::rtn<>{}), AnyRecipe(recipes::fast<>{}),
          AnyRecipe(recipes::learned<>{}), AnyRecipe(recipes::smallest{})}) {
      INFO(family.config << " " << recipe->name());
      const std::string out = directory / std::string(recipe->name());
      const ModelRun run({.input = directory / "model", .output = out, .plan = {.recipe = recipe}});
      run.quantize();
      const double beside = bytes_at(out) - double(run.plan().storage_bits()) / 8;
      const double bound = detail::bytes_beside_weights(run.model(), run.plan(), false);
      CHECK(beside <= bound);
      CHECK(beside > detail::kept_bytes(run.model(), run.plan()));
    }
  }
}

TEST_CASE("A GGUF file keeps its own metadata, and has the vocabulary of a tokenizer") {
  const test::TemporaryDirectory directory;
  test::save_model(test::llama(), directory, "model");
  const std::string tokenizer = directory.write("tokenizer.json", std::string(5000, ' '));
  const ModelFile model(directory / "model");
  const Plan plan = make_plan(model.tensors(), model.config(),
                              {.recipe = GgufRecipe::make(GgufType::q8_0, recipes::fast<>{})});
  const double without = detail::bytes_beside_weights(model, plan, true);
  CHECK(without == detail::bytes_beside_weights(model, plan, false));
  CHECK(detail::bytes_beside_weights(model, plan, true, tokenizer) == without + 5000);

  // Its own, where it has one.
  directory.write("model/tokenizer.json", std::string(3000, ' '));
  const ModelFile with_tokenizer(directory / "model");
  CHECK(detail::bytes_beside_weights(with_tokenizer, plan, true) == without + 3000);
  CHECK(detail::bytes_beside_weights(with_tokenizer, plan, true, tokenizer) == without + 5000);

  GgufMetadata metadata;
  metadata.add("general.architecture", GgufValue("llama"));
  metadata.add("a.long.text", GgufValue(std::string(2000, 'x')));
  const std::vector<GgufEntry> entries{{"blk.0.ffn_up.weight", GgufType::f32, {64, 64}}};
  {
    GgufWriter writer(directory / "model.gguf", metadata, entries);
    const std::vector<float> weights(64 * 64);
    writer.write("blk.0.ffn_up.weight", std::as_bytes(std::span(weights)));
    writer.commit();
  }
  const ModelFile gguf(directory / "model.gguf");
  const Plan blocks = make_plan(gguf.tensors(), gguf.config(), {});
  CHECK(detail::bytes_beside_weights(gguf, blocks, true) >=
        detail::bytes_beside_weights(gguf, blocks, false) + 2000);
}
