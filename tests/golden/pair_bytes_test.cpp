// Pairs.
#include "golden/bytes.hpp"

using namespace cafeq;
using namespace cafeq::test;

namespace {

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
