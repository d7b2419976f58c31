/// Reader and writer of llama2.c checkpoints: a Llama model in fp32, its tensors one after the
/// other in an order that the header fixes.
///
/// Version 0: seven i32 — width, width of the MLP, layers, heads, key/value heads, vocabulary
/// (negative where the classifier has weights of its own), context — then embedding; of all layers
/// in turn attention norm, wq, wk, wv, wo, MLP norm, w1, w2, w3; norm; cosines and sines of the
/// positions; classifier. Version 1: u32 "ak42", i32 1, the same seven, u8 whether the classifier
/// is the embedding, zeros up to byte 256; then attention norms, MLP norms, norm, embedding, wq,
/// wk, wv, wo, w1, w2, w3, classifier. Version 2 holds 8-bit codes and is refused.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "cafeq/io/byte_cursor.hpp"
#include "cafeq/io/file.hpp"
#include "cafeq/io/named_list.hpp"
#include "cafeq/io/tensor_file_writer.hpp"
#include "cafeq/model/tensor.hpp"

namespace cafeq {

/// The sizes of a model.
struct Llama2cHeader {
  int version = 0;
  Index hidden = 0;
  Index intermediate = 0;
  Index layers = 0;
  Index heads = 0;
  Index kv_heads = 0;
  Index vocabulary = 0;
  Index context = 0;
  bool tied_embeddings = true;

  Index head_dim() const noexcept { return hidden / heads; }
  bool operator==(const Llama2cHeader&) const = default;
};

/// A tensor of a checkpoint, named as in those of Meta: layers.0.attention.wq.weight [out, in] and
/// so on. The tables of positions of version 0 are freq_cis_real and freq_cis_imag.
struct Llama2cTensor {
  std::string name;
  TensorView view;
};

/// A mapped checkpoint, its tensors as views of its pages.
class Llama2cReader {
 public:
  /// Raises io for a file that cannot be read, unsupported for version 2 and later, corrupt where
  /// header and size contradict each other.
  explicit Llama2cReader(const std::string& path);

  const Llama2cHeader& header() const noexcept { return header_; }
  /// In the file's order.
  std::span<const Llama2cTensor> tensors() const noexcept { return tensors_.items(); }
  /// Raises where there is none of that name.
  const Llama2cTensor& tensor(std::string_view name) const { return tensors_.at(name); }
  /// Lets the tensor's pages leave memory until they are touched again.
  void release(std::string_view name) const { file_.release(tensor(name).view.bytes); }
  Index file_bytes() const noexcept { return Index(file_.bytes().size()); }

 private:
  MappedFile file_;
  Llama2cHeader header_;
  detail::NamedList<Llama2cTensor> tensors_;
};

/// Writes a checkpoint: all tensors that a reader lists for such a header, with the same names.
class Llama2cWriter : public TensorFileWriter {
 public:
  /// Raises invalid_argument for sizes that no checkpoint has.
  Llama2cWriter(const std::string& path, const Llama2cHeader& header)
      : TensorFileWriter(path, layout(header)) {}

 private:
  static Layout layout(const Llama2cHeader& header);
};

namespace detail {

inline constexpr std::uint32_t llama2c_magic = 0x616b3432;  // "ak42"
inline constexpr std::size_t llama2c_header_bytes = 256;    // of version 1

/// Why no model has these sizes; empty where one may have them.
inline std::string llama2c_problem(const Llama2cHeader& h) {
  for (const Index size :
       {h.hidden, h.intermediate, h.layers, h.heads, h.kv_heads, h.vocabulary, h.context})
    if (size <= 0 || size > std::numeric_limits<std::int32_t>::max())
      return message("has a size of ", size);
  if (h.hidden % h.heads != 0 || h.head_dim() % 2 != 0)
    return message("has ", h.heads, " heads in a width of ", h.hidden);
  if (h.heads % h.kv_heads != 0)
    return message("has ", h.kv_heads, " key/value heads for ", h.heads, " heads");
  return {};
}

/// Reads the seven sizes, which are not checked.
inline Llama2cHeader read_llama2c_sizes(ByteCursor& cursor) {
  Llama2cHeader h;
  for (Index* size :
       {&h.hidden, &h.intermediate, &h.layers, &h.heads, &h.kv_heads, &h.vocabulary, &h.context})
    *size = cursor.number<std::int32_t>("the header");
  return h;
}

inline Llama2cHeader read_llama2c_header(ByteCursor& cursor) {
  ByteCursor after_magic = cursor;
  const bool magic = after_magic.number<std::uint32_t>("the header") == llama2c_magic;
  Llama2cHeader h;
  if (magic) {
    const auto version = after_magic.number<std::int32_t>("the version");
    if (version != 1)
      raise(ErrorCode::unsupported, message(cursor.file(), ": is a llama2.c checkpoint of version ",
                                            version, ", only 0 and 1 hold floats"));
    h = read_llama2c_sizes(after_magic);
    h.version = version;
    h.tied_embeddings = after_magic.number<std::uint8_t>("the header") != 0;
    cursor.take(llama2c_header_bytes, "the header");
  } else {
    h = read_llama2c_sizes(cursor);
    h.tied_embeddings = h.vocabulary > 0;
    h.vocabulary = std::abs(h.vocabulary);
  }
  if (const std::string problem = llama2c_problem(h); !problem.empty())
    cursor.fail(message("is no llama2.c checkpoint: ", problem));
  return h;
}

/// A tensor that a model has once, or the same tensor of all layers, one after the other.
struct Llama2cSeries {
  std::string_view name;
  std::vector<Index> shape;
  bool layered = true;
};

/// All tensors that a file has, in its order.
inline std::vector<Llama2cSeries> llama2c_tensors(const Llama2cHeader& h) {
  const Index kv = h.kv_heads * h.head_dim();
  const std::vector<Llama2cSeries> attention{{"attention.wq.weight", {h.hidden, h.hidden}},
                                             {"attention.wk.weight", {kv, h.hidden}},
                                             {"attention.wv.weight", {kv, h.hidden}},
                                             {"attention.wo.weight", {h.hidden, h.hidden}}};
  const std::vector<Llama2cSeries> mlp{{"feed_forward.w1.weight", {h.intermediate, h.hidden}},
                                       {"feed_forward.w2.weight", {h.hidden, h.intermediate}},
                                       {"feed_forward.w3.weight", {h.intermediate, h.hidden}}};
  const Llama2cSeries attention_norm{"attention_norm.weight", {h.hidden}};
  const Llama2cSeries mlp_norm{"ffn_norm.weight", {h.hidden}};
  const Llama2cSeries norm{.name = "norm.weight", .shape = {h.hidden}, .layered = false};
  const Llama2cSeries embedding{
      .name = "tok_embeddings.weight", .shape = {h.vocabulary, h.hidden}, .layered = false};

  std::vector<Llama2cSeries> all;
  const auto add = [&](const auto& more) { all.insert(all.end(), more.begin(), more.end()); };
  if (h.version == 0) {
    all = {embedding, attention_norm};
    add(attention);
    all.push_back(mlp_norm);
    add(mlp);
    all.push_back(norm);
    for (const char* table : {"freq_cis_real", "freq_cis_imag"})
      all.push_back({.name = table, .shape = {h.context, h.head_dim() / 2}, .layered = false});
  } else {
    all = {attention_norm, mlp_norm, norm, embedding};
    add(attention);
    add(mlp);
  }
  if (!h.tied_embeddings)
    all.push_back({.name = "output.weight", .shape = embedding.shape, .layered = false});
  return all;
}

/// The bytes of all tensors, or nothing where the number does not fit an Index.
inline std::optional<Index> llama2c_bytes(const Llama2cHeader& h) {
  Index total = 0;
  for (const auto& series : llama2c_tensors(h)) {
    auto bytes = byte_count(ScalarType::f32, series.shape);
    if (!bytes || __builtin_mul_overflow(*bytes, series.layered ? h.layers : 1, &*bytes) ||
        __builtin_add_overflow(total, *bytes, &total))
      return std::nullopt;
  }
  return total;
}

/// f(name, shape, bytes) for every tensor in the file's order.
template <class F>
void for_each_llama2c_tensor(const Llama2cHeader& h, F&& f) {
  for (const auto& series : llama2c_tensors(h))
    for (Index layer = 0; layer < (series.layered ? h.layers : 1); ++layer)
      f(series.layered ? message("layers.", layer, ".", series.name) : std::string(series.name),
        series.shape, *byte_count(ScalarType::f32, series.shape));
}

/// What a file holds.
struct Llama2cContent {
  Llama2cHeader header;
  NamedList<Llama2cTensor> tensors{};
};

inline Llama2cContent parse_llama2c(const std::string& path, std::span<const std::byte> file) {
  ByteCursor cursor(path, file);
  Llama2cContent content{read_llama2c_header(cursor)};
  const auto bytes = llama2c_bytes(content.header);
  if (!bytes || std::size_t(*bytes) != cursor.remaining())
    cursor.fail(message("has ", cursor.remaining(),
                        " bytes of tensors, a llama2.c checkpoint of its sizes has ",
                        bytes ? message(*bytes) : "far more"));
  for_each_llama2c_tensor(content.header, [&](std::string name, const std::vector<Index>& shape,
                                              Index size) {
    content.tensors.add(
        {std::move(name), {ScalarType::f32, shape, cursor.take(std::uint64_t(size), "a tensor")}});
  });
  return content;
}

}  // namespace detail

inline Llama2cReader::Llama2cReader(const std::string& path) : file_(path) {
  auto content = detail::parse_llama2c(path, file_.bytes());
  header_ = content.header;
  tensors_ = std::move(content.tensors);
}

inline TensorFileWriter::Layout Llama2cWriter::layout(const Llama2cHeader& h) {
  if (h.version != 0 && h.version != 1)
    raise(ErrorCode::invalid_argument,
          message("header: version ", h.version, " is neither 0 nor 1"));
  if (const std::string problem = detail::llama2c_problem(h); !problem.empty())
    raise(ErrorCode::invalid_argument, message("header: ", problem));
  if (!detail::llama2c_bytes(h))
    raise(ErrorCode::invalid_argument, "header: the tensors are too large");

  Layout layout;
  if (h.version == 1) {
    detail::append_number(layout.header, detail::llama2c_magic);
    detail::append_number(layout.header, std::int32_t(h.version));
  }
  const Index vocabulary = h.version == 0 && !h.tied_embeddings ? -h.vocabulary : h.vocabulary;
  for (const Index size :
       {h.hidden, h.intermediate, h.layers, h.heads, h.kv_heads, vocabulary, h.context})
    detail::append_number(layout.header, std::int32_t(size));
  if (h.version == 1) {
    detail::append_number(layout.header, std::uint8_t(h.tied_embeddings));
    layout.header.resize(detail::llama2c_header_bytes);
  }

  detail::for_each_llama2c_tensor(
      h, [&](const std::string& name, const auto&, Index bytes) { layout.append(name, bytes); });
  return layout;
}

}  // namespace cafeq
