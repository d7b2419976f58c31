/// Diagonal, Signs and Permutation: transforms that cost one pass over the rows.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <optional>
#include <vector>

#include "cafeq/core/rng.hpp"
#include "cafeq/linalg/metric.hpp"
#include "cafeq/transform/transform.hpp"

namespace cafeq {

/// M = diag(d), d of any sign but not zero. Entries are stored as fp16 times one power of two, and
/// what is stored is what is applied.
class Diagonal {
 public:
  Diagonal() = default;
  explicit Diagonal(std::vector<double> entries);

  Index dim() const noexcept { return Index(entries_.size()); }
  /// The entries as stored: each is a half times the same power of two.
  const std::vector<float>& entries() const noexcept { return entries_; }

  template <class E>
  void apply(View<E> X, Op op = Op::forward) const;
  /// Whether every entry is 1 or -1.
  bool is_orthogonal() const noexcept { return is_orthogonal_; }
  /// H = N Nᵀ = diag(1/d²).
  Metric metric() const {
    std::vector<double> weights;
    for (const float d : entries_) weights.push_back(1.0 / (double(d) * double(d)));
    return Metric::diagonal(std::move(weights));
  }
  /// 16 an entry; the power of two joins that of the weights' scales.
  std::int64_t storage_bits() const noexcept { return 16 * std::int64_t(entries_.size()); }

 private:
  std::vector<float> entries_;
  bool is_orthogonal_ = true;
};

/// M = diag(±1), drawn from a seed or given.
class Signs {
 public:
  Signs() = default;
  Signs(Index dim, std::uint64_t seed);
  /// Each entry must be 1 or -1.
  explicit Signs(std::vector<float> entries);

  Index dim() const noexcept { return Index(entries_.size()); }
  const std::vector<float>& entries() const noexcept { return entries_; }

  template <class E>
  void apply(View<E> X, Op = Op::forward) const;
  bool is_orthogonal() const noexcept { return true; }
  /// The seed they were drawn from, unless they were given.
  const std::optional<std::uint64_t>& seed() const noexcept { return seed_; }
  /// 64 for the seed, or one an entry where the signs were given.
  std::int64_t storage_bits() const noexcept { return seed_ ? 64 : std::int64_t(entries_.size()); }

 private:
  std::vector<float> entries_;
  std::optional<std::uint64_t> seed_;
};

/// The spec of seeded Signs.
struct RandomSigns {
  static constexpr bool depends_on_weights = false;
  std::uint64_t seed = 0;
  template <class T>
  Signs fit(View<T> W, ExecutorRef = {}) const {
    return Signs(W.cols, seed);
  }
};

/// (X·M)(i, j) = X(i, order[j]).
class Permutation {
 public:
  Permutation() = default;
  /// `order` must hold each of 0 … size − 1 once.
  explicit Permutation(std::vector<Index> order);

  Index dim() const noexcept { return Index(order_.size()); }
  const std::vector<Index>& order() const noexcept { return order_; }

  template <class E>
  void apply(View<E> X, Op op = Op::forward) const;
  bool is_orthogonal() const noexcept { return true; }
  /// ceil(log2 dim) an entry.
  std::int64_t storage_bits() const noexcept {
    return dim() < 2 ? 0
                     : std::int64_t(dim()) * std::int64_t(std::bit_width(std::size_t(dim() - 1)));
  }

 private:
  std::vector<Index> order_;
};

namespace detail {

/// f(x, d_j) for every x of column j, along whichever stride is short.
template <class E, class F>
void for_each_entry(View<E> X, const float* d, F&& f) {
  if (X.empty()) return;
  if (X.rows_contiguous()) {
    for (Index i = 0; i < X.rows; ++i) {
      E* x = X.data + i * X.row_stride;
      for (Index j = 0; j < X.cols; ++j) f(x[j], E(d[j]));
    }
  } else {
    for (Index j = 0; j < X.cols; ++j) {
      E* x = X.data + j * X.col_stride;
      const E value = E(d[j]);
      for (Index i = 0; i < X.rows; ++i) f(x[i * X.row_stride], value);
    }
  }
}

}  // namespace detail

inline Diagonal::Diagonal(std::vector<double> entries) : entries_(entries.begin(), entries.end()) {
  float largest = 0;
  for (std::size_t j = 0; j < entries_.size(); ++j) {
    const float d = entries_[j];
    if (d == 0 || !std::isfinite(d))
      raise(ErrorCode::singular, message("Diagonal: entry ", j, " is ", entries[j],
                                         ", must be finite and not zero in float"));
    largest = std::max(largest, std::abs(d));
  }

  // The largest entry lands in [2^14, 2^15); what would vanish 39 binary orders below it becomes
  // the smallest half.
  const int exponent = floor_log2(double(largest)) - 14;
  for (float& d : entries_) {
    const float magnitude = detail::positive_fp16(std::ldexp(std::abs(d), -exponent));
    d = std::copysign(std::ldexp(magnitude, exponent), d);
    is_orthogonal_ = is_orthogonal_ && std::abs(d) == 1.0f;
  }
}

template <class E>
void Diagonal::apply(View<E> X, Op op) const {
  detail::check_columns(X.cols, dim(), "Diagonal");
  if (op == Op::forward || op == Op::transpose)
    detail::for_each_entry(X, entries_.data(), [](E& x, E d) { x *= d; });
  else detail::for_each_entry(X, entries_.data(), [](E& x, E d) { x /= d; });
}

inline Signs::Signs(Index dim, std::uint64_t seed) : seed_(seed) {
  if (dim < 0) raise(ErrorCode::invalid_shape, message("Signs: dim is ", dim));
  const CounterRng rng(seed, stream_of("signs"));
  entries_.resize(std::size_t(dim));
  for (std::size_t j = 0; j < entries_.size(); ++j) entries_[j] = rng.sign(j);
}

inline Signs::Signs(std::vector<float> entries) : entries_(std::move(entries)) {
  for (std::size_t j = 0; j < entries_.size(); ++j)
    if (std::abs(entries_[j]) != 1.0f)
      raise(ErrorCode::invalid_argument,
            message("Signs: entry ", j, " is ", double(entries_[j]), ", must be 1 or -1"));
}

template <class E>
void Signs::apply(View<E> X, Op) const {
  detail::check_columns(X.cols, dim(), "Signs");
  detail::for_each_entry(X, entries_.data(), [](E& x, E d) { x *= d; });
}

inline Permutation::Permutation(std::vector<Index> order) : order_(std::move(order)) {
  std::vector<bool> seen(order_.size(), false);
  for (std::size_t j = 0; j < order_.size(); ++j) {
    const Index from = order_[j];
    if (from < 0 || from >= dim())
      raise(ErrorCode::invalid_argument,
            message("Permutation: order[", j, "] is ", from, ", must be below ", dim()));
    if (seen[std::size_t(from)])
      raise(ErrorCode::invalid_argument, message("Permutation: order[", j, "] repeats ", from));
    seen[std::size_t(from)] = true;
  }
}

template <class E>
void Permutation::apply(View<E> X, Op op) const {
  detail::check_columns(X.cols, dim(), "Permutation");
  // A permutation is orthogonal.
  const bool gather = op == Op::forward || op == Op::inverse_transpose;
  Buffer<E> row(order_.size());
  detail::on_row_panels(X, [&](View<E> rows) {
    for (Index i = 0; i < rows.rows; ++i) {
      E* x = rows.data + i * rows.row_stride;
      std::copy_n(x, rows.cols, row.data());
      if (gather)
        for (std::size_t j = 0; j < order_.size(); ++j) x[j] = row[std::size_t(order_[j])];
      else
        for (std::size_t j = 0; j < order_.size(); ++j) x[order_[j]] = row[j];
    }
  });
}

}  // namespace cafeq
