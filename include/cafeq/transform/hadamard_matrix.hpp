/// Hadamard matrices whose order is no power of two: ±1 entries, H Hᵀ = order · I.
///
/// Constructions, in the order in which they are tried:
///   Paley I     order q + 1, q ≡ 3 (mod 4) a prime power            12, 20, 28, 44, 60, 108, …
///   Paley II    order 2 (q + 1), q ≡ 1 (mod 4) a prime power        36, 52, 76, 100, 148, …
///   Williamson  order 4 w from four symmetric circulants of order w 92, 116, 156, 172
/// (R. E. A. C. Paley, "On orthogonal matrices", 1933; J. Williamson, "Hadamard's determinant
/// theorem and the sum of four squares", 1944.)
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <vector>

#include "cafeq/core/matrix.hpp"

namespace cafeq {

namespace detail {

/// The largest order that hadamard_core() builds: applying a core of order m costs m operations an
/// element.
inline constexpr Index max_hadamard_core = 1024;

struct PrimePower {
  Index prime = 0;
  Index exponent = 0;
};

inline std::optional<PrimePower> as_prime_power(Index q) {
  if (q < 2) return std::nullopt;
  Index prime = 2;
  while (prime * prime <= q && q % prime != 0) ++prime;
  if (q % prime != 0) prime = q;
  PrimePower result{prime, 0};
  for (; q % prime == 0; q /= prime) ++result.exponent;
  if (q != 1) return std::nullopt;
  return result;
}

/// GF(q), q odd: the element Σ c_i x^i is the number Σ c_i p^i.
class FiniteField {
 public:
  explicit FiniteField(Index q)
      : q_(q), prime_(as_prime_power(q)->prime), character_(std::size_t(q)) {
    // If x^e = r(x) leaves x with all q − 1 powers distinct, every non-zero element is one of them:
    // the ring is the field and x generates it.
    Index r = 1;
    while (!try_reduction(r)) ++r;
  }

  /// 1 for a square, -1 for a non-square, 0 for zero.
  int character(Index a) const noexcept { return character_[std::size_t(a)]; }

  /// a − b.
  Index subtract(Index a, Index b) const noexcept {
    Index result = 0;
    for (Index place = 1; place < q_; place *= prime_) {
      const Index digit = (a % prime_ - b % prime_ + prime_) % prime_;
      result += digit * place;
      a /= prime_;
      b /= prime_;
    }
    return result;
  }

 private:
  Index times_x(Index a, Index reduction) const noexcept {
    const Index top_place = q_ / prime_;
    const Index top = a / top_place;
    Index shifted = a % top_place * prime_;
    Index result = 0;
    for (Index place = 1; place < q_; place *= prime_) {
      result += (shifted % prime_ + top * (reduction % prime_)) % prime_ * place;
      shifted /= prime_;
      reduction /= prime_;
    }
    return result;
  }

  bool try_reduction(Index reduction) {
    std::fill(character_.begin(), character_.end(), 0);
    Index power = 1;
    for (Index i = 0; i < q_ - 1; ++i) {
      if (power == 0 || character_[std::size_t(power)] != 0) return false;
      character_[std::size_t(power)] = i % 2 == 0 ? 1 : -1;
      power = times_x(power, reduction);
    }
    return power == 1;
  }

  Index q_;
  Index prime_;
  std::vector<int> character_;
};

/// [[0, 1], [σ, χ(a − b)]], σ = 1 for q ≡ 1 and −1 for q ≡ 3 (mod 4): zero diagonal, C Cᵀ = q I.
inline Matrix<float> conference_matrix(Index q) {
  const FiniteField field(q);
  Matrix<float> C(q + 1, q + 1);
  for (Index a = 0; a < q; ++a) {
    C(0, a + 1) = 1.0f;
    C(a + 1, 0) = q % 4 == 1 ? 1.0f : -1.0f;
    for (Index b = 0; b < q; ++b) C(a + 1, b + 1) = float(field.character(field.subtract(a, b)));
  }
  return C;
}

inline Matrix<float> paley_first(Index order) {
  auto H = conference_matrix(order - 1);
  for (Index i = 0; i < order; ++i) H(i, i) = 1.0f;
  return H;
}

inline Matrix<float> paley_second(Index order) {
  const auto C = conference_matrix(order / 2 - 1);
  Matrix<float> H(order, order);
  for (Index i = 0; i < C.rows(); ++i)
    for (Index j = 0; j < C.cols(); ++j) {
      const float c = C(i, j);
      const float diagonal = i == j ? 1.0f : 0.0f;
      H(2 * i, 2 * j) = c + diagonal;
      H(2 * i, 2 * j + 1) = H(2 * i + 1, 2 * j) = c - diagonal;
      H(2 * i + 1, 2 * j + 1) = -c - diagonal;
    }
  return H;
}

/// First rows of four symmetric circulants A, B, C, D with A² + B² + C² + D² = 4 w I: bit j − 1 is
/// set where entry ±j is −1; entry 0 is 1.
/// Found by an exhaustive search over power spectra.
struct WilliamsonRows {
  Index w;
  std::array<std::uint32_t, 4> minus;
};
inline constexpr WilliamsonRows williamson_rows[] = {
    {23, {0x2b, 0x71b, 0x153, 0x19c}},
    {29, {0x712, 0x182d, 0x1bca, 0x3b0a}},
    {39, {0x26b7e, 0x6317d, 0x15e6e, 0x2fb92}},
    {43, {0xad86, 0x165cdc, 0x15e875, 0x1ce6d0}},
};

inline Matrix<float> williamson(const WilliamsonRows& rows) {
  // [[A, B, C, D], [−B, A, −D, C], [−C, D, A, −B], [−D, −C, B, A]]
  constexpr int part[4][4] = {{0, 1, 2, 3}, {1, 0, 3, 2}, {2, 3, 0, 1}, {3, 2, 1, 0}};
  constexpr float sign[4][4] = {{1, 1, 1, 1}, {-1, 1, -1, 1}, {-1, 1, 1, -1}, {-1, -1, 1, 1}};
  const Index w = rows.w;
  Matrix<float> H(4 * w, 4 * w);
  for (Index r = 0; r < 4; ++r)
    for (Index c = 0; c < 4; ++c)
      for (Index i = 0; i < w; ++i)
        for (Index j = 0; j < w; ++j) {
          const Index lag = std::min((i - j + w) % w, (j - i + w) % w);
          const std::uint32_t minus = rows.minus[std::size_t(part[r][c])];
          const bool negative = lag > 0 && ((minus >> (lag - 1)) & 1u) != 0;
          H(r * w + i, c * w + j) = negative ? -sign[r][c] : sign[r][c];
        }
  return H;
}

inline const WilliamsonRows* find_williamson(Index order) {
  for (const auto& rows : williamson_rows)
    if (4 * rows.w == order) return &rows;
  return nullptr;
}

inline bool has_paley_first(Index order) {
  return order % 4 == 0 && as_prime_power(order - 1).has_value();
}
inline bool has_paley_second(Index order) {
  return order % 4 == 0 && (order / 2 - 1) % 4 == 1 && as_prime_power(order / 2 - 1).has_value();
}

/// Whether hadamard_core(order) exists: 1, or a multiple of 4 up to max_hadamard_core with a known
/// construction.
inline bool has_hadamard_core(Index order) {
  if (order == 1) return true;
  if (order < 4 || order > max_hadamard_core) return false;
  return has_paley_first(order) || has_paley_second(order) || find_williamson(order) != nullptr;
}

}  // namespace detail

/// A Hadamard matrix of that order (not symmetric in general), in which a Sylvester matrix is not
/// split off.
inline Matrix<float> hadamard_core(Index order) {
  if (!detail::has_hadamard_core(order))
    raise(ErrorCode::unsupported, message("hadamard_core: no construction for order ", order));
  if (order == 1) return identity_matrix<float>(1);
  if (detail::has_paley_first(order)) return detail::paley_first(order);
  if (detail::has_paley_second(order)) return detail::paley_second(order);
  return detail::williamson(*detail::find_williamson(order));
}

namespace detail {

/// The smallest m for which size = m · 2^p and hadamard_core(m) exists; 0 where there is none.
inline Index hadamard_core_order(Index size) {
  if (size < 1) return 0;
  Index order = size;
  while (order % 2 == 0) order /= 2;
  for (; order <= size; order *= 2)
    if (has_hadamard_core(order)) return order;
  return 0;
}

}  // namespace detail

}  // namespace cafeq
