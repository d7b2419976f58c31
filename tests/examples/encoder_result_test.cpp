#include "accuracy/encoder_result.hpp"

#include <algorithm>
#include <set>

#include "cafeq/quant/grid.hpp"
#include "support/catch.hpp"

using namespace cafeq;
using namespace cafeq::example;

namespace {

Results some_results() {
  Results results;
  results.model = "a model";
  results.threads = 3;
  results.seconds = 1.5;
  results.matrices.push_back(
      {"embeddings", 8002, 256, "rtn", "affine", per_row, 2, 2.125, 0.4, 0.4, 0.25});
  results.matrices.push_back(
      {"tanh", 512, 512, "rtn", "affine", per_row, 2, 2.0625, 0.1, 0.1, 0.125});
  results.matrices.push_back(
      {"dense", 512, 256, "rtn", "affine", per_row, 2, 2.125, 0.9, 0.9, 0.125});
  results.matrices.push_back({"tanh", 512, 512, "fast", "midrise", 64, 3, 3.25, 0.03, 0.07, 0.5});
  results.pairs.push_back({"layer0.value_output", "value_output", 3, 0.02, 0.07, 0.03, 0.75});
  results.embedding.push_back({"learned", 3, 3.5, 0.98, 0.9});
  return results;
}

std::set<std::string> keys(const nlohmann::ordered_json& object) {
  std::set<std::string> all;
  for (const auto& item : object.items()) all.insert(item.key());
  return all;
}

bool has(const nlohmann::ordered_json& object, const std::set<std::string>& expected) {
  const auto present = keys(object);
  return std::includes(present.begin(), present.end(), expected.begin(), expected.end());
}

}  // namespace

TEST_CASE("encoder.json has every field that readers count on, with its value and type") {
  const auto json = to_json(some_results());
  CHECK(has(json, {"model", "matrices", "pairs", "embedding", "threads", "peak_rss_bytes"}));
  CHECK(json["model"] == "a model");
  CHECK(json["threads"] == 3);
  CHECK(json["peak_rss_bytes"].is_number_integer());

  REQUIRE(json["matrices"].size() == 4);
  for (const auto& matrix : json["matrices"])
    CHECK(has(matrix, {"name", "rows", "cols", "recipe", "grid", "group", "bits", "bits_per_weight",
                       "relative_error", "rtn_error", "seconds"}));
  const auto& row = json["matrices"][0];
  CHECK(row["name"] == "embeddings");
  CHECK(row["rows"] == 8002);
  CHECK(row["cols"] == 256);
  CHECK(row["recipe"] == "rtn");
  CHECK(row["grid"] == "affine");
  CHECK(row["group"] == "row");
  CHECK(row["bits"] == 2);
  CHECK(row["bits_per_weight"] == 2.125);
  CHECK(row["relative_error"] == 0.4);
  CHECK(row["rtn_error"] == 0.4);
  CHECK(row["seconds"] == 0.25);
  CHECK(json["matrices"][3]["group"] == 64);
  CHECK(json["matrices"][3]["group"].is_number_integer());

  REQUIRE(json["pairs"].size() == 1);
  const auto& pair = json["pairs"][0];
  CHECK(
      has(pair, {"name", "kind", "bits", "product_error", "mse_rtn_error", "learned_only_error"}));
  CHECK(pair["name"] == "layer0.value_output");
  CHECK(pair["kind"] == "value_output");
  CHECK(pair["bits"] == 3);
  CHECK(pair["product_error"] == 0.02);
  CHECK(pair["mse_rtn_error"] == 0.07);
  CHECK(pair["learned_only_error"] == 0.03);

  REQUIRE(json["embedding"].size() == 1);
  const auto& embedding = json["embedding"][0];
  CHECK(keys(embedding) ==
        std::set<std::string>{"recipe", "bits", "bits_per_weight", "mean_cosine", "min_cosine"});
  CHECK(embedding["recipe"] == "learned");
  CHECK(embedding["bits"] == 3);
  CHECK(embedding["bits_per_weight"] == 3.5);
  CHECK(embedding["mean_cosine"] == 0.98);
  CHECK(embedding["min_cosine"] == 0.9);
}

TEST_CASE("Numbers survive the text of encoder.json; nothing at all is three empty arrays") {
  const auto json = to_json(some_results());
  const auto parsed = nlohmann::ordered_json::parse(json.dump(1));
  CHECK(parsed == json);
  const auto empty = to_json(Results{});
  for (const char* list : {"matrices", "pairs", "embedding"}) {
    CHECK(empty[list].is_array());
    CHECK(empty[list].empty());
  }
}

TEST_CASE(
    "The mean is geometric, over one recipe at one group and number of bits, without the "
    "residual's matrix") {
  const Results results = some_results();
  const auto mean = results.mean_error("rtn", "affine", per_row, 2);
  REQUIRE(mean);
  CHECK(*mean == Approx(0.2));  // of .4 and .1
  CHECK(*results.mean_error("fast", "midrise", 64, 3) == Approx(0.03));
  CHECK(!results.mean_error("fast", "midrise", 64, 2));
  CHECK(!results.mean_error("fast", "affine", 64, 3));
  CHECK(!results.mean_error("fast", "midrise", per_row, 3));
}

TEST_CASE("Peak memory is in bytes and does not fall") {
  const auto before = peak_rss_bytes();
  CHECK(before > 1 << 20);
  std::vector<char> held(64 << 20, 1);
  CHECK(held[held.size() / 2] == 1);
  CHECK(peak_rss_bytes() >= std::max<std::int64_t>(before, 64 << 20));
}
