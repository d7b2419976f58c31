/// A slab of rows of X as lines: how the input side rounds batches of lines and keeps their codes.
///
/// RowSlab<Q> is a BatchRounder for rows [row, row + rows) of an encoding, whose columns are its
/// lines. Besides that it has
///   lanes()             the width of a line: `rows`, or more where vectors are to be whole
///   at(first)           the same slab, whose lines are counted from here in the calls that follow
/// and for a refit of scales, with lines counted from the first column of the matrix,
///   encoding(), row(), rows()
///   levels(j, out)      of the codes of line j
///   errors(j, x, e)     e ← x − x̂ of line j
///   update_group(j)     the parameters of the group that begins at line j have changed
///   store()             at the end: all codes are in the encoding
#pragma once

#include <algorithm>
#include <span>

#include "cafeq/core/workspace.hpp"
#include "cafeq/kernel/line_layout.hpp"
#include "cafeq/kernel/round_lines.hpp"
#include "cafeq/quant/encoding.hpp"
#include "cafeq/quant/grid.hpp"
#include "cafeq/rounding/lines.hpp"

namespace cafeq::rounding {

/// Rows of any quantizer: each line by Encoding::encode_column, weight by weight.
template <ScalarQuantizer Q>
class ScalarSlab {
 public:
  ScalarSlab(Encoding<Q>& encoding, Index row, Index rows, Workspace& workspace)
      : encoding_(encoding),
        row_(row),
        lanes_(rows),
        encode_{encoding, row, 0},
        line_by_line_(encode_, rows, workspace) {}
  ScalarSlab(const ScalarSlab&) = delete;
  ScalarSlab& operator=(const ScalarSlab&) = delete;

  Index lanes() const noexcept { return lanes_; }
  ScalarSlab& at(Index first) noexcept {
    encode_.first = first;
    return *this;
  }
  void feed_back(Index begin, View<const float> X, View<const float> L, View<float> T,
                 View<float> E) {
    line_by_line_.feed_back(begin, X, L, T, E);
  }
  void descend(Index begin, View<const float> X, View<const float> H, View<float> T, View<float> E,
               View<float> change) {
    line_by_line_.descend(begin, X, H, T, E, change);
  }

  Encoding<Q>& encoding() noexcept { return encoding_; }
  Index row() const noexcept { return row_; }
  Index rows() const noexcept { return lanes_; }
  void levels(Index j, std::span<float> out) const noexcept {
    for (Index l = 0; l < lanes_; ++l)
      out[std::size_t(l)] = encoding_.quantizer().level(encoding_.code(row_ + l, j));
  }
  void errors(Index j, std::span<const float> x, std::span<float> e) const noexcept {
    for (Index l = 0; l < lanes_; ++l)
      e[std::size_t(l)] = x[std::size_t(l)] - encoding_.value(row_ + l, j);
  }
  void update_group(Index) noexcept {}
  void store() noexcept {}

 private:
  struct EncodeColumn {
    Encoding<Q>& encoding;
    Index row;
    Index first;
    void operator()(Index j, std::span<const float> target, std::span<float> decoded) const {
      encoding.encode_column(first + j, row, target, decoded);
    }
  };

  Encoding<Q>& encoding_;
  Index row_;
  Index lanes_;
  EncodeColumn encode_;
  LineByLine<EncodeColumn> line_by_line_;
};

/// Rows of a uniform grid: batches of lines by kernel/round_lines.hpp, codes kept as lines until
/// store(). The same codes as ScalarSlab's.
template <UniformGrid Q>
class UniformSlab {
 public:
  static constexpr bool half = Q::Levels::is_folded;

  UniformSlab(Encoding<Q>& encoding, Index row, Index rows, Workspace& workspace)
      : encoding_(encoding),
        row_(row),
        rows_(rows),
        lanes_(ceil_div(rows, kernel::lane_multiple) * kernel::lane_multiple),
        width_(encoding.grouping().width()),
        grid_(workspace.take<float>(fields * lanes_ * encoding.grouping().per_row_count())),
        codes_(workspace.take<std::uint8_t>(encoding.cols() * lanes_)) {
    for (Index j = 0; j < encoding.cols(); j += width_) update_group(j);
  }

  Index lanes() const noexcept { return lanes_; }
  UniformSlab& at(Index first) noexcept {
    first_ = first;
    return *this;
  }
  void feed_back(Index begin, View<const float> X, View<const float> L, View<float> T,
                 View<float> E) noexcept {
    with_batch(begin, X, L, T, E,
               [](const kernel::LineBatch& batch) { kernel::feed_back<half>(batch); });
  }
  void descend(Index begin, View<const float> X, View<const float> H, View<float> T, View<float> E,
               View<float> change) noexcept {
    with_batch(begin, X, H, T, E,
               [&](const kernel::LineBatch& batch) { kernel::descend<half>(batch, change); });
  }

  Encoding<Q>& encoding() noexcept { return encoding_; }
  Index row() const noexcept { return row_; }
  Index rows() const noexcept { return rows_; }
  void levels(Index j, std::span<float> out) const noexcept {
    const float lowest = encoding_.quantizer().level(0);
    const std::uint8_t* codes = codes_.data() + j * lanes_;
    using V = Batch<float>;
    for (Index l = 0; l < lanes_; l += Index(V::size))
      (simd::load_float<DefaultArch>(codes + l) + V(lowest)).store_unaligned(out.data() + l);
  }
  void errors(Index j, std::span<const float> x, std::span<float> e) const noexcept {
    kernel::code_errors<half>(x.data(), codes_.data() + j * lanes_, grid(j), e.data(), lanes_);
  }
  /// Reads the parameters of the group that begins at column j again.
  void update_group(Index j) noexcept {
    using Levels = typename Q::Levels;
    const Q& q = encoding_.quantizer();
    float* field = grid_.data() + j / width_ * fields * lanes_;
    std::fill_n(field, fields * lanes_, 0.0f);
    for (Index l = 0; l < rows_; ++l, ++field) {
      const auto& params = encoding_.params(row_ + l, j);
      const Levels levels = q.level_set(params);
      field[0] = q.scale(params);
      field[lanes_] = kernel::inverse_scale(field[0]);
      if constexpr (Levels::has_offset) field[2 * lanes_] = q.offset(params);
      field[3 * lanes_] = levels.low;
      field[4 * lanes_] = levels.high;
    }
  }
  void store() noexcept {
    kernel::lines_to_rows(codes_.data(), lanes_, encoding_.cols(), rows_,
                          [&](Index l) { return encoding_.codes(row_ + l).data(); });
  }

 private:
  /// Of each group: scale, its inverse, offset, lowest and highest level, each a row of lanes.
  static constexpr Index fields = 5;

  kernel::LaneGrid grid(Index j) const noexcept {
    const float* field = grid_.data() + j / width_ * fields * lanes_;
    return {field, field + lanes_, field + 2 * lanes_, field + 3 * lanes_, field + 4 * lanes_};
  }

  template <class F>
  void with_batch(Index begin, View<const float> X, View<const float> coupling, View<const float> T,
                  View<float> E, F&& f) noexcept {
    CAFEQ_ASSERT(X.rows <= lines_a_batch && X.cols == lanes_);
    kernel::LaneGrid grids[lines_a_batch];
    for (Index j = 0; j < X.rows; ++j) grids[j] = grid(first_ + begin + j);
    f(kernel::LineBatch{X, coupling, T, E, grids, codes_.data() + (first_ + begin) * lanes_,
                        lanes_});
  }

  Encoding<Q>& encoding_;
  Index row_;
  Index rows_;
  Index lanes_;
  Index width_;
  Index first_ = 0;
  std::span<float> grid_;
  std::span<std::uint8_t> codes_;
};

namespace detail {

template <class Q>
struct SlabOf {
  using type = ScalarSlab<Q>;
};
template <UniformGrid Q>
struct SlabOf<Q> {
  using type = UniformSlab<Q>;
};

}  // namespace detail

template <ScalarQuantizer Q>
using RowSlab = typename detail::SlabOf<Q>::type;

}  // namespace cafeq::rounding
