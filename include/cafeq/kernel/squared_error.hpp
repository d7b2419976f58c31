/// What a scale costs a group: squared errors at many scales and offsets in one pass.
///
/// Sums run in the fixed order of kernel/lane_order.hpp by explicit fused multiply-adds, so a
/// compiler has no say in which scale wins.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>

#include "cafeq/kernel/units.hpp"

namespace cafeq::kernel {

namespace detail {

inline constexpr Index candidates_at_once = 4;

/// out[c · groups_at_once] = the lanes of Σ (u − level)² at candidate c.
template <Index Count, class Arch, class Levels, class Size>
inline void candidate_errors(Piece<Size> piece, Levels levels, float pivot, const Units* units,
                             Index g, Batch<float, Arch>* out) noexcept {
  using V = Batch<float, Arch>;
  constexpr Index parts = lane_parts<Arch>;
  V sum[Count][parts], inverse[Count], shift[Count];
  const V origin(pivot), fixed_shift(-level_bias(levels));
  CAFEQ_UNROLL
  for (Index c = 0; c < Count; ++c) {
    inverse[c] = V(units[c].inverse[std::size_t(g)]);
    shift[c] = Levels::has_offset ? V(units[c].shift[std::size_t(g)]) : fixed_shift;
    CAFEQ_UNROLL
    for (Index p = 0; p < parts; ++p) sum[c][p] = V(0.0f);
  }
  for_each_vector<Arch>(piece.x, piece.n, [&](Index p, const V& v, auto keep) {
    const V y = simd::in_register(relative(levels, v, origin));
    CAFEQ_UNROLL
    for (Index c = 0; c < Count; ++c) {
      const V u = simd::fma(y, inverse[c], Levels::has_offset ? shift[c] : fixed_shift);
      const V error = keep(u - nearest(levels, u));
      sum[c][p] = simd::fma(error, error, sum[c][p]);
    }
  });
  CAFEQ_UNROLL
  for (Index c = 0; c < Count; ++c) out[c * groups_at_once] = sum_of_parts<Arch>(sum[c]);
}

/// unit_errors() of Count candidates. Sums over pieces of long groups go on in double.
template <Index Count, class Arch, class Levels>
inline void candidates_errors(const GroupSpan& groups, const Levels& levels, const Units* units,
                              Each<float>* errors) noexcept {
  const Index count = groups.count();
  Batch<float, Arch> partial[Count * groups_at_once];
  const auto errors_of = [&](auto piece) {
    for (Index g = 0; g < count; ++g)
      candidate_errors<Count, Arch>(piece(g), levels, Levels::has_offset ? groups.pivot[g] : 0.0f,
                                    units, g, partial + g);
  };
  if (groups.width <= longest_piece) {
    for_each_piece(groups, errors_of, [&] {
      for (Index c = 0; c < Count; ++c) {
        errors[c] = {};
        add_sums<Arch>(partial + c * groups_at_once, count, errors[c]);
      }
    });
  } else {
    Each<double> sums[Count] = {};
    for_each_piece(groups, errors_of, [&] {
      for (Index c = 0; c < Count; ++c)
        add_sums<Arch>(partial + c * groups_at_once, count, sums[c]);
    });
    for (Index c = 0; c < Count; ++c)
      for (std::size_t g = 0; g < sums[c].size(); ++g) errors[c][g] = float(sums[c][g]);
  }
}

}  // namespace detail

/// errors[c][g] = Σ (u − level)² of group g at candidate c: the squared error in units of the
/// scale's square.
template <class Arch = DefaultArch, class Levels>
void unit_errors(const GroupSpan& groups, const Levels& levels, std::span<const Units> units,
                 std::span<Each<float>> errors) noexcept {
  CAFEQ_ASSERT(errors.size() == units.size() && groups.count() <= groups_at_once &&
               (groups.count() <= 1 || groups.width <= detail::longest_piece));
  constexpr std::size_t many = std::size_t(detail::candidates_at_once);
  for (; units.size() >= many; units = units.subspan(many), errors = errors.subspan(many))
    detail::candidates_errors<many, Arch>(groups, levels, units.data(), errors.data());
  for (; !units.empty(); units = units.subspan(1), errors = errors.subspan(1))
    detail::candidates_errors<1, Arch>(groups, levels, units.data(), errors.data());
}

/// The meaning of unit_errors(), weight by weight.
template <class Levels>
void unit_errors_reference(const GroupSpan& groups, const Levels& levels,
                           std::span<const Units> units, std::span<Each<float>> errors) noexcept {
  for (std::size_t c = 0; c < units.size(); ++c) {
    errors[c] = {};
    for (std::size_t g = 0; g < std::size_t(groups.count()); ++g) {
      float sum[detail::lanes] = {};
      double total = 0;
      detail::for_each_weight(
          groups, g, levels, units[c],
          [&](std::size_t lane, float, float level, float u) {
            sum[lane] = std::fma(u - level, u - level, sum[lane]);
          },
          [&] {
            total += double(detail::sum_of_lanes_reference(sum));
            std::fill(sum, sum + detail::lanes, 0.0f);
          });
      errors[c][g] = float(total);
    }
  }
}

namespace detail {

/// Σ (x − value)².
template <class Arch>
double squared_distance(std::span<const float> x, float value) noexcept {
  using V = Batch<float, Arch>;
  double total = 0;
  for_each_piece(x, [&](std::span<const float> piece) {
    V sum[lane_parts<Arch>];
    CAFEQ_UNROLL
    for (Index p = 0; p < lane_parts<Arch>; ++p) sum[p] = V(0.0f);
    for_each_vector<Arch>(piece, [&](Index p, const V& v, auto keep) {
      const V error = keep(v - V(value));
      sum[p] = simd::fma(error, error, sum[p]);
    });
    total += double(sum_of_lanes<Arch>(sum));
  });
  return total;
}

}  // namespace detail

/// errors[c] = Σ (x − x̂)² of one group at candidates[c].
template <class Arch = DefaultArch, class Levels>
void squared_errors(std::span<const float> x, const Levels& levels,
                    std::span<const ScaleOffset> candidates, std::span<double> errors) noexcept {
  CAFEQ_ASSERT(errors.size() == candidates.size());
  constexpr std::size_t many = 16;
  const float pivot = candidates.empty() ? 0.0f : candidates[0].offset;
  const float bias = level_bias(levels);
  std::array<Units, many> units;
  std::array<Each<float>, many> sums;
  for (std::size_t begin = 0; begin < candidates.size(); begin += many) {
    const auto some = candidates.subspan(begin, std::min(many, candidates.size() - begin));
    for (std::size_t c = 0; c < some.size(); ++c) {
      units[c].inverse[0] = inverse_scale(some[c].scale);
      units[c].shift[0] =
          std::fma(pivot - some[c].offset, Levels::has_offset ? units[c].inverse[0] : 0.0f, -bias);
    }

    unit_errors<Arch>({x, std::max<Index>(1, Index(x.size())), &pivot}, levels,
                      std::span<const Units>(units).first(some.size()),
                      std::span(sums).first(some.size()));

    for (std::size_t c = 0; c < some.size(); ++c) {
      const double scale = double(some[c].scale);
      errors[begin + c] = scale != 0 ? scale * scale * double(sums[c][0])
                                     : detail::squared_distance<Arch>(
                                           x, Levels::has_offset ? some[c].offset : 0.0f);
    }
  }
}

/// errors[g] = Σ (x − x̂)² of group g at its scale and offset, without x̂ in memory.
template <class Arch = DefaultArch, class Levels>
void group_errors(GroupSpan groups, const Levels& levels, const Each<float>& scale,
                  const Each<float>& offset, std::span<double> errors) noexcept {
  CAFEQ_ASSERT(Index(errors.size()) == groups.count());
  groups.pivot = offset.data();
  using V = Batch<float, Arch>;
  const V shift(-level_bias(levels)), zero(0.0f);
  Units units;
  bool vanished = false;  // some scale
  for (std::size_t g = 0; g < scale.size(); g += V::size) {
    const V s = V::load_unaligned(scale.data() + g);
    const auto usable = s != zero;
    vanished |= !simd::all(usable);
    simd::select(usable, V(1.0f) / s, zero).store_unaligned(units.inverse.data() + g);
    shift.store_unaligned(units.shift.data() + g);
  }

  alignas(each_alignment) Each<float> sums;
  unit_errors<Arch>(groups, levels, {&units, 1}, {&sums, 1});
  Each<double> squares;
  for (std::size_t g = 0; g < squares.size(); ++g)
    squares[g] = double(scale[g]) * double(scale[g]) * double(sums[g]);
  if (errors.size() == squares.size()) std::copy_n(squares.data(), squares.size(), errors.data());
  else std::copy_n(squares.data(), errors.size(), errors.data());

  // A scale of zero has no units: its groups are measured themselves.
  if (!vanished) return;
  for (std::size_t g = 0; g < errors.size(); ++g)
    if (scale[g] == 0)
      errors[g] = detail::squared_distance<Arch>(groups.group(Index(g)),
                                                 Levels::has_offset ? offset[g] : 0.0f);
}

}  // namespace cafeq::kernel
