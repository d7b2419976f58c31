#include "kernels.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <numeric>
#include <utility>

#include "cafeq/kernel/dense_product.hpp"

namespace engine {
namespace {

namespace kernel = cafeq::kernel;
using cafeq::ExecutorRef;
using Floats = xsimd::batch<float, cafeq::DefaultArch>;
constexpr Index lanes = Index(Floats::size);

/// n floats as vectors, the last of which is filled up.
struct Input {
  const float* data;
  float fill = 0;

  Floats at(Index i, Index n) const {
    if (i + lanes <= n) return Floats::load_unaligned(data + i);
    std::array<float, Floats::size> last;
    last.fill(fill);
    std::copy(data + i, data + n, last.begin());
    return Floats::load_unaligned(last.data());
  }
};

/// y[i] = f(x[i]...)
template <class F, class... X>
void map(float* y, Index n, F f, X... x) {
  for (Index i = 0; i < n; i += lanes) {
    const Floats value = f(x.at(i, n)...);
    if (i + lanes <= n) {
      value.store_unaligned(y + i);
    } else {
      std::array<float, Floats::size> last;
      value.store_unaligned(last.data());
      std::copy_n(last.begin(), n - i, y + i);
    }
  }
}

double sum_of(Floats x) {
  std::array<float, Floats::size> each;
  x.store_unaligned(each.data());
  return std::accumulate(each.begin(), each.end(), 0.0);
}

/// Σ f(x[i]...), of some thousand terms in floats, and of these sums in double. What fills up the
/// inputs is counted too.
template <class F, class... X>
double sum(Index n, F f, X... x) {
  constexpr Index block = 64 * lanes;
  double total = 0;
  for (Index begin = 0; begin < n; begin += block) {
    Floats part(0.0f);
    for (Index i = begin; i < std::min(n, begin + block); i += lanes) part += f(x.at(i, n)...);
    total += sum_of(part);
  }
  return total;
}

constexpr float never = -std::numeric_limits<float>::infinity();

float largest(const float* x, Index n) {
  Floats highest(never);
  for (Index i = 0; i < n; i += lanes) highest = xsimd::max(highest, Input{x, never}.at(i, n));
  std::array<float, Floats::size> each;
  highest.store_unaligned(each.data());
  return *std::max_element(each.begin(), each.end());
}

double log_sum_exp(std::span<const float> x) {
  const Index n = Index(x.size());
  const float most = largest(x.data(), n);
  const auto above = [most](Floats v) { return xsimd::exp(v - most); };
  return std::log(sum(n, above, Input{x.data(), never})) + double(most);
}

double divergence(std::span<const float> p, double p_sum, std::span<const float> q, double q_sum) {
  // Σ p (log p − log q), where log p − log q = x − y − (p_sum − q_sum) for logits x and y
  const float log_sum = float(p_sum), apart = float(p_sum - q_sum);
  const auto term = [=](Floats x, Floats y) { return xsimd::exp(x - log_sum) * (x - y - apart); };
  // Far below all that counts, and finite: nothing times infinity is not a number.
  constexpr float unlikely = -1e4f;
  return std::max(0.0, sum(Index(p.size()), term, Input{p.data(), unlikely}, Input{q.data(), 0}));
}

std::shared_ptr<const Panels> pack(View<const float> W) {
  return std::make_shared<const Panels>(W.transposed());
}

Product dense(std::shared_ptr<const Panels> W) {
  return [W = std::move(W)](View<const float> X, View<float> Y, ExecutorRef threads) {
    constexpr Index width = kernel::panel_width<float>;
    constexpr Index step = 8;  // panels that stay in the cache while X passes by
    const auto panels = W->panels();
    threads.parallel_for(
        cafeq::ceil_div(panels.cols, width), step, [&](Index begin, Index end, Index) {
          for (; begin < end; begin += step) {
            const Index first = begin * width,
                        last = std::min(panels.cols, std::min(begin + step, end) * width);
            kernel::multiply<float>(
                X, kernel::Panels<float>{panels.at(0, first), panels.rows, last - first},
                Y.col_block(first, last - first));
          }
        });
  };
}

/// Scores become weights, of which those outside of [begin, end) are 0.
void softmax(std::span<float> scores, Index begin, Index end, float softcap) {
  float* x = scores.data() + begin;
  const Index n = end - begin;
  if (softcap > 0)
    map(x, n, [=](Floats s) { return softcap * xsimd::tanh(s / softcap); }, Input{x});
  const float most = largest(x, n);
  map(x, n, [=](Floats s) { return xsimd::exp(s - most); }, Input{x});
  const float scale = float(1 / sum(n, [](Floats weight) { return weight; }, Input{x}));
  map(x, n, [=](Floats weight) { return weight * scale; }, Input{x});
  std::fill(scores.begin(), scores.begin() + begin, 0.0f);
  std::fill(scores.begin() + end, scores.end(), 0.0f);
}

void attend(const AttentionShape& shape, View<const float> queries, View<const float> keys,
            View<const float> values, View<float> result, ExecutorRef threads) {
  constexpr Index rows = 48;  // queries at a time
  const Index dim = shape.head_dim, group = shape.heads / shape.kv_heads;
  const Index before = keys.rows - queries.rows, blocks = cafeq::ceil_div(queries.rows, rows);
  const Index window = shape.window > 0 ? shape.window : keys.rows;

  threads.parallel_for(blocks * shape.kv_heads, 1, [&](Index begin, Index end, Index) {
    cafeq::Buffer<float> packed;
    for (; begin < end; ++begin) {
      const Index kv_head = begin % shape.kv_heads;
      const Index first = begin / shape.kv_heads * rows,
                  count = std::min(rows, queries.rows - first);
      // What any of these queries attends to.
      const Index from = std::max<Index>(0, before + first - window + 1),
                  tokens = before + first + count - from;
      const auto k = keys.block(from, kv_head * dim, tokens, dim),
                 v = values.block(from, kv_head * dim, tokens, dim);
      packed.resize(std::size_t(kernel::panels_size<float>(dim, tokens)));
      const auto panels = kernel::pack_panels<float>(k.transposed(), packed.data());
      Matrix<float> scores(count, tokens);
      for (Index head = kv_head * group; head < (kv_head + 1) * group; ++head) {
        kernel::multiply<float>(queries.block(first, head * dim, count, dim), panels,
                                scores.view());
        for (Index i = 0; i < count; ++i) {
          const Index position = before + first + i;
          float* row = scores.row(i).data();
          map(row, tokens, [&](Floats s) { return s * shape.scale; }, Input{row});
          softmax(scores.row(i), std::max<Index>(0, position - window + 1 - from),
                  position + 1 - from, shape.softcap);
        }
        kernel::multiply<float>(std::as_const(scores).view(), v,
                                result.block(first, head * dim, count, dim));
      }
    }
  });
}

Floats silu(Floats x) { return x / (1.0f + xsimd::exp(-x)); }

/// The approximation by tanh, which models are trained with.
Floats gelu(Floats x) {
  const Floats inner = 0.7978845608f * (x + 0.044715f * x * x * x);
  return 0.5f * x * (1.0f + xsimd::tanh(inner));
}

void gate(cafeq::Activation activation, View<const float> gate_up, View<float> y,
          ExecutorRef threads) {
  const Index hidden = y.cols;
  threads.parallel_for(y.rows, 4, [&](Index begin, Index end, Index) {
    for (Index i = begin; i < end; ++i) {
      const float *g = gate_up.row(i).data(), *u = g + hidden;
      float* to = y.row(i).data();
      if (activation == cafeq::Activation::silu)
        map(to, hidden, [](Floats a, Floats b) { return silu(a) * b; }, Input{g}, Input{u});
      else map(to, hidden, [](Floats a, Floats b) { return gelu(a) * b; }, Input{g}, Input{u});
    }
  });
}

}  // namespace
}  // namespace engine

template <>
constinit const engine::Kernels cafeq::Dispatched<engine::Kernels>::table{
    .pack = engine::pack,
    .dense = engine::dense,
    .attend = engine::attend,
    .gate = engine::gate,
    .log_sum_exp = engine::log_sum_exp,
    .divergence = engine::divergence,
    .add_inputs = [](cafeq::InputGram& gram, cafeq::View<const float> x,
                     cafeq::ExecutorRef threads) { gram.add(x, threads); }};
