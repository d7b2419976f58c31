// Attention and an MLP in fp64, written out plainly: what transforms of pairs must leave as it is.
#pragma once
#include <cmath>
#include <functional>
#include <vector>

#include "cafeq/loss/pair_product.hpp"
#include "cafeq/pair/attention.hpp"
#include "cafeq/pair/head_transform.hpp"
#include "support/random.hpp"

namespace cafeq::test {

struct Attention {
  HeadLayout layout;
  Matrix<float> Wq, Wk, Wv, Wo;
  std::vector<float> bq, bk, bv, bo;

  Attention(HeadLayout l, Index in, Index out, std::uint64_t seed, bool biases = true)
      : layout(l),
        Wq(gaussian(l.heads * l.head_dim, in, seed, 0.4)),
        Wk(gaussian(l.kv_heads * l.head_dim, in, seed + 1, 0.4)),
        Wv(gaussian(l.kv_heads * l.head_dim, in, seed + 2, 0.4)),
        Wo(gaussian(out, l.heads * l.head_dim, seed + 3, 0.4)) {
    const auto fill = [&](std::vector<float>& b, Index n, std::uint64_t s) {
      const auto m = gaussian(n, 1, seed + s, biases ? 1.0 : 0.0);
      b.assign(m.data(), m.data() + n);
    };
    fill(bq, Wq.rows(), 4);
    fill(bk, Wk.rows(), 5);
    fill(bv, Wv.rows(), 6);
    fill(bo, Wo.rows(), 7);
  }

  static Matrix<double> project(const Matrix<float>& W, const std::vector<float>& b,
                                const Matrix<double>& X) {
    Matrix<double> Y(X.rows(), W.rows());
    for (Index t = 0; t < X.rows(); ++t)
      for (Index o = 0; o < W.rows(); ++o) {
        double sum = double(b[std::size_t(o)]);
        for (Index i = 0; i < W.cols(); ++i) sum += double(W(o, i)) * X(t, i);
        Y(t, o) = sum;
      }
    return Y;
  }

  static void rotate(Matrix<double>& Y, Index heads, Index d, const Rotary& rotary) {
    for (Index t = 0; t < Y.rows(); ++t)
      for (Index h = 0; h < heads; ++h)
        for (Index p = 0; p < rotary.pairs(); ++p) {
          const auto [i, j] = rotary.pair(p);
          const double angle = double(t) * std::pow(100.0, -double(p) / double(rotary.pairs()));
          double& a = Y(t, h * d + i);
          double& b = Y(t, h * d + j);
          const double turned = a * std::cos(angle) - b * std::sin(angle);
          b = a * std::sin(angle) + b * std::cos(angle);
          a = turned;
        }
  }

  // Causal; sink adds e^0 to each softmax denominator.
  Matrix<double> operator()(const Matrix<double>& X, std::optional<Rotary> rotary = {},
                            bool sink = false) const {
    auto Q = project(Wq, bq, X), K = project(Wk, bk, X);
    const auto V = project(Wv, bv, X);
    const Index d = layout.head_dim;
    if (rotary) {
      rotate(Q, layout.heads, d, *rotary);
      rotate(K, layout.kv_heads, d, *rotary);
    }
    Matrix<double> Z(X.rows(), layout.heads * d);
    for (Index h = 0; h < layout.heads; ++h) {
      const Index kv = h / (layout.heads / layout.kv_heads);
      for (Index t = 0; t < X.rows(); ++t) {
        std::vector<double> weight;
        double sum = sink ? 1.0 : 0.0;
        for (Index s = 0; s <= t; ++s) {
          double score = 0;
          for (Index c = 0; c < d; ++c) score += Q(t, h * d + c) * K(s, kv * d + c);
          weight.push_back(std::exp(0.3 * score / std::sqrt(double(d))));
          sum += weight.back();
        }
        for (Index s = 0; s <= t; ++s)
          for (Index c = 0; c < d; ++c)
            Z(t, h * d + c) += weight[std::size_t(s)] / sum * V(s, kv * d + c);
      }
    }
    return project(Wo, bo, Z);
  }
};

template <class T>
VectorView<T> vec(std::vector<T>& v) {
  return {v.data(), Index(v.size()), 1};
}

/// Random matrices of moderate condition, [kv_heads · d, d].
inline Matrix<double> random_stack(HeadLayout layout, std::uint64_t seed) {
  auto M = gaussian<double>(layout.kv_heads * layout.head_dim, layout.head_dim, seed, 0.5);
  for (Index i = 0; i < M.rows(); ++i) M(i, i % layout.head_dim) += 2.0;
  return M;
}

/// ‖A − B‖ / ‖A‖ (not squared).
inline double distance(const Matrix<double>& a, const Matrix<double>& b) {
  return std::sqrt(relative_error<double, double>(a.view(), b.view()));
}

/// The relative error of a pair from products that are formed.
template <class T = float>
double dense_pair_error(View<const float> F1, View<const float> F2, View<const T> H1,
                        View<const T> H2, HeadLayout layout) {
  const Index d = layout.head_dim;
  double error = 0, norm = 0;
  for (Index h = 0; h < layout.heads; ++h) {
    const Index kv = h / (layout.heads / layout.kv_heads);
    for (Index i = 0; i < F1.cols; ++i)
      for (Index j = 0; j < F2.cols; ++j) {
        double p = 0, q = 0;
        for (Index c = 0; c < d; ++c) {
          p += double(F1(h * d + c, i)) * double(F2(kv * d + c, j));
          q += double(H1(h * d + c, i)) * double(H2(kv * d + c, j));
        }
        error += (p - q) * (p - q);
        norm += p * p;
      }
  }
  return norm > 0 ? error / norm : error;
}

/// Whether f raises this code with a message that contains the text.
template <class F>
bool raises(ErrorCode code, const std::string& text, F&& f) {
  try {
    f();
  } catch (const Error& e) {
    return e.code() == code && e.message().find(text) != std::string::npos;
  }
  return false;
}

inline const std::vector<HeadLayout>& layouts() {
  static const std::vector<HeadLayout> all{{.head_dim = 8, .heads = 4},
                                           {.head_dim = 8, .heads = 4, .kv_heads = 2},
                                           {.head_dim = 7, .heads = 3, .kv_heads = 1},
                                           {.head_dim = 1, .heads = 4, .kv_heads = 2},
                                           {.head_dim = 1, .heads = 1}};
  return all;
}

}  // namespace cafeq::test
