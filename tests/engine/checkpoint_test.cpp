// One model in every layout that the engine reads.
#include "support/catch.hpp"
#include "tiny_model.hpp"

using namespace engine;
using namespace engine::test;

namespace {

const std::vector<Token> text{1, 5, 9, 0, 10, 5, 5, 2};

void check_equal(const Matrix& a, const Matrix& b, double margin) {
  REQUIRE(a.rows == b.rows);
  REQUIRE(a.cols == b.cols);
  for (std::size_t i = 0; i < a.values.size(); ++i)
    CHECK(double(a.values[i]) == Approx(double(b.values[i])).margin(margin));
}

double largest_difference(const Matrix& a, const Matrix& b) {
  double largest = 0;
  for (std::size_t i = 0; i < a.values.size(); ++i)
    largest = std::max(largest, std::abs(double(a.values[i]) - double(b.values[i])));
  return largest;
}

TinyModel tiny(bool tied) {
  Config c = tiny_config();
  c.tied_embeddings = tied;
  return tiny_model(c);
}

}  // namespace

TEST_CASE("a llama2.c checkpoint and directories of all kinds give the same logits") {
  for (const bool tied : {true, false}) {
    const TinyModel model = tiny(tied);
    const Matrix expected = logits(model.checkpoint(), text);
    const TemporaryDirectory directory;
    const Checkpoint checkpoint = open_llama2c(directory.write("model.bin", llama2c_bytes(model)));
    CHECK(checkpoint.config.end == std::vector<Token>{1, 2});
    check_equal(logits(checkpoint, text), expected, 0);
    for (const char* type : {"F32", "BF16", "F16"}) {
      CAPTURE(tied, type);
      const TemporaryDirectory single, sharded;
      write_hugging_face(single, model, type);
      write_sharded(sharded, model, type);
      const Checkpoint one = open_hugging_face(single.path()),
                       two = open_hugging_face(sharded.path());
      CHECK(one.config.end == std::vector<Token>{2, 3});
      check_equal(logits(one, text), expected, 1e-5);
      check_equal(logits(two, text), logits(one, text), 0);
    }
  }
}

TEST_CASE("the order of the rows of queries and keys matters") {
  const TinyModel model = tiny_model();
  const TemporaryDirectory directory;
  write_hugging_face(directory, model, "F32");
  directory.write("model.safetensors",
                  safetensors_bytes(model.tensors, "F32"));  // rows as llama2.c has them
  CHECK(largest_difference(logits(open_hugging_face(directory.path()), text),
                           logits(model.checkpoint(), text)) > 0.1);
}

TEST_CASE("half-precision numbers") {
  CHECK(from_bf16(0x3fc0) == 1.5f);
  CHECK(from_fp16(0x3e00) == 1.5f);
  CHECK(from_fp16(0xc000) == -2.0f);
  CHECK(from_fp16(0x7bff) == 65504.0f);
  CHECK(from_fp16(0x0001) == 0x1p-24f);
  CHECK(from_fp16(0x8000) == 0.0f);
  CHECK(std::signbit(from_fp16(0x8000)));
  CHECK(std::isinf(from_fp16(0x7c00)));
  CHECK(std::isnan(from_fp16(0x7e00)));
}

TEST_CASE("config.json: what is there, and what is assumed where it is not") {
  const TemporaryDirectory directory;
  const auto read = [&](const Json& changes) {
    Json json = config_json(tiny_config());
    json.update(changes);
    directory.write("config.json", json.dump());
    return open_hugging_face(directory.path()).config;
  };
  const Config plain = read(Json::object());
  CHECK(plain.kv_heads == 2);
  CHECK(plain.rope_base == 10000);
  CHECK_FALSE(plain.rope_interleaved);
  CHECK_FALSE(plain.rope_scaling);
  CHECK(read({{"num_key_value_heads", nullptr}, {"head_dim", nullptr}}).kv_heads == 4);
  CHECK(read({{"eos_token_id", 7}}).end == std::vector<Token>{7});
  CHECK(read({{"model_type", "mistral"}, {"sliding_window", 12}}).context == 12);
  CHECK(read({{"rope_theta", 5e5}}).rope_base == 5e5);
  CHECK(read({{"rope_parameters", {{"rope_theta", 1e6}, {"rope_type", "default"}}}}).rope_base ==
        1e6);
  const Config scaled = read({{"rope_scaling",
                               {{"rope_type", "llama3"},
                                {"factor", 8.0},
                                {"low_freq_factor", 1.0},
                                {"high_freq_factor", 4.0},
                                {"original_max_position_embeddings", 8192}}}});
  REQUIRE(scaled.rope_scaling);
  CHECK(scaled.rope_scaling->factor == 8);

  const auto refused = [&](const Json& changes, const std::string& why) {
    CHECK_THROWS_WITH(read(changes), Contains("config.json") && Contains(why));
  };
  refused({{"model_type", "gemma"}}, "architecture 'gemma'");
  refused({{"attention_bias", true}}, "biases");
  refused({{"hidden_act", "gelu"}}, "activation 'gelu'");
  refused({{"rope_scaling", {{"type", "yarn"}, {"factor", 2}}}}, "yarn");
  refused({{"hidden_size", nullptr}}, "hidden_size: ");
  refused({{"hidden_size", "wide"}}, "hidden_size: ");
  refused({{"num_hidden_layers", 0}}, "layers is 0");
  refused({{"num_hidden_layers", -1}}, "layers is -1");
  refused({{"num_key_value_heads", 3}}, "4 heads cannot share 3 key/value heads");
  refused({{"head_dim", 3}}, "heads of 3 coordinates");
}

TEST_CASE("weights that cannot be read are refused by name") {
  const TinyModel model = tiny_model();
  const TemporaryDirectory directory;
  write_hugging_face(directory, model, "F32");
  const auto refused = [&](const std::string& what, const std::string& why) {
    CHECK_THROWS_WITH(load_model(open_hugging_face(directory.path())),
                      Contains(what) && Contains(why));
  };
  const std::string good = directory.read("model.safetensors");
  std::uint64_t length = 0;
  std::memcpy(&length, good.data(), 8);
  const Json header = Json::parse(good.substr(8, length));
  const std::string data = good.substr(8 + length), norm = "model.norm.weight";

  directory.write("model.safetensors", good.substr(0, good.size() - 1));
  refused("model.safetensors: " + norm, "bytes are said to lie at");  // the last one by name
  directory.write("model.safetensors", good.substr(0, 100));
  refused("model.safetensors", "a header of");
  directory.write("model.safetensors", good.substr(0, 3));
  refused("model.safetensors", "ends after 3 bytes");
  directory.write("model.safetensors", std::string("\x02\0\0\0\0\0\0\0[]", 10));
  refused("model.safetensors", "not a JSON object");

  Json changed = header;
  changed.erase("model.layers.1.mlp.up_proj.weight");
  directory.write("model.safetensors", safetensors_bytes(changed, data));
  refused("model.layers.1.mlp.up_proj.weight", "missing");
  const auto change = [&](const char* key, const Json& value, const std::string& why) {
    changed = header;
    changed[norm][key] = value;
    directory.write("model.safetensors", safetensors_bytes(changed, data));
    refused("model.safetensors: " + norm, why);
  };
  change("shape", {4, 4}, "has shape [4,4], expected [1,16]");
  change("shape", "16", "type must be array");
  change("dtype", "I8", "has type I8");
  change("data_offsets", {0, 60}, "64 bytes are said to lie at [0,60]");
  change("data_offsets", {std::uint64_t(-64), 0}, "64 bytes");

  write_sharded(directory, model, "F32");
  Json index = Json::parse(directory.read("model.safetensors.index.json"));
  index["weight_map"].erase(norm);
  directory.write("model.safetensors.index.json", index.dump());
  refused("model.safetensors.index.json: " + norm, "missing");
  index["weight_map"][norm] = "model-00003.safetensors";
  directory.write("model.safetensors.index.json", index.dump());
  refused("model-00003.safetensors", "No such file");
  CHECK_THROWS_WITH(open_hugging_face(directory / "nowhere"), Contains("nowhere/config.json"));
}

TEST_CASE("a llama2.c checkpoint that is not one is refused") {
  const TemporaryDirectory directory;
  const std::string good = llama2c_bytes(tiny_model());
  const auto refused = [&](const std::string& bytes, const std::string& why) {
    const std::string path = directory.write("model.bin", bytes);
    CHECK_THROWS_WITH(open_llama2c(path), Contains("model.bin") && Contains(why));
  };
  refused(good.substr(0, 20), "ends after 20 bytes");
  refused(good.substr(0, good.size() - 1), "ends within rotations");
  refused(good.substr(0, 28 + 4 * 11 * 16 + 4), "ends within model.layers.0.input_layernorm");
  refused(good + "x", "1 bytes more");
  std::string bytes = good;
  bytes[8] = 0;
  refused(bytes, "layers is 0");
  bytes = good;
  bytes[3] = char(0x80);
  refused(bytes, "dim is -");
  bytes.replace(0, 8, std::string("24ka\1\0\0\0", 8));
  refused(bytes, "version 1");
  CHECK_THROWS_WITH(open_llama2c(directory / "none.bin"), Contains("none.bin: No such file"));
  CHECK_THROWS_WITH(open_llama2c(directory.path()), Contains(directory.path()));
}
