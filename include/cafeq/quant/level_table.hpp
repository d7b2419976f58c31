/// LevelTable: any levels at all, in ascending order.
#pragma once

#include <array>
#include <bit>
#include <initializer_list>
#include <optional>

#include "cafeq/core/error.hpp"
#include "cafeq/quant/levels.hpp"

namespace cafeq {

class LevelTable;

/// The levels of a table, which must outlive it. Of two that are equally near, the lower.
class TableLevels {
 public:
  static constexpr bool has_offset = false;

  explicit TableLevels(const LevelTable& table) noexcept : table_(&table) {}

  float operator()(float u) const noexcept;
  template <class A>
  Batch<float, A> operator()(const Batch<float, A>& u) const noexcept;
  std::uint8_t code(float u) const noexcept;
  float level(std::uint8_t code) const noexcept;
  float reach() const noexcept;
  float unit_scale() const noexcept;

 private:
  const LevelTable* table_;
};

/// 2 to 256 finite levels in ascending order, kept in place: copies never allocate. What is no such
/// table can be made too; fault() says what is wrong with it, and it must not be used.
class LevelTable {
 public:
  static constexpr Index max_size = 256;
  static constexpr std::string_view name = "codebook";

  LevelTable() : LevelTable({-1.0f, 1.0f}) {}
  LevelTable(std::initializer_list<float> levels)
      : LevelTable(std::span<const float>(levels.begin(), levels.size())) {}
  explicit LevelTable(std::span<const float> levels) noexcept;

  /// What is wrong with the table, if anything.
  std::optional<Error> fault() const;
  /// The same, and bits other than the table's.
  std::optional<Error> fault(int bits) const;

  Index size() const noexcept { return size_; }
  /// ⌈log2 size⌉.
  int bits() const noexcept { return size_ < 2 ? 1 : int(std::bit_width(std::size_t(size_ - 1))); }
  TableLevels of(int /*bits*/) const noexcept { return TableLevels(*this); }

  /// The largest magnitude among the levels.
  float reach() const noexcept { return std::max(-levels_[0], levels_[std::size_t(size_ - 1)]); }
  /// The level of a code; codes past the end, which the bits allow but encode never gives, have the
  /// last.
  float level(std::uint8_t code) const noexcept {
    return levels_[std::size_t(std::min<Index>(code, size_ - 1))];
  }
  float root_mean_square() const noexcept { return root_mean_square_; }

  /// The code of the level nearest to u, the lower one of equals.
  std::uint8_t code(float u) const noexcept {
    const auto end = thresholds_.begin() + (size_ - 1);
    return std::uint8_t(std::lower_bound(thresholds_.begin(), end, u) - thresholds_.begin());
  }
  /// The level nearest to u.
  float nearest(float u) const noexcept { return levels_[code(u)]; }
  template <class A>
  Batch<float, A> nearest(const Batch<float, A>& u) const noexcept;

 private:
  std::array<float, max_size> levels_{};
  /// thresholds_[k] is the middle between levels k and k + 1.
  std::array<float, max_size> thresholds_{};
  Index size_ = 0;  // as given: no table if beyond max_size
  float root_mean_square_ = 0;
};

inline LevelTable::LevelTable(std::span<const float> levels) noexcept
    : size_(Index(levels.size())) {
  const std::size_t kept = std::min(levels.size(), levels_.size());
  double squares = 0;
  for (std::size_t k = 0; k < kept; ++k) {
    levels_[k] = levels[k];
    if (k > 0) thresholds_[k - 1] = float(0.5 * (double(levels[k - 1]) + double(levels[k])));
    squares += double(levels[k]) * double(levels[k]);
  }
  root_mean_square_ = float(std::sqrt(squares / double(size_)));
}

inline std::optional<Error> LevelTable::fault() const {
  if (size_ < 2 || size_ > max_size)
    return Error(ErrorCode::invalid_argument,
                 message("levels: ", size_, " of them, must be 2 to ", max_size));
  for (std::size_t k = 0; k < std::size_t(size_); ++k) {
    if (!std::isfinite(levels_[k]))
      return Error(ErrorCode::non_finite,
                   message("levels: number ", k, " is ", double(levels_[k])));
    if (k > 0 && !(levels_[k - 1] < levels_[k]))
      return Error(ErrorCode::invalid_argument,
                   message("levels: must ascend, but number ", k, " is ", double(levels_[k]),
                           " after ", double(levels_[k - 1])));
  }
  return std::nullopt;
}

inline std::optional<Error> LevelTable::fault(int bits) const {
  if (auto fault = this->fault()) return fault;
  if (bits == this->bits()) return std::nullopt;
  return Error(ErrorCode::invalid_argument, message("codebook: bits is ", bits, ", a table of ",
                                                    size(), " levels has ", this->bits()));
}

template <class A>
Batch<float, A> LevelTable::nearest(const Batch<float, A>& u) const noexcept {
  using V = Batch<float, A>;
  if (size_ <= 16) {
    V level(levels_[0]);
    for (std::size_t k = 1; k < std::size_t(size_); ++k)
      level = simd::select(u > V(thresholds_[k - 1]), V(levels_[k]), level);
    return level;
  }
  alignas(64) float lane[V::size];
  u.store_aligned(lane);
  for (float& value : lane) value = nearest(value);
  return V::load_aligned(lane);
}

inline float TableLevels::operator()(float u) const noexcept { return table_->nearest(u); }
template <class A>
Batch<float, A> TableLevels::operator()(const Batch<float, A>& u) const noexcept {
  return table_->nearest(u);
}
inline std::uint8_t TableLevels::code(float u) const noexcept { return table_->code(u); }
inline float TableLevels::level(std::uint8_t code) const noexcept { return table_->level(code); }
inline float TableLevels::reach() const noexcept { return table_->reach(); }
inline float TableLevels::unit_scale() const noexcept { return 1.0f / table_->root_mean_square(); }

}  // namespace cafeq
