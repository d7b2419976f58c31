/// A tokenizer.json of transformers with byte-pair encoding: its tokens, its merges, and the parts
/// that say how a text is prepared for them.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "cafeq/io/gguf_vocabulary.hpp"
#include "cafeq/io/json.hpp"

namespace cafeq::detail {

class TokenizerFile {
 public:
  using Merge = std::pair<std::string_view, std::string_view>;

  /// `size` tokens, those that the file lacks as [PADn]. Raises io, corrupt, and unsupported for a
  /// tokenizer of another kind and for tokens beyond `size`.
  TokenizerFile(const std::string& path, Index size);
  TokenizerFile(const TokenizerFile&) = delete;
  TokenizerFile& operator=(const TokenizerFile&) = delete;

  const std::string& path() const noexcept { return path_; }
  /// The member "model", which holds tokens and merges.
  const Json& model() const noexcept { return *model_; }
  /// The member of that name, or each item of its `list` where it is a sequence of several; none
  /// where it is null or missing.
  std::vector<const Json*> parts(const char* name, const char* list) const;
  /// In the order in which they are tried. Views of this object.
  std::vector<Merge> merges() const;

  /// The text and the kind of each token, by id.
  const std::vector<std::string>& tokens() const noexcept { return tokens_; }
  const std::vector<TokenType>& types() const noexcept { return types_; }
  std::optional<Index> id_of(std::string_view token) const {
    const auto found = ids_.find(token);
    return found == ids_.end() ? std::nullopt : std::optional(found->second);
  }

  /// The file contradicts itself, or asks for what llama.cpp does not do.
  [[noreturn]] void fail(std::string_view problem) const {
    raise(ErrorCode::corrupt, message(path_, ": ", problem));
  }
  [[noreturn]] void refuse(std::string_view problem) const {
    raise(ErrorCode::unsupported, message(path_, ": ", problem));
  }

 private:
  void read_tokens();
  void read_added_tokens();
  /// Raises corrupt for an id that is no number, unsupported for one beyond the tokens.
  void set_token(const std::string& token, const Json& id, TokenType type);

  std::string path_;
  Json root_;
  const Json* model_;
  std::vector<std::string> tokens_;
  std::vector<TokenType> types_;
  std::map<std::string, Index, std::less<>> ids_;
};

/// What a part of a tokenizer is, by its own word; empty where it does not say.
inline std::string_view type_of_part(const Json& part) {
  const std::string* type = find_string(part, "type");
  return type == nullptr ? std::string_view() : *type;
}

/// A flag of that name, or `otherwise` where there is none.
inline bool flag_of(const Json& part, const char* name, bool otherwise) {
  const Json* member = find_member(part, name);
  return member != nullptr && member->is_boolean() ? member->get<bool>() : otherwise;
}

inline TokenizerFile::TokenizerFile(const std::string& path, Index size)
    : path_(path), root_(read_json(path)), model_(find_member(root_, "model")) {
  if (model_ == nullptr) fail("has no model");
  if (const std::string* type = find_string(*model_, "type"); type != nullptr && *type != "BPE")
    refuse(message("its model is ", *type, ", only BPE can be written"));

  for (Index id = 0; id < size; ++id) tokens_.push_back(message("[PAD", id, "]"));
  types_.assign(tokens_.size(), TokenType::unused);
  read_tokens();
  read_added_tokens();
}

inline void TokenizerFile::set_token(const std::string& token, const Json& id, TokenType type) {
  const auto number = to_size(id);
  if (!number) fail(message("token ", token, " has the id ", printable(id)));
  if (*number >= Index(tokens_.size()))
    refuse(message("token ", token, " has the id ", *number, ", the model ", tokens_.size(),
                   " tokens"));

  tokens_[std::size_t(*number)] = token;
  types_[std::size_t(*number)] = type;
  ids_[token] = *number;
}

inline void TokenizerFile::read_tokens() {
  const Json* tokens = find_member(*model_, "vocab");
  if (tokens == nullptr || !tokens->is_object()) fail("has no object vocab");
  for (const auto& item : tokens->items()) set_token(item.key(), item.value(), TokenType::normal);
}

inline void TokenizerFile::read_added_tokens() {
  const Json* added = find_member(root_, "added_tokens");
  if (added == nullptr) return;
  for (const Json& entry : *added) {
    const std::string* content = find_string(entry, "content");
    const Json* id = find_member(entry, "id");
    if (content == nullptr || id == nullptr) fail(message("an added token is ", printable(entry)));

    const bool special = flag_of(entry, "special", false);
    set_token(special ? *content : replaced(*content, visible_space, " "), *id,
              special ? TokenType::control : TokenType::user_defined);
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

inline std::vector<TokenizerFile::Merge> TokenizerFile::merges() const {
  const Json* list = find_member(*model_, "merges");
  if (list == nullptr || !list->is_array()) fail("has no array merges");

  // Older files have a merge as one string with a space in it, newer ones as an array of two.
  std::vector<Merge> all;
  for (const Json& merge : *list) {
    const auto* both = merge.get_ptr<const std::string*>();
    const bool two =
        merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string();
    const std::size_t space = both == nullptr ? std::string::npos : both->find(' ');
    if (both != nullptr && space != both->npos)
      all.emplace_back(std::string_view(*both).substr(0, space),
                       std::string_view(*both).substr(space + 1));
    else if (two)
      all.emplace_back(merge[0].get_ref<const std::string&>(),
                       merge[1].get_ref<const std::string&>());
    else fail(message("merge ", printable(merge), " is not one of two pieces"));
  }
  return all;
}

}  // namespace cafeq::detail
