#include "cafeq/quant/gguf.hpp"

#include <filesystem>
#include <limits>
#include <map>

#include "encoder/model.hpp"
#include "laws.hpp"
#include "support/allocations.hpp"
#include "support/build.hpp"
#include "support/error_of.hpp"

using namespace cafeq;

namespace {

bool is_plain(GgufType type) { return gguf_type_info(type).weights == 1; }

std::vector<std::byte> quantized(GgufType type, std::span<const float> x) {
  std::vector<std::byte> bytes(std::size_t(*gguf_row_bytes(type, Index(x.size()))));
  gguf::quantize_row(type, x, bytes);
  return bytes;
}
std::vector<float> dequantized(GgufType type, std::span<const std::byte> bytes, std::size_t n) {
  std::vector<float> values(n);
  gguf::dequantize_row(type, bytes, values);
  return values;
}
std::vector<float> round_trip(GgufType type, std::span<const float> x) {
  return dequantized(type, quantized(type, x), x.size());
}

/// Squared error and squared norm, summed over matrices.
struct ErrorSum {
  double error = 0, norm = 0;
  double relative() const { return error / norm; }
  void add(std::span<const float> x, std::span<const float> y) {
    for (std::size_t i = 0; i < x.size(); ++i) {
      const double d = double(x[i]) - double(y[i]);
      error += d * d;
      norm += double(x[i]) * double(x[i]);
    }
  }
};

}  // namespace

TEST_CASE("rows of every GGUF type come back") {
  const auto x = test::bell(512, 1, 0.1f);
  for (const auto& info : gguf_types) {
    CAPTURE(info.name);
    const auto bytes = quantized(info.type, x);
    ErrorSum sum;
    sum.add(x, dequantized(info.type, bytes, x.size()));
    CHECK(sum.relative() <= (info.type == GgufType::f32
                                 ? 0
                                 : std::pow(4.0, 1.1 - std::min(info.bits_per_weight(), 9.0))));
    CHECK(quantized(info.type, std::span<const float>(x).first(0)).empty());
    const auto second = quantized(info.type, std::span<const float>(x).subspan(256));
    CHECK(std::equal(second.begin(), second.end(),
                     bytes.end() - std::ptrdiff_t(second.size())));  // blocks do not see each other
  }
}

TEST_CASE("the bytes of a row are what its quantizer finds") {
  const auto x = test::bell(1280, 2, 0.1f, 0.02f);
  for (const auto& info : gguf_types) {
    if (is_plain(info.type)) continue;
    gguf::with_quantizer(info.type, [&](const auto& q) {
      using Params = typename std::remove_cvref_t<decltype(q)>::Params;
      CAPTURE(info.name);
      std::vector<std::uint8_t> codes(x.size());
      std::vector<Params> params(x.size() / std::size_t(q.group)), fitted(params.size());
      const auto bytes = quantized(info.type, x);
      gguf::read_row(q, bytes, codes, params);
      fit_row(q, x, q.group, std::span(fitted));
      const auto values = dequantized(info.type, bytes, x.size());
      bool same = true;
      for (std::size_t i = 0; i < x.size(); ++i) {
        const std::size_t g = i / std::size_t(q.group);
        same &=
            q.scale(params[g]) == q.scale(fitted[g]) && q.offset(params[g]) == q.offset(fitted[g]);
        same &= codes[i] == q.encode(x[i], fitted[g]) && values[i] == q.decode(codes[i], params[g]);
      }
      CHECK(same);
      auto again = bytes;
      std::fill(again.begin(), again.end(), std::byte(0));
      gguf::write_row(q, codes, params, again);
      CHECK(again == bytes);
      std::vector<float> out(x.size());
      CHECK(test::allocations_of([&] {
              gguf::quantize_row(info.type, x, again);
              gguf::dequantize_row(info.type, again, out);
            }) == 0);
    });
  }
}

TEST_CASE("plain types round to nearest and stay finite") {
  const std::vector<float> x{1 + 0x1p-11f, -1e-8f, 1e6f, -std::numeric_limits<float>::max(), 0.0f};
  CHECK(round_trip(GgufType::f32, x) == x);
  CHECK(round_trip(GgufType::f16, x) == std::vector<float>{1, -0.0f, 65504, -65504, 0});
  CHECK(round_trip(GgufType::bf16, x) ==
        std::vector<float>{1, float(bf16(-1e-8f)), float(bf16(1e6f)), -0x1.fep127f, 0});
}

TEST_CASE("no weights, however large or small, become infinite or NaN, and zeros stay zeros") {
  const auto x = test::bell(256, 3, 1);
  for (const auto& info : gguf_types) {
    CAPTURE(info.name);
    for (const float scale : {0.0f, 1e-40f, 1e-30f, 1e-8f, 1e-6f, 1e7f, 1e20f, 1.6e38f}) {
      auto scaled = x;
      for (float& v : scaled) v *= scale;
      CAPTURE(scale);
      const auto values = round_trip(info.type, scaled);
      bool finite = true;
      for (const float v : values) finite &= std::isfinite(v);
      CHECK(finite);
      ErrorSum sum;
      sum.add(scaled, values);
      CHECK(sum.error <= sum.norm * (1 + 1e-12));
    }
  }
}

TEST_CASE("rows are written with an exponent in their halves") {
  const std::vector<std::uint8_t> codes(32, std::uint8_t(15));
  const std::vector<Symmetric<4>::Params> params{{fp16(3.0f)}};
  std::vector<std::byte> bytes(18);
  const auto value = [&](int exponent) {
    gguf::write_row(gguf::q4_0, codes, params, bytes, exponent);
    return dequantized(GgufType::q4_0, bytes, 32)[0];
  };
  CHECK(value(0) == 21);
  CHECK(value(-10) == 21 * 0x1p-10f);
  CHECK(value(-25) == 7 * 0x1p-23f);  // 1.5 times the smallest half: to even
  CHECK(value(-40) == 0);
  CHECK(value(100) == 7 * 65504.0f);
}

TEST_CASE("integer scales make up for digits that halves lose") {
  const auto x = test::bell(512, 8, 5000);
  const auto check = [&](const auto& q, int exponent) {
    using Q = std::remove_cvref_t<decltype(q)>;
    std::vector<typename Q::Params> params(x.size() / std::size_t(q.group));
    std::vector<std::uint8_t> codes(x.size());
    fit_row(q, x, q.group, std::span(params));
    for (std::size_t i = 0; i < x.size(); ++i)
      codes[i] = q.encode(x[i], params[i / std::size_t(q.group)]);
    const auto error_at = [&](int e) {
      std::vector<std::byte> bytes(
          std::size_t(*gguf_row_bytes(GgufBlock<Q>::type, Index(x.size()))));
      gguf::write_row(q, codes, params, bytes, e);
      auto values = dequantized(GgufBlock<Q>::type, bytes, x.size());
      for (float& v : values) v = std::ldexp(v, -e);
      ErrorSum sum;
      sum.add(x, values);
      return sum.relative();
    };
    CAPTURE(int(q.bits));
    CHECK(error_at(exponent) < 1.5 * error_at(0));
  };
  check(gguf::q2_k, -28);
  check(gguf::q3_k, -28);
  check(gguf::q4_k, -26);
  check(gguf::q5_k, -24);
  check(gguf::q6_k, -24);
}

TEST_CASE("rows that do not fit their type are refused") {
  const std::vector<float> x(320, 1.0f);
  std::vector<std::byte> bytes(400);
  const auto message_of = [](auto&& f, ErrorCode code) {
    const Error error = test::error_of(f);
    CHECK(error.code() == code);
    return error.message();
  };
  CHECK_THAT(
      message_of([&] { gguf::quantize_row(GgufType::q4_k, x, bytes); }, ErrorCode::invalid_shape),
      Contains("a row of 320 weights is no whole number of Q4_K blocks of 256"));
  CHECK_THAT(
      message_of([&] { gguf::quantize_row(GgufType::q4_0, x, bytes); }, ErrorCode::invalid_shape),
      Contains("320 weights as Q4_0 are 180 bytes, got 400"));
  std::vector<float> out(33);
  CHECK_THAT(message_of([&] { gguf::dequantize_row(GgufType::q8_0, bytes, out); },
                        ErrorCode::invalid_shape),
             Contains("dequantize_row"));
  auto broken = x;
  broken[7] = std::nanf("");
  CHECK_THAT(
      message_of([&] { gguf::quantize_row(GgufType::q4_0, broken, std::span(bytes).first(180)); },
                 ErrorCode::non_finite),
      Contains("7"));
  CHECK_THAT(message_of([&] { gguf::with_quantizer(GgufType::bf16, [](const auto&) {}); },
                        ErrorCode::invalid_argument),
             Contains("BF16"));

  std::vector<std::uint8_t> codes(256);
  std::vector<AffineK<4, 32, 6>::Params> params(8);
  bytes.resize(144);
  gguf::write_row(gguf::q4_k, codes, params, bytes);
  params[5].dmin = fp16(1.0f);
  CHECK_THAT(message_of([&] { gguf::write_row(gguf::q4_k, codes, params, bytes); },
                        ErrorCode::invalid_argument),
             Contains("groups 0 and 5"));
  params.pop_back();
  CHECK_THAT(message_of([&] { gguf::read_row(gguf::q4_k, bytes, codes, params); },
                        ErrorCode::invalid_shape),
             Contains("got 7 parameters"));
  const std::vector<Symmetric<4>::Params> scales(4);
  CHECK_THAT(message_of([&] { gguf::write_row(Symmetric<4>{.group = 64}, codes, scales, bytes); },
                        ErrorCode::invalid_argument),
             Contains("groups of 64, Q4_0 of 32"));
}

TEST_CASE("GGUF types lose little of a sentence encoder's weights") {
  if (!test::optimized) return;
  const std::string directory = example::default_model_directory();
  if (!std::filesystem::exists(directory + "/model.json")) {
    WARN("skipped: no model in \"" << directory
                                   << "\"; run scripts/fetch-model or set CAFEQ_MODEL_DIR");
    return;
  }
  // With ggml's own encoders: .00767, .00625, .00593, .0891, .0233, .00521, .00134, .000323. No
  // scale of a group makes Q4_0 better than .00681.
  const std::map<GgufType, double> limits{{GgufType::q4_0, .00683},  {GgufType::q4_1, .0056},
                                          {GgufType::iq4_nl, .0056}, {GgufType::q2_k, .080},
                                          {GgufType::q3_k, .0215},   {GgufType::q4_k, .0049},
                                          {GgufType::q5_k, .00127},  {GgufType::q6_k, .00031}};
  const auto weights = example::load_encoder_weights(directory);
  for (const auto& [type, limit] : limits) {
    ErrorSum sum;
    const auto add = [&, of = type](const example::Dense& dense) {
      const auto W = dense.weight.view();
      for (Index i = 0; i < W.rows; ++i) sum.add(W.row(i), round_trip(of, W.row(i)));
    };
    for (const auto& layer : weights.layers)
      for (const auto* dense : {&layer.qkv, &layer.o, &layer.ffn1, &layer.ffn2}) add(*dense);
    add(weights.dense);
    CAPTURE(gguf_type_info(type).name);
    CHECK(sum.relative() <= limit);
  }
}
