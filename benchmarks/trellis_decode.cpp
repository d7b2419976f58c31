// Chunks of a trellis code times activations, beside an fp32 dot product on as many weights and a
// table of all states' weights, read one by one. 2048 × 2048 weights are 1 to 2 MB packed and 16 MB
// in fp32; the second size is far past any cache in fp32.
#include <array>
#include <cstring>
#include <string>
#include <vector>

#include "cafeq/core/rng.hpp"
#include "cafeq/core/thread_pool.hpp"
#include "cafeq/trellis/code_tables.hpp"
#include "cafeq/trellis/row_product.hpp"
#include "cafeq/trellis/stream.hpp"
#include "support/bench.hpp"

namespace {

using namespace cafeq;
using kernel::TrellisActivations;
using kernel::TrellisDecoder;

/// Rows in chunks of some 8,192 weights, random bits: every stream is a valid one.
struct Weights {
  Weights(Index row_count, Index col_count, int sixteenths)
      : rows(row_count),
        cols(col_count),
        chunk_rows(std::max<Index>(1, 8192 / cols)),
        rate{sixteenths},
        code(trellis_code(rate, 12)),
        decoder(code, rate),
        chunk_bytes(kernel::TrellisStream{rate, code.window}.bytes(chunk_rows * cols)),
        scales(std::size_t(chunk_rows), 1.0f),
        bytes(std::size_t(rows / chunk_rows * chunk_bytes + 8)) {
    const CounterRng rng(1, stream_of("bits"));
    for (std::size_t i = 0; i + 8 <= bytes.size(); i += 8) {
      const std::uint64_t random = rng.bits(i);
      std::memcpy(bytes.data() + i, &random, 8);
    }
  }
  const std::uint8_t* chunk(Index row) const {
    return bytes.data() + row / chunk_rows * chunk_bytes;
  }

  template <class T>
  void multiply(const TrellisActivations<T>& x, View<float> Y, ExecutorRef executor = {}) const {
    executor.parallel_for(rows / chunk_rows, 8, [&](Index begin, Index end, Index) {
      for (Index c = begin; c < end; ++c)
        kernel::multiply_trellis_rows(decoder, chunk(c * chunk_rows), 0,
                                      std::span(scales).first(std::size_t(chunk_rows)), x,
                                      Y.col_block(c * chunk_rows, chunk_rows));
    });
  }

  Index rows, cols, chunk_rows;
  TrellisRate rate;
  const TrellisCode& code;
  TrellisDecoder<> decoder;
  Index chunk_bytes;
  std::vector<float> scales;
  std::vector<std::uint8_t> bytes;
};

/// A row of fp32 weights times x: four sums, as many as hide the latency of an addition.
float dot(const float* w, const float* x, Index n) {
  using V = Batch<float>;
  constexpr Index lanes = Index(V::size);
  V sum[4] = {V(0.0f), V(0.0f), V(0.0f), V(0.0f)};
  for (Index j = 0; j < n; j += 4 * lanes) {
    CAFEQ_UNROLL
    for (Index k = 0; k < 4; ++k)
      sum[k] = simd::fma(V::load_unaligned(w + j + k * lanes), V::load_unaligned(x + j + k * lanes),
                         sum[k]);
  }
  return simd::reduce_add((sum[0] + sum[1]) + (sum[2] + sum[3]));
}

std::vector<float> state_weights(const TrellisCode& code) {
  std::vector<float> table(code.states());
  for (std::uint32_t state = 0; state < code.states(); ++state)
    table[state] = code.unit * float(code.level(state));
  return table;
}

/// Four weights from one word of 64 bits, four sums: what a plain decoder can do. Rows begin at
/// multiples of 16.
float table_dot(const Weights& W, const float* table, const std::uint8_t* chunk, Index first,
                const float* x) {
  std::array<Index, 16> at;
  for (Index i = 0; i < 16; ++i) at[std::size_t(i)] = W.rate.begin(i);
  float sum[4] = {};
  Index group = W.rate.begin(first);
  for (Index j = 0; j < W.cols; j += 16, group += W.rate.sixteenths) {
    CAFEQ_UNROLL
    for (std::size_t i = 0; i < 16; i += 4) {
      const Index begin = group + at[i];
      std::uint64_t word;
      std::memcpy(&word, chunk + (begin >> 3), 8);
      word = __builtin_bswap64(word) << (begin & 7);
      CAFEQ_UNROLL
      for (std::size_t k = 0; k < 4; ++k)
        sum[k] += table[word << (at[i + k] - at[i]) >> 52] * x[std::size_t(j) + i + k];
    }
  }
  return (sum[0] + sum[1]) + (sum[2] + sum[3]);
}

std::string name_of(int sixteenths) { return std::to_string(sixteenths) + "/16 bits"; }

template <class T>
void add_product(int sixteenths, Index all_rows, Index cols, Index batch) {
  const std::string name =
      name_of(sixteenths) + (TrellisActivations<T>::is_wide ? " x int16, " : " x int8, ") +
      std::to_string(all_rows) + " x " + std::to_string(cols) + ", batch " + std::to_string(batch);
  bench::add("trellis product", name, [=](bench::Contest& c) {
    const Index rows = bench::smoke() ? 64 : all_rows;
    const Weights W(rows, cols, sixteenths);
    const auto input = bench::weights(batch * cols, 2);
    const TrellisActivations<T> x(View<const float>{input.data(), batch, cols, cols, 1});
    Matrix<float> Y(batch, rows);
    c.ours(bench::Unit::megaweights, double(rows * cols), [&] {
      W.multiply(x, Y.view());
      bench::keep(Y);
    });
    bench::Limit read = bench::read_limit(Index(W.bytes.size()));
    read.work *= double(rows * cols) / double(W.bytes.size());
    c.limit(std::move(read));
    const auto dense = bench::weights(rows * cols);
    c.peer("fp32 dot", [&] {
      for (Index i = 0; i < rows; ++i)
        for (Index n = 0; n < batch; ++n)
          Y(n, i) = dot(dense.data() + i * cols, input.data() + n * cols, cols);
      bench::keep(Y);
    });
    const auto table = state_weights(W.code);
    c.peer("table", [&] {
      for (Index i = 0; i < rows; ++i)
        for (Index n = 0; n < batch; ++n)
          Y(n, i) = table_dot(W, table.data(), W.chunk(i), i % W.chunk_rows * cols,
                              input.data() + n * cols);
      bench::keep(Y);
    });
    ThreadPool pool(2);
    c.peer("two threads", [&] {
      W.multiply(x, Y.view(), pool);
      bench::keep(Y);
    });
    c.run();
  });
}

template <class T>
void add_decode(int sixteenths, const std::string& type) {
  bench::add("trellis decode", name_of(sixteenths) + " to " + type, [=](bench::Contest& c) {
    const Weights W(64, 2048, sixteenths);
    std::vector<T> out(std::size_t(W.rows * W.cols));
    c.ours(bench::Unit::megaweights, double(out.size()), [&] {
      for (Index i = 0; i < W.rows; i += W.chunk_rows) {
        const auto part =
            std::span(out).subspan(std::size_t(i * W.cols), std::size_t(W.chunk_rows * W.cols));
        if constexpr (std::is_same_v<T, std::int8_t>) W.decoder.levels(W.chunk(i), 0, part);
        else W.decoder.decode(W.chunk(i), 0, 1.0f, part);
      }
      bench::keep(out);
    });
    bench::Limit copy = bench::copy_limit(Index(2 * out.size() * sizeof(T)));
    copy.work /= 2 * sizeof(T);  // weights as they are written; what is read is a fraction of it
    c.limit(std::move(copy));
    c.run();
  });
}

}  // namespace

void register_benchmarks() {
  for (const int s : {32, 34, 48, 50, 64, 66}) {
    add_product<std::int16_t>(s, 2048, 2048, 1);
    add_product<std::int8_t>(s, 2048, 2048, 1);
  }
  for (const int s : {34, 50, 66}) {
    add_product<std::int16_t>(s, 8192, 4096, 1);
    add_product<std::int8_t>(s, 8192, 4096, 1);
    add_product<std::int16_t>(s, 2048, 2048, 4);
    add_product<std::int16_t>(s, 2048, 2048, 8);
    add_product<std::int8_t>(s, 2048, 2048, 8);
    add_decode<std::int8_t>(s, "levels");
    add_decode<float>(s, "float");
    add_decode<fp16>(s, "fp16");
    add_decode<bf16>(s, "bf16");
  }
}
