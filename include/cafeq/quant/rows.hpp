/// Whole rows of a matrix at once: parameters, packed codes, values and errors, without a matrix of
/// codes in between.
///
/// A row x [n] falls into ⌈n / width⌉ groups of `width` weights, the last one perhaps shorter, with
/// one Params each; codes are packed as core/packed.hpp says. Every function is what the name says
/// done group by group with fit, encode and decode. A quantizer that knows a faster way has a
/// member of the same name and arguments, which must give the same bits; only fit_row may find
/// others, where neighbouring groups share what they store. Nothing here allocates unless the
/// quantizer does.
#pragma once

#include <algorithm>
#include <array>

#include "cafeq/kernel/pack.hpp"
#include "cafeq/quant/grid.hpp"
#include "cafeq/quant/scale_search.hpp"

namespace cafeq {

namespace detail {

/// Codes that wait on the stack: a multiple of 8, so that a chunk of packed ones starts at a byte.
inline constexpr Index codes_at_once = 1024;

/// f(first weight, count, group) for the part of each group that lies in [begin, end).
template <class F>
void for_each_part(Index begin, Index end, Index width, F&& f) {
  for (Index j = begin; j < end;) {
    const Index group = j / width;
    const Index stop = std::min(end, (group + 1) * width);
    f(j, stop - j, group);
    j = stop;
  }
}

/// A uniform grid whose levels are the same for every group: lines(params) are the scales and
/// offsets of up to groups_at_once of them.
template <class Q>
concept HasLines = requires(const Q& q, std::span<const typename Q::Params> params) {
  { q.lines(params) } -> std::same_as<Lines>;
  q.levels();
};

/// Rows up to this size are asked for one row ahead: while this one, read when its parameters were
/// found, is computed with, memory would be idle.
inline constexpr Index prefetched_bytes = Index(1) << 17;

/// f(number of the first group, groups, lines) for the groups of a row.
template <class Q, class F>
void for_each_lines(const Q& q, std::span<const float> x, Index width,
                    std::span<const typename Q::Params> params, F&& f) {
  const Index following = Index(x.size_bytes());
  for_each_groups(x, width, [&](std::size_t first, const GroupSpan& groups) {
    if (following <= prefetched_bytes)
      for (std::size_t l = 0; l < groups.x.size(); l += 16)
        simd::prefetch(groups.x.data() + l, following);
    f(first, groups, q.lines(params.subspan(first, std::size_t(groups.count()))));
  });
}

}  // namespace detail

/// Whether the parameters of one row depend on the others: one scale, or other state, for the whole
/// tensor.
template <ScalarQuantizer Q>
bool couples_rows(const Q& q) noexcept {
  return q.group == per_tensor || requires(View<const float> X) { q.for_tensor(X); };
}

/// The codes of the weights of one group.
template <ScalarQuantizer Q>
void encode_group(const Q& q, std::span<const float> x, const typename Q::Params& params,
                  std::span<std::uint8_t> codes) {
  if constexpr (requires { q.encode_group(x, params, codes); }) {
    q.encode_group(x, params, codes);
  } else {
    for (std::size_t l = 0; l < x.size(); ++l) codes[l] = q.encode(x[l], params);
  }
}

/// params[g] = the fit to group g of x.
template <ScalarQuantizer Q>
void fit_row(const Q& q, std::span<const float> x, Index width,
             std::span<typename Q::Params> params) {
  CAFEQ_ASSERT(width > 0 && Index(params.size()) == ceil_div(Index(x.size()), width));
  if constexpr (requires { q.fit_row(x, width, params); }) {
    q.fit_row(x, width, params);
  } else {
    detail::for_each_part(0, Index(x.size()), width, [&](Index j, Index n, Index group) {
      params[std::size_t(group)] = q.fit(x.subspan(std::size_t(j), std::size_t(n)));
    });
  }
}

/// The codes of x at the given parameters, packed into ⌈n · bits / 8⌉ bytes.
template <ScalarQuantizer Q>
void pack_row(const Q& q, std::span<const float> x, Index width,
              std::span<const typename Q::Params> params, std::span<std::uint8_t> packed) {
  CAFEQ_ASSERT(width > 0 && Index(params.size()) == ceil_div(Index(x.size()), width));
  if constexpr (requires { q.pack_row(x, width, params, packed); }) {
    q.pack_row(x, width, params, packed);
  } else {
    if constexpr (detail::HasLines<Q>) {
      if (width % 8 == 0 || width >= Index(x.size())) {
        detail::for_each_lines(
            q, x, width, params,
            [&](std::size_t group, const GroupSpan& groups, const Lines& lines) {
              kernel::encode_packed(
                  groups.x, width, q.levels(), lines.scale.data(), lines.offset.data(), q.bits,
                  packed.subspan(group * std::size_t(width) / 8 * std::size_t(q.bits)));
            });
        return;
      }
    }
    std::array<std::uint8_t, std::size_t(detail::codes_at_once)> codes;
    const Index n = Index(x.size());
    for (Index begin = 0; begin < n; begin += detail::codes_at_once) {
      const Index end = std::min(begin + detail::codes_at_once, n);
      detail::for_each_part(begin, end, width, [&](Index j, Index count, Index group) {
        encode_group(q, x.subspan(std::size_t(j), std::size_t(count)), params[std::size_t(group)],
                     std::span(codes).subspan(std::size_t(j - begin), std::size_t(count)));
      });
      kernel::pack(std::span<const std::uint8_t>(codes).first(std::size_t(end - begin)), q.bits,
                   packed.subspan(std::size_t(begin * q.bits / 8)));
    }
  }
}

/// The values of packed codes, the inverse of pack_row but for the rounding.
template <ScalarQuantizer Q>
void unpack_row(const Q& q, std::span<const std::uint8_t> packed, Index width,
                std::span<const typename Q::Params> params, std::span<float> out) {
  CAFEQ_ASSERT(width > 0 && Index(params.size()) == ceil_div(Index(out.size()), width));
  if constexpr (requires { q.unpack_row(packed, width, params, out); }) {
    q.unpack_row(packed, width, params, out);
  } else {
    const Index n = Index(out.size());
    if constexpr (requires {
                    { q.code_lines(params) } -> std::same_as<Lines>;
                  }) {
      if (width % 8 == 0 || width >= n) {
        const Index at_once = kernel::groups_at_once;
        for (Index g = 0; g < Index(params.size()); g += at_once) {
          const Lines lines = q.code_lines(params.subspan(
              std::size_t(g), std::size_t(std::min(at_once, Index(params.size()) - g))));
          kernel::decode_packed(packed.subspan(std::size_t(g * width / 8 * q.bits)), q.bits, width,
                                lines.scale.data(), lines.offset.data(),
                                out.subspan(std::size_t(g * width),
                                            std::size_t(std::min(at_once * width, n - g * width))));
        }
        return;
      }
    }
    std::array<std::uint8_t, std::size_t(detail::codes_at_once)> codes;
    for (Index begin = 0; begin < n; begin += detail::codes_at_once) {
      const Index end = std::min(begin + detail::codes_at_once, n);
      unpack_codes(packed.subspan(std::size_t(begin * q.bits / 8)), q.bits,
                   std::span(codes).first(std::size_t(end - begin)));
      detail::for_each_part(begin, end, width, [&](Index j, Index count, Index group) {
        for (Index l = j; l < j + count; ++l)
          out[std::size_t(l)] = q.decode(codes[std::size_t(l - begin)], params[std::size_t(group)]);
      });
    }
  }
}

/// errors[g] = Σ (x − x̂)² over group g at its parameters, without x̂ in memory. Uniform grids have a
/// kernel for it.
template <ScalarQuantizer Q>
void row_errors(const Q& q, std::span<const float> x, Index width,
                std::span<const typename Q::Params> params, std::span<double> errors) {
  CAFEQ_ASSERT(width > 0 && Index(params.size()) == ceil_div(Index(x.size()), width) &&
               errors.size() == params.size());
  if constexpr (detail::HasLines<Q>) {
    detail::for_each_lines(
        q, x, width, params, [&](std::size_t group, const GroupSpan& groups, const Lines& lines) {
          kernel::group_errors(groups, q.levels(), lines.scale, lines.offset,
                               errors.subspan(group, std::size_t(groups.count())));
        });
  } else {
    detail::for_each_part(0, Index(x.size()), width, [&](Index j, Index n, Index group) {
      double sum = 0;
      for (const float v : x.subspan(std::size_t(j), std::size_t(n))) {
        const double r = double(v) - double(q.decode(q.encode(v, params[std::size_t(group)]),
                                                     params[std::size_t(group)]));
        sum = std::fma(r, r, sum);
      }
      errors[std::size_t(group)] = sum;
    });
  }
}

}  // namespace cafeq
