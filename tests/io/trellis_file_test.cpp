#include <bit>
#include <cmath>
#include <fstream>
#include <map>
#include <sstream>

#include "cafeq/cafeq.hpp"
#include "cafeq/io/quantized_file.hpp"
#include "io/temporary_directory.hpp"
#include "support/build.hpp"
#include "support/catch.hpp"
#include "support/random.hpp"

using namespace cafeq;
using Catch::Matchers::Contains;

namespace {

/// A code as docs/reference/format.md prints it.
struct PrintedCode {
  std::uint32_t multiplier = 0;
  int levels = 0;
  double unit = 0;
  std::vector<int> magnitudes;
};

/// By window and the lowest rate.
std::map<std::pair<int, int>, PrintedCode> printed_codes() {
  std::ifstream page(CAFEQ_SCRIPTS_DIR "/../docs/reference/format.md");
  REQUIRE(page);
  std::map<std::pair<int, int>, PrintedCode> codes;
  std::string line;
  std::vector<int>* filled = nullptr;
  while (std::getline(page, line)) {
    int window = 0, from = 0, to = 0, multiplier = 0, levels = 0;
    double unit = 0;
    if (std::sscanf(line.c_str(), "| %d | %d to %d | %d | %d | %lf |", &window, &from, &to,
                    &multiplier, &levels, &unit) == 6)
      codes[{window, from}] = {std::uint32_t(multiplier), levels, unit, {}};
    if (std::sscanf(line.c_str(), "T for `window` %d, `rate` %d", &window, &from) == 2)
      filled = &codes.at({window, from}).magnitudes;
    if (filled == nullptr || line.empty() || line.find_first_not_of("0123456789 ") != line.npos)
      continue;
    std::istringstream numbers(line);
    for (int value = 0; numbers >> value;) filled->push_back(value);
  }
  return codes;
}

/// X̂ [rows, cols] by that page, of a matrix in a file.
Matrix<double> trellis_by_the_page(const SafetensorsReader& file, const std::string& name,
                                   const std::map<std::pair<int, int>, PrintedCode>& codes) {
  const auto matrix = cafeq::detail::parse_json(file.metadata().at("cafeq.matrices"), name)[name];
  const auto bytes = file.tensors().at(name + ".codes").bytes;
  const Index rows = matrix["rows"], cols = matrix["cols"], rate = matrix["rate"],
              scale_bits = matrix["scale_bits"];
  const int window = matrix["window"];
  const PrintedCode& code = codes.at({window, rate < 32   ? 16
                                              : rate < 48 ? 32
                                              : rate < 64 ? 48
                                                          : 64});
  const auto bit_of = [](std::span<const std::byte> from, Index bit) {
    return std::to_integer<int>(from[std::size_t(bit / 8)]) >> (7 - bit % 8) & 1;
  };
  const bool scaled = matrix["sequence"] == "scaled_column";
  const bool columns = scaled || matrix["sequence"] == "column";
  const auto scale_of = [&](const std::string& kind, Index line) {
    const auto packed = file.tensors().at(name + "." + kind + "_codes").bytes;
    int code = 0;
    for (Index b = 0; b < scale_bits; ++b) {
      const Index bit = line * scale_bits + b;
      code |= (std::to_integer<int>(packed[std::size_t(bit / 8)]) >> (bit % 8) & 1) << b;
    }
    if (code == (1 << scale_bits) - 1) return 0.0;
    return std::exp(matrix[kind + "_base"].get<double>() -
                    code * matrix[kind + "_step"].get<double>());
  };
  const Index lines = columns ? cols : rows, length = columns ? rows : cols;
  const Index chunks = matrix["sequence"] == "rows"
                           ? std::min(lines, std::max<Index>(1, (lines * length + 4096) / 8192))
                           : lines;
  Matrix<double> result(rows, cols);
  Index at = 0;
  for (Index k = 0; k < chunks; ++k) {
    const Index first = k * lines / chunks, last = (k + 1) * lines / chunks,
                n = (last - first) * length;
    const Index bits = std::max(n * rate / 16, (16 * window + rate - 1) / rate * rate / 16);
    const auto chunk = bytes.subspan(std::size_t(at), std::size_t((bits + 7) / 8));
    at += Index(chunk.size());
    for (Index t = 0; t < n; ++t) {
      std::uint32_t state = 0;
      for (int i = 0; i < window; ++i)
        state = 2 * state + std::uint32_t(bit_of(chunk, (t * rate / 16 + i) % bits));
      const int h = int(state * code.multiplier % 65536 / 256);
      const int level = h >= 128 ? code.magnitudes[std::size_t((h - 128) * code.levels / 128)]
                                 : -code.magnitudes[std::size_t((127 - h) * code.levels / 128)];
      const Index line = first + t / length;
      const double scale =
          scale_of("scale", line) * (scaled ? scale_of("row_scale", t % length) : 1);
      (columns ? result(t % length, line) : result(line, t % length)) = scale * code.unit * level;
    }
  }
  CHECK(std::size_t(at) == bytes.size());
  return result;
}

/// A file with the trellis codes of one matrix, changed.
template <class F>
Error trellis_error_after(F&& change) {
  const test::TemporaryDirectory directory;
  const auto W = test::gaussian<float>(16, 24, 1);
  QuantizedFileWriter writer;
  writer.add("w", quantize(W, recipes::smallest{.bits = 3.5, .window = 10}));
  writer.write(directory / "a");
  const SafetensorsReader file(directory / "a");
  TensorViewMap tensors = file.tensors();
  auto matrices = cafeq::detail::parse_json(file.metadata().at("cafeq.matrices"), "matrices");
  change(tensors, matrices["w"]);
  Metadata metadata = file.metadata();
  metadata["cafeq.matrices"] = matrices.dump();
  write_safetensors(directory / "b", tensors, metadata);
  return test::error_of([&] { (void)QuantizedFileReader(directory / "b").load("w"); });
}

}  // namespace

TEST_CASE("trellis codes come back bit for bit, and mean what the page on the format says") {
  const auto codes = printed_codes();
  REQUIRE(codes.size() == 12);
  for (const auto& [key, code] : codes) {
    const TrellisCode& ours = trellis_code({key.second}, key.first);
    CHECK(code.multiplier == ours.multiplier);
    CHECK(float(code.unit) == ours.unit);
    REQUIRE(code.levels == ours.levels);
    REQUIRE(Index(code.magnitudes.size()) == code.levels);
    for (std::size_t i = 0; i < code.magnitudes.size(); ++i)
      CHECK(code.magnitudes[i] == ours.magnitudes[i]);
  }
  const test::TemporaryDirectory directory;
  QuantizedFileWriter writer;
  std::map<std::string, Matrix<float>> expected;
  const auto add = [&](const std::string& name, const auto& q) {
    writer.add(name, AnyQuantized(q));
    expected[name] = Matrix<float>(q.rows(), q.cols());
    q.dequantize(expected[name]);
  };
  for (const int window : {14, 12, 10})
    for (const int rate : {16, 17, 26, 31, 32, 35, 47, 48, 53, 63, 64, 71, 80})
      for (const auto& [rows, cols] : {std::pair<Index, Index>{3, 1}, {40, 30}, {100, 172}}) {
        if (rows == 100 && (window != 10 || rate % 9 != 8))
          continue;  // two chunks; 17, 26, 35, 53, 71 sixteenths
        // Too slow: a short matrix has every rate there, a longer one a few.
        if (test::sanitized && rows > 3 && (window == 14 || (rate != 48 && rate % 9 != 8)))
          continue;
        const auto W = test::heavy_tailed(rows, cols, std::uint64_t(rate), 0, 1000);
        Trellis quantizer{.rate = {rate}, .scale_bits = rate % 2 == 0 ? 8 : 6, .window = window};
        for (const auto sequence :
             {Sequence::rows, Sequence::row, Sequence::column, Sequence::scaled_column}) {
          if (sequence != Sequence::rows && rate % 3 != 0) continue;
          quantizer.sequence = sequence;
          add(message("plain ", window, " ", rate, " ", rows, " ", int(sequence)),
              Pipeline{Identity{}, quantizer, Nearest{}}.quantize(W));
        }
      }
  auto W = test::heavy_tailed(64, 128, 3, 0, 1000);
  for (float& x : W.row(7)) x = 0;
  add("rotated", quantize(W, recipes::smallest{.bits = 2.5, .seed = ~std::uint64_t(0)}));
  writer.write(directory / "file");

  const SafetensorsReader file(directory / "file");
  const QuantizedFileReader reader(directory / "file");
  CHECK(reader.matrices().size() == expected.size());
  for (const auto& [name, hat] : expected) {
    INFO(name);
    const AnyQuantized loaded = reader.load(name);
    Matrix<float> back(hat.rows(), hat.cols());
    loaded.dequantize(back);
    REQUIRE(std::memcmp(back.data(), hat.data(), std::size_t(hat.size()) * sizeof(float)) == 0);
    if (name == "rotated") continue;
    const auto page = trellis_by_the_page(file, name, codes);
    const int exponent =
        cafeq::detail::parse_json(file.metadata().at("cafeq.matrices"), name)[name]["exponent"];
    for (Index i = 0; i < hat.rows(); ++i)
      for (Index j = 0; j < hat.cols(); ++j)
        REQUIRE(double(hat(i, j)) == Approx(std::ldexp(page(i, j), exponent)).epsilon(3e-7));
  }
  CHECK(reader.load_as<Hadamard, Trellis>("rotated").quantizer().window == 12);
}

TEST_CASE("trellis codes that contradict themselves are refused by name") {
  using Json = cafeq::detail::Json;
  CHECK_THAT(trellis_error_after([](auto& tensors, Json&) { tensors.erase("w.codes"); }).message(),
             Contains("w.codes is missing"));
  CHECK_THAT(
      trellis_error_after([](auto& tensors, Json&) { tensors.erase("w.scale_codes"); }).message(),
      Contains("w.scale_codes is missing"));
  CHECK_THAT(trellis_error_after([](auto&, Json& w) { w["rate"] = 81; }).message(),
             Contains("rate is 81, must be 16 to 80"));
  CHECK_THAT(trellis_error_after([](auto&, Json& w) { w["rate"] = 40; }).message(),
             Contains("w.codes is"));
  CHECK_THAT(trellis_error_after([](auto&, Json& w) { w["window"] = 11; }).message(),
             Contains("window is 11"));
  CHECK_THAT(trellis_error_after([](auto&, Json& w) { w["scale_bits"] = 2; }).message(),
             Contains("scale_bits is 2"));
  CHECK_THAT(trellis_error_after([](auto&, Json& w) { w["scale_base"] = "1"; }).message(),
             Contains("scale_base"));
  CHECK_THAT(trellis_error_after([](auto&, Json& w) { w["scale_base"] = 89; }).message(),
             Contains("scale_base"));
  CHECK_THAT(trellis_error_after([](auto&, Json& w) { w["scale_step"] = -1; }).message(),
             Contains("scale_step"));
  CHECK_THAT(trellis_error_after([](auto&, Json& w) { w.erase("scale_step"); }).message(),
             Contains("scale_step"));
  CHECK_THAT(trellis_error_after([](auto&, Json& w) { w["sequence"] = "all"; }).message(),
             Contains("sequence is all"));
  CHECK_THAT(trellis_error_after([](auto&, Json& w) { w["rows"] = Index(1) << 30; }).message(),
             Contains("w"));
  CHECK_THAT(trellis_error_after([](auto&, Json& w) { w["rows"] = 17; }).message(), Contains("w."));
  CHECK_THAT(trellis_error_after([](auto&, Json& w) { w["cols"] = -1; }).message(),
             Contains("cols is -1"));
  CHECK_THAT(trellis_error_after([](auto&, Json& w) { w["side"] = "top"; }).message(),
             Contains("side"));
  CHECK_THAT(trellis_error_after([](auto&, Json& w) { w.erase("transform"); }).message(),
             Contains("transform"));
  CHECK_THAT(trellis_error_after([](auto&, Json& w) {
               w["transform"][0]["sizes"] = Json::array({25});
             }).message(),
             Contains("cover 25 of 24"));
}
