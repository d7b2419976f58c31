#include "cafeq/io/gguf_file.hpp"

#include "io/damage.hpp"
#include "io/temporary_directory.hpp"
#include "support/catch.hpp"

using namespace cafeq;
using test::bytes_of;
using test::error_of;

namespace {

std::string from_hex(std::string_view hex) {
  std::string bytes;
  int high = -1;
  for (const char c : hex) {
    if (c == ' ' || c == '\n') continue;
    const int digit = c <= '9' ? c - '0' : c - 'a' + 10;
    if (high < 0) high = digit;
    else bytes.push_back(char(high * 16 + digit)), high = -1;
  }
  return bytes;
}

/// Written down from the format's description: two fields, a matrix of two rows and a vector.
const std::string golden = from_hex(R"(
  47475546 03000000 0200000000000000 0200000000000000
  0100000000000000 6b 08000000 0200000000000000 6869
  0100000000000000 76 09000000 03000000 0200000000000000 ffff 0201
  0100000000000000 61 02000000 0300000000000000 0200000000000000 00000000 0000000000000000
  0100000000000000 62 01000000 0400000000000000 01000000 2000000000000000
  00000000000000000000
  0000803f 00000040 00004040 00008040 0000a040 0000c040 0000000000000000
  003c 0040 00bc 0038 000000000000000000000000000000000000000000000000)");

GgufMetadata golden_metadata() {
  GgufMetadata metadata;
  metadata.add("k", GgufValue("hi"));
  metadata.add("v", GgufValue(std::vector<std::int16_t>{-1, 258}));
  return metadata;
}

detail::GgufContent parse_gguf(std::string_view content) {
  const auto bytes = test::exact_bytes(content);
  auto parsed = detail::parse_gguf("file", bytes);
  unsigned sum = 0;
  for (const GgufTensor& tensor : parsed.tensors)
    for (const std::byte b : tensor.data)
      sum += unsigned(b);  // what lies outside of the file is seen by a sanitizer
  CHECK(sum < 1u << 31);
  return parsed;
}

Error gguf_error(std::string_view content) {
  const Error error = error_of([&] { parse_gguf(content); });
  CHECK_THAT(error.message(), Contains("file: "));
  return error;
}

/// A tensor's lines in the list.
std::string listed(std::string_view name, std::vector<std::uint64_t> sizes, std::uint32_t type,
                   std::uint64_t offset) {
  std::string text;
  detail::append_text(text, name);
  detail::append_number(text, std::uint32_t(sizes.size()));
  for (const auto size : sizes) detail::append_number(text, size);
  detail::append_number(text, type);
  detail::append_number(text, offset);
  return text;
}

/// A file of these tensors, without fields.
std::string file_of(std::vector<std::string> tensors, std::size_t data_bytes) {
  std::string text =
      "GGUF" + bytes_of<std::uint32_t>({3}) + bytes_of<std::uint64_t>({tensors.size(), 0});
  for (const auto& tensor : tensors) text += tensor;
  text.resize((text.size() + 31) / 32 * 32);
  return text + std::string(data_bytes, 'x');
}

/// Copies a file tensor by tensor.
void copy(const GgufReader& from, const std::string& to) {
  const std::vector<GgufEntry> entries(from.tensors().begin(), from.tensors().end());
  GgufWriter writer(to, from.metadata(), entries);
  for (const GgufTensor& tensor : from.tensors()) {
    writer.write(tensor.name, tensor.data);
    from.release(tensor.name);
  }
  writer.commit();
}

/// Bits of fields that a model's file has, one of every type.
GgufMetadata every_field() {
  GgufMetadata metadata;
  metadata.add("general.architecture", GgufValue("llama"));
  metadata.add("z.u8", GgufValue(std::uint8_t(255)));
  metadata.add("z.i8", GgufValue(std::int8_t(-1)));
  metadata.add("z.u16", GgufValue(std::uint16_t(65535)));
  metadata.add("z.i16", GgufValue(std::int16_t(-1)));
  metadata.add("llama.context_length", GgufValue(std::uint32_t(2048)));
  metadata.add("a.i32", GgufValue(std::int32_t(-1)));
  metadata.add("llama.attention.layer_norm_rms_epsilon", GgufValue(1e-5f));
  metadata.add("flag", GgufValue(true));
  metadata.add("a.u64", GgufValue(~std::uint64_t(0)));
  metadata.add("a.i64", GgufValue(std::int64_t(-1)));
  metadata.add("a.f64", GgufValue(1e300));
  metadata.add("tokenizer.ggml.tokens",
               GgufValue(std::vector<std::string>{"<unk>", "", "\u2581a", "\xff"}));
  metadata.add("tokenizer.ggml.scores", GgufValue(std::vector<float>{0, -1, 2.5f, 1e-30f}));
  metadata.add("flags", GgufValue(std::vector<bool>{true, false}));
  metadata.add("nested", GgufValue(std::vector<std::vector<std::string>>{{"a"}, {}, {"b", "c"}}));
  metadata.add("none", GgufValue(std::vector<std::int64_t>{}));
  metadata.add("empty", GgufValue(""));
  return metadata;
}

}  // namespace

TEST_CASE("the writer makes the file that the format describes") {
  const test::TemporaryDirectory directory;
  const std::vector<GgufEntry> entries{{"a", GgufType::f32, {2, 3}}, {"b", GgufType::f16, {4}}};
  GgufWriter writer(directory / "file", golden_metadata(), entries);
  const std::vector<float> matrix{1, 2, 3, 4, 5, 6};
  const std::vector<fp16> vector{fp16(1), fp16(2), fp16(-1), fp16(0.5f)};
  writer.write("b", std::as_bytes(std::span(vector)));
  writer.write("a", std::as_bytes(std::span(matrix)));
  writer.commit();
  CHECK(directory.read("file") == golden);
}

TEST_CASE("the reader reads the file that the format describes") {
  const test::TemporaryDirectory directory;
  GgufReader first(directory.write("file", golden));
  const GgufReader file(std::move(first));
  CHECK(std::ranges::equal(file.metadata().fields(), golden_metadata().fields()));
  REQUIRE(file.tensors().size() == 2);
  const GgufTensor& a = file.tensor("a");
  CHECK(&a == &file.tensors()[0]);
  CHECK(a.type == GgufType::f32);
  CHECK(a.shape == std::vector<Index>{2, 3});
  CHECK(a.bytes == 24);
  CHECK(TensorView{ScalarType::f32, a.shape, a.data}.matrix()(1, 0) == 4.0f);
  const GgufTensor& b = file.tensor("b");
  CHECK(b.shape == std::vector<Index>{4});
  file.release("b");
  CHECK(detail::as_text(b.data) == golden.substr(192, 8));
  CHECK(file.file_bytes() == 224);
  CHECK(error_of([&] { (void)file.tensor("c"); }).code() == ErrorCode::invalid_argument);
  CHECK(error_of([&] { file.release("c"); }).code() == ErrorCode::invalid_argument);
  CHECK(error_of([&] { GgufReader(directory / "missing"); }).code() == ErrorCode::io);
}

TEST_CASE("a copy has the same bytes, whatever its fields and types are") {
  const test::TemporaryDirectory directory;
  for (const std::uint32_t multiple : {32u, 8u, 1u, 256u}) {
    GgufMetadata metadata = every_field();
    if (multiple != 32) metadata.add("general.alignment", GgufValue(multiple));
    std::vector<GgufEntry> entries;
    for (const auto& info : gguf_types)
      entries.push_back({message("blk.0.", info.name), info.type, {3, 2, info.weights}});
    entries.push_back({"unknown",
                       GgufType(16),
                       {256},
                       66 + (multiple == 1 ? 0 : Index(multiple) - 66 % Index(multiple))});
    entries.push_back({"scalar", GgufType::f32, {}});
    entries.push_back({"empty", GgufType::q8_0, {0, 32}});
    entries.push_back({"rank four", GgufType::f32, {1, 2, 1, 3}});
    const std::string path = directory / message(multiple);
    GgufWriter writer(path, metadata, entries);
    char fill = 1;
    for (const GgufEntry& entry : entries)
      writer.write(
          entry.name,
          test::exact_bytes(std::string(
              std::size_t(detail::gguf_bytes(entry.type, entry.shape).value_or(entry.bytes)),
              fill++)));
    writer.commit();

    const GgufReader file(path);
    CHECK(std::ranges::equal(file.metadata().fields(), metadata.fields()));
    REQUIRE(file.tensors().size() == entries.size());
    fill = 1;
    for (std::size_t i = 0; i < entries.size(); ++i, ++fill) {
      const GgufTensor& tensor = file.tensors()[i];
      INFO(tensor.name);
      CHECK(tensor.name == entries[i].name);
      CHECK(tensor.type == entries[i].type);
      CHECK(tensor.shape == entries[i].shape);
      CHECK(detail::as_text(tensor.data) == std::string(std::size_t(tensor.bytes), fill));
      if (tensor.bytes > 0)
        CHECK(Index(reinterpret_cast<std::uintptr_t>(tensor.data.data()) % multiple) == 0);
    }
    CHECK(file.tensor("blk.0.Q4_K").bytes == 6 * 144);
    CHECK(file.tensor("scalar").bytes == 4);
    copy(file, directory / "copy");
    CHECK(directory.read("copy") == directory.read(message(multiple)));
  }
}

TEST_CASE("bytes of a tensor follow from type and shape") {
  CHECK(detail::gguf_bytes(GgufType::f32, std::vector<Index>{2, 3}) == 24);
  CHECK(detail::gguf_bytes(GgufType::q6_k, std::vector<Index>{2, 3, 512}) == 6 * 2 * 210);
  CHECK(detail::gguf_bytes(GgufType::f16, {}) == 2);
  CHECK_FALSE(detail::gguf_bytes(GgufType::q4_0, {}));
  CHECK_FALSE(detail::gguf_bytes(GgufType::q4_0, std::vector<Index>{32, 33}));
  CHECK_FALSE(detail::gguf_bytes(GgufType::f32, std::vector<Index>{-1, 2}));
  CHECK_FALSE(detail::gguf_bytes(GgufType::f32, std::vector<Index>{2, -1}));
  CHECK_FALSE(
      detail::gguf_bytes(GgufType::f32, std::vector<Index>{Index(1) << 31, Index(1) << 31}));
  CHECK_FALSE(detail::gguf_bytes(GgufType(4), std::vector<Index>{32}));
}

TEST_CASE("files of another kind are refused by what they are") {
  const auto with_version = [](std::string_view version) {
    return "GGUF" + std::string(version) + golden.substr(8);
  };
  CHECK_THAT(gguf_error("GGML" + golden.substr(4)).message(), Contains("does not begin with GGUF"));
  CHECK(gguf_error("GGML" + golden.substr(4)).code() == ErrorCode::corrupt);
  for (const char version : {'\0', '\1', '\2', '\4'}) {
    const Error error = gguf_error(with_version(std::string(1, version) + std::string(3, '\0')));
    CHECK(error.code() == ErrorCode::unsupported);
    CHECK_THAT(error.message(),
               Contains(message("is GGUF version ", int(version), ", expected 3")));
  }
  const Error error = gguf_error(with_version(std::string("\0\0\0\3", 4)));
  CHECK(error.code() == ErrorCode::unsupported);
  CHECK_THAT(error.message(), Contains("big-endian"));
}

TEST_CASE("every beginning of a file is refused") {
  // The padding at the end may be missing.
  test::check_prefixes(std::string_view(golden).substr(0, 200), parse_gguf);
  CHECK(parse_gguf(golden.substr(0, 200)).tensors.size() == 2);
}

TEST_CASE("lengths and counts that a file cannot hold are refused") {
  const auto with = [](std::size_t offset, std::uint64_t value) {
    std::string changed = golden;
    changed.replace(offset, 8, bytes_of<std::uint64_t>({value}));
    return gguf_error(changed);
  };
  for (const std::uint64_t huge :
       {std::uint64_t(1) << 63, ~std::uint64_t(0), (std::uint64_t(1) << 63) - 1,
        std::uint64_t(1) << 61, std::uint64_t(1000)})
    // tensors, fields, a field's name, a string, an array, a tensor's name, both dimensions, an
    // offset
    for (const unsigned offset : {8u, 16u, 24u, 37u, 64u, 76u, 89u, 97u, 109u}) {
      INFO(offset << ", " << huge);
      CHECK(with(offset, huge).code() == ErrorCode::corrupt);
    }
  CHECK_THAT(with(16, 3).message(), Contains("file: "));
  CHECK_THAT(with(142, 0).message(),
             Contains("tensor b starts at byte 0 of the data, inside of the tensor before it, "
                      "which ends at 24"));  // over the other tensor
  CHECK_THAT(with(142, 16).message(), Contains("tensor b starts at byte 16 of the data"));
  CHECK_THAT(with(142, 36).message(), Contains("starts at byte 36 of the data, no multiple of 32"));
  CHECK_THAT(with(142, 64).message(),
             Contains("tensor b starts at byte 64 of the data, which has 64, and takes 8"));
  CHECK_THAT(with(142, 96).message(), Contains("starts at byte 96 of the data, which has 64"));
}

TEST_CASE("tensors that the format does not allow are refused") {
  const auto refused = [](std::vector<std::string> tensors, std::size_t data_bytes = 64) {
    const Error error = gguf_error(file_of(std::move(tensors), data_bytes));
    CHECK(error.code() == ErrorCode::corrupt);
    return error.message();
  };
  CHECK(parse_gguf(file_of({listed("a", {16}, 0, 0)}, 64)).tensors.size() == 1);
  CHECK(parse_gguf(file_of({listed(std::string(63, 'n'), {16}, 0, 0)}, 64)).tensors.size() == 1);
  CHECK_THAT(refused({listed(std::string(64, 'n'), {16}, 0, 0)}),
             Contains("has a name of 64 bytes"));
  CHECK_THAT(refused({listed("", {16}, 0, 0)}), Contains("has a name of 0 bytes"));
  CHECK_THAT(refused({listed("a", {1, 1, 1, 1, 16}, 0, 0)}), Contains("has 5 dimensions"));
  CHECK_THAT(
      refused({listed("a", {16}, 0, 0).replace(9, 4, bytes_of<std::uint32_t>({0xffffffffu}))}),
      Contains("beyond the end"));
  CHECK_THAT(refused({listed("a", {17}, 0, 0)}), Contains("which has 64, and takes 68"));
  CHECK_THAT(refused({listed("a", {33}, 2, 0)}), Contains("rows that are no whole Q4_0 blocks"));
  CHECK_THAT(refused({listed("a", {}, 2, 0)}), Contains("no whole Q4_0 blocks"));
  CHECK_THAT(refused({listed("a", {32}, 12, 0)}), Contains("no whole Q4_K blocks"));
  for (const std::uint64_t huge : {std::uint64_t(1) << 31, std::uint64_t(1) << 32,
                                   std::uint64_t(1) << 40, std::uint64_t(1) << 62})
    refused({listed("a", {huge, huge}, 0, 0)});
  refused({listed("a", {std::uint64_t(1) << 32, std::uint64_t(1) << 31, 2, 1}, 1, 0)});
  CHECK_THAT(refused({listed("a", {8}, 0, 0), listed("a", {8}, 0, 32)}),
             Contains("tensor a appears twice"));
  CHECK_THAT(refused({listed("a", {9}, 0, 0), listed("b", {4}, 0, 32)}),
             Contains("which ends at 36"));
  CHECK_THAT(refused({listed("a", {8}, 0, 32), listed("b", {8}, 0, 0)}),
             Contains("tensor b starts at byte 0"));
  CHECK_THAT(refused({listed("a", {8}, 0, 0)}, 0), Contains("which has 0, and takes 32"));
}

TEST_CASE("types that are not known are listed with all that may be theirs") {
  const auto content = parse_gguf(file_of(
      {listed("a", {256}, 16, 0), listed("b", {8}, 0, 32), listed("c", {1}, 0xffffffffu, 64)}, 70));
  CHECK(content.tensors.at("a").bytes == 32);
  CHECK(std::uint32_t(content.tensors.at("a").type) == 16);
  CHECK(content.tensors.at("c").bytes == 6);
  CHECK(std::uint32_t(content.tensors.at("c").type) == 0xffffffffu);
  CHECK(gguf_error(file_of({listed("a", {256}, 16, 32), listed("b", {8}, 0, 0)}, 64)).code() ==
        ErrorCode::corrupt);
}

TEST_CASE("fields that the format does not allow are refused") {
  const auto file_with = [](std::vector<std::pair<std::string, GgufValue>> fields) {
    std::string text =
        "GGUF" + bytes_of<std::uint32_t>({3}) + bytes_of<std::uint64_t>({0, fields.size()});
    for (const auto& [name, value] : fields) {
      detail::append_text(text, name);
      detail::append_number(text, value.type());
      text += value.encoded();
    }
    return text;
  };
  CHECK(parse_gguf(file_with({{"a", GgufValue(1.0)}, {"b", GgufValue(1.0)}}))
            .metadata.fields()
            .size() == 2);
  CHECK_THAT(gguf_error(file_with({{"a", GgufValue(1.0)}, {"a", GgufValue(true)}})).message(),
             Contains("field a appears twice"));
  CHECK_THAT(gguf_error(file_with({{"", GgufValue(1.0)}})).message(),
             Contains("field 0 has a name of 0 bytes"));
  CHECK(
      parse_gguf(file_with({{std::string(65535, 'n'), GgufValue(1.0)}})).metadata.fields().size() ==
      1);
  CHECK_THAT(gguf_error(file_with({{std::string(65536, 'n'), GgufValue(1.0)}})).message(),
             Contains("65536"));
  for (const GgufValue& bad :
       {GgufValue(0u), GgufValue(33u), GgufValue(32), GgufValue(std::uint64_t(32)), GgufValue("32"),
        GgufValue(32.0f), GgufValue(1u << 31)})
    CHECK_THAT(gguf_error(file_with({{"general.alignment", bad}})).message(),
               Contains("general.alignment is not a power of two up to 1048576"));
  CHECK_NOTHROW(parse_gguf(file_with({{"general.alignment", GgufValue(1u << 20)}})));
}

TEST_CASE("thousands of damaged files are read or refused") {
  const test::TemporaryDirectory directory;
  const std::vector<GgufEntry> entries{
      {"a", GgufType::q4_0, {2, 64}}, {"b", GgufType::f32, {3}}, {"c", GgufType(16), {256}, 66}};
  GgufWriter writer(directory / "file", every_field(), entries);
  for (const GgufEntry& entry : entries)
    writer.write(entry.name,
                 test::exact_bytes(std::string(
                     std::size_t(detail::gguf_bytes(entry.type, entry.shape).value_or(66)), 'x')));
  writer.commit();
  const std::string content = directory.read("file");
  for (const std::string& file : {content, golden}) {
    const int accepted = test::check_bit_flips(file, 5000, 3, parse_gguf);
    CHECK(accepted > 100);
    CHECK(accepted < 4900);
  }
  test::check_prefixes(std::string_view(content).substr(0, content.size() - 130), parse_gguf);
}

TEST_CASE("what GGUF cannot hold is refused by the writer") {
  const test::TemporaryDirectory directory;
  const auto refused = [&](std::vector<GgufEntry> entries, const GgufMetadata& metadata = {}) {
    const Error error = error_of([&] { GgufWriter(directory / "file", metadata, entries); });
    CHECK(error.code() == ErrorCode::invalid_argument);
    CHECK(directory.names().empty());
    return error.message();
  };
  CHECK(refused({{std::string(64, 'n'), GgufType::f32, {1}}}) ==
        message("tensor ", std::string(64, 'n'), " has a name of 64 bytes"));
  CHECK_THAT(refused({{"a", GgufType::q4_0, {33}}}), Contains("no whole Q4_0 blocks"));
  CHECK_THAT(refused({{"a", GgufType::q4_0, {}}}), Contains("tensor a"));
  CHECK_THAT(refused({{"a", GgufType::f32, {-1}}}), Contains("negative dimension"));
  CHECK_THAT(refused({{"a", GgufType::f32, {1, 1, 1, 1, 1}}}), Contains("5 dimensions"));
  CHECK_THAT(refused({{"a", GgufType::f32, {1}}, {"a", GgufType::f32, {1}}}),
             Contains("declared twice"));
  CHECK_THAT(refused({{"a", GgufType(4), {1}, -5}}), Contains("-5 bytes"));
  GgufMetadata metadata;
  metadata.add("general.alignment", GgufValue(std::uint32_t(48)));
  CHECK_THAT(refused({}, metadata), Contains("general.alignment"));
  GgufMetadata unnamed;
  unnamed.add("", GgufValue(true));
  CHECK_THAT(refused({}, unnamed), Contains("name of 0 bytes"));
  CHECK_THAT(test::error_on_full_disk(100,
                                      [&] {
                                        GgufWriter(
                                            directory / "file", golden_metadata(),
                                            std::vector<GgufEntry>{{"a", GgufType::f32, {1000}}});
                                      }),
             Contains("cannot write"));
  CHECK(directory.names().empty());
}

TEST_CASE("a file without tensors ends with its padding") {
  const test::TemporaryDirectory directory;
  GgufWriter(directory / "file", {}, {}).commit();
  CHECK(directory.read("file") == "GGUF" + bytes_of<std::uint32_t>({3, 0, 0, 0, 0, 0, 0}));
  CHECK(GgufReader(directory / "file").tensors().empty());
}
