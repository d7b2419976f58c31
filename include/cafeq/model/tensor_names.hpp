/// What the name of a tensor says: its role, its layer, its module. The names that are known are in
/// cafeq/model/naming_schemes.hpp.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <optional>
#include <span>
#include <string_view>
#include <utility>

#include "cafeq/core/numeric.hpp"
#include "cafeq/model/naming_schemes.hpp"

namespace cafeq::detail {

/// What a name stands for.
struct NameMatch {
  std::string_view module;  ///< all that stands ahead of the leaf
  Index layer = -1;
  Index expert = -1;
  const Leaf* leaf = nullptr;
};

/// The number at the start of `text`, and how many digits it has (0: none).
inline std::pair<Index, std::size_t> leading_number(std::string_view text) noexcept {
  constexpr std::size_t longest = 9;
  Index number = 0;
  std::size_t digits = 0;
  for (; digits < std::min(text.size(), longest) && text[digits] >= '0' && text[digits] <= '9';
       ++digits)
    number = 10 * number + (text[digits] - '0');
  return {number, digits};
}

inline const Leaf* find_leaf(std::span<const Leaf> leaves, std::string_view name) noexcept {
  const auto found = std::find_if(leaves.begin(), leaves.end(),
                                  [&](const Leaf& leaf) { return leaf.name == name; });
  return found == leaves.end() ? nullptr : &*found;
}

/// Reads `name` as "<pattern>.<leaf>"; nothing where it is none.
inline std::optional<NameMatch> match_module(const ModulePattern& pattern,
                                             std::string_view name) noexcept {
  NameMatch match;
  std::size_t at = 0;  // in the name, up to which it agrees with the pattern
  for (std::string_view text = pattern.text; !text.empty();) {
    if (text.starts_with('{')) {
      const auto [number, digits] = leading_number(name.substr(at));
      if (digits == 0) return std::nullopt;
      (text.starts_with("{layer}") ? match.layer : match.expert) = number;
      at += digits;
      text.remove_prefix(text.find('}') + 1);
    } else {
      if (at == name.size() || name[at] != text.front()) return std::nullopt;
      ++at;
      text.remove_prefix(1);
    }
  }

  if (at == name.size() || name[at] != '.') return std::nullopt;
  match.module = name.substr(0, at);
  match.leaf = find_leaf(pattern.leaves, name.substr(at + 1));
  return match.leaf == nullptr ? std::nullopt : std::optional(match);
}

/// What a name without its ".weight" or ".bias" stands for, or nothing.
inline std::optional<NameMatch> match_name(std::string_view name) noexcept {
  // One wrapper after the other is taken off the front, until what is left is known or has no
  // wrapper.
  for (std::size_t begin = 0;;) {
    const std::string_view inner = name.substr(begin);
    for (const ModulePattern& pattern : module_patterns)
      if (auto match = match_module(pattern, inner)) {
        match->module = name.substr(0, begin + match->module.size());
        return match;
      }
    if (const Leaf* leaf = find_leaf(root_leaves, inner))
      return NameMatch{.module = name.substr(0, begin), .leaf = leaf};

    const std::size_t dot = inner.find('.');
    if (dot == inner.npos ||
        std::find(wrappers.begin(), wrappers.end(), inner.substr(0, dot)) == wrappers.end())
      return std::nullopt;
    begin += dot + 1;
  }
}

/// The name of a tensor, taken apart.
struct ParsedName {
  std::string_view stem;  ///< without ".weight" or ".bias"
  bool is_bias = false;
  std::optional<NameMatch> match{};

  const Leaf* leaf() const noexcept { return match ? match->leaf : nullptr; }
};

inline ParsedName parse_name(std::string_view name) noexcept {
  // Ahead of the suffixes, since "attn.bias" is the name of a mask and not that of a bias.
  if (const auto match = match_name(name)) return {.stem = name, .match = match};

  constexpr std::array<std::pair<std::string_view, bool>, 4> suffixes{
      {{".weight", false}, {".bias", true}, {".gamma", false}, {".beta", true}}};
  for (const auto& [suffix, is_bias] : suffixes)
    if (name.ends_with(suffix)) {
      const auto stem = name.substr(0, name.size() - suffix.size());
      return {.stem = stem, .is_bias = is_bias, .match = match_name(stem)};
    }
  return {.stem = name};
}

/// Layer and role of a tensor that is one matrix of its layer; nothing for any other name.
inline std::optional<std::pair<Index, Role>> place_in_layers(std::string_view name) noexcept {
  const auto parsed = parse_name(name);
  if (parsed.is_bias || parsed.leaf() == nullptr || parsed.match->layer < 0 ||
      parsed.match->expert >= 0 || parsed.leaf()->role > Role::down)
    return std::nullopt;
  return std::pair(parsed.match->layer, parsed.leaf()->role);
}

/// Whether a name that is not known otherwise looks like that of a norm.
inline bool is_norm_name(std::string_view stem) noexcept {
  const auto last = stem.substr(stem.rfind('.') + 1);
  return last.starts_with("ln") || last.find("norm") != last.npos || last.find("Norm") != last.npos;
}

}  // namespace cafeq::detail
