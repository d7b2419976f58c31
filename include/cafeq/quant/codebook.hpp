/// Codebook: x̂ = s · level, for any table of levels; NF4, NF3 and the Lloyd–Max tables of a
/// Gaussian. One positive fp16 scale a group.
#pragma once

#include "cafeq/quant/grid.hpp"
#include "cafeq/quant/level_table.hpp"

namespace cafeq {

/// Use a table of your own, `Codebook{.levels = {-1, -0.3f, 0.3f, 1}}`, or one of the factories
/// below. minmax and absmax: the level of largest magnitude is absmax.
using Codebook = Grid<LevelTable, Fp16Scale<>>;

/// 4-bit NormalFloat (Dettmers et al., "QLoRA", 2023), scaled by absmax as there.
inline Codebook nf4(Index group = 64, ScaleSearch search = ScaleSearch::absmax) {
  return {.levels = {-1.0f, -0.6961928009986877f, -0.5250730514526367f, -0.39491748809814453f,
                     -0.28444138169288635f, -0.18477343022823334f, -0.09105003625154495f, 0.0f,
                     0.07958029955625534f, 0.16093020141124725f, 0.24611230194568634f,
                     0.33791524171829224f, 0.44070982933044434f, 0.5626170039176941f,
                     0.7229568362236023f, 1.0f},
          .group = group,
          .search = search};
}

/// The same construction with 8 levels.
inline Codebook nf3(Index group = 64, ScaleSearch search = ScaleSearch::absmax) {
  return {.levels = {-1.0f, -0.5350227085f, -0.2469314318f, 0.0f, 0.1833374803f, 0.3819939543f,
                     0.6229857417f, 1.0f},
          .group = group,
          .search = search};
}

/// The best 2^Bits levels for a unit Gaussian (Lloyd, Max): errors .117482, .034548, .009501 at 2,
/// 3 and 4 bits.
template <int Bits>
Codebook lloyd_max_gaussian(Index group = per_row, ScaleSearch search = ScaleSearch::mse) {
  static_assert(Bits >= 2 && Bits <= 4, "cafeq: lloyd_max_gaussian has tables for 2 to 4 bits");
  if constexpr (Bits == 2) {
    return {.levels = {-1.5104176085f, -0.4527800346f, 0.4527800346f, 1.5104176085f},
            .group = group,
            .search = search};
  } else if constexpr (Bits == 3) {
    return {.levels = {-2.1519457045f, -1.3439092785f, -0.7560052812f, -0.2450941789f,
                       0.2450941789f, 0.7560052812f, 1.3439092785f, 2.1519457045f},
            .group = group,
            .search = search};
  } else {
    return {.levels = {-2.732589571f, -2.0690172265f, -1.618046386f, -1.2562311973f, -0.9423404565f,
                       -0.6567591185f, -0.3880482995f, -0.1283950299f, 0.1283950299f, 0.3880482995f,
                       0.6567591185f, 0.9423404565f, 1.2562311973f, 1.618046386f, 2.0690172265f,
                       2.732589571f},
            .group = group,
            .search = search};
  }
}

}  // namespace cafeq
