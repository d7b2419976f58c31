#include "cafeq/model/name_pattern.hpp"

#include <fnmatch.h>

#include <string>

#include "cafeq/core/rng.hpp"
#include "support/catch.hpp"

using cafeq::detail::matches_pattern;

TEST_CASE("a pattern without special characters is a name") {
  CHECK(matches_pattern("model.layers.0", "model.layers.0"));
  CHECK_FALSE(matches_pattern("model.layers.0", "model.layers.01"));
  CHECK_FALSE(matches_pattern("model.layers.0", "model.layers"));
  CHECK_FALSE(matches_pattern("model.layers", "modelxlayers"));
  CHECK(matches_pattern("", ""));
  CHECK_FALSE(matches_pattern("", "a"));
  CHECK_FALSE(matches_pattern("a", ""));
}

TEST_CASE("stars stand for any characters, and for none") {
  CHECK(matches_pattern("*", ""));
  CHECK(matches_pattern("*", ".a/b"));
  CHECK(matches_pattern("***", "abc"));
  CHECK(matches_pattern("*.mlp.*", "model.layers.0.mlp.up_proj.weight"));
  CHECK(matches_pattern("*.weight", "weight.weight.weight"));
  CHECK_FALSE(matches_pattern("*.weight", "weight.weight.bias"));
  CHECK(matches_pattern("a*b*c", "abbbc"));
  CHECK(matches_pattern("a*b*c", "a-b-c-b-c"));
  CHECK_FALSE(matches_pattern("a*b*c", "acb"));
  CHECK_FALSE(matches_pattern("a*a", "a"));
}

TEST_CASE("many stars take no more than the product of both lengths") {
  std::string pattern;
  for (int i = 0; i < 200; ++i) pattern += "a*";
  CHECK_FALSE(matches_pattern(pattern + "b", std::string(20'000, 'a')));
  CHECK(matches_pattern(pattern, std::string(20'000, 'a')));
}

TEST_CASE("a question mark stands for one character") {
  CHECK(matches_pattern("layers.?.mlp", "layers.3.mlp"));
  CHECK_FALSE(matches_pattern("layers.?.mlp", "layers.13.mlp"));
  CHECK_FALSE(matches_pattern("?", ""));
  CHECK(matches_pattern("?*", "a"));
  CHECK(matches_pattern("*?", "a"));
  CHECK_FALSE(matches_pattern("*??", "a"));
}

TEST_CASE("brackets stand for one of several characters") {
  CHECK(matches_pattern("layers.[0-3].*", "layers.2.mlp"));
  CHECK_FALSE(matches_pattern("layers.[0-3].*", "layers.4.mlp"));
  CHECK(matches_pattern("[qkv]_proj", "k_proj"));
  CHECK_FALSE(matches_pattern("[qkv]_proj", "o_proj"));
  CHECK(matches_pattern("[!qkv]_proj", "o_proj"));
  CHECK(matches_pattern("[^qkv]_proj", "o_proj"));
  CHECK_FALSE(matches_pattern("[!qkv]_proj", "q_proj"));
  CHECK(matches_pattern("[a-c-e]", "-"));
  CHECK_FALSE(matches_pattern("[a-c-e]", "d"));
  CHECK_FALSE(matches_pattern("[c-a]", "b"));
}

TEST_CASE("brackets that are hard to read") {
  CHECK(matches_pattern("[]]", "]"));
  CHECK(matches_pattern("[]a]", "a"));
  CHECK(matches_pattern("[!]]", "a"));
  CHECK_FALSE(matches_pattern("[!]]", "]"));
  CHECK(matches_pattern("[-a]", "-"));
  CHECK(matches_pattern("[a-]", "-"));
  CHECK(matches_pattern("[a!]", "!"));
  CHECK(matches_pattern("[*?]", "*"));
  CHECK_FALSE(matches_pattern("[*?]", "a"));
  CHECK(matches_pattern("[[]", "["));
  CHECK(matches_pattern(R"([\]])", "]"));
  CHECK(matches_pattern(R"([a\-c])", "-"));
  CHECK_FALSE(matches_pattern(R"([a\-c])", "b"));
  CHECK(matches_pattern("[\xc0-\xff]", "\xe2"));
}

TEST_CASE("a bracket without an end stands for itself") {
  CHECK(matches_pattern("[", "["));
  CHECK(matches_pattern("a[b", "a[b"));
  CHECK(matches_pattern("[!", "[!"));
  CHECK(matches_pattern("[]", "[]"));
  CHECK(matches_pattern("[a-", "[a-"));
  CHECK_FALSE(matches_pattern("[ab", "a"));
  CHECK(matches_pattern("*[", "a["));
}

TEST_CASE("a backslash takes the meaning from the character behind it") {
  CHECK(matches_pattern(R"(\*)", "*"));
  CHECK_FALSE(matches_pattern(R"(\*)", "a"));
  CHECK(matches_pattern(R"(\?\[\\)", R"(?[\)"));
  CHECK(matches_pattern(R"(\a)", "a"));
  CHECK_FALSE(matches_pattern(R"(\a)", R"(\a)"));
  CHECK_FALSE(matches_pattern("a\\", "a\\"));
  CHECK_FALSE(matches_pattern("a\\", "a"));
}

TEST_CASE("patterns match what fnmatch matches") {
  const cafeq::CounterRng rng(7);
  const auto text = [&](std::uint64_t stream, std::string_view alphabet, std::uint64_t longest) {
    std::string result;
    const std::uint64_t length = rng.below(stream * 64, longest + 1);
    for (std::uint64_t i = 1; i <= length; ++i)
      result += alphabet[rng.below(stream * 64 + i, alphabet.size())];
    return result;
  };
  int matched = 0;
  for (std::uint64_t i = 0; i < 200'000; ++i) {
    const std::string pattern = text(2 * i, R"(aabb*?[]!-\)", 7),
                      name = text(2 * i + 1, R"(aabb-[]\)", 5);
    // The C library lets a range without its end, as in "[a-", match nothing at all.
    if (pattern.ends_with('-')) continue;
    const bool expected = ::fnmatch(pattern.c_str(), name.c_str(), 0) == 0;
    matched += expected;
    if (matches_pattern(pattern, name) != expected) {
      INFO("pattern " << pattern << ", name " << name << ", fnmatch says " << expected);
      CHECK(false);
    }
  }
  CHECK(matched > 1000);
}

static_assert(matches_pattern("*.[0-9].w?", "layer.7.wq"));
