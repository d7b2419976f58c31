// The code of docs/reference/concepts.md on codes, products and models, and that of
// docs/how-to/run-from-your-program.md: the smallest complete model of each concept, used once.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "cafeq/cafeq.hpp"
#include "cafeq/model/standard_recipes.hpp"
#include "cafeq/run/model_run.hpp"
#include "cafeq/runtime/any_linear.hpp"
#include "io/temporary_directory.hpp"
#include "pipeline/toy_joint.hpp"
#include "support/catch.hpp"
#include "support/random.hpp"

// [binary_codes]
/// Names codes that another program has chosen: every weight is ± one scale.
struct Binary {
  class Product;
};

template <>
class cafeq::Codes<Binary> {
 public:
  Codes(Index rows, Index cols, std::vector<bool> negative, float scale)
      : rows_(rows), cols_(cols), negative_(std::move(negative)), scale_(scale) {}

  Index rows() const { return rows_; }
  Index cols() const { return cols_; }
  std::int64_t storage_bits() const { return rows_ * cols_ + 32; }
  Binary quantizer() const { return {}; }

  float value(Index i, Index j) const {
    return negative_[std::size_t(i * cols_ + j)] ? -scale_ : scale_;
  }
  void decode_rows(Index begin, View<float> out) const {
    for (Index i = 0; i < out.rows; ++i)
      for (Index j = 0; j < out.cols; ++j) out(i, j) = value(begin + i, j);
  }

 private:
  Index rows_, cols_;
  std::vector<bool> negative_;
  float scale_;
};
static_assert(cafeq::StoredCodes<cafeq::Codes<Binary>>);
// [binary_codes end]

// [binary_product]
class Binary::Product {
 public:
  explicit Product(const cafeq::Codes<Binary>&) {}

  /// Activations as floats; the bits matter to kernels that read words of codes.
  cafeq::Activations arrange(const cafeq::Codes<Binary>&, cafeq::View<const float> X,
                             cafeq::ActivationFormat) const {
    return cafeq::Activations(X, 8, {});
  }
  void multiply(const cafeq::Codes<Binary>& codes, const cafeq::Activations& x,
                cafeq::ActivationFormat, cafeq::PowerOfTwo unit, cafeq::View<float> Y,
                cafeq::ExecutorRef executor) const {
    const cafeq::View<const float> X = x.values();
    executor.parallel_for(codes.rows(), 64, [&](cafeq::Index i, cafeq::Index end, cafeq::Index) {
      for (; i < end; ++i)
        for (cafeq::Index n = 0; n < X.rows; ++n) {
          double sum = 0;
          for (cafeq::Index j = 0; j < X.cols; ++j)
            sum += double(codes.value(i, j)) * double(X(n, j));
          Y(n, i) = float(unit(sum));
        }
    });
  }
};
// [binary_product end]

// [reversal]
/// M turns the order of the columns around: it is symmetric and its own inverse.
struct Reversal {
  cafeq::Index n = 0;

  cafeq::Index dim() const { return n; }
  template <class E>
  void apply(cafeq::View<E> X, cafeq::Op) const {
    for (cafeq::Index i = 0; i < X.rows; ++i)
      for (cafeq::Index j = 0; j < n / 2; ++j) std::swap(X(i, j), X(i, n - 1 - j));
  }
  bool is_orthogonal() const { return true; }
  std::int64_t storage_bits() const { return 0; }
};

/// Rows of activations are contiguous, which apply() cannot count on.
template <>
class cafeq::UndoTransform<Reversal> {
 public:
  UndoTransform(const Reversal&, Side) {}
  void operator()(const Reversal&, View<float> X, ExecutorRef) const {
    for (Index i = 0; i < X.rows; ++i) std::ranges::reverse(X.row(i));
  }
};
// [reversal end]

// [named_recipe]
/// Small Hadamards side by side, for hardware that cannot do large ones.
struct small_hadamards {
  static constexpr std::string_view name = "small-hadamards";
  static constexpr std::string_view description = "Hadamards of 16, levels without a zero";
  static constexpr double work = 1;

  int bits = 4;
  cafeq::Index group = 16;

  auto pipeline(cafeq::Index /*rows*/, cafeq::Index /*cols*/) const {
    return cafeq::Pipeline{cafeq::BlockHadamard{.block = 16},
                           cafeq::Midrise<>{.bits = bits, .group = group}, cafeq::Nearest{}};
  }
  std::string transform(cafeq::Index, cafeq::Index) const { return "Hadamards of 16"; }
  cafeq::PairAdvice pair_advice(cafeq::Index /*head_dim*/) const {
    return {.form = cafeq::PairForm::balanced};
  }
  template <class Self, class F>
  static void options(Self& recipe, F&& f) {
    f("bits", recipe.bits);
    f("group", recipe.group);
  }
};
static_assert(cafeq::NamedRecipe<small_hadamards>);
// [named_recipe end]

// [recipe_model]
/// Matrices as bfloat16, in no format of this library.
class Bfloat16Recipe final : public cafeq::RecipeModel {
 public:
  using Index = cafeq::Index;
  using Pair = std::span<const cafeq::PairedMatrix, 2>;

  std::string_view name() const override { return "bfloat16"; }
  std::vector<cafeq::RecipeOption> options() const override { return {}; }
  std::optional<cafeq::Error> fault() const override { return std::nullopt; }

  // One matrix.
  std::string grid(Index, Index) const override { return "bfloat16"; }
  std::string transform(Index, Index) const override { return "none"; }
  std::int64_t storage_bits(Index rows, Index cols) const override { return 16 * rows * cols; }
  cafeq::QuantizedMatrix quantize(const cafeq::Matrix<float>& W,
                                  cafeq::ExecutorRef) const override {
    cafeq::EncodedRows rows(0, W.rows(), W.cols(), 2 * W.cols(), decode);
    double error = 0, norm = 0;
    for (Index i = 0; i < W.rows(); ++i)
      for (Index j = 0; j < W.cols(); ++j) {
        const cafeq::bf16 rounded(W(i, j));
        std::memcpy(rows.row(i).data() + 2 * j, &rounded, 2);
        error += std::pow(double(W(i, j)) - double(float(rounded)), 2);
        norm += std::pow(double(W(i, j)), 2);
      }
    return {std::move(rows), error, norm};
  }

  // Pairs: each of the two by itself.
  cafeq::PairAdvice advice(Index, Pair) const override {
    return {.why = "bfloat16 has no use for it", .always = true};
  }
  cafeq::PairTransform pair_transform() const override { return cafeq::PairTransform::none; }
  std::array<std::string, 2> grids(Pair) const override { return {"bfloat16", "bfloat16"}; }
  std::array<std::int64_t, 2> storage_bits(Pair pair) const override {
    return {storage_bits(pair[0].rows, pair[0].cols), storage_bits(pair[1].rows, pair[1].cols)};
  }
  cafeq::EncodedPair quantize(cafeq::PairWeights, const cafeq::PairRole&,
                              cafeq::ExecutorRef) const override {
    cafeq::raise(cafeq::ErrorCode::unsupported, "bfloat16: pairs are not rounded together");
  }

  // There are no other bits.
  std::vector<cafeq::AnyRecipe> alternatives(std::span<const Index>) const override {
    return {cafeq::AnyRecipe(std::make_shared<Bfloat16Recipe>())};
  }
  std::optional<cafeq::AnyRecipe> with_bits(double) const override { return std::nullopt; }
  double trial_error(const cafeq::Matrix<float>& rows, cafeq::ExecutorRef executor) const override {
    const cafeq::QuantizedMatrix q = quantize(rows, executor);
    return q.squared_norm > 0 ? q.squared_error / q.squared_norm : 0;
  }
  double work() const override { return 0.1; }

 private:
  static void decode(std::uint32_t, std::span<const std::byte> row, std::span<float> weights) {
    for (std::size_t j = 0; j < weights.size(); ++j) {
      cafeq::bf16 weight;
      std::memcpy(&weight, row.data() + 2 * j, 2);
      weights[j] = weight;
    }
  }
};
// [recipe_model end]

// [model_reader]
/// Two matrices that a host has in memory.
class TwoMatrices {
 public:
  TwoMatrices(const cafeq::Matrix<float>& up, const cafeq::Matrix<float>& down)
      : matrices_{&up, &down} {
    for (const auto* W : matrices_)
      tensors_.push_back({.name = W == &up ? "layers.0.up" : "layers.0.down",
                          .type = "F32",
                          .shape = {W->rows(), W->cols()},
                          .bytes = 4 * W->size()});
  }

  std::span<const cafeq::TensorInfo> tensors() const { return tensors_; }
  const cafeq::ModelConfig& config() const { return config_; }
  cafeq::LoadedTensor load(std::string_view name) const {
    const auto& W = *matrices_[name == tensors_[0].name ? 0 : 1];
    const std::span<const float> weights(W.data(), std::size_t(W.size()));
    return {{cafeq::ScalarType::f32, {W.rows(), W.cols()}, std::as_bytes(weights)}};
  }
  void release(std::string_view) const {}  // nothing was mapped

 private:
  std::array<const cafeq::Matrix<float>*, 2> matrices_;
  std::vector<cafeq::TensorInfo> tensors_;
  cafeq::ModelConfig config_;
};
static_assert(cafeq::ModelReader<TwoMatrices>);
// [model_reader end]

// [model_output]
/// Ŵ as bare floats, one matrix after the other in the order of the plan's jobs.
class BareFloats {
 public:
  explicit BareFloats(const cafeq::Plan& plan) : plan_(plan) {}

  void write_part(const std::string& path, const cafeq::Job&, const cafeq::JobResult& result,
                  cafeq::ExecutorRef executor) const {
    std::vector<cafeq::Matrix<float>> matrices(result.matrices.size());
    cafeq::TensorViewMap tensors;
    for (std::size_t i = 0; i < matrices.size(); ++i) {
      const auto& [matrix, quantized] = result.matrices[i];
      const cafeq::MatrixPlace& place = plan_.place(matrix);
      cafeq::Matrix<float>& W = matrices[i] = cafeq::Matrix<float>(place.out, place.in);
      quantized.matrix.dequantize(W.view(), executor);
      const std::span<const float> weights(W.data(), std::size_t(W.size()));
      tensors[place.tensor] = {
          cafeq::ScalarType::f32, {W.rows(), W.cols()}, std::as_bytes(weights)};
    }
    cafeq::write_safetensors(path, tensors);  // appears whole or not at all
  }

  template <class Progress>
  void assemble(const std::string& path, const cafeq::PartStore& parts, const cafeq::Metadata&,
                Progress&& progress) const {
    std::string whole;
    for (std::size_t job = 0; job < plan_.jobs.size(); ++job) {
      const cafeq::SafetensorsReader part(parts.path(job));
      for (const auto& [name, tensor] : part.tensors()) {
        whole.append(reinterpret_cast<const char*>(tensor.bytes.data()), tensor.bytes.size());
        progress(double(tensor.bytes.size()));
      }
    }
    cafeq::write_file(path, whole);
  }

 private:
  const cafeq::Plan& plan_;
};
static_assert(cafeq::ModelOutput<BareFloats>);
// [model_output end]

namespace {

cafeq::Matrix<float> weights_of(const auto& q) {
  cafeq::Matrix<float> W(q.rows(), q.cols());
  q.dequantize(W);
  return W;
}

/// Whether y = W x.
bool is_product(const cafeq::Matrix<float>& W, const cafeq::Matrix<float>& x,
                const std::vector<float>& y) {
  for (cafeq::Index i = 0; i < W.rows(); ++i) {
    double sum = 0;
    for (cafeq::Index j = 0; j < W.cols(); ++j) sum += double(W(i, j)) * double(x(0, j));
    if (std::abs(double(y[std::size_t(i)]) - sum) > 1e-4 * (1 + std::abs(sum))) return false;
  }
  return true;
}

}  // namespace

TEST_CASE("docs: codes while they are chosen, and as they are stored") {
  const auto X = cafeq::test::gaussian<float>(24, 64, 1);
  const auto coded = [&](const auto& quantizer) {
    // [codes]
    cafeq::Encoding encoding(quantizer, X.rows(), X.cols());
    encoding.fit(X.view());     // parameters or scales
    encoding.encode(X.view());  // codes
    cafeq::Codes codes = encoding.pack();

    cafeq::Matrix<float> some(4, codes.cols());
    codes.decode_rows(8, some.view());  // rows 8 to 11 of X̂
    // [codes end]
    double error = 0, norm = 0;
    for (cafeq::Index i = 0; i < 4; ++i)
      for (cafeq::Index j = 0; j < 64; ++j) {
        error += std::pow(double(X(8 + i, j)) - double(some(i, j)), 2);
        norm += std::pow(double(X(8 + i, j)), 2);
      }
    CHECK(codes.storage_bits() > 2 * X.size());
    return error / norm;
  };
  CHECK(coded(cafeq::Midrise<4>{.group = 32}) < 0.02);
  CHECK(coded(cafeq::test::Rings{}) < 0.15);
}

TEST_CASE("docs: codes of one's own, with a product of one's own") {
  const auto x = cafeq::test::gaussian<float>(1, 32, 2);
  std::vector<bool> negative;
  for (int i = 0; i < 8 * 32; ++i) negative.push_back(i % 3 == 0);
  std::vector<float> y(8);
  // [binary_linear]
  const cafeq::Codes<Binary> codes(8, 32, negative, 0.5f);
  const cafeq::Quantized<cafeq::Identity::Fitted, Binary> q(codes, {32}, cafeq::Side::input, 0);
  const cafeq::Linear layer(q);
  layer.multiply(x, y);
  // [binary_linear end]
  CHECK(weights_of(q)(0, 1) == 0.5f);
  CHECK(is_product(weights_of(q), x, y));
}

TEST_CASE("docs: undoing a transform in one's own way") {
  const auto W = cafeq::test::gaussian<float>(12, 33, 3);
  const auto x = cafeq::test::gaussian<float>(1, 33, 4);
  const cafeq::Pipeline pipeline{Reversal{33}, cafeq::Midrise<4>{.group = 11}, cafeq::Nearest{}};
  const auto q = pipeline.quantize(W);
  std::vector<float> y(12);
  cafeq::Linear(q).multiply(x, y);
  CHECK(q.error(W) < 0.02);
  CHECK(is_product(weights_of(q), x, y));
}

TEST_CASE("docs: a named recipe in a book, a model of one's own, an output of one's own") {
  const auto up = cafeq::test::gaussian<float>(96, 64, 5);
  const auto down = cafeq::test::gaussian<float>(64, 96, 6);
  const TwoMatrices model(up, down);
  // [recipe_book]
  cafeq::RecipeBook book = cafeq::standard_recipes();
  book.add(small_hadamards{});

  const std::vector<cafeq::RecipeOption> options{{"bits", std::int64_t(3)}};
  const cafeq::AnyRecipe recipe = book.make("small-hadamards", options);
  const cafeq::Plan plan = cafeq::make_plan(model.tensors(), model.config(), {.recipe = recipe});
  // [recipe_book end]
  REQUIRE(plan.jobs.size() == 2);
  CHECK(recipe.as<small_hadamards>()->bits == 3);
  CHECK(plan.grid(plan.steps[0], 0) == "midrise3 g16");

  const cafeq::test::TemporaryDirectory directory;
  const cafeq::PartStore parts(directory / "parts", "a plan", cafeq::PartStore::Start::fresh);
  const BareFloats output(plan);
  double written = 0;
  for (std::size_t job = 0; job < plan.jobs.size(); ++job)
    output.write_part(parts.path(job), plan.jobs[job],
                      cafeq::quantize_job(model, plan, plan.jobs[job]), {});
  output.assemble(directory / "floats", parts, {}, [&](double bytes) { written += bytes; });
  CHECK(written == 4 * (96 * 64 + 64 * 96));
  CHECK(double(cafeq::read_file(directory / "floats").size()) == written);
}

TEST_CASE("docs: a recipe without a pipeline") {
  const auto up = cafeq::test::gaussian<float>(96, 64, 7);
  const auto down = cafeq::test::gaussian<float>(64, 96, 8);
  const TwoMatrices model(up, down);
  // [bfloat16_recipe]
  const cafeq::AnyRecipe recipe(std::make_shared<Bfloat16Recipe>());
  const cafeq::Plan plan = cafeq::make_plan(model.tensors(), model.config(), {.recipe = recipe});
  // [bfloat16_recipe end]
  CHECK(plan.storage_bits() == 16 * plan.weights());
  CHECK(recipe->alternatives({})[0] == recipe);
  CHECK(recipe->trial_error(up, {}) < 1e-5);
  const auto result = cafeq::quantize_job(model, plan, plan.jobs[0]).matrices[0];
  cafeq::Matrix<float> hat(96, 64);
  result.quantized.matrix.dequantize(hat.view());
  CHECK(hat(3, 5) == float(cafeq::bf16(up(3, 5))));
}

TEST_CASE("how-to: run it from your own program") {
  const cafeq::test::TemporaryDirectory directory;
  const std::string input = directory / "model.safetensors", output = directory / "out.safetensors";
  const auto up = cafeq::test::gaussian<float>(96, 64, 9);
  const auto down = cafeq::test::gaussian<float>(64, 96, 10);
  const TwoMatrices model(up, down);
  cafeq::TensorViewMap tensors;
  for (const auto& info : model.tensors()) tensors.emplace(info.name, model.load(info.name).view);
  cafeq::write_safetensors(input, tensors);

  std::string log;
  double last = 0;
  bool stop = true;
  const auto show = [&](std::string_view, double part) {
    last = part;
    if (stop) throw std::runtime_error("stopped");
  };
  const auto quantize = [&] {
    // [model_run]
    cafeq::ThreadPool executor(2);
    const cafeq::ModelRun run({.input = input,
                               .output = output,
                               .plan = {.recipe = cafeq::recipes::learned<>{.bits = 3}},
                               .target_bits = 3.5,  // a mean; every matrix gets what it needs
                               .start = cafeq::PartStore::Start::resume},
                              executor);
    // [model_run end]
    // [model_run_plan]
    const cafeq::Plan& plan = run.plan();
    for (const cafeq::Step& step : plan.steps)
      log += cafeq::message(plan.place(step.matrices[0]).tensor, ": ", plan.transform(step), ", ",
                            plan.grid(step, 0), " ", step.why, "\n");
    // [model_run_plan end]
    // [model_run_quantize]
    const cafeq::RunSummary summary =
        run.quantize([&](std::string_view what, double done, double all) {
          show(what, done / all);  // "quantizing", then "writing"; may throw to end it
        });
    for (const auto& [name, sums] : summary.errors.matrices)
      log += cafeq::message(name, ": relative error ", sums.error / sums.norm, "\n");
    // [model_run_quantize end]
    return summary;
  };
  CHECK_THROWS_WITH(quantize(), "stopped");
  stop = false;
  log.clear();
  const cafeq::RunSummary summary = quantize();
  CHECK(last == 1);
  CHECK(summary.errors.matrices.size() == 2);
  CHECK(summary.bytes_after < summary.bytes_before);
  CHECK(log.find("layers.0.up: relative error 0.0") != std::string::npos);
  CHECK(cafeq::QuantizedFileReader(output).load("layers.0.down").error(down) < 0.05);
}
