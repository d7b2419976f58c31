#include "cafeq/io/gguf_metadata.hpp"

#include "io/damage.hpp"
#include "io/temporary_directory.hpp"
#include "support/catch.hpp"

using namespace cafeq;
using test::bytes_of;
using test::error_of;
using Type = GgufValueType;

namespace {

GgufValue read_value(Type type, std::string_view encoded) {
  const auto bytes = test::exact_bytes(encoded);
  detail::ByteCursor cursor("file", bytes);
  GgufValue value = GgufValue::read(cursor, type);
  CHECK(cursor.remaining() == 0);
  return value;
}

template <class T>
void check_number(T number, Type type) {
  const GgufValue value(number);
  CHECK(value.type() == type);
  CHECK(value.encoded() == bytes_of<T>({number}));
  CHECK(value == read_value(type, value.encoded()));
  CHECK(value.template to<double>() == double(number));
  CHECK(value.template to<Index>() ==
        (std::is_integral_v<T> ? std::optional<Index>(Index(number)) : std::nullopt));
  CHECK_FALSE(value.template to<bool>());
  CHECK_FALSE(value.template to<std::string_view>());
  CHECK_FALSE(value.template to<std::vector<Index>>());
}

}  // namespace

TEST_CASE("numbers of every type are kept and read") {
  check_number(std::uint8_t(200), Type::u8);
  check_number(std::int8_t(-100), Type::i8);
  check_number(std::uint16_t(60000), Type::u16);
  check_number(std::int16_t(-30000), Type::i16);
  check_number(std::uint32_t(4'000'000'000), Type::u32);
  check_number(std::int32_t(-2'000'000'000), Type::i32);
  check_number(1.25f, Type::f32);
  check_number(std::uint64_t(1) << 40, Type::u64);
  check_number(std::int64_t(-1) << 40, Type::i64);
  check_number(-0.1, Type::f64);
  const GgufValue large(~std::uint64_t(0));
  CHECK_FALSE(large.to<Index>());
  CHECK(int(Type::boolean) == 7);
  CHECK(int(Type::f64) == 12);
}

TEST_CASE("flags and strings are no numbers") {
  const GgufValue yes(true);
  CHECK(yes.type() == Type::boolean);
  CHECK(yes.encoded() == "\1");
  CHECK(yes.to<bool>() == true);
  const GgufValue no(false);
  CHECK(no.to<bool>() == false);
  CHECK_FALSE(yes.to<Index>());
  CHECK_FALSE(yes.to<double>());
  for (const GgufValue& text : {GgufValue("a\u2581"), GgufValue(std::string("a\u2581")),
                                GgufValue(std::string_view("a\u2581"))}) {
    CHECK(text.type() == Type::string);
    CHECK(text.encoded() == std::string("\4\0\0\0\0\0\0\0a\xe2\x96\x81", 12));
    CHECK(text.to<std::string_view>() == "a\u2581");
    CHECK_FALSE(text.to<double>());
    CHECK_FALSE(text.to<bool>());
  }
}

TEST_CASE("arrays hold values of one type, arrays too") {
  const GgufValue numbers(std::vector<std::int32_t>{1, -2});
  CHECK(numbers.type() == Type::array);
  CHECK(numbers.encoded() == std::string("\5\0\0\0\2\0\0\0\0\0\0\0\1\0\0\0\xfe\xff\xff\xff", 20));
  CHECK(numbers.to<std::vector<Index>>() == std::vector<Index>{1, -2});
  CHECK(numbers.to<std::vector<double>>() == std::vector<double>{1, -2});
  CHECK_FALSE(numbers.to<std::vector<std::string_view>>());
  CHECK_FALSE(numbers.to<Index>());
  const std::array<float, 3> floats{1, 2, 3};
  const GgufValue from_span(std::span<const float>{floats});
  CHECK(from_span.to<std::vector<double>>() == std::vector<double>{1, 2, 3});
  const GgufValue flags(std::vector<bool>{true, false});
  CHECK(flags.encoded() == std::string("\7\0\0\0\2\0\0\0\0\0\0\0\1\0", 14));
  CHECK(flags.to<std::vector<bool>>() == std::vector<bool>{true, false});
  const GgufValue tokens(std::vector<std::string>{"<s>", "", "a b"});
  CHECK(tokens.to<std::vector<std::string_view>>() ==
        std::vector<std::string_view>{"<s>", "", "a b"});
  CHECK_FALSE(tokens.to<std::vector<Index>>());
  const GgufValue nested(std::vector<std::vector<std::uint8_t>>{{1, 2}, {}, {3}});
  CHECK(nested.to<std::vector<std::vector<Index>>>() ==
        std::vector<std::vector<Index>>{{1, 2}, {}, {3}});
  const GgufValue none(std::vector<float>{});
  CHECK(none.to<std::vector<std::vector<double>>>() == std::vector<std::vector<double>>{});
  for (const GgufValue& value : {numbers, flags, tokens, nested})
    CHECK(read_value(Type::array, value.encoded()) == value);
}

TEST_CASE("values that are cut, too long or of no type are corrupt") {
  const GgufValue tokens(std::vector<std::string>{"<s>", "ab"});
  const GgufValue nested(std::vector<std::vector<std::uint16_t>>{{1, 2}, {3}});
  for (const GgufValue& value :
       {tokens, nested, GgufValue(1.0), GgufValue("text"), GgufValue(true)})
    test::check_prefixes(value.encoded(),
                         [&](std::string_view part) { read_value(value.type(), part); });

  const auto refused = [](Type type, std::string_view encoded) {
    const Error error = error_of([&] { read_value(type, encoded); });
    CHECK(error.code() == ErrorCode::corrupt);
    return error.message();
  };
  CHECK_THAT(refused(Type::boolean, "\2"), Contains("neither 0 nor 1"));
  CHECK_THAT(refused(Type::array, std::string("\7\0\0\0\2\0\0\0\0\0\0\0\1\xff", 14)),
             Contains("neither 0 nor 1"));
  CHECK_THAT(refused(Type::array, bytes_of<std::uint32_t>({13, 0, 0})),
             Contains("value type 13 at byte 0 is unknown"));
  for (const std::uint64_t count :
       {std::uint64_t(1) << 63, ~std::uint64_t(0), (std::uint64_t(1) << 62) + 1, std::uint64_t(2)})
    for (const Type element : {Type::u32, Type::f64, Type::u8, Type::string, Type::array})
      CHECK_THAT(refused(Type::array, bytes_of<std::uint32_t>({std::uint32_t(element)}) +
                                          bytes_of<std::uint64_t>({count}) + "x"),
                 Contains("beyond the end"));
  refused(Type::string, bytes_of<std::uint64_t>({std::uint64_t(1) << 63}));
}

TEST_CASE("nesting is limited") {
  const auto nested = [](int depth) {
    std::string text;
    for (int i = 0; i + 1 < depth; ++i)
      text += bytes_of<std::uint32_t>({9}) + bytes_of<std::uint64_t>({1});
    return text + bytes_of<std::uint32_t>({0}) + bytes_of<std::uint64_t>({1}) + "x";
  };
  CHECK_NOTHROW(read_value(Type::array, nested(8)));
  for (const int depth : {9, 100'000})
    CHECK_THAT(error_of([&] { read_value(Type::array, nested(depth)); }).message(),
               Contains("nested more than 8 deep"));
}

TEST_CASE("metadata keeps its order and one value a name") {
  GgufMetadata metadata;
  CHECK(metadata.add("b", GgufValue(std::uint32_t(1))));
  CHECK(metadata.add("a", GgufValue("x")));
  CHECK_FALSE(metadata.add("b", GgufValue(2.0)));
  metadata.set("b", GgufValue(3.0));
  metadata.set("c", GgufValue(true));
  REQUIRE(metadata.fields().size() == 3);
  CHECK(metadata.fields()[0] == GgufField{"b", GgufValue(3.0)});
  CHECK(metadata.fields()[1].name == "a");
  CHECK(metadata.get<double>("b") == 3.0);
  CHECK(metadata.get<std::string_view>("a") == "x");
  CHECK_FALSE(metadata.get<double>("a"));
  CHECK_FALSE(metadata.get<double>("d"));
  CHECK(metadata.find("d") == nullptr);
}
