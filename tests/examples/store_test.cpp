#include "demo/store.hpp"

#include <sys/resource.h>
#include <sys/wait.h>

#include <csignal>

#include "io/temporary_directory.hpp"
#include "support/catch.hpp"
#include "support/random.hpp"

using namespace cafeq;
using namespace cafeq::example;
using test::error_of;

namespace {

Matrix<float> weights(Index rows = 90, Index cols = 44) { return test::heavy_tailed(rows, cols, 3, 2); }

auto some_fast() {
  const auto W = weights();
  return quantize(W, recipes::fast<3>{.group = 16});
}

template <int Bits>
auto learned(const Matrix<float>& W) {
  auto pipeline = recipes::learned<Bits>{.max_block = 16}.pipeline(W.rows(), W.cols());
  pipeline.transform.block = 16;
  pipeline.transform.optimizer.max_iterations = 3;
  pipeline.transform.itq_rounds = 2;
  pipeline.transform.als_rounds = 1;
  return pipeline.quantize(W);
}

template <class Q>
void check_round_trip(const Q& quantized) {
  const test::TemporaryDirectory directory;
  QuantizedStore store;
  store.add("W", quantized);
  store.write(directory / "file");
  CHECK(directory.names() == std::set<std::string>{"file"});
  const SafetensorsReader file(directory / "file");
  check_stored(file, "W", quantized);
  using T = std::remove_cvref_t<decltype(quantized.transform())>;
  using Grid = std::remove_cvref_t<decltype(quantized.quantizer())>;
  const auto again = load_quantized<T, Grid>(file, "W");
  CHECK(again.rows() == quantized.rows());
  CHECK(again.cols() == quantized.cols());
  CHECK(again.bits() == quantized.bits());
  CHECK(again.exponent() == quantized.exponent());
  CHECK(again.grouping().group == quantized.grouping().group);
  CHECK(again.storage_bits() == quantized.storage_bits());
  CHECK(std::ranges::equal(again.codes().bytes(), quantized.codes().bytes()));
  // Bit for bit, by way of every entry.
  Matrix<float> before(quantized.rows(), quantized.cols()), after(quantized.rows(), quantized.cols());
  quantized.dequantize(before);
  again.dequantize(after);
  CHECK(std::memcmp(before.data(), after.data(), std::size_t(before.size()) * sizeof(float)) == 0);
}

template <int Bits>
void check_recipes() {
  const auto W = weights();
  check_round_trip(quantize(W, recipes::fast<Bits>{.group = 16, .seed = 7}));
  check_round_trip(quantize(W, recipes::fast<Bits, Midrise<Bits>>{.group = per_row}));
  check_round_trip(learned<Bits>(W));
}

/// A file with one matrix in it, as parts that a test can change.
struct Parts {
  test::TemporaryDirectory directory;
  TensorMap tensors;
  Metadata metadata;

  template <class Q>
  explicit Parts(const Q& quantized) {
    QuantizedStore store;
    store.add("W", quantized);
    store.write(directory / "file");
    const SafetensorsReader file(directory / "file");
    for (const auto& [name, view] : file.tensors()) tensors[name] = file.load(name);
    metadata = file.metadata();
  }
  /// The Error of loading what `change` makes of the parts.
  template <class Q, class F>
  Error after(const Q& quantized, F&& change) const {
    auto changed_tensors = tensors;
    auto changed_metadata = metadata;
    change(changed_tensors, changed_metadata);
    TensorViewMap views;
    for (const auto& [name, tensor] : changed_tensors) views.emplace(name, tensor.view());
    write_safetensors(directory / "changed", views, changed_metadata);
    const SafetensorsReader file(directory / "changed");
    return error_of([&] { check_stored(file, "W", quantized); });
  }
};

const char* const no_error = "no error was raised";

}  // namespace

TEST_CASE("What is stored is what is loaded, bit for bit, for every recipe and number of bits") {
  check_recipes<2>();
  check_recipes<3>();
  check_recipes<4>();
  const auto W = weights();
  check_round_trip(quantize(W, recipes::fast<8>{}));
}

TEST_CASE("Extreme, constant and tiny matrices are stored as well") {
  for (const float scale : {0x1p-110f, 0x1p+110f}) {
    auto W = weights(20, 24);
    for (Index i = 0; i < W.size(); ++i) W.data()[i] *= scale;
    check_round_trip(quantize(W, recipes::fast<3>{.group = 16}));
    check_round_trip(learned<3>(W));
  }
  for (const float value : {0.0f, -0.3f}) {
    Matrix<float> W(5, 9);
    for (Index i = 0; i < W.size(); ++i) W.data()[i] = value;
    check_round_trip(learned<3>(W));
  }
  auto dead = weights(40, 32);  // input channels of zeros
  for (Index i = 0; i < 40; ++i) dead(i, 3) = dead(i, 17) = 0;
  check_round_trip(quantize(dead, recipes::fast<4>{.group = 16}));
  check_round_trip(learned<4>(dead));
  check_round_trip(learned<2>(weights(1, 1)));
}

TEST_CASE("Several matrices share a file; equal content gives equal files") {
  const auto W = weights();
  const auto fast = quantize(W, recipes::fast<3>{.group = 16});
  const auto best = learned<2>(W);
  const test::TemporaryDirectory directory;
  for (const char* name : {"a", "b"}) {
    QuantizedStore store;
    store.add("W.fast", fast);
    store.add("W", best);
    store.write(directory / name);
  }
  CHECK(directory.read("a") == directory.read("b"));
  const SafetensorsReader file(directory / "a");
  check_stored(file, "W.fast", fast);
  check_stored(file, "W", best);
  // What is stored is as small as the result says, but for params kept as bytes, the seed's dimension and headers.
  Index bytes = 0;
  for (const auto& [name, tensor] : file.tensors()) bytes += Index(tensor.bytes.size());
  CHECK(double(8 * bytes) < 1.02 * double(fast.storage_bits() + best.storage_bits()) + 1000);
}

TEST_CASE("A difference is found and located") {
  const auto W = weights();
  const auto fast = quantize(W, recipes::fast<3>{.group = 16});
  const Parts parts(fast);
  CHECK(parts.after(fast, [](auto&, auto&) {}).message() == no_error);
  for (const char* name : {"W.codes", "W.params", "W.diagonal", "W.diagonal_exponent"}) {
    INFO(name);
    const Error error = parts.after(fast, [&](TensorMap& tensors, Metadata&) { tensors.at(name).bytes[0] ^= std::byte(1); });
    CHECK(error.code() == ErrorCode::corrupt);
    CHECK_THAT(error.message(), Contains("W: row "));
  }
  const auto other_size = [](TensorMap& tensors, Metadata&) { tensors.at("W.hadamard").bytes[7] = std::byte(0x20); };
  CHECK(parts.after(fast, other_size).code() == ErrorCode::corrupt);
  const Error seed = parts.after(fast, [&](TensorMap& tensors, Metadata&) { tensors.at("W.hadamard").bytes[8] ^= std::byte(1); });
  CHECK_THAT(seed.message(), Contains("changed on the way"));
  const auto best = learned<3>(W);
  const Parts learned_parts(best);
  for (const char* name : {"W.inverse", "W.inverse_exponents", "W.inverse_base"}) {
    INFO(name);
    CHECK(learned_parts.after(best, [&](TensorMap& tensors, Metadata&) { tensors.at(name).bytes[0] ^= std::byte(1); }).code() == ErrorCode::corrupt);
  }
}

TEST_CASE("A truncated file is refused") {
  const auto fast = some_fast();
  const Parts parts(fast);
  const std::string content = parts.directory.read("file");
  for (const std::size_t length : {std::size_t(0), std::size_t(7), std::size_t(100), content.size() / 2, content.size() - 1}) {
    const std::string path = parts.directory.write("short", std::string_view(content).substr(0, length));
    CHECK(error_of([&] { SafetensorsReader{path}; }).code() == ErrorCode::corrupt);
  }
}

TEST_CASE("A tensor that is missing, of another type or too short is an Error that names it") {
  const auto fast = some_fast();
  const auto best = learned<3>(weights());
  const auto check = [](const auto& quantized) {
    const Parts parts(quantized);
    for (const auto& item : parts.tensors) {
      const std::string& name = item.first;
      const Tensor& tensor = item.second;
      INFO(name);
      CHECK_THAT(parts.after(quantized, [&](TensorMap& tensors, Metadata&) { tensors.erase(name); }).message(), Contains(name));
      const auto retype = [&](TensorMap& tensors, Metadata&) {
        auto& t = tensors.at(name);
        t.type = ScalarType::f8_e4m3;
        t.shape = {Index(t.bytes.size())};
      };
      CHECK_THAT(parts.after(quantized, retype).message(), Contains(name));
      const Index element = bytes_of(tensor.type);
      const auto cut = [&](Index elements) {
        return parts.after(quantized, [&](TensorMap& tensors, Metadata&) {
          auto& t = tensors.at(name);
          t.shape = {elements};
          t.bytes.resize(std::size_t(elements * element));
        });
      };
      const Index elements = Index(tensor.bytes.size()) / element;
      for (const Index wrong : {Index(0), elements - 1, elements + 1}) CHECK(cut(wrong).code() == ErrorCode::corrupt);
    }
  };
  check(fast);
  check(best);
}

TEST_CASE("Metadata that is missing, broken or wrong is an Error") {
  const auto fast = some_fast();
  const Parts parts(fast);
  const auto with = [&](const std::string& text) { return parts.after(fast, [&](TensorMap&, Metadata& metadata) { metadata["W"] = text; }); };
  const auto with_value = [&](const char* key, const nlohmann::ordered_json& value) {
    auto entry = nlohmann::ordered_json::parse(parts.metadata.at("W"));
    entry[key] = value;
    return with(entry.dump());
  };
  CHECK_THAT(parts.after(fast, [](TensorMap&, Metadata& metadata) { metadata.clear(); }).message(), Contains("no quantized matrix is named W"));
  CHECK(with("{").code() == ErrorCode::corrupt);
  CHECK(with("[]").code() == ErrorCode::corrupt);
  CHECK(with("{}").code() == ErrorCode::corrupt);
  for (const char* key : {"rows", "cols", "bits", "group", "exponent"}) {
    INFO(key);
    auto entry = nlohmann::ordered_json::parse(parts.metadata.at("W"));
    entry.erase(key);
    CHECK(with(entry.dump()).code() == ErrorCode::corrupt);
    CHECK(with_value(key, "3").code() == ErrorCode::corrupt);
  }
  CHECK(with_value("bits", 4).code() == ErrorCode::corrupt);
  CHECK(with_value("bits", 99).message() != no_error);
  for (const char* key : {"rows", "cols"})
    for (const std::int64_t wrong : {std::int64_t(0), std::int64_t(45), std::int64_t(-1), std::int64_t(1) << 62}) {
      INFO(key << " " << wrong);
      CHECK(with_value(key, wrong).code() == ErrorCode::corrupt);
    }
  CHECK(with_value("group", 8).code() == ErrorCode::corrupt);
  CHECK(with_value("group", -9).message() != no_error);
  CHECK(with_value("exponent", 3).code() == ErrorCode::corrupt);
}

TEST_CASE("Only signs drawn from a seed can be stored") {
  const auto W = weights(8, 8);
  const auto q = Pipeline{Hadamard(Signs(std::vector<float>(8, -1.0f))), Midrise<3>{}, Nearest{}}.quantize(W);
  QuantizedStore store;
  CHECK(error_of([&] { store.add("W", q); }).code() == ErrorCode::unsupported);
}

TEST_CASE("On a full disk nothing half-written is left, and an earlier file stays") {
  const test::TemporaryDirectory directory;
  QuantizedStore store;
  store.add("W", some_fast());
  directory.write("target", "what was here before");
  for (const rlim_t limit : {rlim_t(0), rlim_t(300), rlim_t(2000)}) {
    const pid_t child = ::fork();
    if (child == 0) {
      std::signal(SIGXFSZ, SIG_IGN);  // so that write() fails with EFBIG
      const rlimit size{limit, limit};
      ::setrlimit(RLIMIT_FSIZE, &size);
      const Error error = error_of([&] { store.write(directory / "target"); });
      ::_exit(error.code() == ErrorCode::io && error.message().find("target: cannot write") != std::string::npos ? 42 : 1);
    }
    int status = 0;
    REQUIRE(::waitpid(child, &status, 0) == child);
    CHECK(WIFEXITED(status));
    CHECK(WEXITSTATUS(status) == 42);
    CHECK(directory.names() == std::set<std::string>{"target"});
    CHECK(directory.read("target") == "what was here before");
  }
}
