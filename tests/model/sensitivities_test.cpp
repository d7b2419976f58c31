#include "cafeq/model/sensitivities.hpp"

#include <limits>

#include "support/catch.hpp"
#include "support/error_of.hpp"

using namespace cafeq;
using test::error_of;

namespace {

MatrixRole matrix(Role role, Index layer, const std::string& tensor, Index begin = 0,
                  Index rows = 8) {
  return {.role = role, .layer = layer, .place = {.tensor = tensor, .begin = begin, .out = rows}};
}

}  // namespace

TEST_CASE("A sensitivity is found by its place, or by layer and role under other names") {
  const Sensitivities all(
      {{.tensor = "model.layers.2.self_attn.q_proj.weight", .rows = 8, .value = 3},
       {.tensor = "packed", .first_row = 8, .rows = 4, .value = 5},
       {.tensor = "experts", .slice = 1, .rows = 4, .value = 7}},
      "model");
  CHECK(all.model() == "model");
  CHECK(all.all().size() == 3);
  CHECK(all.find(matrix(Role::query, 2, "model.layers.2.self_attn.q_proj.weight")) == 3);
  CHECK(all.find(matrix(Role::query, 2, "blk.2.attn_q.weight")) == 3);
  CHECK_FALSE(all.find(matrix(Role::query, 1, "blk.1.attn_q.weight")));
  CHECK_FALSE(all.find(matrix(Role::key, 2, "blk.2.attn_k.weight")));
  CHECK_FALSE(all.find(matrix(Role::query, 2, "blk.2.attn_q.weight", 0, 9)));
  CHECK(all.find(matrix(Role::value, 0, "packed", 8, 4)) == 5);
  CHECK_FALSE(all.find(matrix(Role::value, 0, "packed", 0, 8)));
  MatrixRole expert = matrix(Role::up, 0, "experts", 0, 4);
  expert.expert = expert.place.slice = 1;
  CHECK(all.find(expert) == 7);
  expert.expert = expert.place.slice = 0;
  CHECK_FALSE(all.find(expert));
}

TEST_CASE("Of two matrices with one layer and role neither stands for other names") {
  const Sensitivities two({{.tensor = "model.layers.0.mlp.up_proj.weight", .rows = 8, .value = 3},
                           {.tensor = "blk.0.ffn_up.weight", .rows = 8, .value = 5}});
  CHECK(two.find(matrix(Role::up, 0, "blk.0.ffn_up.weight")) == 5);
  CHECK_FALSE(two.find(matrix(Role::up, 0, "layers.0.feed_forward.w3.weight")));
  const Sensitivities stacked(
      {{.tensor = "blk.0.ffn_up.weight", .slice = 0, .rows = 8, .value = 5}});
  CHECK_FALSE(stacked.find(matrix(Role::up, 0, "layers.0.feed_forward.w3.weight")));
}

TEST_CASE("Sensitivities that no matrix has are refused") {
  const auto refusal = [](const std::vector<Sensitivity>& all) {
    const Error error = error_of([&] { const Sensitivities made(all); });
    CHECK(error.code() == ErrorCode::invalid_argument);
    return error.message();
  };
  const Sensitivity one{.tensor = "one", .rows = 4, .value = 1};
  Sensitivity negative = one, infinite = one, undefined = one;
  negative.value = -1;
  infinite.value = std::numeric_limits<double>::infinity();
  undefined.value = std::numeric_limits<double>::quiet_NaN();
  for (const Sensitivity& bad : {negative, infinite, undefined})
    CHECK_THAT(refusal({bad}), Contains("that of one is"));
  CHECK_THAT(refusal({one, one}), Contains("one is there twice"));
}
