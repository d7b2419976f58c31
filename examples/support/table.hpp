/// Tables of aligned columns for a terminal: names to the left, numbers to the right.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace cafeq::example {

/// The columns that UTF-8 text takes on a terminal: none for combining marks and control
/// characters, two for the wide scripts of East Asia and for emoji, one for all else; invalid bytes
/// count one each.
inline std::size_t display_width(std::string_view text) {
  const auto within = [](std::uint32_t c, std::uint32_t first, std::uint32_t last) {
    return c >= first && c <= last;
  };
  std::size_t width = 0;
  for (std::size_t i = 0; i < text.size();) {
    const auto lead = static_cast<unsigned char>(text[i]);
    const std::size_t length = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : lead >= 0xc0 ? 2 : 1;
    std::uint32_t c = length == 1 ? lead : lead & (0xffu >> (length + 1));
    std::size_t used = 1;
    while (used < length && i + used < text.size() &&
           (static_cast<unsigned char>(text[i + used]) & 0xc0u) == 0x80u)
      c = c << 6 | (static_cast<unsigned char>(text[i + used++]) & 0x3fu);
    i += used;
    if (used < length) {
      width += used;
    } else if (c < 0x20 || c == 0x7f || within(c, 0x300, 0x36f) || within(c, 0x200b, 0x200f) ||
               within(c, 0xfe00, 0xfe0f)) {
      continue;
    } else {
      const bool wide = within(c, 0x1100, 0x115f) || within(c, 0x2e80, 0xa4cf) ||
                        within(c, 0xac00, 0xd7a3) || within(c, 0xf900, 0xfaff) ||
                        within(c, 0xfe30, 0xfe6f) || within(c, 0xff00, 0xff60) ||
                        within(c, 0x1f300, 0x1faff) || within(c, 0x20000, 0x3fffd);
      width += wide ? 2 : 1;
    }
  }
  return width;
}

enum class Align { left, right };

/// Columns are named at first; rows may be shorter than that, not longer.
class Table {
 public:
  struct Column {
    std::string name;
    Align align = Align::right;
  };

  explicit Table(std::vector<Column> columns) : columns_(std::move(columns)) {}

  Table& row(std::vector<std::string> cells) {
    cells.resize(columns_.size());
    rows_.push_back(std::move(cells));
    return *this;
  }
  /// A line across, before a sum for example.
  Table& rule() {
    rows_.emplace_back();
    return *this;
  }

  std::string text() const {
    std::vector<std::size_t> widths;
    for (std::size_t j = 0; j < columns_.size(); ++j) {
      widths.push_back(display_width(columns_[j].name));
      for (const auto& row : rows_)
        if (!row.empty()) widths[j] = std::max(widths[j], display_width(row[j]));
    }
    std::vector<std::string> names;
    for (const auto& column : columns_) names.push_back(column.name);
    std::string result = line(names, widths) + line({}, widths);
    for (const auto& row : rows_) result += line(row, widths);
    return result;
  }

  void print(std::FILE* to = stdout) const { std::fputs(text().c_str(), to); }

 private:
  /// Cells two spaces apart, nothing after the last; no cells: a rule.
  std::string line(const std::vector<std::string>& cells,
                   const std::vector<std::size_t>& widths) const {
    std::string result;
    for (std::size_t j = 0; j < widths.size(); ++j) {
      if (j > 0) result += "  ";
      if (cells.empty()) {
        result.append(widths[j], '-');
        continue;
      }
      const std::string padding(widths[j] - display_width(cells[j]), ' ');
      result += columns_[j].align == Align::left ? cells[j] + padding : padding + cells[j];
    }
    result.erase(result.find_last_not_of(' ') + 1);
    return result + "\n";
  }

  std::vector<Column> columns_;
  std::vector<std::vector<std::string>> rows_;
};

}  // namespace cafeq::example
