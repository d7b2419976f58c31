/// A tokenizer.json of transformers with byte-pair encoding: its tokens, its merges, and the parts
/// that say how a text is prepared for them.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "cafeq/io/json.hpp"
#include "cafeq/io/tokenizer_companions.hpp"
#include "cafeq/io/vocabulary.hpp"

namespace cafeq::detail {

/// No vocabulary has as many tokens.
inline constexpr Index token_limit = Index(1) << 24;

class TokenizerFile {
 public:
  /// Errors name `file`: corrupt for what is no JSON, unsupported for a tokenizer of another kind.
  TokenizerFile(std::string_view content, std::string_view file);
  TokenizerFile(const TokenizerFile&) = delete;
  TokenizerFile& operator=(const TokenizerFile&) = delete;

  /// The member "model", which holds tokens and merges.
  const Json& model() const noexcept { return *model_; }
  /// The member of that name, or each item of its `list` where it is a sequence of several; none
  /// where it is null or missing.
  std::vector<const Json*> parts(const char* name, const char* list) const;

  /// Tokens with their types, also those that were added to the model's own, and merges. Ids
  /// between that the file lacks become unused ones.
  void read_tokens(Vocabulary& vocabulary) const;
  void read_merges(Vocabulary& vocabulary) const;

  /// The file contradicts itself, or asks for what is not known.
  [[noreturn]] void fail(std::string_view problem) const {
    raise(ErrorCode::corrupt, message(file_, ": ", problem));
  }
  [[noreturn]] void refuse(std::string_view problem) const {
    raise(ErrorCode::unsupported, message(file_, ": ", problem));
  }

 private:
  void read_added_tokens(Vocabulary& vocabulary) const;
  Index id_of(const std::string& token, const Json& id) const;

  std::string file_;
  Json root_;
  const Json* model_;
};

/// What a part of a tokenizer is, by its own word; empty where it does not say.
inline std::string_view type_of_part(const Json& part) {
  const std::string* type = find_string(part, "type");
  return type == nullptr ? std::string_view() : *type;
}

/// "left right". Raises corrupt where they could not be told apart again.
inline std::string joined_merge(std::string_view left, std::string_view right,
                                std::string_view file) {
  if (left.empty() || right.empty() || left.find(' ') != left.npos || right.find(' ') != left.npos)
    raise(ErrorCode::corrupt,
          message(file, ": merge '", left, "' '", right, "' is not one of two pieces"));
  return message(left, " ", right);
}

inline TokenizerFile::TokenizerFile(std::string_view content, std::string_view file)
    : file_(file), root_(parse_json(content, file)), model_(find_member(root_, "model")) {
  if (model_ == nullptr) fail("has no model");
  if (const std::string* type = find_string(*model_, "type"); type != nullptr && *type != "BPE")
    refuse(message("its model is ", *type, "; only BPE is known"));
  for (const char* name : {"continuing_subword_prefix", "end_of_word_suffix"})
    if (const std::string* affix = find_string(*model_, name); affix != nullptr && !affix->empty())
      refuse(message("its model has the ", name, " ", *affix, ", which is not known"));
}

inline Index TokenizerFile::id_of(const std::string& token, const Json& id) const {
  const auto number = to_size(id);
  if (!number) fail(message("token ", token, " has the id ", printable(id)));
  if (*number >= token_limit)
    fail(message("token ", token, " has the id ", *number, ", which no vocabulary reaches"));
  return *number;
}

inline void TokenizerFile::read_tokens(Vocabulary& vocabulary) const {
  const Json* tokens = find_member(*model_, "vocab");
  if (tokens == nullptr || !tokens->is_object()) fail("has no object vocab");
  const bool bytes = flag_of(*model_, "byte_fallback", false);
  for (const auto& item : tokens->items())
    set_token(vocabulary, id_of(item.key(), item.value()), item.key(),
              bytes && byte_of_piece(item.key()) ? TokenType::byte : TokenType::normal);
  read_added_tokens(vocabulary);

  const std::string* unknown = find_string(*model_, "unk_token");
  const Json* id = unknown == nullptr ? nullptr : find_member(*tokens, unknown->c_str());
  if (id == nullptr) return;
  vocabulary.unknown = id_of(*unknown, *id);
  vocabulary.types[std::size_t(*vocabulary.unknown)] = TokenType::unknown;
}

inline void TokenizerFile::read_added_tokens(Vocabulary& vocabulary) const {
  const Json* added = find_member(root_, "added_tokens");
  if (added == nullptr) return;
  for (const Json& entry : *added) {
    const std::string* content = find_string(entry, "content");
    const Json* id = find_member(entry, "id");
    if (content == nullptr || content->empty() || id == nullptr)
      fail(message("an added token is ", printable(entry)));
    if (flag_of(entry, "single_word", false))
      refuse(message("token ", *content, " is found as a single word only, which is not known"));

    const Index number = id_of(*content, *id);
    set_token(vocabulary, number, *content,
              flag_of(entry, "special", false) ? TokenType::control : TokenType::user_defined);
    if (flag_of(entry, "lstrip", false)) vocabulary.strip_left.push_back(number);
    if (flag_of(entry, "rstrip", false)) vocabulary.strip_right.push_back(number);
  }
}

inline std::vector<const Json*> TokenizerFile::parts(const char* name, const char* list) const {
  const Json* member = find_member(root_, name);
  if (member == nullptr || member->is_null()) return {};
  const Json* items = type_of_part(*member) == "Sequence" ? find_member(*member, list) : nullptr;
  if (items == nullptr) return {member};

  std::vector<const Json*> all;
  for (const Json& item : *items) all.push_back(&item);
  return all;
}

inline void TokenizerFile::read_merges(Vocabulary& vocabulary) const {
  const Json* list = find_member(*model_, "merges");
  if (list == nullptr || !list->is_array()) fail("has no array merges");

  // Older files have a merge as one string with a space in it, newer ones as an array of two.
  for (const Json& merge : *list) {
    const auto* both = merge.get_ptr<const std::string*>();
    const std::size_t space = both == nullptr ? std::string::npos : both->find(' ');
    if (space != std::string::npos)
      vocabulary.merges.push_back(joined_merge(std::string_view(*both).substr(0, space),
                                               std::string_view(*both).substr(space + 1), file_));
    else if (merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string())
      vocabulary.merges.push_back(joined_merge(merge[0].get_ref<const std::string&>(),
                                               merge[1].get_ref<const std::string&>(), file_));
    else fail(message("merge ", printable(merge), " is not one of two pieces"));
  }
}

}  // namespace cafeq::detail
