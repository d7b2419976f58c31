#include "cafeq/io/quantized_file.hpp"

#include <sys/resource.h>
#include <sys/wait.h>

#include <csignal>

#include "cafeq/cafeq.hpp"
#include "io/temporary_directory.hpp"
#include "support/build.hpp"
#include "support/catch.hpp"
#include "support/random.hpp"

using namespace cafeq;
using test::error_of;

namespace {

template <class A, class B>
void check_same(const A& a, const B& b) {
  REQUIRE(a.rows() == b.rows());
  REQUIRE(a.cols() == b.cols());
  CHECK(a.storage_bits() == b.storage_bits());
  Matrix<float> before(a.rows(), a.cols()), after(a.rows(), a.cols());
  a.dequantize(before);
  b.dequantize(after);
  CHECK(std::memcmp(before.data(), after.data(), std::size_t(before.size()) * sizeof(float)) == 0);
}

/// A file with one matrix `w`, its header changed by `change(tensors, metadata)`.
template <class F>
Error error_after(F&& change) {
  const test::TemporaryDirectory directory;
  static const auto W = test::gaussian<float>(16, 24, 1);
  static const auto learned =
      quantize(W, recipes::learned<>{.bits = 3, .transform_bits = 4, .max_block = 8});
  static const auto fast = quantize(W, recipes::fast<>{.bits = 3, .group = 8});
  QuantizedFileWriter writer;
  writer.add("w", learned);
  writer.add("f", fast);
  writer.write(directory / "a");
  const SafetensorsReader file(directory / "a");
  TensorViewMap tensors = file.tensors();
  auto matrices = cafeq::detail::parse_json(file.metadata().at("cafeq.matrices"), "matrices");
  Metadata metadata = file.metadata();
  change(tensors, matrices, metadata);
  if (metadata.contains("cafeq.matrices")) metadata["cafeq.matrices"] = matrices.dump();
  write_safetensors(directory / "b", tensors, metadata);
  return error_of([&] {
    const QuantizedFileReader reader(directory / "b");
    for (const auto& name : reader.matrices()) reader.load(name);
  });
}

}  // namespace

TEST_CASE("quantized matrices come back bit for bit, whatever their grid, bits and transform") {
  const test::TemporaryDirectory directory;
  const auto W = test::heavy_tailed(48, 72, 1, 2);
  const auto each = [&](auto&& f) {
    for (const int bits : test::sweep({2, 3, 4, 5, 8}, {3, 8})) {
      f(message("rtn", bits), quantize(W, recipes::rtn<>{.bits = bits, .group = 16}));
      f(message("tensor", bits),
        quantize(W, recipes::rtn<runtime_bits, Midrise<>>{.bits = bits, .group = per_tensor}));
      f(message("fast", bits),
        quantize(W, recipes::fast<>{.bits = bits, .group = 32, .seed = ~std::uint64_t(0)}));
      f(message("fast row", bits),
        quantize(W, recipes::fast<runtime_bits, Midrise<>>{.bits = bits, .group = per_row}));
      f(message("learned", bits),
        quantize(W, recipes::learned<>{.bits = bits, .transform_bits = 2, .max_block = 16}));
    }
    const Matrix<float> constant = [] {
      Matrix<float> C(20, 12);
      for (Index i = 0; i < C.size(); ++i) C.data()[i] = 0.25f;
      return C;
    }();
    f("constant", quantize(constant, recipes::fast<>{.bits = 4}));
    f("learned constant", quantize(constant, recipes::learned<>{.bits = 4}));
  };
  QuantizedFileWriter writer;
  each([&](const std::string& name, const auto& q) { writer.add(name, AnyQuantized(q)); });
  const Buffer<std::byte> gain(64);
  writer.add_tensor("norm.scales", Tensor{ScalarType::f32, {16}, gain});
  writer.write(directory / "file", {{"made for", "a test"}});

  const QuantizedFileReader reader(directory / "file");
  CHECK(reader.matrices().size() == (test::sanitized ? 2 : 5) * 5 + 2);
  CHECK(reader.metadata().at("made for") == "a test");
  REQUIRE(reader.tensors().size() == 1);
  CHECK(reader.tensors().at("norm.scales").shape == std::vector<Index>{16});
  each([&]<Transform T, ScalarQuantizer Q>(const std::string& name, const Quantized<T, Q>& q) {
    INFO(name);
    REQUIRE(reader.has_matrix(name));
    check_same(q, reader.load(name));
    check_same(q, reader.load_as<T, Q>(name));
  });
  CHECK_FALSE(reader.has_matrix("norm"));
}

namespace {

/// A reader that knows docs/reference/format.md and nothing of the library but tensors, JSON and
/// Philox: y = Ŵ x in fp64.
std::vector<double> product_by_the_page(const SafetensorsReader& file, const std::string& name,
                                        std::vector<double> x) {
  const auto matrix = cafeq::detail::parse_json(file.metadata().at("cafeq.matrices"), name)[name];
  const auto bytes = [&](const char* part) { return file.tensors().at(name + "." + part).bytes; };
  const auto half = [&](const char* part, std::size_t i) {
    const auto* b = reinterpret_cast<const unsigned char*>(bytes(part).data()) + 2 * i;
    const int bits = b[0] | b[1] << 8, exponent = bits >> 10 & 31, mantissa = bits & 1023;
    const double magnitude =
        exponent == 0 ? std::ldexp(mantissa, -24) : std::ldexp(1024 + mantissa, exponent - 25);
    return bits >> 15 ? -magnitude : magnitude;
  };
  const auto byte = [&](const char* part, std::size_t i) {
    return std::to_integer<int>(bytes(part)[i]);
  };

  std::size_t inverse = 0;
  for (const auto& factor : matrix["transform"]) {
    if (factor["kind"] == "diagonal") {
      for (std::size_t i = 0; i < x.size(); ++i)
        x[i] /= std::ldexp(half("diagonal", i), factor["exponent"]);
    } else if (factor["kind"] == "hadamard") {  // M⁻¹ = Hᵀ S
      std::vector<double> z;
      std::size_t first = 0;
      for (const std::size_t n : factor["sizes"].get<std::vector<std::size_t>>()) {
        REQUIRE((n & (n - 1)) == 0);
        for (std::size_t i = 0; i < n; ++i) {
          double sum = 0;
          for (std::size_t j = 0; j < n; ++j)
            sum += (std::popcount(i & j) % 2 ? -1 : 1) * x[first + j] *
                   double(CounterRng(factor["seed"], 0xdbf80e4f308a2015u).sign(first + j));
          z.push_back(sum / std::sqrt(double(n)));
        }
        first += n;
      }
      if (!z.empty()) x = z;
    } else {
      std::vector<double> z;
      std::size_t first = 0;
      for (const std::size_t k : factor["sizes"].get<std::vector<std::size_t>>()) {
        for (std::size_t r = 0; r < k; ++r) {
          double sum = 0;
          for (std::size_t c = 0; c < k; ++c)
            sum +=
                double(std::int8_t(byte("inverse", inverse + r * k + c))) *
                std::exp2(factor["base"].get<int>() - byte("inverse_exponents", first + c) / 8.0) *
                x[first + c];
          z.push_back(sum);
        }
        inverse += k * k;
        first += k;
      }
      x = z;
    }
  }

  const std::size_t rows = matrix["rows"], cols = matrix["cols"], bits = matrix["bits"];
  const std::size_t width = matrix["group"] > 0 ? matrix["group"].get<std::size_t>() : cols,
                    groups = (cols + width - 1) / width, row_bytes = (cols * bits + 7) / 8;
  std::vector<double> y;
  for (std::size_t i = 0; i < rows; ++i) {
    double sum = 0;
    for (std::size_t j = 0; j < cols; ++j) {
      int code = 0;
      for (std::size_t b = 0; b < bits; ++b)
        code |= (byte("codes", i * row_bytes + (j * bits + b) / 8) >> ((j * bits + b) % 8) & 1)
                << b;
      const std::size_t g = i * groups + j / width;
      if (matrix["grid"] == "affine") sum += (half("scales", g) * code + half("offsets", g)) * x[j];
      else sum += half("scales", g) * (code - (1 << (bits - 1)) + 0.5) * x[j];
    }
    y.push_back(std::ldexp(sum, matrix["exponent"]));
  }
  return y;
}

}  // namespace

TEST_CASE("the page on the format is enough to write a reader") {
  const test::TemporaryDirectory directory;
  const auto W = test::heavy_tailed(24, 128, 1, 2);
  QuantizedFileWriter writer;
  writer.add("fast", quantize(W, recipes::fast<>{.bits = 3, .group = 40, .seed = 5}));
  auto blocks = Pipeline{DualScaling{} * BlockHadamard{64}, Affine<>{.bits = 6}, Nearest{}};
  writer.add("blocks", blocks.quantize(W));
  writer.add("learned",
             quantize(W, recipes::learned<>{.bits = 2, .transform_bits = 4, .max_block = 16}));
  writer.write(directory / "file");
  const SafetensorsReader file(directory / "file");
  const QuantizedFileReader reader(directory / "file");
  const auto x = test::gaussian<double>(1, 128, 7);
  for (const auto& name : reader.matrices()) {
    INFO(name);
    const auto y = product_by_the_page(file, name, {x.data(), x.data() + x.size()});
    Matrix<double> hat(24, 128);
    reader.load(name).dequantize(hat);
    for (Index i = 0; i < 24; ++i) {
      double expected = 0;
      for (Index j = 0; j < 128; ++j) expected += hat(i, j) * x(0, j);
      CHECK(y[std::size_t(i)] == Approx(expected).epsilon(1e-5).margin(1e-6));
    }
  }
}

TEST_CASE("matrices of extreme, constant or dead weights are stored as well, and of one weight") {
  const test::TemporaryDirectory directory;
  QuantizedFileWriter writer;
  std::vector<AnyQuantized> all;
  const auto add = [&](const Matrix<float>& W) {
    all.emplace_back(quantize(W, recipes::fast<>{.bits = 3, .group = 16}));
    all.emplace_back(
        quantize(W, recipes::learned<>{.bits = 3, .transform_bits = 2, .max_block = 16}));
  };
  for (const float scale : {0x1p-110f, 0x1p+110f}) {
    auto W = test::heavy_tailed(20, 24, 3, 2);
    for (Index i = 0; i < W.size(); ++i) W.data()[i] *= scale;
    add(W);
  }
  add(Matrix<float>(5, 9));
  auto dead = test::heavy_tailed(40, 32, 4);
  for (Index i = 0; i < 40; ++i) dead(i, 3) = dead(i, 17) = 0;
  add(dead);
  add(test::gaussian<float>(1, 1, 5));
  for (std::size_t i = 0; i < all.size(); ++i) writer.add(message(i), all[i]);
  writer.write(directory / "file");
  const QuantizedFileReader reader(directory / "file");
  for (std::size_t i = 0; i < all.size(); ++i) check_same(all[i], reader.load(message(i)));
}

TEST_CASE("a file is as large as the results say, but for its header") {
  const test::TemporaryDirectory directory;
  const auto W = test::heavy_tailed(200, 128, 1);
  const auto a = quantize(W, recipes::fast<>{.bits = 3});
  const auto b = quantize(W, recipes::learned<>{.bits = 2});
  QuantizedFileWriter writer;
  writer.add("a", a);
  writer.add("b", b);
  writer.write(directory / "file");
  Index bytes = 0;
  const SafetensorsReader file(directory / "file");
  for (const auto& item : file.tensors()) bytes += Index(item.second.bytes.size());
  const auto counted = (a.storage_bits() + b.storage_bits()) / 8;
  CHECK(bytes <= counted);
  CHECK(bytes >= counted - 32);  // seed, exponents and base are in the header
}

TEST_CASE("a full disk leaves nothing half-written, and an earlier file as it was") {
  const test::TemporaryDirectory directory;
  QuantizedFileWriter writer;
  const auto W = test::gaussian<float>(90, 44, 1);
  writer.add("W", quantize(W, recipes::fast<>{.bits = 3, .group = 16}));
  directory.write("target", "what was here before");
  for (const rlim_t limit : {rlim_t(0), rlim_t(300), rlim_t(2000)}) {
    const pid_t child = ::fork();
    if (child == 0) {
      std::signal(SIGXFSZ, SIG_IGN);  // so that write() fails with EFBIG
      const rlimit size{limit, limit};
      ::setrlimit(RLIMIT_FSIZE, &size);
      const Error error = error_of([&] { writer.write(directory / "target"); });
      ::_exit(error.code() == ErrorCode::io &&
                      error.message().find("target: cannot write") != std::string::npos
                  ? 42
                  : 1);
    }
    int status = 0;
    REQUIRE(::waitpid(child, &status, 0) == child);
    CHECK(WIFEXITED(status));
    CHECK(WEXITSTATUS(status) == 42);
    CHECK(directory.names() == std::set<std::string>{"target"});
    CHECK(directory.read("target") == "what was here before");
  }
}

TEST_CASE("grids and transforms that AnyQuantized does not hold are loaded by their type") {
  const test::TemporaryDirectory directory;
  const auto W = test::gaussian<float>(33, 40, 2);
  const auto a =
      Pipeline{BlockHadamard{16}, AffineIntegerZero<3>{.group = 8}, Nearest{}}.quantize(W);
  const auto b = Pipeline{DualScaling{}, Symmetric<4>{}, Nearest{}, Side::output}.quantize(W);
  QuantizedFileWriter writer;
  writer.add("a", a);
  writer.add("b", b);
  writer.write(directory / "file");
  const QuantizedFileReader reader(directory / "file");
  check_same(a, reader.load_as<Hadamard, AffineIntegerZero<3>>("a"));
  check_same(b, reader.load_as<Diagonal, Symmetric<4>>("b"));
  CHECK_THAT(error_of([&] { reader.load("a"); }).message(),
             Contains("its grid is") || Contains("its transform is"));
  CHECK_THAT(error_of([&] { reader.load_as<Hadamard, AffineIntegerZero<4>>("a"); }).message(),
             Contains("has 3 bits, not 4"));
  CHECK_THAT(error_of([&] { reader.load_as<Hadamard, Midrise<3>>("a"); }).message(),
             Contains("its grid is affine_integer_zero, not midrise"));
  CHECK_THAT(error_of([&] { reader.load("c"); }).message(), Contains("no matrix is named c"));
}

TEST_CASE("equal content gives equal files, and names are given once") {
  const test::TemporaryDirectory directory;
  const auto W = test::gaussian<float>(8, 16, 3);
  QuantizedFileWriter writer, other;
  const auto q = quantize(W, recipes::rtn<>{.bits = 4});
  const auto r = quantize(W, recipes::rtn<>{.bits = 3});
  writer.add("x", q);
  writer.add("y", r);
  other.add("y", r);
  other.add("x", q);
  writer.write(directory / "a");
  other.write(directory / "b");
  CHECK(directory.read("a") == directory.read("b"));
  CHECK_THAT(error_of([&] { writer.add("x", q); }).message(), Contains("two matrices are named x"));
  CHECK_THAT(error_of([&] { writer.add_tensor("x.codes", Tensor{}); }).message(),
             Contains("two tensors are named x.codes"));
  CHECK_THAT(error_of([&] { writer.add("", q); }).message(), Contains("without a name"));
  CHECK_THAT(error_of([&] {
               writer.add("z", Pipeline{Hadamard(Signs(std::vector<float>(16, -1.0f))),
                                        Midrise<3>{}, Nearest{}}
                                   .quantize(W));
             }).message(),
             Contains("come from a seed"));
}

TEST_CASE("what is missing or contradicts itself is refused by name") {
  using cafeq::detail::Json;
  const auto message_after = [](auto&& change) { return error_after(change).message(); };
  CHECK_THAT(message_after([](auto&, auto&, auto& metadata) { metadata["cafeq.version"] = "2"; }),
             Contains("has version 2") && Contains("reads version 1"));
  CHECK(error_after([](auto&, auto&, auto& metadata) { metadata["cafeq.version"] = "2"; }).code() ==
        ErrorCode::unsupported);
  CHECK_THAT(message_after([](auto&, auto&, auto& metadata) { metadata.erase("cafeq.version"); }),
             Contains("not one of cafeq's"));
  CHECK_THAT(message_after([](auto&, auto&, auto& metadata) { metadata.erase("cafeq.matrices"); }),
             Contains("not one of cafeq's"));
  CHECK_THAT(message_after([](auto&, auto& matrices, auto&) { matrices = Json::array(); }),
             Contains("is not an object"));
  for (const char* part :
       {"w.codes", "w.scales", "w.inverse", "w.inverse_exponents", "f.offsets", "f.diagonal"})
    CHECK_THAT(message_after([part](auto& tensors, auto&, auto&) { tensors.erase(part); }),
               Contains(message("its part ", part, " is missing")));
  for (const char* key : {"rows", "cols", "bits", "group", "grid", "side", "exponent", "transform"})
    CHECK_THAT(message_after([key](auto&, auto& matrices, auto&) { matrices["w"].erase(key); }),
               Contains(": w: has no ") && Contains(key));
  const auto with = [&](const char* name, const char* key, const Json& value) {
    return message_after([&](auto&, auto& matrices, auto&) { matrices[name][key] = value; });
  };
  CHECK_THAT(with("w", "rows", 17), Contains("w.codes is U8 [16, 9], expected U8 [17, 9]"));
  CHECK_THAT(with("w", "rows", 0), Contains("rows is 0"));
  CHECK_THAT(with("w", "rows", -3), Contains("rows is -3"));
  CHECK_THAT(with("w", "cols", std::uint64_t(1) << 63), Contains("cols is"));
  CHECK_THAT(with("w", "cols", 25), Contains("expected U8 [16, 10]"));
  CHECK_THAT(with("w", "cols", 23), Contains("cover 24 of 23"));
  CHECK_THAT(with("w", "bits", 9), Contains("bits is 9"));
  CHECK_THAT(with("w", "bits", 3.5), Contains("has no whole number bits"));
  CHECK_THAT(with("w", "group", -2), Contains("group is -2"));
  CHECK_THAT(with("f", "group", 7), Contains("f.scales is F16 [16, 3], expected F16 [16, 4]"));
  CHECK_THAT(with("w", "grid", "hexagonal"), Contains("its grid is hexagonal"));
  CHECK_THAT(with("w", "side", "left"), Contains("its side is left"));
  CHECK_THAT(with("w", "exponent", 1 << 30), Contains("exponent is"));
  CHECK_THAT(with("w", "transform", Json::array({Json::object()})), Contains("has no kind"));
  CHECK_THAT(with("w", "transform", Json::array({{{"kind", "diagonal"}}})),
             Contains("its transform is diagonal"));
  const auto block = [&](const char* key, const Json& value) {
    return message_after(
        [&](auto&, auto& matrices, auto&) { matrices["w"]["transform"][0][key] = value; });
  };
  CHECK_THAT(block("sizes", "8"), Contains("no list sizes"));
  CHECK_THAT(block("sizes", Json::array({24})),
             Contains("w.inverse is I8 [96], expected I8 [576]"));
  CHECK_THAT(block("sizes", Json::array({8, 8, 0, 8})), Contains("a block of size 0"));
  CHECK_THAT(block("sizes", Json::array({std::int64_t(1) << 62, std::int64_t(1) << 62})),
             Contains("a block of size") || Contains("cover"));
  CHECK_THAT(message_after(
                 [](auto&, auto& matrices, auto&) { matrices["f"]["transform"][1].erase("seed"); }),
             Contains("its Hadamard has no seed"));
  Buffer<std::byte> infinite(2 * 16 * 3);
  for (std::size_t i = 0; i < infinite.size(); ++i)
    infinite[i] = std::byte(i % 2 == 0 ? 0x00 : 0x7c);
  CHECK_THAT(
      message_after([&](auto& tensors, auto&, auto&) { tensors.at("f.scales").bytes = infinite; }),
      Contains("f: a scale is not finite"));
}
