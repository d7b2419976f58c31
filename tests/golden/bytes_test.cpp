// Codes and scales are the same bytes from version to version: hashes of what every recipe,
// quantizer, rounder, pair and type of GGUF makes of a few matrices, in tests/golden/bytes.json. A
// change of them is a change of every file written.
#include <cstdlib>
#include <fstream>
#include <map>
#include <sstream>

#include "cafeq/cafeq.hpp"
#include "cafeq/io/quantized_file.hpp"
#include "cafeq/quant/gguf.hpp"
#include "io/temporary_directory.hpp"
#include "support/build.hpp"
#include "support/catch.hpp"
#include "support/golden.hpp"
#include "support/random.hpp"

using namespace cafeq;

namespace {

/// 64-bit FNV-1a.
class Hash {
 public:
  void add(std::span<const std::byte> bytes) {
    for (const std::byte b : bytes) value_ = (value_ ^ std::uint64_t(b)) * 0x100000001b3u;
  }
  template <class T>
  void add(const T& value) {
    add(std::as_bytes(std::span(&value, 1)));
  }
  std::string text() const {
    std::ostringstream out;
    out << std::hex << value_;
    return out.str();
  }

 private:
  std::uint64_t value_ = 0xcbf29ce484222325u;
};

template <Transform T, ScalarQuantizer Q>
void add_codes(Hash& hash, const Quantized<T, Q>& q) {
  for (Index i = 0; i < q.rows(); ++i)
    hash.add(std::as_bytes(std::span(q.codes().packed().row(i))));
  for (const auto& params : q.codes().params()) {
    if constexpr (LinearGrid<Q>) {
      hash.add(q.quantizer().scale(params));
      hash.add(q.quantizer().offset(params));
    }
  }
}
template <Transform T>
void add_codes(Hash& hash, const Quantized<T, Trellis>& q) {
  const auto& codes = q.codes();
  for (Index c = 0; c < codes.chunks().count(); ++c) hash.add(std::as_bytes(codes.chunk(c)));
  hash.add(std::as_bytes(codes.scales().codes()));
  hash.add(codes.scales().base());
  hash.add(codes.scales().step());
}

template <Transform T, class Q>
void add_result(Hash& hash, const Quantized<T, Q>& q) {
  Matrix<float> W(q.rows(), q.cols());
  q.dequantize(W);
  add_codes(hash, q);
  hash.add(std::as_bytes(std::span(W.data(), std::size_t(W.size()))));
  hash.add(std::int64_t(q.exponent()));
  hash.add(q.storage_bits());
}

using Hashes = std::map<std::string, std::string>;

/// What makes the hashes of a part of the set.
class Set {
 public:
  template <class... Results>
  void add(const std::string& name, const Results&... results) {
    Hash hash;
    (add_result(hash, results), ...);
    hashes_.emplace(name, hash.text());
  }
  void add_bytes(const std::string& name, std::span<const std::byte> bytes) {
    Hash hash;
    hash.add(bytes);
    hashes_.emplace(name, hash.text());
  }
  /// Compares with the golden hashes; CAFEQ_GOLDEN_BYTES names a file that the set is appended to,
  /// a line a hash.
  void check() const {
    if (const char* path = std::getenv("CAFEQ_GOLDEN_BYTES")) {
      std::ofstream out(path, std::ios::app);
      for (const auto& [name, hash] : hashes_) out << "\"" << name << "\": \"" << hash << "\",\n";
    }
    static const auto golden = test::golden("bytes.json");
    for (const auto& [name, hash] : hashes_) {
      INFO(name);
      REQUIRE(golden.contains(name));
      CHECK(golden.at(name).get<std::string>() == hash);
    }
  }

 private:
  Hashes hashes_;
};

/// Sums may differ in their last bits without fused multiply-adds.
bool left_out() {
#if defined(__FMA__)
  if (test::sanitized) WARN("left out: takes minutes under a sanitizer");
  return test::sanitized;
#else
  return true;
#endif
}

const Matrix<float>& weights() {
  static const auto W = test::heavy_tailed(96, 256, 1, 3);
  return W;
}
/// No side is a multiple of anything.
const Matrix<float>& odd_weights() {
  static const auto W = test::heavy_tailed(37, 149, 2, 1);
  return W;
}

template <class R>
void add_recipe(Set& set, const std::string& name, const R& recipe) {
  ThreadPool pool(2);
  set.add(name + " 96x256", quantize(weights(), recipe, pool));
  set.add(name + " 37x149", quantize(odd_weights().view().transposed().transposed(), recipe));
}

template <class T, class Q, class R>
void add_pipeline(Set& set, const std::string& name, T transform, Q quantizer, R rounder,
                  Side side = Side::input) {
  set.add(name, Pipeline{transform, quantizer, rounder, side}.quantize(weights()));
  set.add(name + " odd",
          Pipeline{transform, quantizer, rounder, side}.quantize(odd_weights().view()));
}

struct PairWeights {
  HeadLayout layout{.head_dim = 32, .heads = 4, .kv_heads = 2};
  Matrix<float> Wv = test::heavy_tailed(64, 96, 3, 1), Wo = test::heavy_tailed(96, 128, 4, 1);
  Matrix<float> Wq = test::heavy_tailed(128, 96, 5, 1), Wk = test::heavy_tailed(64, 96, 6, 1);
  std::vector<float> bv = std::vector<float>(64, 0.01f), bq = std::vector<float>(128, 0.02f),
                     bk = std::vector<float>(64, 0.03f);
};

template <class R>
void add_pairs(Set& set, const std::string& name, const R& recipe) {
  const PairWeights w;
  const auto vector = [](const std::vector<float>& v) {
    return VectorView<const float>{v.data(), Index(v.size()), 1};
  };
  const auto add = [&](const std::string& pair, const auto& first, const auto& second,
                       const auto& first_bias, const auto& second_bias) {
    set.add(name + " " + pair, first, second);
    set.add_bytes(name + " " + pair + " first bias", std::as_bytes(std::span(first_bias)));
    set.add_bytes(name + " " + pair + " second bias", std::as_bytes(std::span(second_bias)));
  };
  const auto vo = quantize_value_output(w.Wv, w.Wo, w.layout, recipe, {.value_bias = vector(w.bv)});
  add("value/output", vo.value(), vo.output(), vo.value_bias(), vo.output_bias());
  const auto qk = quantize_query_key(w.Wq, w.Wk, w.layout, recipe,
                                     {.query_bias = vector(w.bq), .key_bias = vector(w.bk)});
  add("query/key", qk.query(), qk.key(), qk.query_bias(), qk.key_bias());
  QueryKeyOptions rotary;
  rotary.traits.rotary = Rotary{.dims = 32};
  const auto rotated = quantize_query_key(w.Wq, w.Wk, w.layout, recipe, rotary);
  add("rotary query/key", rotated.query(), rotated.key(), rotated.query_bias(), rotated.key_bias());
}

}  // namespace

TEST_CASE("Recipes without a learned transform give the same bytes as ever") {
  if (left_out()) return;
  Set set;
  for (const int bits : {2, 3, 4, 5, 8}) {
    const std::string b = std::to_string(bits);
    add_recipe(set, "rtn " + b, recipes::rtn<>{.bits = bits});
    add_recipe(set, "rtn g64 " + b, recipes::rtn<>{.bits = bits, .group = 64});
    add_recipe(set, "mse " + b, recipes::mse<>{.bits = bits, .group = 48});
    add_recipe(set, "hadamard " + b, recipes::hadamard<>{.bits = bits, .seed = 5});
    add_recipe(set, "fast " + b, recipes::fast<>{.bits = bits});
    add_recipe(set, "fast midrise " + b,
               recipes::fast<runtime_bits, Midrise<>>{.bits = bits, .group = per_row, .seed = 3});
  }
  add_recipe(set, "fast<3>", recipes::fast<3>{});
  add_recipe(set, "mse<3> midrise", recipes::mse<3, Midrise<3>>{.group = 32});
  set.check();
}

TEST_CASE("smallest gives the same bytes as ever") {
  if (left_out()) return;
  Set set;
  add_recipe(set, "smallest 3.25", recipes::smallest{});
  add_recipe(set, "smallest 2.4 window 10",
             recipes::smallest{.bits = 2.4, .window = 10, .seed = 1});
  add_recipe(set, "smallest 4.4 window 14", recipes::smallest{.bits = 4.4, .window = 14});
  const Trellis columns{.rate = {40}, .scale_bits = 6, .window = 10, .sequence = Sequence::column};
  add_pipeline(set, "trellis columns", RandomizedHadamard{}, columns, Nearest{});
  add_pipeline(set, "trellis output side", BlockHadamard{8}, Trellis{.rate = {50}, .window = 10},
               Nearest{}, Side::output);
  add_pipeline(set, "trellis feedback", DualScaling{}, Trellis{.rate = {36}, .window = 10},
               ErrorFeedback{.sweeps = 1});
  set.check();
}

TEST_CASE("Learned transforms give the same bytes as ever") {
  if (left_out()) return;
  Set set;
  for (const int bits : {2, 3, 4}) {
    const std::string b = std::to_string(bits);
    add_recipe(set, "learned " + b, recipes::learned<>{.bits = bits, .transform_bits = 1});
    add_recipe(set, "learned affine g64 " + b,
               recipes::learned<runtime_bits, Affine<>>{
                   .bits = bits, .group = 64, .transform_bits = 2, .max_block = 16});
    add_recipe(set, "paper " + b, recipes::paper<>{.bits = bits, .transform_bits = 1, .steps = 30});
  }
  set.check();
}

TEST_CASE("Every quantizer, rounder and side gives the same bytes as ever") {
  if (left_out()) return;
  Set set;
  for (const auto& [name, search] :
       {std::pair("minmax", ScaleSearch::minmax), std::pair("absmax", ScaleSearch::absmax),
        std::pair("mse", ScaleSearch::mse)}) {
    const std::string s = name;
    add_pipeline(set, "affine " + s, Identity{}, Affine<>{.bits = 3, .group = 32, .search = search},
                 Nearest{});
    add_pipeline(set, "integer zero " + s, Identity{},
                 AffineIntegerZero<>{.bits = 3, .group = 40, .search = search}, Nearest{});
    add_pipeline(set, "symmetric " + s, Identity{},
                 Symmetric<>{.bits = 4, .group = 64, .search = search}, Nearest{});
    add_pipeline(set, "midrise " + s, Identity{},
                 Midrise<>{.bits = 2, .group = 16, .search = search}, Nearest{});
    add_pipeline(set, "nf4 " + s, Identity{}, nf4(64, search), Nearest{});
    add_pipeline(set, "nf3 " + s, Identity{}, nf3(48, search), Nearest{});
    add_pipeline(set, "mxfp4 " + s, Identity{}, MxFp4{.search = search}, Nearest{});
    add_pipeline(set, "nvfp4 " + s, Identity{}, NvFp4{.search = search}, Nearest{});
    add_pipeline(set, "fp8 " + s, Identity{}, Fp8E4M3{.group = 64, .search = search}, Nearest{});
  }
  add_pipeline(set, "midrise tensor", Identity{}, Midrise<>{.bits = 4, .group = per_tensor},
               Nearest{});
  add_pipeline(set, "affine tensor", BlockHadamard{16}, Affine<>{.bits = 4, .group = per_tensor},
               ErrorFeedback{});
  add_pipeline(set, "iq4_nl", Identity{}, gguf::iq4_nl, ErrorFeedback{});
  add_pipeline(set, "lloyd_max", RandomizedHadamard{}, lloyd_max_gaussian<3>(), ErrorFeedback{});
  const ErrorFeedback feedback{.sweeps = 2};
  add_pipeline(set, "scaled affine feedback", DualScaling{}, Affine<>{.bits = 3, .group = 32},
               feedback);
  add_pipeline(set, "scaled midrise feedback", DualScaling{}, Midrise<>{.bits = 3, .group = 64},
               feedback);
  add_pipeline(set, "scaled integer zero feedback", DualScaling{},
               AffineIntegerZero<>{.bits = 3, .group = 64}, feedback);
  add_pipeline(set, "scaled nf4 feedback", DualScaling{}, nf4(), feedback);
  add_pipeline(set, "scaled midrise descent", DualScaling{}, Midrise<>{.bits = 3},
               ErrorFeedback{.sweeps = 2, .feedback = false});
  add_pipeline(set, "output side", DualScaling{}, Affine<>{.bits = 3, .group = 32}, feedback,
               Side::output);
  add_pipeline(set, "output side nearest", BlockHadamard{32} * DualScaling{}, Midrise<>{.bits = 4},
               Nearest{}, Side::output);

  const Matrix<double> factor = test::gaussian<double>(256, 300, 9);
  Matrix<double> H(256, 256);
  for (Index i = 0; i < 256; ++i)
    for (Index j = 0; j < 256; ++j)
      for (Index k = 0; k < 300; ++k) H(i, j) += factor(i, k) * factor(j, k);
  const Metric metric = Metric::dense(H);
  const auto add_metric = [&](const std::string& name, const auto& q) {
    set.add(name, Quantized(round(feedback, weights().view(), q, metric).pack(),
                            Identity::Fitted{256}, Side::input, 0));
  };
  add_metric("hessian affine", Affine<>{.bits = 3, .group = 64});
  add_metric("hessian midrise", Midrise<>{.bits = 2});
  add_metric("hessian nf3", nf3());
  add_metric("hessian q4_k", gguf::q4_k);
  set.check();
}

TEST_CASE("Types of GGUF give the same bytes as ever") {
  if (left_out()) return;
  Set set;
  for (const GgufTypeInfo& info : gguf_types) {
    std::vector<std::byte> bytes;
    for (Index i = 0; i < weights().rows(); ++i) {
      std::vector<std::byte> row(std::size_t(*gguf_row_bytes(info.type, weights().cols())));
      gguf::quantize_row(info.type, weights().row(i), row);
      bytes.insert(bytes.end(), row.begin(), row.end());
    }
    set.add_bytes("gguf " + std::string(info.name), bytes);
  }
  set.check();
}

TEST_CASE("Pairs give the same bytes as ever") {
  if (left_out()) return;
  Set set;
  add_pairs(set, "mse 3", recipes::mse<>{.bits = 3, .group = 32});
  add_pairs(set, "fast 4", recipes::fast<>{.bits = 4});
  add_pairs(set, "learned 3", recipes::learned<>{.bits = 3});
  add_pairs(set, "learned 2 affine",
            recipes::learned<runtime_bits, Affine<>>{.bits = 2, .group = 32});
  add_pairs(set, "paper 3", recipes::paper<>{.bits = 3, .steps = 20});
  add_pairs(set, "smallest 2.5", recipes::smallest{.bits = 2.5, .window = 10});
  set.check();
}

TEST_CASE("Quantized files are the same bytes as ever") {
  if (left_out()) return;
  const test::TemporaryDirectory directory;
  QuantizedFileWriter writer;
  writer.add("rtn", quantize(weights(), recipes::rtn<>{.bits = 3, .group = 64}));
  writer.add("fast", quantize(weights(), recipes::fast<>{.bits = 4}));
  writer.add("midrise", quantize(weights(), recipes::fast<2, Midrise<2>>{}));
  writer.add(
      "integer zero",
      Pipeline{Identity{}, AffineIntegerZero<4>{.group = 64}, Nearest{}}.quantize(weights()));
  writer.add(
      "symmetric",
      Pipeline{BlockHadamard{16}, Symmetric<8>{}, Nearest{}, Side::output}.quantize(weights()));
  writer.add("smallest", quantize(weights(), recipes::smallest{}));
  writer.add("columns",
             Pipeline{Identity{}, Trellis{.rate = {40}, .window = 10, .sequence = Sequence::column},
                      Nearest{}}
                 .quantize(odd_weights()));
  const std::string path = directory / "golden.safetensors";
  writer.write(path);
  const auto bytes = read_file(path);
  Set set;
  set.add_bytes("file", std::as_bytes(std::span(bytes)));
  set.check();
}
