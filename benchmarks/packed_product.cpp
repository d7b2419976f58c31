// Packed weights times activations, y = Ŵ x, beside sgemv and sgemm on as many weights in fp32. A
// rate counts 2·m·n operations, whatever the bits: the ratio to a peer is the inverse ratio of
// times.
#include <string>
#include <utility>

#include "cafeq/core/rng.hpp"
#include "cafeq/quant/affine.hpp"
#include "cafeq/quant/codebook.hpp"
#include "cafeq/runtime/linear.hpp"
#include "support/bench.hpp"

#if defined(CAFEQ_BENCH_HAS_OPENBLAS)
#include <cblas.h>
#endif
#if defined(CAFEQ_BENCH_HAS_DNNL)
#include <dnnl.hpp>
#endif

namespace {

using namespace cafeq;

constexpr Index rows = 4096, cols = 4096, group = 128;

/// Random codes, plausible scales.
template <class Q>
auto random_weights(const Q& q) {
  PackedCodes codes(rows, cols, q.bits);
  const CounterRng rng(1, stream_of("codes"));
  const auto bytes = codes.bytes();
  for (std::size_t i = 0; i < bytes.size(); i += 8) {
    const std::uint64_t random = rng.bits(i);
    std::memcpy(bytes.data() + i, &random, 8);
  }
  std::vector<typename Q::Params> params(std::size_t(rows * ceil_div(cols, group)));
  for (std::size_t g = 0; g < params.size(); ++g) {
    params[g].scale = fp16(100.0f + float(g % 37));
    if constexpr (Q::has_offset) params[g].offset = fp16(-50.0f * float(1 << q.bits));
  }
  return Quantized(Codes(q, cols, std::move(codes), std::move(params)), Identity::Fitted{cols},
                   Side::input, -14);
}

#if defined(CAFEQ_BENCH_HAS_DNNL)
/// int8 weights in the library's own layout.
class DnnlInt8 {
 public:
  explicit DnnlInt8(Index batch)
      : x_({{batch, cols}, dnnl::memory::data_type::u8, dnnl::memory::format_tag::ab}, engine_),
        y_({{batch, rows}, dnnl::memory::data_type::f32, dnnl::memory::format_tag::ab}, engine_) {
    const dnnl::memory::desc any({cols, rows}, dnnl::memory::data_type::s8,
                                 dnnl::memory::format_tag::any);
    const dnnl::matmul::primitive_desc description(
        dnnl::matmul::desc(x_.get_desc(), any, y_.get_desc()), engine_);
    weights_ = dnnl::memory(description.weights_desc(), engine_);
    std::memset(weights_.get_data_handle(), 3, description.weights_desc().get_size());
    std::memset(x_.get_data_handle(), 5, std::size_t(batch * cols));
    matmul_ = dnnl::matmul(description);
  }
  void run() {
    matmul_.execute(stream_,
                    {{DNNL_ARG_SRC, x_}, {DNNL_ARG_WEIGHTS, weights_}, {DNNL_ARG_DST, y_}});
    stream_.wait();
  }

 private:
  dnnl::engine engine_{dnnl::engine::kind::cpu, 0};
  dnnl::stream stream_{engine_};
  dnnl::memory x_, y_, weights_;
  dnnl::matmul matmul_;
};
#endif

/// Nibbles one by one.
void plain_loop(const Quantized<Identity::Fitted, Affine<4>>& W, const float* x, float* y) {
  for (Index i = 0; i < rows; ++i) {
    const std::uint8_t* codes = W.codes().packed().row(i).data();
    float sum = 0;
    for (Index g = 0; g < cols / group; ++g) {
      const auto& params = W.codes().params()[std::size_t(i * (cols / group) + g)];
      float products = 0, total = 0;
      for (Index j = g * group; j < (g + 1) * group; j += 2) {
        products += float(codes[j / 2] & 15) * x[j] + float(codes[j / 2] >> 4) * x[j + 1];
        total += x[j] + x[j + 1];
      }
      sum += float(params.scale) * products + float(params.offset) * total;
    }
    y[i] = sum;
  }
}

template <class Q>
void add_case(const std::string& grid, const Q& q, ActivationPrecision precision, Index batch) {
  const bool rounded = precision == ActivationPrecision::int8;
  bench::add("packed product",
             grid + (rounded ? " x int8" : " x fp32") + ", batch " + std::to_string(batch),
             [=](bench::Contest& c) {
               const Linear layer{random_weights(q), {.precision = precision}};
               const auto input = bench::weights(batch * cols, 2);
               const View<const float> X{input.data(), batch, cols, cols, 1};
               Matrix<float> Y(batch, rows);
               const Activations x = layer.prepare_batch(X);
               const double operations = 2.0 * double(rows) * double(cols) * double(batch);
               c.ours(bench::Unit::gigaflops, operations, [&] {
                 layer.multiply_batch(x, Y.view());
                 bench::keep(Y);
               });
               if (batch == 1) {  // reading the codes and parameters
                 const Index bytes = Index(layer.weights().storage_bits() / 8);
                 bench::Limit read = bench::read_limit(bytes);
                 read.work *= operations / double(bytes);
                 c.limit(std::move(read));
               } else {
                 c.limit(bench::fma_limit());
               }
#if defined(CAFEQ_BENCH_HAS_OPENBLAS)
               openblas_set_num_threads(1);
               const auto dense = bench::weights(rows * cols);
               Matrix<float> result(batch, rows);
               c.peer("OpenBLAS fp32", [&] {
                 if (batch == 1)
                   cblas_sgemv(CblasRowMajor, CblasNoTrans, rows, cols, 1, dense.data(), cols,
                               input.data(), 1, 0, result.data(), 1);
                 else
                   cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, int(batch), rows, cols, 1,
                               input.data(), cols, dense.data(), cols, 0, result.data(), rows);
                 bench::keep(result);
               });
#endif
#if defined(CAFEQ_BENCH_HAS_DNNL)
               DnnlInt8 dnnl(batch);
               if (rounded && q.bits == 8) c.peer("oneDNN int8", [&] { dnnl.run(); });
#endif
               Matrix<float> plain(1, rows);
               if constexpr (std::is_same_v<Q, Affine<4>>) {
                 if (batch == 1)
                   c.peer("plain loop", [&] {
                     plain_loop(layer.weights(), input.data(), plain.data());
                     bench::keep(plain);
                   });
               }
               c.run();
             });
}

}  // namespace

void register_benchmarks() {
  for (const Index batch : {1, 4})
    for (const ActivationPrecision precision :
         {ActivationPrecision::fp32, ActivationPrecision::int8}) {
      add_case("2-bit g128", Affine<2>{.group = group}, precision, batch);
      add_case("3-bit g128", Affine<3>{.group = group}, precision, batch);
      add_case("4-bit g128", Affine<4>{.group = group}, precision, batch);
      add_case("8-bit g128", Affine<8>{.group = group}, precision, batch);
    }
  add_case("5-bit g128", Affine<5>{.group = group}, ActivationPrecision::fp32, 1);
  add_case("NF4 g128", nf4(group), ActivationPrecision::fp32, 1);
}
