// The library in one screen: quantize a matrix by a recipe, compose a pipeline, quantize a pair,
// multiply from packed codes.
#include <cstdio>
#include <vector>

#include "cafeq/cafeq.hpp"

int main() {
  // Any matrix or vector views will do; here, generated weights. executor: the host's threads, or
  // this small pool.
  cafeq::ThreadPool executor;
  cafeq::Matrix<float> W(1024, 512), What(1024, 512), Wv(1024, 512), Wo(512, 2048);
  std::vector<float> x(512), y(1024);
  const cafeq::CounterRng rng(2026);
  std::uint64_t n = 0;
  const auto fill = [&](auto& values) {
    for (cafeq::Index i = 0; i < cafeq::Index(values.size()); ++i)
      values.data()[i] = 0.02f * float(rng.normal(n++));
  };
  fill(W), fill(Wv), fill(Wo), fill(x);

  auto q = cafeq::quantize(W, cafeq::recipes::learned<3>{});  // best known recipe at 3 bits

  cafeq::Pipeline p{cafeq::BlockHadamard{64}, cafeq::Midrise<3>{.group = 64}, cafeq::Nearest{}};
  auto r = p.quantize(W);  // Quantized<...>: packed codes, fp16 scales, fitted transform
  cafeq::dequantize(r, What);
  r.error(W);
  r.bits_per_weight();

  auto vo = cafeq::quantize_value_output(Wv, Wo, {.head_dim = 128, .heads = 16, .kv_heads = 8},
                                         cafeq::recipes::learned<3>{});

  cafeq::Linear layer{r};
  layer.multiply(x, y, executor);  // y = Ŵ x from packed codes

  std::printf("learned       %.4f bits a weight, relative error %.5f\n", q.bits_per_weight(),
              q.error(W));
  std::printf("pipeline      %.4f bits a weight, relative error %.5f\n", r.bits_per_weight(),
              r.error(W));
  std::printf("value/output  %.4f bits a weight, relative error of the product %.5f\n",
              vo.bits_per_weight(), vo.error());
  std::printf("y[0] = %.6f from packed codes\n", double(y[0]));
}
