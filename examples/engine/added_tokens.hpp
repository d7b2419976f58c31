/// Tokens that are found in a text as they are written, before anything else is done to it.
#pragma once

#include <algorithm>
#include <array>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "cafeq/io/vocabulary.hpp"
#include "token_texts.hpp"

namespace engine {

class AddedTokens {
 public:
  struct Found {
    std::size_t begin, size;
    Token token;
    bool special;                  ///< not a user-defined one
    bool strip_left, strip_right;  ///< spaces ahead of it and behind it belong to it
  };

  explicit AddedTokens(const cafeq::Vocabulary& vocabulary) {
    using cafeq::TokenType;
    const bool byte_level = vocabulary.kind == cafeq::VocabularyKind::byte_level;
    for (std::size_t id = 0; id < vocabulary.tokens.size(); ++id) {
      const TokenType type = vocabulary.types[id];
      const bool plain = type == TokenType::user_defined;
      if (!plain && type != TokenType::control && type != TokenType::unknown) continue;
      std::string text = byte_level ? vocabulary.tokens[id] : with_spaces(vocabulary.tokens[id]);
      if (text.empty()) continue;
      auto& sizes = sizes_[static_cast<unsigned char>(text[0])];
      if (std::find(sizes.begin(), sizes.end(), text.size()) == sizes.end())
        sizes.push_back(text.size());
      tokens_.emplace(std::move(text), Entry{.token = Token(id), .plain = plain});
    }
    for (auto& sizes : sizes_) std::sort(sizes.begin(), sizes.end(), std::greater<>());
    const auto among = [](const std::vector<cafeq::Index>& ids, Token token) {
      return std::find(ids.begin(), ids.end(), cafeq::Index(token)) != ids.end();
    };
    for (auto& [text, entry] : tokens_) {
      entry.strip_left = among(vocabulary.strip_left, entry.token);
      entry.strip_right = among(vocabulary.strip_right, entry.token);
    }
  }

  /// The first one in a text from `at` on, the longest of those that begin there. Control tokens
  /// and the unknown one are looked for where they are `special`.
  std::optional<Found> find(std::string_view text, std::size_t at, bool special) const {
    for (; at < text.size(); ++at)
      for (const std::size_t size : sizes_[static_cast<unsigned char>(text[at])]) {
        if (size > text.size() - at) continue;
        const auto found = tokens_.find(text.substr(at, size));
        if (found == tokens_.end() || !(special || found->second.plain)) continue;
        const Entry& entry = found->second;
        return Found{at, size, entry.token, !entry.plain, entry.strip_left, entry.strip_right};
      }
    return std::nullopt;
  }

 private:
  struct Entry {
    Token token = no_token;
    bool plain = false, strip_left = false, strip_right = false;
  };
  struct Hash {
    using is_transparent = void;
    std::size_t operator()(std::string_view text) const {
      return std::hash<std::string_view>()(text);
    }
  };

  std::unordered_map<std::string, Entry, Hash, std::equal_to<>> tokens_;
  std::array<std::vector<std::size_t>, 256> sizes_;  // by the first byte, the longest first
};

}  // namespace engine
