/// Vocabularies in the metadata of GGUF files, as llama.cpp finds them there.
///
/// Not everything that a Vocabulary says has a field there. What changes the tokens of plain text
/// is refused where it is written. Around control and user-defined tokens llama.cpp has ways of its
/// own: a space prefix is for all or for none, and spaces stay (strip_left, strip_right).
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "cafeq/io/end_tokens.hpp"
#include "cafeq/io/gguf_metadata.hpp"
#include "cafeq/io/piece_scores.hpp"
#include "cafeq/io/vocabulary.hpp"

namespace cafeq::detail {

/// Of the fields tokenizer.*; nothing where there are none. Errors name `file`: corrupt, and
/// unsupported for vocabularies of other kinds.
inline std::optional<Vocabulary> vocabulary_from_gguf(const GgufMetadata& metadata,
                                                      std::string_view file);

/// Adds these fields, with unused tokens up to `size`. Errors name `file`: unsupported for what
/// llama.cpp does not do; corrupt where a token appears twice, since llama.cpp finds them by their
/// text; invalid_argument for more tokens than `size`.
inline void add_vocabulary(GgufMetadata& metadata, Vocabulary vocabulary, Index size,
                           std::string_view file);

/// The kinds that are read and written.
struct GgufKind {
  std::string_view model;
  VocabularyKind kind;
};
inline constexpr std::array gguf_kinds{
    GgufKind{"gpt2", VocabularyKind::byte_level}, GgufKind{"llama", VocabularyKind::pieces},
    GgufKind{"t5", VocabularyKind::unigram}, GgufKind{"gemma4", VocabularyKind::pieces}};

/// Whether llama.cpp takes cut pieces that are tokens without merging, where texts are cut so.
inline bool ignores_merges(std::string_view pre) noexcept {
  constexpr std::array<std::string_view, 10> names{"llama-bpe", "llama3",  "llama-v3", "falcon3",
                                                   "falcon-h1", "pixtral", "midm-2.0", "lfm2",
                                                   "tekken",    "minicpm5"};
  return std::find(names.begin(), names.end(), pre) != names.end();
}

/// One vocabulary as it is read.
class GgufVocabulary {
 public:
  GgufVocabulary(const GgufMetadata& metadata, std::string_view file)
      : metadata_(metadata), file_(file) {}

  Vocabulary read(std::string_view model, VocabularyKind kind) {
    vocabulary_.kind = kind;
    vocabulary_.pre = kind == VocabularyKind::byte_level ? string("pre", "")
                      : model == "gemma4"                ? "gemma4"
                                                         : "default";
    vocabulary_.ignore_merges =
        kind == VocabularyKind::byte_level && ignores_merges(vocabulary_.pre);
    read_tokens();
    read_roles(model);
    if (model == "llama") set_prefix(true);
    if (model == "t5") {
      set_prefix(false);
      vocabulary_.remove_extra_spaces = flag("remove_extra_whitespaces", false);
    }

    for (const char* name : {"eos_token_id", "eot_token_id", "eom_token_id"})
      if (const auto id = role(name, -1)) add_end(vocabulary_, *id);
    add_named_ends(vocabulary_);
    vocabulary_.chat_template =
        metadata_.get<std::string_view>("tokenizer.chat_template").value_or("");
    return std::move(vocabulary_);
  }

 private:
  void read_tokens() {
    const auto tokens = list<std::string_view>("tokens");
    if (tokens.empty()) fail("tokens is no array of strings");
    vocabulary_.tokens.assign(tokens.begin(), tokens.end());
    const auto types = list<Index>("token_type");
    for (const Index type : types)
      vocabulary_.types.push_back(type < 1 || type > 6 ? TokenType::unused : TokenType(type));
    if (types.empty()) vocabulary_.types.assign(tokens.size(), TokenType::normal);
    for (const double score : list<double>("scores")) vocabulary_.scores.push_back(float(score));
    for (const auto merge : list<std::string_view>("merges"))
      vocabulary_.merges.emplace_back(merge);

    if (vocabulary_.types.size() != tokens.size())
      fail("token_type has another length than tokens");
    if (!vocabulary_.scores.empty() && vocabulary_.scores.size() != tokens.size())
      fail("scores has another length than tokens");
    const bool ranked =
        vocabulary_.kind == VocabularyKind::byte_level || vocabulary_.pre == "gemma4";
    if (ranked && metadata_.find("tokenizer.ggml.merges") == nullptr) fail("merges is missing");
    // Some writers give every token a score of 0.
    if (ranked) vocabulary_.scores.clear();
    else vocabulary_.merges.clear();
    if (!ranked && vocabulary_.scores.empty()) fail("scores is no array of numbers");
  }

  void read_roles(std::string_view model) {
    // What llama.cpp takes where the file does not say.
    const bool llama = model == "llama", t5 = model == "t5";
    vocabulary_.begin = role("bos_token_id", llama ? 1 : -1);
    vocabulary_.end = role("eos_token_id", llama ? 2 : t5 ? 1 : -1);
    vocabulary_.unknown = role("unknown_token_id", llama ? 0 : t5 ? 2 : -1);
    vocabulary_.padding = role("padding_token_id", t5 ? 0 : -1);
    vocabulary_.add_begin =
        vocabulary_.begin &&
        (model == "gemma4" || flag("add_bos_token", llama || vocabulary_.ignore_merges));
    vocabulary_.add_end = vocabulary_.end && flag("add_eos_token", t5);
  }

  void set_prefix(bool otherwise) {
    if (flag("add_space_prefix", otherwise)) vocabulary_.space_prefix = SpacePrefix::all;
  }

  template <class T>
  std::vector<T> list(std::string_view name) const {
    const GgufValue* value = metadata_.find(message("tokenizer.ggml.", name));
    if (value == nullptr) return {};
    auto items = value->to<std::vector<T>>();
    if (!items) fail(message(name, " is an array of something else"));
    return std::move(*items);
  }
  std::string string(std::string_view name, std::string_view otherwise) const {
    return std::string(
        metadata_.get<std::string_view>(message("tokenizer.ggml.", name)).value_or(otherwise));
  }
  bool flag(std::string_view name, bool otherwise) const {
    return metadata_.get<bool>(message("tokenizer.ggml.", name)).value_or(otherwise);
  }
  std::optional<Index> role(std::string_view name, Index otherwise) const {
    const Index id = metadata_.get<Index>(message("tokenizer.ggml.", name)).value_or(otherwise);
    if (id < 0 || id >= Index(vocabulary_.tokens.size())) return std::nullopt;
    return id;
  }

  [[noreturn]] void fail(std::string_view problem) const {
    raise(ErrorCode::corrupt, message(file_, ": tokenizer.ggml.", problem));
  }

  const GgufMetadata& metadata_;
  std::string_view file_;
  Vocabulary vocabulary_;
};

inline std::optional<Vocabulary> vocabulary_from_gguf(const GgufMetadata& metadata,
                                                      std::string_view file) {
  const auto model = metadata.get<std::string_view>("tokenizer.ggml.model").value_or("no_vocab");
  if (model == "no_vocab" || model == "none") return std::nullopt;
  std::string known;
  for (const auto& [name, kind] : gguf_kinds) {
    if (name == model) return GgufVocabulary(metadata, file).read(name, kind);
    known += message(known.empty() ? "" : ", ", name);
  }
  raise(ErrorCode::unsupported, message(file, ": vocabularies of the kind ", model,
                                        " are not known; those that are: ", known));
}

/// Raises unsupported for what changes tokens and has no field.
inline void check_expressible(const Vocabulary& vocabulary, std::string_view file) {
  const auto refuse = [&](std::string_view what) {
    raise(ErrorCode::unsupported, message(file, ": ", what));
  };
  const bool byte_level = vocabulary.kind == VocabularyKind::byte_level;
  if (byte_level && vocabulary.ignore_merges != ignores_merges(vocabulary.pre))
    refuse(message("texts are cut as llama.cpp does for ", vocabulary.pre, ", but pieces that are ",
                   "tokens are ", vocabulary.ignore_merges ? "not " : "", "merged"));
  if (vocabulary.kind == VocabularyKind::pieces && vocabulary.remove_extra_spaces)
    refuse("llama.cpp keeps several spaces, of which one is to stay");
  if (vocabulary.kind != VocabularyKind::unigram) return;
  if (std::find(vocabulary.types.begin(), vocabulary.types.end(), TokenType::byte) !=
      vocabulary.types.end())
    refuse("llama.cpp does not use the bytes of a unigram vocabulary");
}

inline void add_vocabulary(GgufMetadata& metadata, Vocabulary vocabulary, Index size,
                           std::string_view file) {
  if (Index(vocabulary.tokens.size()) > size)
    raise(ErrorCode::invalid_argument,
          message(file, ": has ", vocabulary.tokens.size(), " tokens, the model ", size));
  check_expressible(vocabulary, file);
  const bool byte_level = vocabulary.kind == VocabularyKind::byte_level;
  const bool gemma4 = !byte_level && vocabulary.pre == "gemma4";
  if (vocabulary.kind == VocabularyKind::pieces && vocabulary.scores.empty() && !gemma4)
    set_scores(vocabulary, file);
  for (Index id = Index(vocabulary.tokens.size()); id < size; ++id)
    set_token(vocabulary, id, message("[PAD", id, "]"), TokenType::unused);
  if (!vocabulary.scores.empty()) vocabulary.scores.resize(vocabulary.tokens.size());

  std::map<std::string_view, std::size_t> ids;
  std::vector<std::int32_t> types;
  for (std::size_t id = 0; id < vocabulary.tokens.size(); ++id) {
    types.push_back(std::int32_t(vocabulary.types[id]));
    // llama.cpp finds these ahead of making spaces visible.
    if (!byte_level && vocabulary.types[id] == TokenType::user_defined)
      vocabulary.tokens[id] = replaced(vocabulary.tokens[id], visible_space, " ");
    if (const auto [first, is_new] = ids.emplace(vocabulary.tokens[id], id); !is_new)
      raise(ErrorCode::corrupt, message(file, ": tokens ", first->second, " and ", id,
                                        " have the same text, which GGUF does not allow"));
  }

  const auto add = [&](std::string_view name, const auto& value) {
    metadata.add(message("tokenizer.ggml.", name), GgufValue(value));
  };
  const bool unigram = vocabulary.kind == VocabularyKind::unigram;
  add("model", gemma4 ? "gemma4" : byte_level ? "gpt2" : unigram ? "t5" : "llama");
  add("pre", vocabulary.pre);
  add("tokens", vocabulary.tokens);
  add("token_type", types);
  if (!vocabulary.scores.empty()) add("scores", vocabulary.scores);
  if (byte_level || gemma4) add("merges", vocabulary.merges);

  const auto add_id = [&](std::string_view name, std::optional<Index> id) {
    if (id) add(name, std::uint32_t(*id));
  };
  add_id("bos_token_id", vocabulary.begin);
  add_id("eos_token_id", vocabulary.end);
  add_id("unknown_token_id", vocabulary.unknown);
  add_id("padding_token_id", vocabulary.padding);
  // Those that llama.cpp does not know by name.
  std::vector<Index> ends = vocabulary.ends;
  std::erase_if(ends, [&](Index id) {
    return id == vocabulary.end || is_end_name(vocabulary.tokens[std::size_t(id)]);
  });
  if (!ends.empty()) add_id("eot_token_id", ends[0]);
  if (ends.size() > 1) add_id("eom_token_id", ends[1]);

  add("add_bos_token", vocabulary.add_begin);
  if (vocabulary.add_end || unigram) add("add_eos_token", vocabulary.add_end);
  if (!byte_level) add("add_space_prefix", vocabulary.space_prefix != SpacePrefix::none);
  if (unigram) add("remove_extra_whitespaces", vocabulary.remove_extra_spaces);
  if (!vocabulary.chat_template.empty())
    metadata.add("tokenizer.chat_template", GgufValue(vocabulary.chat_template));
}

}  // namespace cafeq::detail
