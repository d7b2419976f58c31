#include "cafeq/model/quantize_model.hpp"

#include <cmath>

#include "cafeq/core/thread_pool.hpp"
#include "cafeq/io/gguf_recipe.hpp"
#include "cafeq/model/make_plan.hpp"
#include "cafeq/pipeline/recipes.hpp"
#include "model/memory_model.hpp"
#include "support/build.hpp"
#include "support/catch.hpp"
#include "support/error_of.hpp"
#include "support/random.hpp"

using namespace cafeq;
using namespace cafeq::test;

namespace {

/// 100 · row + column, counted through all slices.
std::vector<double> counted(Index rows, Index cols) {
  std::vector<double> values;
  for (Index i = 0; i < rows; ++i)
    for (Index j = 0; j < cols; ++j) values.push_back(double(100 * i + j));
  return values;
}

template <class T>
double difference(const Matrix<T>& a, const Matrix<T>& b) {
  return relative_error(a.view(), b.view());
}

Matrix<float> dequantized(const MatrixResult& part) {
  const EncodedMatrix& matrix = part.quantized.matrix;
  const auto* own = matrix.quantized();
  Matrix<float> W = own != nullptr ? Matrix<float>(own->rows(), own->cols())
                                   : Matrix<float>(matrix.rows()->rows, matrix.rows()->cols);
  matrix.dequantize(W.view());
  return W;
}
std::int64_t storage_of(const MatrixResult& part) { return part.quantized.matrix.storage_bits(); }

/// A matrix of a pair with its bias, before and after.
struct Half {
  Matrix<float> W;
  std::vector<float> bias;
};
Half original(const MemoryModel& model, const Plan& plan, std::size_t m) {
  return {load_matrix(model, plan.place(m)), load_bias(model, plan.roles.matrices[m])};
}
Half result_of(const JobResult& result, std::size_t m) {
  Half half;
  for (const auto& part : result.matrices)
    if (part.matrix == m) half.W = dequantized(part);
  for (const auto& [matrix, values] : result.biases)
    if (matrix == m) half.bias = values;
  return half;
}

/// What a pair does: of each head F₁ₕᵀ F₂ₖᵥ₍ₕ₎, one below the other, with the biases of queries and
/// keys as columns.
Matrix<double> products(const PairRole& pair, const Half& first, const Half& second) {
  const bool by_rows = pair.kind == PairKind::query_key;
  const auto& [d, heads, kv_heads] = pair.layout;
  const Index n1 = by_rows ? first.W.cols() + 1 : first.W.rows(), n2 = second.W.cols() + by_rows;
  const auto entry = [](const Half& half, Index row, Index col) {
    if (col < half.W.cols()) return double(half.W(row, col));
    return half.bias.empty() ? 0.0 : double(half.bias[std::size_t(row)]);
  };
  Matrix<double> P(heads * n1, n2);
  for (Index h = 0; h < heads; ++h)
    for (Index i = 0; i < n1; ++i)
      for (Index j = 0; j < n2; ++j)
        for (Index c = h * d; c < (h + 1) * d; ++c) {
          const Index kv = h / (heads / kv_heads) * d + c % d;
          P(h * n1 + i, j) +=
              (by_rows ? entry(first, c, i) : double(first.W(i, c))) * entry(second, kv, j);
        }
  return P;
}
/// What the biases of values and outputs add together, since the weights of attention sum to one.
Matrix<double> bias_of_outputs(const PairRole& pair, const Half& output, const Half& value) {
  const auto& [d, heads, kv_heads] = pair.layout;
  Matrix<double> sum(1, output.W.rows());
  for (Index i = 0; i < output.W.rows(); ++i) {
    sum(0, i) = output.bias.empty() ? 0.0 : double(output.bias[std::size_t(i)]);
    for (Index c = 0; c < heads * d && !value.bias.empty(); ++c)
      sum(0, i) += double(output.W(i, c)) *
                   double(value.bias[std::size_t(c / d / (heads / kv_heads) * d + c % d)]);
  }
  return sum;
}

struct PairCase {
  double error;  // of the products
  double bias_error = 0;
  double reported = -1;  // where anything is
};
/// Of each pair of a model, by the recipe; each step's storage must be what the plan says.
std::vector<PairCase> pair_errors(const Family& family, const AnyRecipe& recipe) {
  const MemoryModel model(family);
  const Plan plan = make_plan(model.tensors(), model.config(), {.recipe = recipe});
  std::vector<PairCase> errors;
  for (const Job& job : plan.jobs) {
    const JobResult result = quantize_job(model, plan, job);
    for (const std::size_t s : job.steps) {
      const Step& step = plan.steps[s];
      std::int64_t storage = 0;
      for (const auto& part : result.matrices)
        if (std::find(step.matrices.begin(), step.matrices.end(), part.matrix) !=
            step.matrices.end())
          storage += storage_of(part);
      CHECK(storage == plan.storage_bits(step));
      if (!step.pair) continue;
      for (const std::size_t m : step.matrices)
        CHECK(Index(result_of(result, m).bias.size()) ==
              (plan.roles.matrices[m].bias ? plan.place(m).out : 0));
      const PairRole& role = plan.roles.pairs[*step.pair];
      const Half first = original(model, plan, role.first),
                 second = original(model, plan, role.second);
      const Half first_hat = result_of(result, role.first),
                 second_hat = result_of(result, role.second);
      PairCase found{
          difference(products(role, first, second), products(role, first_hat, second_hat))};
      if (role.kind == PairKind::value_output)
        found.bias_error = difference(bias_of_outputs(role, first, second),
                                      bias_of_outputs(role, first_hat, second_hat));
      for (const auto& [pair, error] : result.pairs)
        if (pair == *step.pair) found.reported = error;
      errors.push_back(found);
    }
  }
  return errors;
}

/// Two heads of 32, which learned rounds together.
Family wide() {
  return {
      R"({"head_dim": 32, "hidden_size": 64, "intermediate_size": 64, "model_type": "qwen2",
    "num_attention_heads": 2, "num_hidden_layers": 1,
    "num_key_value_heads": 1})",
      Tensors("F32")
          .linear("model.layers.0.self_attn.v_proj", 32, 64)
          .matrix("model.layers.0.self_attn.o_proj", 64, 64)
          .list()};
}

}  // namespace

TEST_CASE("A matrix is read from any floating-point elements") {
  MemoryModel model;
  const auto values = counted(2, 3);
  model.add<float>("F32", {2, 3}, values);
  model.add<double>("F64", {2, 3}, values);
  model.add<fp16>("F16", {2, 3}, values);
  model.add<bf16>("BF16", {2, 3}, values);
  model.add<std::int32_t>("I32", {2, 3}, values);
  for (const char* name : {"F32", "F64", "F16", "BF16"}) {
    INFO(name);
    const auto W = load_matrix(model, {.tensor = name, .out = 2, .in = 3});
    CHECK(std::vector<double>(W.data(), W.data() + 6) == values);
  }
  const Error error =
      error_of([&] { (void)load_matrix(model, {.tensor = "I32", .out = 2, .in = 3}); });
  CHECK(error.code() == ErrorCode::unsupported);
  CHECK_THAT(error.message(), Contains("I32: its elements are I32"));
}

TEST_CASE("A matrix is read from its place, however it lies there") {
  MemoryModel model;
  model.add<float>("packed", {6, 3}, counted(6, 3));
  model.add<float>("stack", {4, 5, 3}, counted(20, 3));
  ThreadPool executor(2);
  const auto entry = [&](const MatrixPlace& place, Index i, Index j) {
    return double(load_matrix(model, place, executor)(i, j));
  };
  CHECK(entry({.tensor = "packed", .begin = 4, .out = 2, .in = 3}, 1, 2) == 502);
  CHECK(entry({.tensor = "packed", .transposed = true, .begin = 1, .out = 2, .in = 6}, 1, 5) ==
        502);
  CHECK(entry({.tensor = "packed", .transposed = true, .begin = 0, .out = 3, .in = 6}, 2, 1) ==
        102);
  CHECK(entry({.tensor = "stack", .slice = 2, .out = 5, .in = 3}, 1, 2) == 1102);
  CHECK(entry({.tensor = "stack", .slice = 3, .transposed = true, .begin = 1, .out = 2, .in = 5}, 0,
              4) == 1901);

  const auto rows = load_rows(model, {.tensor = "stack", .slice = 1, .out = 5, .in = 3}, 2);
  CHECK(rows.rows() == 2);
  CHECK(rows(0, 0) == 500);
  CHECK(rows(1, 1) == 701);
  CHECK(load_rows(model, {.tensor = "packed", .out = 6, .in = 3}, 64).rows() == 6);

  model.add<bf16>("biases", {4, 3}, counted(4, 3));
  MatrixRole role{.place = {.tensor = "stack", .slice = 2, .out = 2, .in = 3}};
  CHECK(load_bias(model, role).empty());
  role.bias = BiasPlace{"biases", 2, 1};
  CHECK(load_bias(model, role) == std::vector<float>{201, 202});
}

TEST_CASE("A single matrix becomes what its recipe makes of it") {
  MemoryModel model;
  const auto W = heavy_tailed(48, 64, 1, 2);
  model.add<float>("other.weight", {48, 64}, std::vector<double>(W.data(), W.data() + W.size()));
  const auto check = [&](const auto& recipe) {
    const Plan plan = make_plan(model.tensors(), model.config(), {.recipe = recipe});
    REQUIRE(plan.steps.size() == 1);
    const JobResult result = quantize_job(model, plan, plan.jobs[0]);
    REQUIRE(result.matrices.size() == 1);
    const auto expected = quantize(W, recipe);
    Matrix<float> hat(48, 64);
    expected.dequantize(hat);
    CHECK(difference(hat, dequantized(result.matrices[0])) == 0);
    CHECK(storage_of(result.matrices[0]) == plan.storage_bits(plan.steps[0]));
    CHECK(result.matrices[0].quantized.squared_error / result.matrices[0].quantized.squared_norm ==
          Approx(expected.error(W)));
    double norm = 0;
    for (Index i = 0; i < W.size(); ++i) norm += double(W.data()[i]) * double(W.data()[i]);
    CHECK(result.matrices[0].quantized.squared_norm == Approx(norm));
    CHECK(result.pairs.empty());
    CHECK(result.biases.empty());
  };
  check(recipes::rtn<>{.bits = 3, .group = 16});
  check(recipes::fast<>{.bits = 5, .group = 32, .seed = 7});
  check(recipes::learned<>{.bits = 3});
  check(recipes::smallest{.bits = 2.9, .seed = 3});
  CHECK(model.released() == std::set<std::string>{"other.weight"});
}

TEST_CASE("A matrix becomes blocks of GGUF") {
  MemoryModel model;
  const auto W = gaussian(16, 64, 3);
  model.add<float>("other.weight", {16, 64}, std::vector<double>(W.data(), W.data() + W.size()));
  for (const GgufType type : {GgufType::q8_0, GgufType::q4_1, GgufType::iq4_nl}) {
    const Plan plan = make_plan(model.tensors(), model.config(),
                                {.recipe = GgufRecipe::make(type, recipes::fast<>{})});
    const JobResult result = quantize_job(model, plan, plan.jobs[0]);
    const auto& part = result.matrices.at(0);
    CHECK(GgufType(part.quantized.matrix.rows()->type) == type);
    CHECK(storage_of(part) == plan.storage_bits(plan.steps[0]));
    const double error = difference(W, dequantized(part));
    CHECK(error < 0.01);
    CHECK(part.quantized.squared_error / part.quantized.squared_norm == Approx(error));
  }
}

TEST_CASE("Balanced pairs compute the same product, their biases moved") {
  // qwen2: grouped heads, a bias of values only in the pair; bert: separate tensors; gpt2: packed
  // and stored [in, out].
  for (const Family& family : {qwen2(), bert(), gpt2()}) {
    const auto errors = pair_errors(family, recipes::fast<>{.bits = 8, .group = 32});
    CHECK(errors.size() == (family.tensors.size() == qwen2().tensors.size() ? 2 : 4));
    for (const auto& [error, bias_error, reported] : errors) {
      CHECK(error < 5e-5);
      CHECK(error > 0);
      CHECK(bias_error < 2e-4);
      CHECK(reported == -1);
    }
  }
}

TEST_CASE("Matrices that are rounded together report the error of their product") {
  for (const AnyRecipe& recipe : {AnyRecipe(recipes::learned<>{.bits = 4}),
                                  GgufRecipe::make(GgufType::q8_0, recipes::fast<>{}),
                                  GgufRecipe::make(GgufType::q4_0, recipes::fast<>{}),
                                  AnyRecipe(recipes::smallest{.bits = 4.4})}) {
    if (test::sanitized && recipe->name() == "smallest") continue;  // too slow
    const auto errors = pair_errors(wide(), recipe);
    REQUIRE(errors.size() == 1);
    CHECK(errors[0].error == Approx(errors[0].reported).epsilon(1e-3));
    CHECK(errors[0].error < 0.01);
    CHECK(errors[0].bias_error < 0.05);
  }
}

TEST_CASE("Results do not depend on the number of threads") {
  const MemoryModel model(gpt2());
  const Plan plan = make_plan(model.tensors(), model.config(), {.recipe = recipes::fast<>{}});
  ThreadPool executor(3);
  for (const Job& job : plan.jobs) {
    const JobResult one = quantize_job(model, plan, job),
                    three = quantize_job(model, plan, job, executor);
    REQUIRE(one.matrices.size() == three.matrices.size());
    for (std::size_t i = 0; i < one.matrices.size(); ++i) {
      CHECK(one.matrices[i].quantized.squared_error == three.matrices[i].quantized.squared_error);
      CHECK(difference(dequantized(one.matrices[i]), dequantized(three.matrices[i])) == 0);
    }
    REQUIRE(one.biases.size() == three.biases.size());
    for (std::size_t i = 0; i < one.biases.size(); ++i)
      CHECK(one.biases[i].values == three.biases[i].values);
  }
}
