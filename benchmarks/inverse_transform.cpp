// Undoing a transform on one vector of 4096 activations, beside the three int8 products of 4-bit
// weights that read it (q, k and v). A rate counts the 4096 entries; the ratio to that peer is how
// many times longer the products take: above 33, the transform costs less than 3 %.
#include <array>
#include <cstring>
#include <string>
#include <utility>

#include "cafeq/core/rng.hpp"
#include "cafeq/quant/affine.hpp"
#include "cafeq/runtime/linear.hpp"
#include "cafeq/transform/hadamard.hpp"
#include "support/bench.hpp"

namespace {

using namespace cafeq;

constexpr Index dim = 4096;

auto random_layer(std::uint64_t seed) {
  const Affine<4> q{.group = 128};
  PackedCodes codes(dim, dim, 4);
  const CounterRng rng(seed, stream_of("codes"));
  const auto bytes = codes.bytes();
  for (std::size_t i = 0; i < bytes.size(); i += 8) {
    const std::uint64_t random = rng.bits(i);
    std::memcpy(bytes.data() + i, &random, 8);
  }
  std::vector<Affine<4>::Params> params(std::size_t(dim * dim / 128),
                                        {fp16(100.0f), fp16(-750.0f)});
  return Linear{Quantized(Codes(q, dim, std::move(codes), std::move(params)), Identity::Fitted{dim},
                          Side::input, -14),
                {.precision = ActivationPrecision::int8}};
}

template <Transform T>
void run(bench::Contest& c, const T& transform) {
  const UndoTransform<T> undo(transform, Side::input);
  const auto input = bench::weights(dim, 2);
  bench::Floats x(input), plain(input);
  c.ours(bench::Unit::megaweights, double(dim), [&] {
    std::copy(input.begin(), input.end(), x.begin());
    undo(transform, View<float>{x.data(), 1, dim, dim, 1}, {});
    bench::keep(x);
  });
  const std::array layers{random_layer(1), random_layer(2), random_layer(3)};
  const Activations prepared = layers[0].prepare(input);
  bench::Floats y(static_cast<std::size_t>(dim));
  c.peer("three int8 products", [&] {
    for (const auto& layer : layers) layer.multiply(prepared, y);
    bench::keep(y);
  });
  c.peer("apply()", [&] {
    std::copy(input.begin(), input.end(), plain.begin());
    transform.apply(View<float>{plain.data(), 1, dim, dim, 1}, Op::inverse_transpose);
    bench::keep(plain);
  });
  c.run();
}

void add_blocks(Index k, InversePrecision precision, const std::string& name) {
  bench::add(
      "inverse transform", "blocks of " + std::to_string(k) + ", " + name, [=](bench::Contest& c) {
        std::vector<Matrix<double>> blocks;
        const auto entries = bench::weights(dim * k, 3);
        for (Index b = 0; b < dim / k; ++b) {
          Matrix<double> N(k, k);
          for (Index i = 0; i < N.size(); ++i)
            N.data()[i] = double(entries[std::size_t(b * k * k + i)]) + (i % (k + 1) == 0 ? 1 : 0);
          blocks.push_back(std::move(N));
        }
        run(c, BlockDiagonal::from_inverse(std::move(blocks), precision));
      });
}

}  // namespace

void register_benchmarks() {
  for (const Index k : {64, 128}) {
    add_blocks(k, InversePrecision::int8, "int8");
    add_blocks(k, InversePrecision::fp16, "fp16");
    add_blocks(k, InversePrecision::fp32, "fp32");
  }
  bench::add("inverse transform", "Hadamard blocks of 64", [](bench::Contest& c) {
    const std::vector<Index> sizes(dim / 64, 64);
    run(c, Hadamard(Signs(dim, 1), sizes));
  });
  bench::add("inverse transform", "Hadamard of 4096",
             [](bench::Contest& c) { run(c, Hadamard(Signs(dim, 1))); });
}
