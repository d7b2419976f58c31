// Weights to packed codes and back, and what the codes cost, row by row as a pipeline does it;
// rates count the bytes of the fp32 weights.
#include <algorithm>
#include <cmath>
#include <vector>

#include "cafeq/quant/affine.hpp"
#include "cafeq/quant/midrise.hpp"
#include "cafeq/quant/rows.hpp"
#include "support/bench.hpp"

using cafeq::Index;

namespace {

/// Midrise as anyone may write it: its own levels under one of the library's scale formats.
struct OwnLevels {
  static constexpr cafeq::UniformLevels<false, true> of(int bits) noexcept {
    const float half = float(1 << (bits - 1));
    return {-half, half - 1};
  }
};
template <int Bits>
using OwnGrid = cafeq::Grid<OwnLevels, cafeq::Fp16Scale<>, Bits>;

constexpr Index near_floats = Index(1) << 17, far_floats = Index(1) << 24, cols = 4096;

template <class Q>
std::string label(const char* name, Index n) {
  return std::string(name) + std::to_string(cafeq::detail::fixed_bits<Q>()) +
         (n == near_floats ? " L2" : " DRAM");
}

template <class Q>
struct Rows {
  Rows(Index n, Index group)
      : width(group),
        x(bench::weights(n)),
        params(std::size_t(n / group)),
        packed(std::size_t(n * cafeq::detail::fixed_bits<Q>() / 8)),
        errors(params.size()) {}

  static std::size_t count(Index n, Index group) { return std::size_t(n / group); }
  template <class F>
  void for_each(F&& f) {
    const std::size_t groups = std::size_t(cols / width),
                      bytes = std::size_t(cols * cafeq::detail::fixed_bits<Q>() / 8);
    for (std::size_t i = 0; i < x.size() / std::size_t(cols); ++i)
      f(std::span<const float>(x).subspan(i * std::size_t(cols), std::size_t(cols)),
        std::span(params).subspan(i * groups, groups), std::span(packed).subspan(i * bytes, bytes),
        std::span(errors).subspan(i * groups, groups));
  }

  Index width;
  Q q{.search = cafeq::ScaleSearch::minmax};
  bench::Floats x;
  std::vector<typename Q::Params> params;
  cafeq::Buffer<std::uint8_t> packed;
  std::vector<double> errors;
};

/// The plain loops of the peer: min/max, then nearest codes of 4 bits, two a byte.
template <class F>
void plain_groups(const bench::Floats& x, Index width, float steps, F&& f) {
  for (std::size_t j = 0; j < x.size(); j += std::size_t(width)) {
    const float* p = x.data() + j;
    float least = p[0], greatest = p[0];
    for (Index i = 1; i < width; ++i) {
      least = p[i] < least ? p[i] : least;
      greatest = p[i] > greatest ? p[i] : greatest;
    }
    const float scale = (greatest - least) / steps;
    f(p, j, least, scale, scale > 0 ? 1.0f / scale : 0.0f);
  }
}

template <class Q>
void quantize(bench::Contest& c, Index n, Index group) {
  Rows<Q> rows(n, group);
  c.ours(bench::Unit::gigabytes, 4.0 * double(n), [&] {
    rows.for_each([&](auto x, auto params, auto packed, auto) {
      cafeq::fit_row(rows.q, x, group, params);
      cafeq::pack_row(rows.q, x, group, params, packed);
    });
    bench::keep(rows.packed[0]);
  });
  c.limit(bench::read_limit(4 * n));
  if constexpr (cafeq::detail::fixed_bits<Q>() == 4) {
    c.peer("plain loop", [&] {
      plain_groups(rows.x, group, 15,
                   [&](const float* p, std::size_t j, float low, float, float inverse) {
                     for (Index i = 0; i < group; i += 2) {
                       const int a = int((p[i] - low) * inverse + 0.5f),
                                 b = int((p[i + 1] - low) * inverse + 0.5f);
                       rows.packed[(j + std::size_t(i)) / 2] = std::uint8_t(a | b << 4);
                     }
                   });
      bench::keep(rows.packed[0]);
    });
  }
  c.run();
}

template <class Q>
void dequantize(bench::Contest& c, Index n, Index group) {
  Rows<Q> rows(n, group);
  rows.for_each([&](auto x, auto params, auto packed, auto) {
    cafeq::fit_row(rows.q, x, group, params);
    cafeq::pack_row(rows.q, x, group, params, packed);
  });
  bench::Floats out(std::size_t(cols), 0.0f);
  c.ours(bench::Unit::gigabytes, 4.0 * double(n), [&] {
    rows.for_each([&](auto, auto params, auto packed, auto) {
      cafeq::unpack_row(rows.q, packed, group, params, out);
    });
    bench::keep(out[0]);
  });
  c.peer("plain loop", [&] {
    rows.for_each([&](auto, auto params, auto packed, auto) {
      for (std::size_t i = 0; i < out.size(); ++i) {
        const std::size_t bit = i * std::size_t(cafeq::detail::fixed_bits<Q>());
        unsigned code = unsigned(packed[bit / 8]) >> (bit % 8);
        if (bit % 8 + std::size_t(cafeq::detail::fixed_bits<Q>()) > 8)
          code |= unsigned(packed[bit / 8 + 1]) << (8 - bit % 8);
        out[i] = rows.q.decode(std::uint8_t(code & ((1u << cafeq::detail::fixed_bits<Q>()) - 1)),
                               params[i / std::size_t(group)]);
      }
    });
    bench::keep(out[0]);
  });
  c.run();
}

/// A user's grid beside the library's with the same levels: the same loops, so the same rate.
void quantize_own(bench::Contest& c, Index n, Index group) {
  Rows<OwnGrid<4>> own(n, group);
  Rows<cafeq::Midrise<4>> library(n, group);
  const auto quantize_rows = [group](auto& rows) {
    rows.for_each([&](auto x, auto params, auto packed, auto) {
      cafeq::fit_row(rows.q, x, group, params);
      cafeq::pack_row(rows.q, x, group, params, packed);
    });
    bench::keep(rows.packed[0]);
  };
  c.ours(bench::Unit::gigabytes, 4.0 * double(n), [&] { quantize_rows(own); });
  c.peer("Midrise", [&] { quantize_rows(library); });
  c.run();
}

/// Σ (x − x̂)² of each group of a row.
template <class Q>
void row_errors(const Q& q, std::span<const float> x, Index width,
                std::span<const typename Q::Params> params, std::span<double> errors) {
  const std::size_t at_once = std::size_t(cafeq::kernel::groups_at_once);
  for (std::size_t g = 0; g < params.size(); g += at_once) {
    const std::size_t count = std::min(at_once, params.size() - g), begin = g * std::size_t(width);
    const cafeq::ScaleOffsets at = q.scale_offsets(params.subspan(g, count));
    const auto weights = x.subspan(begin, std::min(count * std::size_t(width), x.size() - begin));
    cafeq::kernel::group_errors({weights, width}, q.level_set(), at.scale, at.offset,
                                errors.subspan(g, count));
  }
}

template <class Q>
void error(bench::Contest& c, Index n, Index group) {
  Rows<Q> rows(n, group);
  c.ours(bench::Unit::gigabytes, 4.0 * double(n), [&] {
    rows.for_each([&](auto x, auto params, auto, auto errors) {
      cafeq::fit_row(rows.q, x, group, params);
      row_errors<Q>(rows.q, x, group, params, errors);
    });
    bench::keep(rows.errors[0]);
  });
  c.limit(bench::read_limit(4 * n));
  c.peer("plain loop", [&] {
    plain_groups(rows.x, group, float((1 << cafeq::detail::fixed_bits<Q>()) - 1),
                 [&](const float* p, std::size_t j, float low, float scale, float inverse) {
                   double sum = 0;
                   for (Index i = 0; i < group; ++i) {
                     const float r = p[i] - low - scale * std::nearbyint((p[i] - low) * inverse);
                     sum += double(r) * double(r);
                   }
                   rows.errors[j / std::size_t(group)] = sum;
                 });
    bench::keep(rows.errors[0]);
  });
  c.run();
}

}  // namespace

void register_benchmarks() {
  using cafeq::Affine;
  using cafeq::Midrise;
  for (const Index n : {near_floats, far_floats}) {
    bench::add("fit_encode_pack", label<Affine<4>>("g64 affine", n),
               [=](bench::Contest& c) { quantize<Affine<4>>(c, n, 64); });
    bench::add("fit_encode_pack", label<Affine<4>>("g128 affine", n),
               [=](bench::Contest& c) { quantize<Affine<4>>(c, n, 128); });
    bench::add("fit_encode_pack", label<Affine<3>>("g64 affine", n),
               [=](bench::Contest& c) { quantize<Affine<3>>(c, n, 64); });
    bench::add("fit_encode_pack", label<Midrise<4>>("g64 midrise", n),
               [=](bench::Contest& c) { quantize<Midrise<4>>(c, n, 64); });
    bench::add("fit_encode_pack", label<Midrise<2>>("row midrise", n),
               [=](bench::Contest& c) { quantize<Midrise<2>>(c, n, cols); });
    bench::add("fit_error", label<Affine<4>>("g64 affine", n),
               [=](bench::Contest& c) { error<Affine<4>>(c, n, 64); });
    bench::add("fit_error", label<Midrise<4>>("g128 midrise", n),
               [=](bench::Contest& c) { error<Midrise<4>>(c, n, 128); });
  }
  bench::add("fit_encode_pack", "g64 a user's midrise4 L2",
             [](bench::Contest& c) { quantize_own(c, near_floats, 64); });
  bench::add("unpack_decode", "g64 affine4",
             [](bench::Contest& c) { dequantize<Affine<4>>(c, near_floats, 64); });
  bench::add("unpack_decode", "row midrise3",
             [](bench::Contest& c) { dequantize<Midrise<3>>(c, near_floats, cols); });
}
