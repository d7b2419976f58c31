#include "cafeq/quant/gguf_type.hpp"

#include <limits>

#include "support/catch.hpp"

using namespace cafeq;

TEST_CASE("every GGUF type is found by its number and by its name in either case") {
  for (const auto& info : gguf_types) {
    CAPTURE(info.name);
    REQUIRE(gguf_type_info(std::uint32_t(info.type)));
    CHECK(gguf_type_info(std::uint32_t(info.type))->name == info.name);
    CHECK(gguf_type_info(info.type).name == info.name);
    CHECK(gguf_type_named(info.name) == info.type);
    std::string small(info.name);
    for (char& c : small) c = char(std::tolower(c));
    CHECK(gguf_type_named(small) == info.type);
  }
  CHECK(!gguf_type_info(4u));
  CHECK(!gguf_type_named("Q4_2"));
  CHECK(!gguf_type_named(""));
}

TEST_CASE("rows of GGUF types are whole blocks") {
  CHECK(gguf_row_bytes(GgufType::f32, 7) == 28);
  CHECK(gguf_row_bytes(GgufType::q8_0, 64) == 68);
  CHECK(gguf_row_bytes(GgufType::q4_k, 512) == 288);
  CHECK(gguf_row_bytes(GgufType::q6_k, 0) == 0);
  CHECK(!gguf_row_bytes(GgufType::q4_0, 33));
  CHECK(!gguf_row_bytes(GgufType::q3_k, 128));
  CHECK(!gguf_row_bytes(GgufType::f32, std::numeric_limits<Index>::max()));
  CHECK(gguf_type_info(GgufType::q4_k).bits_per_weight() == 4.5);
  CHECK(gguf_type_info(GgufType::q3_k).bits_per_weight() == 3.4375);
}
