/// Whole rows of a matrix at once: parameters, packed codes and values, without a matrix of codes
/// in between.
///
/// A row x [n] falls into ⌈n / width⌉ groups of `width` weights, the last one perhaps shorter, with
/// one Params each; codes are packed as core/packed.hpp says. Every function is what its name says,
/// done group by group with fit, encode and decode. A quantizer that knows a faster way has a
/// member of the same name and arguments, as every Grid does; it must give the same bits. Only
/// fit_row may find others, where neighbouring groups share what they store. Nothing here allocates
/// unless the quantizer does.
#pragma once

#include <algorithm>
#include <array>

#include "cafeq/kernel/pack_codes.hpp"
#include "cafeq/quant/quantizer.hpp"

namespace cafeq {

namespace detail {

/// Codes that wait on the stack: a multiple of 8, so that their packed form starts at a byte.
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

/// Whether the parameters of one row depend on the others: one scale, or other state, for the whole
/// tensor.
template <ScalarQuantizer Q>
bool couples_rows(const Q& q) noexcept {
  return q.group == per_tensor || requires(View<const float> X) { q.for_tensor(X); };
}

}  // namespace detail

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

namespace detail {

/// pack_row() by way of encode_group().
template <class Q>
void pack_groups(const Q& q, std::span<const float> x, Index width,
                 std::span<const typename Q::Params> params, std::span<std::uint8_t> packed) {
  std::array<std::uint8_t, std::size_t(codes_at_once)> codes;
  const Index n = Index(x.size());
  for (Index begin = 0; begin < n; begin += codes_at_once) {
    const Index end = std::min(begin + codes_at_once, n);
    for_each_part(begin, end, width, [&](Index j, Index count, Index group) {
      cafeq::encode_group(q, x.subspan(std::size_t(j), std::size_t(count)),
                          params[std::size_t(group)],
                          std::span(codes).subspan(std::size_t(j - begin), std::size_t(count)));
    });
    kernel::pack(std::span<const std::uint8_t>(codes).first(std::size_t(end - begin)), q.bits,
                 packed.subspan(std::size_t(begin * q.bits / 8)));
  }
}

/// unpack_row() by way of decode().
template <class Q>
void unpack_groups(const Q& q, std::span<const std::uint8_t> packed, Index width,
                   std::span<const typename Q::Params> params, std::span<float> out) {
  std::array<std::uint8_t, std::size_t(codes_at_once)> codes;
  const Index n = Index(out.size());
  for (Index begin = 0; begin < n; begin += codes_at_once) {
    const Index end = std::min(begin + codes_at_once, n);
    unpack_codes(packed.subspan(std::size_t(begin * q.bits / 8)), q.bits,
                 std::span(codes).first(std::size_t(end - begin)));
    for_each_part(begin, end, width, [&](Index j, Index count, Index group) {
      for (Index l = j; l < j + count; ++l)
        out[std::size_t(l)] = q.decode(codes[std::size_t(l - begin)], params[std::size_t(group)]);
    });
  }
}

}  // namespace detail

/// The codes of x at the given parameters, packed into ⌈n · bits / 8⌉ bytes.
template <ScalarQuantizer Q>
void pack_row(const Q& q, std::span<const float> x, Index width,
              std::span<const typename Q::Params> params, std::span<std::uint8_t> packed) {
  CAFEQ_ASSERT(width > 0 && Index(params.size()) == ceil_div(Index(x.size()), width));
  if constexpr (requires { q.pack_row(x, width, params, packed); })
    q.pack_row(x, width, params, packed);
  else detail::pack_groups(q, x, width, params, packed);
}

/// The values of packed codes, the inverse of pack_row but for the rounding.
template <ScalarQuantizer Q>
void unpack_row(const Q& q, std::span<const std::uint8_t> packed, Index width,
                std::span<const typename Q::Params> params, std::span<float> out) {
  CAFEQ_ASSERT(width > 0 && Index(params.size()) == ceil_div(Index(out.size()), width));
  if constexpr (requires { q.unpack_row(packed, width, params, out); })
    q.unpack_row(packed, width, params, out);
  else detail::unpack_groups(q, packed, width, params, out);
}

}  // namespace cafeq
