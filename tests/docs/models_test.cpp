// What docs/how-to/quantize-a-model.md shows.
#include <map>

#include "cafeq/core/thread_pool.hpp"
#include "cafeq/io/gram_file.hpp"
#include "cafeq/io/quantized_file.hpp"
#include "cafeq/io/quantized_output.hpp"
#include "cafeq/model/make_plan.hpp"
#include "cafeq/model/quantize_model.hpp"
#include "cafeq/pipeline/recipes.hpp"
#include "cafeq/run/model_run.hpp"
#include "cafeq/runtime/any_linear.hpp"
#include "io/temporary_directory.hpp"
#include "support/catch.hpp"
#include "support/random.hpp"

namespace {

/// A checkpoint of random weights.
std::string write_model(const cafeq::test::TemporaryDirectory& directory) {
  cafeq::Llama2cHeader header;
  header.hidden = 64;
  header.intermediate = 96;
  header.layers = 2;
  header.heads = 2;
  header.kv_heads = 1;
  header.vocabulary = 40;
  header.context = 16;
  cafeq::Llama2cWriter writer(directory / "model.bin", header);
  std::uint64_t seed = 0;
  const auto write = [&](const std::string& name, cafeq::Index rows, cafeq::Index cols) {
    const auto W = cafeq::test::gaussian<float>(rows, cols, ++seed);
    writer.write(name, std::as_bytes(std::span(W.data(), std::size_t(W.size()))));
  };
  for (int l = 0; l < 2; ++l) {
    const std::string layer = cafeq::message("layers.", l, ".");
    write(layer + "attention_norm.weight", 1, 64);
    write(layer + "ffn_norm.weight", 1, 64);
    for (const char* name : {"attention.wq", "attention.wo"})
      write(layer + name + ".weight", 64, 64);
    for (const char* name : {"attention.wk", "attention.wv"})
      write(layer + name + ".weight", 32, 64);
    for (const char* name : {"feed_forward.w1", "feed_forward.w3"})
      write(layer + name + ".weight", 96, 64);
    write(layer + "feed_forward.w2.weight", 64, 96);
  }
  write("tok_embeddings.weight", 40, 64);
  write("norm.weight", 1, 64);
  write("freq_cis_real", 16, 16);
  write("freq_cis_imag", 16, 16);
  writer.commit();
  return directory / "model.bin";
}

}  // namespace

TEST_CASE("how-to: spread bits") {
  const cafeq::test::TemporaryDirectory directory;
  const cafeq::ModelFile model(write_model(directory));
  std::vector<cafeq::Sensitivity> known;
  for (const auto& matrix : cafeq::find_roles(model.tensors(), model.config()).matrices)
    known.push_back({.tensor = matrix.place.tensor,
                     .rows = matrix.place.out,
                     .value = matrix.role == cafeq::Role::down ? 10.0 : 1.0});
  directory.write("known", to_json(cafeq::Sensitivities(known)).dump());
  const std::string path = directory / "known";
  // [spread_bits]
  cafeq::Plan plan = cafeq::make_plan(model.tensors(), model.config(),
                                      {.recipe = cafeq::recipes::smallest{}, .pairs = false});
  const cafeq::Sensitivities sensitivities = cafeq::read_sensitivities(path);
  cafeq::allocate_plan(plan, model, {.target_bits = 3.2, .sensitivities = &sensitivities});
  const double loss = plan.expected_loss().value();  // nats a token
  // [spread_bits end]
  CHECK(loss > 0);
  CHECK(loss < 1);
}

TEST_CASE("how-to: quantize a model") {
  const cafeq::test::TemporaryDirectory directory;
  const std::string path = write_model(directory);
  cafeq::ThreadPool executor(2);
  std::map<std::string, cafeq::EncodedMatrix> kept;
  const auto keep = [&](const cafeq::MatrixPlace& place, const cafeq::EncodedMatrix& matrix) {
    kept.insert({place.tensor, matrix});
  };
  // [quantize_model]
  const cafeq::ModelFile model(path);
  const cafeq::Plan plan = cafeq::make_plan(model.tensors(), model.config(),
                                            {.recipe = cafeq::recipes::fast<>{.bits = 4}});
  for (const cafeq::Job& job : plan.jobs)
    for (const auto& result : cafeq::quantize_job(model, plan, job, executor).matrices)
      keep(plan.place(result.matrix), result.quantized.matrix);
  // [quantize_model end]
  CHECK(kept.size() == 14);

  const std::string small = directory / "small.safetensors";
  const cafeq::ModelRun run({.input = path,
                             .output = small,
                             .plan = {.recipe = cafeq::recipes::smallest{}},
                             .target_bits = 3.5},
                            executor);
  const cafeq::RunSummary summary = run.quantize();
  CHECK(summary.bytes_after < summary.bytes_before);
  CHECK(cafeq::QuantizedFileReader(small).matrices().size() == 14);

  const cafeq::PartStore parts(directory / "parts", "plan", cafeq::PartStore::Start::fresh);
  const cafeq::QuantizedOutput output(model, plan);
  for (std::size_t job = 0; job < plan.jobs.size(); ++job)
    output.write_part(parts.path(job), plan.jobs[job],
                      cafeq::quantize_job(model, plan, plan.jobs[job], executor), executor);
  output.assemble(directory / "out.safetensors", parts, {}, [](double) {});

  const std::string out = directory / "out.safetensors", name = "layers.1.feed_forward.w2.weight";
  const auto x = cafeq::test::gaussian<float>(1, 96, 99);
  cafeq::Matrix<float> y(1, 64);
  // [load_matrix]
  const cafeq::QuantizedFileReader file(out);
  const cafeq::AnyLinear w2{file.load(name)};
  w2.multiply(x, y, executor);
  // [load_matrix end]
  cafeq::Matrix<float> hat(64, 96);
  kept.at(name).dequantize(hat.view());
  for (cafeq::Index i = 0; i < 64; ++i) {
    double expected = 0;
    for (cafeq::Index j = 0; j < 96; ++j) expected += double(hat(i, j)) * double(x(0, j));
    CHECK(double(y(0, i)) == Approx(expected).epsilon(1e-4).margin(1e-3));
  }
}

TEST_CASE("how to collect what the layers read, and to quantize in it") {
  const cafeq::test::TemporaryDirectory directory;
  const std::string path = directory / "grams";
  cafeq::ThreadPool executor(2);
  std::vector<cafeq::Matrix<float>> batches;
  for (std::uint64_t b = 0; b < 3; ++b) {
    batches.push_back(cafeq::test::gaussian<float>(50, 64, b));
    for (cafeq::Index i = 0; i < 50; ++i) batches.back()(i, 5) *= 50;
  }
  // [collect_grams]
  cafeq::GramCollector grams;
  // q, k and v read one input, which is added by any of them.
  grams.share("layers.0.q.weight", {"layers.0.k.weight", "layers.0.v.weight"});
  for (const auto& x : batches)  // activations [tokens, in]: fp32, fp16 or bf16, any strides
    grams.add("layers.0.q.weight", x, executor);
  cafeq::write_grams(path, grams);
  // [collect_grams end]

  const auto W = cafeq::test::gaussian<float>(96, 64, 9);
  // [quantize_in_metric]
  const cafeq::GramFile file(path);  // or llama.cpp's imatrix
  const cafeq::GramEntry* inputs = file.find("layers.0.v.weight");
  const cafeq::Metric metric = file.load(*inputs).metric();
  const auto q = cafeq::quantize(W, cafeq::recipes::smallest{.bits = 3.5}, metric);
  // [quantize_in_metric end]
  CHECK(inputs->count == 150);
  cafeq::Matrix<float> knowing(96, 64), blind(96, 64);
  q.dequantize(knowing);
  cafeq::quantize(W, cafeq::recipes::smallest{.bits = 3.5}).dequantize(blind);
  CHECK(cafeq::relative_error(W, knowing, metric, cafeq::Side::input) <
        0.3 * cafeq::relative_error(W, blind, metric, cafeq::Side::input));
}
