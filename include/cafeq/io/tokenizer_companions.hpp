/// What lies beside the tokenizer of a Hugging Face model and says more of it: which tokens have a
/// role, which end a text, how a conversation is written.
#pragma once

#include <array>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "cafeq/io/end_tokens.hpp"
#include "cafeq/io/json.hpp"
#include "cafeq/io/vocabulary.hpp"

namespace cafeq::detail {

/// The content of the companion of that file name; nothing where there is none.
using FindCompanion = std::function<std::optional<std::string>(std::string_view name)>;

/// Those that are read, null and empty where there are none.
struct TokenizerCompanions {
  /// Raises corrupt for what is not JSON, naming the file and the `model` that it belongs to.
  TokenizerCompanions(const FindCompanion& find, std::string_view model);

  Json tokenizer;   ///< tokenizer_config.json
  Json generation;  ///< generation_config.json
  Json config;      ///< config.json
  std::string chat_template;
};

/// Adds what the companions say and the vocabulary does not yet. The tokens are complete.
inline void complete_vocabulary(Vocabulary& vocabulary, const TokenizerCompanions& companions);

/// A flag of that name, or `otherwise` where there is none.
inline bool flag_of(const Json& part, const char* name, bool otherwise) {
  const Json* member = find_member(part, name);
  return member != nullptr && member->is_boolean() ? member->get<bool>() : otherwise;
}

/// The text of a token of tokenizer_config.json, which stands there by itself or with its
/// properties; null where there is none.
inline const std::string* token_text(const Json& config, const char* name) {
  const Json* token = find_member(config, name);
  if (token == nullptr) return nullptr;
  return token->is_string() ? token->get_ptr<const std::string*>() : find_string(*token, "content");
}

/// The ids of a field of config.json, which holds one or several, for models of several kinds of
/// input in the part that is about text.
inline std::vector<Index> token_ids(const Json& config, const std::string& name) {
  const Json* ids = find_member(config, name.c_str());
  if (const Json* text = find_member(config, "text_config"); ids == nullptr && text != nullptr)
    ids = find_member(*text, name.c_str());
  if (ids == nullptr) return {};
  if (const auto one = to_size(*ids)) return {*one};
  return to_sizes(ids).value_or(std::vector<Index>{});
}

inline TokenizerCompanions::TokenizerCompanions(const FindCompanion& find, std::string_view model) {
  const auto read = [&](std::string_view name) {
    const auto content = find(name);
    return content ? parse_json(*content, message(name, " of ", model)) : Json();
  };
  tokenizer = read("tokenizer_config.json");
  generation = read("generation_config.json");
  config = read("config.json");

  if (auto content = find("chat_template.jinja")) {
    chat_template = std::move(*content);
    return;
  }
  const Json* member = find_member(tokenizer, "chat_template");
  if (member == nullptr) return;
  if (member->is_string()) chat_template = member->get_ref<const std::string&>();
  // Or several by name, of which one is for conversations without tools or documents.
  if (!member->is_array()) return;
  for (const Json& named : *member) {
    const std::string *name = find_string(named, "name"), *text = find_string(named, "template");
    if (name != nullptr && text != nullptr && *name == "default") chat_template = *text;
  }
}

inline void complete_vocabulary(Vocabulary& vocabulary, const TokenizerCompanions& companions) {
  const TokenIds ids(vocabulary);
  const std::array<std::pair<std::string, std::optional<Index>*>, 4> roles{
      {{"bos_token", &vocabulary.begin},
       {"eos_token", &vocabulary.end},
       {"unk_token", &vocabulary.unknown},
       {"pad_token", &vocabulary.padding}}};
  for (const auto& [name, id] : roles) {
    const std::string* text = token_text(companions.tokenizer, name.c_str());
    if (!*id && text != nullptr) *id = ids.find(*text);
    const auto in_config = token_ids(companions.config, name + "_id");
    if (!*id && !in_config.empty() && in_config.front() < Index(vocabulary.tokens.size()))
      *id = in_config.front();
  }

  vocabulary.add_begin = vocabulary.begin.has_value() &&
                         flag_of(companions.tokenizer, "add_bos_token", vocabulary.add_begin);
  vocabulary.add_end = vocabulary.end.has_value() &&
                       flag_of(companions.tokenizer, "add_eos_token", vocabulary.add_end);
  vocabulary.chat_template = companions.chat_template;

  if (vocabulary.end) add_end(vocabulary, *vocabulary.end);
  for (const Json* config : {&companions.generation, &companions.config})
    for (const Index id : token_ids(*config, "eos_token_id")) add_end(vocabulary, id);
  add_named_ends(vocabulary);
}

}  // namespace cafeq::detail
