// Two matrices that meet in an attention layer, quantized together: the product of value and output
// projection of a grouped-query model, biases included.
#include <cmath>
#include <cstdio>
#include <vector>

#include "cafeq/cafeq.hpp"

int main() {
  const cafeq::HeadLayout layout{
      .head_dim = 64, .heads = 8, .kv_heads = 2};  // four query heads share a value head
  const cafeq::Index hidden = 512;
  cafeq::Matrix<float> Wv(layout.kv_heads * layout.head_dim, hidden),
      Wo(hidden, layout.heads * layout.head_dim);
  std::vector<float> bv(std::size_t(Wv.rows()), 0.1f);
  const cafeq::CounterRng rng(11);
  for (cafeq::Index i = 0; i < Wv.rows();
       ++i)  // channels of very different strength, as trained heads have
    for (cafeq::Index j = 0; j < hidden; ++j)
      Wv(i, j) = float(rng.normal(std::uint64_t(i * hidden + j))) *
                 std::exp(-0.05f * float(i % layout.head_dim));
  for (cafeq::Index i = 0; i < Wo.size(); ++i)
    Wo.data()[i] = float(rng.normal(1'000'000 + std::uint64_t(i)));

  cafeq::ThreadPool executor;
  const cafeq::ValueOutputOptions options{
      .value_bias = {bv.data(), cafeq::Index(bv.size()), 1}};  // this model has no output bias
  const auto plain = cafeq::quantize_value_output(
      Wv, Wo, layout, cafeq::recipes::mse<3, cafeq::Midrise<3>>{}, options, executor);
  const auto pair =
      cafeq::quantize_value_output(Wv, Wo, layout, cafeq::recipes::learned<3>{}, options, executor);
  std::printf(
      "error of the products: rounded one by one %.5f, learned M %.5f, alternating %.5f, at %.3f "
      "bits a weight\n",
      plain.error(), pair.nearest_error(), pair.error(), pair.bits_per_weight());

  // What the model runs with from here on: both matrices and the bias in their new basis.
  cafeq::dequantize(pair.value(), Wv);
  cafeq::dequantize(pair.output(), Wo);
  bv = pair.value_bias();

  // A gated MLP: channels of `up` and `down` can be scaled against each other, whatever the
  // activation of the gate does.
  cafeq::Matrix<float> up(1024, hidden), down(hidden, 1024);
  for (cafeq::Index i = 0; i < up.size(); ++i)
    up.data()[i] = float(rng.normal(2'000'000 + std::uint64_t(i)));
  for (cafeq::Index i = 0; i < down.size(); ++i)
    down.data()[i] = float(rng.normal(3'000'000 + std::uint64_t(i)));
  const double before = cafeq::quantize(down, cafeq::recipes::fast<3>{}, executor).error(down);
  const auto scales = cafeq::balance_up_down(up, down, executor);
  cafeq::transform_up_down(up, down, scales);
  const auto after = cafeq::quantize(down, cafeq::recipes::fast<3>{}, executor);
  std::printf("down projection, fast at 3 bits: error %.5f, with balanced channels %.5f\n", before,
              after.error(down));
}
