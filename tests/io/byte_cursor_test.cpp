#include "cafeq/io/byte_cursor.hpp"

#include "io/damage.hpp"
#include "io/temporary_directory.hpp"
#include "support/catch.hpp"

using namespace cafeq;
using namespace cafeq::detail;
using test::error_of;

TEST_CASE("what is appended is read") {
  std::string text;
  append_number(text, std::uint16_t(0x0102));
  append_number(text, -2.5);
  append_text(text, std::string_view("a\0b", 3));
  append_text(text, "");
  CHECK(text.substr(0, 2) == "\2\1");
  CHECK(text.substr(10, 11) == std::string("\3\0\0\0\0\0\0\0a\0b", 11));
  const auto bytes = test::exact_bytes(text);
  ByteCursor cursor("file", bytes);
  CHECK(cursor.number<std::uint16_t>("n") == 0x0102);
  CHECK(cursor.number<double>("n") == -2.5);
  CHECK(cursor.text("t") == std::string_view("a\0b", 3));
  CHECK(cursor.position() == 21);
  CHECK(cursor.text("t").empty());
  CHECK(cursor.remaining() == 0);
  CHECK(cursor.take(0, "nothing").empty());
}

TEST_CASE("what reaches beyond the end is corrupt, however long it claims to be") {
  for (const std::uint64_t length :
       {std::uint64_t(3), std::uint64_t(1) << 63, ~std::uint64_t(0), ~std::uint64_t(0) - 7}) {
    std::string text;
    append_number(text, length);
    text += "ab";
    const auto bytes = test::exact_bytes(text);
    ByteCursor cursor("file", bytes);
    const Error error = error_of([&] { cursor.text("a name"); });
    CHECK(error.code() == ErrorCode::corrupt);
    CHECK(error.message() == message("file: a name of ", length,
                                     " bytes at byte 8 reaches beyond the end of 10 bytes"));
  }
  ByteCursor empty("file", {});
  CHECK_THAT(error_of([&] { empty.number<std::uint8_t>("a flag"); }).message(),
             Contains("a flag of 1 bytes at byte 0"));
}
