// A joint quantizer that the library does not know goes everywhere: the toy of
// tests/pipeline/toy_joint.hpp through pipelines, error feedback, pairs, files and products.
#include <fstream>

#include "cafeq/core/thread_pool.hpp"
#include "cafeq/io/quantized_file.hpp"
#include "cafeq/pipeline/quantize.hpp"
#include "cafeq/pipeline/quantize_pair.hpp"
#include "cafeq/rounding/error_feedback.hpp"
#include "cafeq/runtime/linear.hpp"
#include "cafeq/transform/dual_scaling.hpp"
#include "cafeq/transform/hadamard.hpp"
#include "io/temporary_directory.hpp"
#include "pipeline/toy_joint.hpp"
#include "support/catch.hpp"
#include "support/random.hpp"

using namespace cafeq;
using test::Rings;

namespace {

/// The best scalar grid of 2 bits leaves .1175 of a Gaussian; the points of the toy about .12.
constexpr double toy_error = 0.14;

Matrix<float> dequantized(const auto& q) {
  Matrix<float> W(q.rows(), q.cols());
  q.dequantize(W);
  return W;
}
bool equal(const Matrix<float>& A, const Matrix<float>& B) {
  return A.rows() == B.rows() && A.cols() == B.cols() &&
         std::equal(A.data(), A.data() + A.size(), B.data());
}

struct ToyPair {
  auto pair(const PairShape&) const {
    return PairPipeline<Rings>{
        .transform = PairTransform::balanced, .rounder = {.sweeps = 0}, .alternations = 3};
  }
};

}  // namespace

TEST_CASE("The toy is short") {
  std::ifstream file(CAFEQ_SCRIPTS_DIR "/../tests/pipeline/toy_joint.hpp");
  REQUIRE(file);
  int lines = 0;
  for (std::string line; std::getline(file, line);) ++lines;
  CHECK(lines < 60);
}

TEST_CASE("A toy joint quantizer in a pipeline") {
  for (const auto& [rows, cols] : {std::pair<Index, Index>{1, 1}, {3, 5}, {64, 256}, {41, 33}}) {
    INFO(rows << " x " << cols);
    const auto W = test::gaussian<float>(rows, cols, 1);
    const Pipeline pipeline{RandomizedHadamard{}, Rings{}, Nearest{}};
    const auto q = pipeline.quantize(W);
    if (rows > 3) CHECK(q.error(W) < toy_error);
    CHECK(q.storage_bits() == pipeline.storage_bits(rows, cols));
    ThreadPool pool(3);
    CHECK(equal(dequantized(pipeline.quantize(W, pool)), dequantized(q)));
  }
  const auto W = test::gaussian<float>(64, 256, 1);
  for (const Sequence sequence :
       {Sequence::rows, Sequence::row, Sequence::column, Sequence::scaled_column})
    for (const Side side : {Side::input, Side::output}) {
      const Pipeline pipeline{BlockHadamard{16}, Rings{.sequence = sequence}, Nearest{}, side};
      CHECK(pipeline.quantize(W).error(W) < toy_error);
    }
}

TEST_CASE("A toy joint quantizer with error feedback gains what any other gains") {
  auto W = test::gaussian<float>(96, 128, 2);
  for (Index i = 0; i < W.rows(); ++i)
    for (Index j = 0; j < W.cols(); ++j) W(i, j) *= std::exp(0.02f * float(j));
  Matrix<double> H(128, 128);
  const auto factor = test::gaussian<double>(128, 160, 3);
  for (Index i = 0; i < 128; ++i)
    for (Index j = 0; j < 128; ++j)
      for (Index k = 0; k < 160; ++k) H(i, j) += factor(i, k) * factor(j, k);
  const Metric metric = Metric::dense(H);

  const auto error_of = [&](const Encoding<Rings>& encoding) {
    Matrix<float> hat(W.rows(), W.cols());
    encoding.decode(hat.view());
    return relative_error(W, hat, metric, Side::input);
  };
  const Rings columns = detail::for_lines(Rings{}, Side::input);
  const double nearest = error_of(round(Nearest{}, W.view(), columns, metric));
  const double fed_back = error_of(round(ErrorFeedback{.sweeps = 0}, W.view(), columns, metric));
  CHECK(fed_back < 0.9 * nearest);
  CHECK(error_of(round(ErrorFeedback{.sweeps = 1}, W.view(), columns, metric)) < 0.9 * nearest);
  CHECK_THROWS_WITH(round(ErrorFeedback{}, W.view(), Rings{}, metric),
                    Contains("sequences must be columns on the input side"));
}

TEST_CASE("A toy joint quantizer rounds pairs together") {
  const HeadLayout layout{.head_dim = 32, .heads = 4, .kv_heads = 2};
  const auto Wv = test::gaussian<float>(64, 96, 3), Wo = test::gaussian<float>(96, 128, 4);
  const auto vo = quantize_value_output(Wv, Wo, layout, ToyPair{});
  CHECK(vo.error() < vo.nearest_error());
  CHECK(vo.error() < 0.3);
  const auto Wq = test::gaussian<float>(128, 96, 5);
  const auto qk = quantize_query_key(Wq, Wv, layout, ToyPair{});
  CHECK(qk.error() <= qk.nearest_error());
}

TEST_CASE("A toy joint quantizer goes into a file and comes back the same") {
  const test::TemporaryDirectory directory;
  const std::string path = directory / "toy.safetensors";
  const auto W = test::gaussian<float>(40, 99, 6);
  const auto q = Pipeline{RandomizedHadamard{}, Rings{}, Nearest{}}.quantize(W);
  const auto c = Pipeline{
      Identity{}, Rings{.scale_bits = 6, .sequence = Sequence::column},
      Nearest{}}.quantize(W);
  QuantizedFileWriter writer;
  writer.add("q", q);
  writer.add("c", c);
  writer.write(path);

  const QuantizedFileReader reader(path);
  const auto loaded = reader.load_as<Hadamard, Rings>("q");
  CHECK(equal(dequantized(loaded), dequantized(q)));
  CHECK(loaded.storage_bits() == q.storage_bits());
  const auto columns = reader.load_as<Identity::Fitted, Rings>("c");
  CHECK(equal(dequantized(columns), dequantized(c)));
  CHECK(columns.quantizer() == c.quantizer());
  // What stands in no list is known by its type alone.
  CHECK_THROWS_WITH(reader.load("q"), Contains("its grid is rings; load_as() can load it"));
}

TEST_CASE("A toy joint quantizer multiplies") {
  const auto W = test::gaussian<float>(70, 96, 7);
  const auto X = test::gaussian<float>(3, 96, 8);
  for (const Sequence sequence : {Sequence::rows, Sequence::column})
    for (const Side side : {Side::input, Side::output}) {
      const auto q =
          Pipeline{RandomizedHadamard{}, Rings{.sequence = sequence}, Nearest{}, side}.quantize(W);
      const auto hat = dequantized(q);
      Matrix<float> Y(3, 70);
      Linear{q}.multiply_batch(X.view(), Y.view());
      for (Index n = 0; n < 3; ++n)
        for (Index i = 0; i < 70; ++i) {
          double sum = 0;
          for (Index j = 0; j < 96; ++j) sum += double(X(n, j)) * double(hat(i, j));
          CHECK(double(Y(n, i)) == Approx(sum).margin(1e-4));
        }
    }
}
