/// The vocabulary of a tokenizer.json of transformers with byte-pair encoding, as llama.cpp takes
/// it.
///
/// Bytes as visible characters keep their merges; the pattern that cuts a text must be one that
/// llama.cpp has a name for. Pieces with visible spaces come from SentencePiece, which merges by
/// score: each piece scores by its first merge, and that has to say all that the merges do.
#pragma once

#include <array>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "cafeq/io/gguf_vocabulary.hpp"
#include "cafeq/io/json.hpp"

namespace cafeq {

/// `size` tokens, those that the file lacks as [PADn]. The tokens that begin and end a text come
/// from the tokenizer_config.json or config.json beside it, where there is one, and so does the
/// chat template. Raises io, corrupt, unsupported for what llama.cpp cannot do.
inline GgufVocabulary read_tokenizer_json(const std::string& path, Index size);

namespace detail {

class TokenizerJson {
 public:
  TokenizerJson(const std::string& path, Index size);
  GgufVocabulary take() { return std::move(vocabulary_); }

 private:
  using Merge = std::pair<std::string_view, std::string_view>;

  [[noreturn]] void fail(std::string_view problem) const {
    raise(ErrorCode::corrupt, message(path_, ": ", problem));
  }
  [[noreturn]] void refuse(std::string_view problem) const {
    raise(ErrorCode::unsupported, message(path_, ": ", problem));
  }

  /// A member of the file, or of each part of it where it is a sequence of them.
  std::vector<const Json*> parts(const char* name, const char* list) const;
  static std::string_view type_of(const Json& part);
  static bool flag(const Json& part, const char* name, bool otherwise);
  std::optional<Index> id_of(std::string_view token) const;

  void read_tokens(Index size);
  void read_added_tokens();
  void set_token(const std::string& token, const Json& id, TokenType type);
  std::vector<Merge> merges() const;
  void make_byte_level();
  std::string cutting() const;
  void make_pieces();
  void set_scores();
  Index ways_to_cut(std::string_view piece) const;
  [[noreturn]] void refuse_scores(std::string_view reason) const;
  void read_template();
  void read_companions();

  std::string path_;
  Json root_;
  const Json* model_;
  GgufVocabulary vocabulary_;
  std::map<std::string, Index, std::less<>> ids_;
};

inline Json read_json_object(const std::string& path) {
  const auto bytes = read_file(path);
  return parse_json(as_text(bytes), path);
}

inline TokenizerJson::TokenizerJson(const std::string& path, Index size)
    : path_(path), root_(read_json_object(path)), model_(find_member(root_, "model")) {
  if (model_ == nullptr) fail("has no model");
  if (const std::string* type = find_string(*model_, "type"); type != nullptr && *type != "BPE")
    refuse(message("its model is ", *type, ", only BPE can be written"));
  read_tokens(size);
  read_added_tokens();
  bool byte_level = false;
  for (const Json* part : parts("pre_tokenizer", "pretokenizers"))
    byte_level |= type_of(*part) == "ByteLevel";
  if (byte_level) make_byte_level();
  else make_pieces();
  read_template();
  read_companions();
}

inline std::vector<const Json*> TokenizerJson::parts(const char* name, const char* list) const {
  const Json* member = find_member(root_, name);
  if (member == nullptr || member->is_null()) return {};
  const Json* items = type_of(*member) == "Sequence" ? find_member(*member, list) : nullptr;
  if (items == nullptr) return {member};
  std::vector<const Json*> all;
  for (const Json& item : *items) all.push_back(&item);
  return all;
}

inline std::string_view TokenizerJson::type_of(const Json& part) {
  const std::string* type = find_string(part, "type");
  return type == nullptr ? std::string_view() : *type;
}

inline bool TokenizerJson::flag(const Json& part, const char* name, bool otherwise) {
  const Json* member = find_member(part, name);
  return member != nullptr && member->is_boolean() ? member->get<bool>() : otherwise;
}

inline std::optional<Index> TokenizerJson::id_of(std::string_view token) const {
  const auto found = ids_.find(token);
  return found == ids_.end() ? std::nullopt : std::optional(found->second);
}

inline void TokenizerJson::set_token(const std::string& token, const Json& id, TokenType type) {
  const auto number = to_size(id);
  if (!number) fail(message("token ", token, " has the id ", printable(id)));
  if (*number >= Index(vocabulary_.tokens.size()))
    refuse(message("token ", token, " has the id ", *number, ", the model ",
                   vocabulary_.tokens.size(), " tokens"));
  vocabulary_.tokens[std::size_t(*number)] = token;
  vocabulary_.types[std::size_t(*number)] = type;
  ids_[token] = *number;
}

inline void TokenizerJson::read_tokens(Index size) {
  for (Index id = 0; id < size; ++id) vocabulary_.tokens.push_back(message("[PAD", id, "]"));
  vocabulary_.types.assign(std::size_t(size), TokenType::unused);
  const Json* tokens = find_member(*model_, "vocab");
  if (tokens == nullptr || !tokens->is_object()) fail("has no object vocab");
  for (const auto& item : tokens->items()) set_token(item.key(), item.value(), TokenType::normal);
}

inline void TokenizerJson::read_added_tokens() {
  const Json* added = find_member(root_, "added_tokens");
  if (added == nullptr) return;
  for (const Json& entry : *added) {
    const std::string* content = find_string(entry, "content");
    const Json* id = find_member(entry, "id");
    if (content == nullptr || id == nullptr) fail(message("an added token is ", printable(entry)));
    const bool special = flag(entry, "special", false);
    set_token(special ? *content : replaced(*content, visible_space, " "), *id,
              special ? TokenType::control : TokenType::user_defined);
  }
}

inline std::vector<TokenizerJson::Merge> TokenizerJson::merges() const {
  const Json* list = find_member(*model_, "merges");
  if (list == nullptr || !list->is_array()) fail("has no array merges");
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

// ---- bytes as visible characters

inline void TokenizerJson::make_byte_level() {
  for (const Json* part : parts("normalizer", "normalizers"))
    if (type_of(*part) != "NFC")
      refuse(message("normalizer ", printable(*part), " is none that llama.cpp has"));
  vocabulary_.model = "gpt2";
  vocabulary_.pre = cutting();
  for (const auto& [left, right] : merges())
    vocabulary_.merges.push_back(message(left, " ", right));
  vocabulary_.add_begin = false;
}

/// llama.cpp's name for the way in which texts are cut.
inline std::string TokenizerJson::cutting() const {
  constexpr std::string_view llama3 =
      R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|)"
      R"( ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
  constexpr std::string_view qwen2 =
      R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|)"
      R"( ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
  std::vector<std::string_view> cuts;
  for (const Json* part : parts("pre_tokenizer", "pretokenizers")) {
    const Json* pattern = find_member(*part, "pattern");
    const std::string* regex = pattern == nullptr ? nullptr : find_string(*pattern, "Regex");
    const std::string* behavior = find_string(*part, "behavior");
    if (type_of(*part) == "ByteLevel" && !flag(*part, "add_prefix_space", true)) {
      if (flag(*part, "use_regex", true)) cuts.push_back("gpt-2");
    } else if (type_of(*part) == "Digits" && flag(*part, "individual_digits", false)) {
      cuts.push_back("digits");
    } else if (regex != nullptr && behavior != nullptr && *behavior == "Isolated" &&
               !flag(*part, "invert", false)) {
      cuts.push_back(*regex);
    } else {
      cuts.push_back({});
    }
  }
  const bool whole =
      flag(*model_, "ignore_merges", false);  // pieces that are tokens are not merged
  if (cuts == std::vector<std::string_view>{llama3}) return whole ? "llama-bpe" : "dbrx";
  if (!whole && cuts == std::vector<std::string_view>{qwen2}) return "qwen2";
  if (!whole && cuts == std::vector<std::string_view>{"gpt-2"}) return "gpt-2";
  if (!whole && cuts == std::vector<std::string_view>{"digits", "gpt-2"}) return "smollm";
  refuse(message("how it cuts texts is none of the ways that are known as llama.cpp's: ",
                 printable(*find_member(root_, "pre_tokenizer"))));
}

// ---- pieces with visible spaces

inline void TokenizerJson::make_pieces() {
  bool visible = false;
  vocabulary_.model = "llama";
  vocabulary_.pre = "default";
  vocabulary_.add_space_prefix = vocabulary_.add_begin = false;
  for (const Json* part : parts("normalizer", "normalizers")) {
    const std::string* prepended = find_string(*part, "prepend");
    const std::string* content = find_string(*part, "content");
    if (type_of(*part) == "Prepend" && prepended != nullptr && *prepended == visible_space)
      vocabulary_.add_space_prefix = true;
    else if (type_of(*part) == "Replace" && content != nullptr && *content == visible_space)
      visible = true;
    else refuse(message("normalizer ", printable(*part), " is none that llama.cpp has"));
  }
  for (const Json* part : parts("pre_tokenizer", "pretokenizers")) {
    if (type_of(*part) != "Metaspace")
      refuse(message("pre-tokenizer ", printable(*part), " is none that llama.cpp has"));
    const std::string* scheme = find_string(*part, "prepend_scheme");
    vocabulary_.add_space_prefix =
        scheme != nullptr ? *scheme != "never" : flag(*part, "add_prefix_space", true);
    visible = true;
  }
  if (!visible) refuse("is neither byte-level nor made of pieces with visible spaces");
  for (std::size_t id = 0; id < vocabulary_.tokens.size(); ++id)
    if (vocabulary_.types[id] == TokenType::normal && is_byte_piece(vocabulary_.tokens[id]))
      vocabulary_.types[id] = TokenType::byte;
  if (const std::string* token = find_string(*model_, "unk_token"); token != nullptr) {
    vocabulary_.unknown = id_of(*token);
    if (vocabulary_.unknown)
      vocabulary_.types[std::size_t(*vocabulary_.unknown)] = TokenType::unknown;
  }
  set_scores();
}

inline void TokenizerJson::set_scores() {
  const auto all = merges();
  std::vector<Index> merged(vocabulary_.tokens.size());  // how many merges make a piece
  vocabulary_.scores.assign(vocabulary_.tokens.size(), -float(all.size()));
  Index pieces = 0;
  std::optional<Index> last;
  for (const auto& [left, right] : all) {
    const auto piece = id_of(message(left, right));
    if (!piece) fail(message("merge ", left, " ", right, " makes no token"));
    if (piece != last) {
      if (merged[std::size_t(*piece)] > 0)
        refuse_scores(message("others stand between those into ", left, right));
      vocabulary_.scores[std::size_t(*piece)] = -float(pieces++);
    }
    ++merged[std::size_t(*piece)];
    last = piece;
  }
  for (std::size_t id = 0; id < merged.size(); ++id)
    if (const Index ways = ways_to_cut(vocabulary_.tokens[id]);
        vocabulary_.types[id] == TokenType::normal && ways != merged[id])
      refuse_scores(message(vocabulary_.tokens[id], " is two tokens in ", ways,
                            " ways, and merged in ", merged[id]));
}

/// With scores a piece is made of whatever two tokens it is.
inline Index TokenizerJson::ways_to_cut(std::string_view piece) const {
  Index ways = 0;
  for (std::size_t cut = 1; cut < piece.size(); ++cut)
    ways += id_of(piece.substr(0, cut)) && id_of(piece.substr(cut));
  return ways;
}

inline void TokenizerJson::refuse_scores(std::string_view reason) const {
  refuse(
      message("llama.cpp merges pieces by score, and no scores do what its merges do: ", reason));
}

// ---- what begins and ends a text

inline void TokenizerJson::read_template() {
  for (const Json* part : parts("post_processor", "processors")) {
    const Json* single = find_member(*part, "single");
    if (type_of(*part) != "TemplateProcessing" || single == nullptr || !single->is_array() ||
        single->empty())
      continue;
    const Json* special = find_member(single->front(), "SpecialToken");
    const std::string* token = special == nullptr ? nullptr : find_string(*special, "id");
    if (token == nullptr) continue;
    vocabulary_.add_begin = true;
    vocabulary_.begin = id_of(*token);
  }
}

inline void TokenizerJson::read_companions() {
  const auto read = [&](const char* name) {
    const std::string path = message(directory_of(path_), "/", name);
    return kind_of(path) == S_IFREG ? read_json_object(path) : Json::object();
  };
  const Json tokenizer = read("tokenizer_config.json"), config = read("config.json");
  const std::array<std::pair<std::string, std::optional<Index>*>, 4> roles{
      {{"bos_token", &vocabulary_.begin},
       {"eos_token", &vocabulary_.end},
       {"unk_token", &vocabulary_.unknown},
       {"pad_token", &vocabulary_.padding}}};
  for (const auto& [name, id] : roles) {
    const Json* token = find_member(tokenizer, name.c_str());
    const std::string* text = token == nullptr     ? nullptr
                              : token->is_string() ? token->get_ptr<const std::string*>()
                                                   : find_string(*token, "content");
    if (!*id && text != nullptr) *id = id_of(*text);
    const Json* number = find_member(config, (name + "_id").c_str());
    if (number != nullptr && number->is_array() && !number->empty()) number = &number->front();
    const auto in_config = number == nullptr ? std::nullopt : to_size(*number);
    if (!*id && in_config && *in_config < Index(vocabulary_.tokens.size())) *id = in_config;
  }
  vocabulary_.add_begin = flag(tokenizer, "add_bos_token", vocabulary_.add_begin);
  if (const std::string* text = find_string(tokenizer, "chat_template"); text != nullptr)
    vocabulary_.chat_template = *text;
}

}  // namespace detail

inline GgufVocabulary read_tokenizer_json(const std::string& path, Index size) {
  return detail::TokenizerJson(path, size).take();
}

}  // namespace cafeq
