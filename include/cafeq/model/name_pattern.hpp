/// Patterns of names as a shell has them.
///
/// `*` stands for any characters, also none, and `?` for one. `[abc]` stands for one of the
/// characters between the brackets, `[a-z]` for one of a range, `[!abc]` and `[^abc]` for one that
/// is not there; `]` is one of them where it comes first, `-` where it comes first or last. `\`
/// takes the meaning from the character that follows; at the end of a pattern it matches nothing.
/// Everything else stands for itself, a `[` without its `]` too. No character is special in the
/// name: `*` goes across `.` and `/`.
///
/// Characters are bytes. The classes of POSIX, such as `[[:digit:]]`, are not known.
#pragma once

#include <cstddef>
#include <optional>
#include <string_view>

namespace cafeq::detail {

/// What stands at the front of a pattern, and stands for one character of a name.
struct PatternItem {
  std::size_t length;  ///< of the item in the pattern
  bool matches;        ///< whether it stands for the character in question
};

/// The bracket expression at the front of `pattern`, or nothing where its end is missing.
constexpr std::optional<PatternItem> match_bracket(std::string_view pattern, char c) noexcept {
  std::size_t at = 1;
  const bool negated = at < pattern.size() && (pattern[at] == '!' || pattern[at] == '^');
  if (negated) ++at;

  // One character of the expression, without the backslash that may stand ahead of it.
  const auto take = [&]() -> std::optional<unsigned char> {
    if (at < pattern.size() && pattern[at] == '\\') ++at;
    if (at >= pattern.size()) return std::nullopt;
    return static_cast<unsigned char>(pattern[at++]);
  };

  const auto wanted = static_cast<unsigned char>(c);
  bool found = false;
  for (bool first = true; first || at >= pattern.size() || pattern[at] != ']'; first = false) {
    const auto low = take();
    if (!low) return std::nullopt;
    auto high = low;
    if (at + 1 < pattern.size() && pattern[at] == '-' && pattern[at + 1] != ']') {
      ++at;
      high = take();
      if (!high) return std::nullopt;
    }
    found |= *low <= wanted && wanted <= *high;
  }
  return PatternItem{.length = at + 1, .matches = found != negated};
}

/// The item at the front of a pattern, which is not empty and does not begin with `*`.
constexpr PatternItem match_item(std::string_view pattern, char c) noexcept {
  if (pattern.front() == '?') return {.length = 1, .matches = true};
  if (pattern.front() == '[')
    if (const auto bracket = match_bracket(pattern, c)) return *bracket;
  if (pattern.front() == '\\')
    return {.length = 2, .matches = pattern.size() > 1 && pattern[1] == c};
  return {.length = 1, .matches = pattern.front() == c};
}

/// Whether the pattern stands for the whole name.
///
/// Time: at most the product of both lengths where every bracket ends. Where an item does not
/// match, only the last `*` takes one character more: if any choice for the earlier ones matches,
/// so does the shortest.
constexpr bool matches_pattern(std::string_view pattern, std::string_view name) noexcept {
  std::optional<std::size_t> star;  // where the pattern goes on behind the last `*`
  std::size_t star_end = 0;         // where the characters end that this `*` stands for
  std::size_t p = 0, n = 0;
  for (;;) {
    if (p < pattern.size() && pattern[p] == '*') {
      star = ++p;
      star_end = n;
      continue;
    }
    if (n == name.size()) return p == pattern.size();

    if (p < pattern.size()) {
      const PatternItem item = match_item(pattern.substr(p), name[n]);
      if (item.matches) {
        p += item.length;
        ++n;
        continue;
      }
    }
    if (!star) return false;
    p = *star;
    n = ++star_end;
  }
}

}  // namespace cafeq::detail
