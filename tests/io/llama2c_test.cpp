#include "cafeq/io/llama2c.hpp"

#include <cmath>
#include <cstring>
#include <numeric>
#include <tuple>

#include "io/damage.hpp"
#include "io/temporary_directory.hpp"
#include "support/catch.hpp"

using namespace cafeq;
using test::bytes_of;
using test::error_of;

namespace {

Llama2cHeader small_header(int version, bool tied) {
  return {.version = version,
          .hidden = 8,
          .intermediate = 6,
          .layers = 2,
          .heads = 2,
          .kv_heads = 1,
          .vocabulary = 5,
          .context = 3,
          .tied_embeddings = tied};
}

/// 0, 1, 2 … in the order of the file.
std::string counting_bytes(std::size_t count) {
  std::vector<float> values(count);
  std::iota(values.begin(), values.end(), 0.0f);
  return {reinterpret_cast<const char*>(values.data()), 4 * count};
}

/// Per layer 2 norms of 8, wq and wo [8, 8], wk and wv [4, 8], w1 and w3 [6, 8], w2 [8, 6]; the
/// last norm of 8 and the embedding [5, 8].
constexpr std::size_t weights = 2 * (16 + 128 + 64 + 144) + 8 + 40;

std::string small_file(int version, bool tied) {
  const std::int32_t vocabulary = version == 0 && !tied ? -5 : 5;
  const std::string sizes = bytes_of<std::int32_t>({8, 6, 2, 2, 1, vocabulary, 3});
  if (version == 0) return sizes + counting_bytes(weights + 2 * 3 * 2 + (tied ? 0 : 40));
  std::string header = "24ka" + bytes_of<std::int32_t>({version}) + sizes + (tied ? '\1' : '\0');
  header.resize(256);
  return header + counting_bytes(weights + (tied ? 0 : 40));
}

detail::Llama2cContent parse_llama2c(std::string_view content) {
  const auto bytes = test::exact_bytes(content);
  auto parsed = detail::parse_llama2c("file", bytes);
  unsigned sum = 0;
  for (const auto& tensor : parsed.tensors)
    for (const std::byte b : tensor.view.bytes) sum += unsigned(b);
  CHECK(sum < 1u << 31);
  return parsed;
}

Error llama2c_error(std::string_view content) {
  const Error error = error_of([&] { parse_llama2c(content); });
  CHECK_THAT(error.message(), Contains("file: "));
  return error;
}

void copy(const Llama2cReader& from, const std::string& to) {
  Llama2cWriter writer(to, from.header());
  for (const auto& tensor : from.tensors()) {
    writer.write(tensor.name, tensor.view.bytes);
    from.release(tensor.name);
  }
  writer.commit();
}

}  // namespace

TEST_CASE("tensors are found where export.py puts them") {
  const test::TemporaryDirectory directory;
  const auto check =
      [&](int version, bool tied,
          const std::vector<std::tuple<std::string, std::vector<Index>, float>>& expected) {
        const Llama2cReader file(directory.write("file", small_file(version, tied)));
        CHECK(file.header() == small_header(version, tied));
        for (const auto& [name, shape, first] : expected) {
          INFO(name);
          const Llama2cTensor& tensor = file.tensor(name);
          CHECK(tensor.view.shape == shape);
          CHECK(tensor.view.values<float>()[0] == first);
        }
        CHECK(error_of([&] { (void)file.tensor("layers.2.attention.wq.weight"); }).code() ==
              ErrorCode::invalid_argument);
        return file.tensors().size();
      };
  const std::size_t tensors = 2 * 9 + 2;
  CHECK(check(0, true,
              {{"tok_embeddings.weight", {5, 8}, 0},
               {"layers.0.attention_norm.weight", {8}, 40},
               {"layers.1.attention_norm.weight", {8}, 48},
               {"layers.0.attention.wq.weight", {8, 8}, 56},
               {"layers.1.attention.wq.weight", {8, 8}, 120},
               {"layers.1.attention.wk.weight", {4, 8}, 216},
               {"layers.0.attention.wv.weight", {4, 8}, 248},
               {"layers.0.attention.wo.weight", {8, 8}, 312},
               {"layers.0.ffn_norm.weight", {8}, 440},
               {"layers.0.feed_forward.w1.weight", {6, 8}, 456},
               {"layers.0.feed_forward.w2.weight", {8, 6}, 552},
               {"layers.1.feed_forward.w3.weight", {6, 8}, 696},
               {"norm.weight", {8}, 744},
               {"freq_cis_real", {3, 2}, 752},
               {"freq_cis_imag", {3, 2}, 758}}) == tensors + 2);
  CHECK(check(0, false, {{"freq_cis_imag", {3, 2}, 758}, {"output.weight", {5, 8}, 764}}) ==
        tensors + 3);
  CHECK(check(1, true,
              {{"layers.0.attention_norm.weight", {8}, 0},
               {"layers.0.ffn_norm.weight", {8}, 16},
               {"norm.weight", {8}, 32},
               {"tok_embeddings.weight", {5, 8}, 40},
               {"layers.0.attention.wq.weight", {8, 8}, 80},
               {"layers.1.attention.wo.weight", {8, 8}, 400},
               {"layers.0.feed_forward.w1.weight", {6, 8}, 464},
               {"layers.1.feed_forward.w3.weight", {6, 8}, 704}}) == tensors);
  CHECK(check(1, false, {{"output.weight", {5, 8}, 752}}) == tensors + 1);
}

TEST_CASE("a copy has the same bytes") {
  const test::TemporaryDirectory directory;
  for (const int version : {0, 1})
    for (const bool tied : {true, false}) {
      const Llama2cReader file(directory.write("file", small_file(version, tied)));
      copy(file, directory / "copy");
      CHECK(directory.read("copy") == directory.read("file"));
      CHECK(file.file_bytes() == Index(directory.read("file").size()));
    }
}

TEST_CASE("headers that are no model's are refused") {
  const auto refused = [](std::vector<std::int32_t> sizes) {
    std::string content = small_file(0, true);
    std::memcpy(content.data(), sizes.data(), 28);
    const Error error = llama2c_error(content);
    CHECK(error.code() == ErrorCode::corrupt);
    return error.message();
  };
  const std::vector<std::int32_t> good{8, 6, 2, 2, 1, 5, 3};
  for (std::size_t i = 0; i < good.size(); ++i)
    for (const std::int32_t bad : {0, -1, std::numeric_limits<std::int32_t>::min(),
                                   std::numeric_limits<std::int32_t>::max()}) {
      auto sizes = good;
      sizes[i] = bad;
      INFO(i << ", " << bad);
      refused(sizes);
    }
  CHECK_THAT(refused({9, 6, 2, 2, 1, 5, 3}), Contains("has 2 heads in a width of 9"));
  CHECK_THAT(refused({6, 6, 2, 2, 1, 5, 3}), Contains("has 2 heads in a width of 6"));
  CHECK_THAT(refused({8, 6, 2, 4, 3, 5, 3}), Contains("has 3 key/value heads for 4 heads"));
  CHECK_THAT(refused({8, 6, 3, 2, 1, 5, 3}),
             Contains(message("has ", 4 * (weights + 12), " bytes of tensors")));
  constexpr std::int32_t most = std::numeric_limits<std::int32_t>::max() - 1;
  CHECK_THAT(refused({most, most, most, 1, 1, most, most}), Contains("far more"));
}

TEST_CASE("other versions are refused by their number") {
  for (const std::int32_t version : {0, 2, 3, -1}) {
    std::string content = small_file(1, true);
    content.replace(4, 4, bytes_of<std::int32_t>({version}));
    const Error error = llama2c_error(content);
    CHECK(error.code() == ErrorCode::unsupported);
    CHECK_THAT(error.message(), Contains(message("checkpoint of version ", version)));
  }
}

TEST_CASE("every beginning, every addition and thousands of changes are read or refused") {
  for (const int version : {0, 1})
    for (const bool tied : {true, false}) {
      const std::string content = small_file(version, tied);
      test::check_prefixes(content, parse_llama2c);
      CHECK(llama2c_error(content + "x").code() == ErrorCode::corrupt);
      const std::size_t header = version == 0 ? 28 : 37;
      test::check_bit_flips(content.substr(0, header), 2000, 5, [&](std::string_view changed) {
        parse_llama2c(std::string(changed) + content.substr(header));
      });
    }
}

TEST_CASE("a checkpoint of sizes that no model has is refused by the writer") {
  const test::TemporaryDirectory directory;
  const auto refused = [&](auto change) {
    Llama2cHeader header = small_header(0, true);
    change(header);
    const Error error = error_of([&] { Llama2cWriter(directory / "file", header); });
    CHECK(error.code() == ErrorCode::invalid_argument);
    CHECK(directory.names().empty());
    return error.message();
  };
  CHECK_THAT(refused([](auto& h) { h.version = 2; }), Contains("version 2 is neither 0 nor 1"));
  CHECK_THAT(refused([](auto& h) { h.layers = 0; }), Contains("has a size of 0"));
  CHECK_THAT(refused([](auto& h) { h.vocabulary = Index(1) << 40; }),
             Contains("has a size of 1099511627776"));
  CHECK_THAT(refused([](auto& h) { h.heads = 3; }), Contains("3 heads"));
  CHECK_THAT(refused([](auto& h) { h.hidden = h.intermediate = h.layers = 2'000'000'000; }),
             Contains("too large"));
}

TEST_CASE("a trained model is read and written back bit for bit") {
  const std::string path = CAFEQ_SCRIPTS_DIR "/../../shared/data/stories260K.bin";
  if (!std::filesystem::exists(path)) {
    WARN(path << " is not there: the trained model is left out");
    return;
  }
  const Llama2cReader file(path);
  CHECK(file.header() == Llama2cHeader{.version = 0,
                                       .hidden = 64,
                                       .intermediate = 172,
                                       .layers = 5,
                                       .heads = 8,
                                       .kv_heads = 4,
                                       .vocabulary = 512,
                                       .context = 512,
                                       .tied_embeddings = true});
  CHECK(file.tensors().size() == 49);
  // The tables of positions say whether everything before them has its right size: cos 0 and sin 0
  // come first, then those of 1.
  CHECK(file.tensor("freq_cis_real").view.matrix()(0, 3) == 1.0f);
  CHECK(file.tensor("freq_cis_imag").view.matrix()(0, 3) == 0.0f);
  CHECK(file.tensor("freq_cis_imag").view.matrix()(1, 0) == Approx(std::sin(1.0)));
  const test::TemporaryDirectory directory;
  copy(file, directory / "copy");
  const auto original = read_file(path), written = read_file(directory / "copy");
  CHECK(std::equal(original.begin(), original.end(), written.begin(), written.end()));
}
