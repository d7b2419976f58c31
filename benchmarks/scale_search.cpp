// The search for the scales of least squared error; rates count the bytes of the weights.
#include <cmath>
#include <vector>

#include "cafeq/quant/affine.hpp"
#include "cafeq/quant/midrise.hpp"
#include "cafeq/quant/rows.hpp"
#include "support/bench.hpp"

using cafeq::Index;

namespace {

constexpr Index cols = 4096, rows = 8;

template <class Q>
void search(bench::Contest& c, Index group) {
  const Q q;
  const auto x = bench::weights(rows * cols);
  std::vector<typename Q::Params> params(std::size_t(rows * cols / group));
  c.ours(bench::Unit::gigabytes, 4.0 * double(x.size()), [&] {
    for (Index i = 0; i < rows; ++i)
      cafeq::fit_row(
          q, std::span<const float>(x).subspan(std::size_t(i * cols), std::size_t(cols)), group,
          std::span(params).subspan(std::size_t(i * cols / group), std::size_t(cols / group)));
    bench::keep(params[0]);
  });
  // The candidates alone, each a loop over the group that the compiler may vectorise but for the
  // order of its sum.
  std::vector<float> best(params.size());
  c.peer("plain loop", [&] {
    for (std::size_t g = 0; g < best.size(); ++g) {
      const float* p = x.data() + g * std::size_t(group);
      float absmax = 0;
      for (Index i = 0; i < group; ++i) absmax = std::max(absmax, std::abs(p[i]));
      const float top = float(1 << (cafeq::detail::fixed_bits<Q>() - 1)) - 1;
      float least = INFINITY;
      for (int k = 0; k < cafeq::detail::range_candidates; ++k) {
        const float scale = absmax / (top + 0.5f) *
                            (1 - 0.6f * float(k) / float(cafeq::detail::range_candidates - 1)),
                    inverse = 1 / scale;
        float sum = 0;
        for (Index i = 0; i < group; ++i) {
          const float u = std::floor(p[i] * inverse);
          const float r = p[i] - scale * ((u < -top - 1 ? -top - 1 : u > top ? top : u) + 0.5f);
          sum += r * r;
        }
        if (sum < least) {
          least = sum;
          best[g] = scale;
        }
      }
    }
    bench::keep(best[0]);
  });
  c.run();
}

template <class Q>
void add(const std::string& name) {
  for (const Index group : {Index(64), Index(128), cols}) {
    const std::string where = group == cols ? "row" : "g" + std::to_string(group);
    bench::add("scale_search", where + " " + name + std::to_string(cafeq::detail::fixed_bits<Q>()),
               [group](bench::Contest& c) { search<Q>(c, group); });
  }
}

}  // namespace

void register_benchmarks() {
  add<cafeq::Midrise<2>>("midrise");
  add<cafeq::Midrise<3>>("midrise");
  add<cafeq::Midrise<4>>("midrise");
  add<cafeq::Affine<2>>("affine");
  add<cafeq::Affine<3>>("affine");
  add<cafeq::Affine<4>>("affine");
}
