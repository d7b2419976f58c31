#include "engine/forward.hpp"

#include <numbers>

#include "support/catch.hpp"
#include "tiny_model.hpp"

using namespace engine;
using namespace engine::test;

namespace {

using Vector = std::vector<double>;

Vector multiply(const Matrix& w, const Vector& x) {
  Vector y;
  for (std::size_t i = 0; i < w.rows; ++i) {
    y.push_back(0);
    for (std::size_t j = 0; j < w.cols; ++j) y.back() += double(w.row(i)[j]) * x[j];
  }
  return y;
}

Vector normalise(const Matrix& weights, const Vector& x) {
  double squares = 0;
  for (const double v : x) squares += v * v / double(x.size());
  Vector y;
  for (std::size_t j = 0; j < x.size(); ++j)
    y.push_back(x[j] / std::sqrt(squares + 1e-5) * double(weights.values[j]));
  return y;
}

/// Rotates pairs of neighbours: x + iy by the angle.
void rotate(Vector& x, std::size_t head_dim, double position) {
  for (std::size_t i = 0; i < x.size(); i += 2) {
    const double angle = position * std::pow(10000.0, -double(i % head_dim) / double(head_dim));
    const double a = x[i], b = x[i + 1];
    x[i] = a * std::cos(angle) - b * std::sin(angle);
    x[i + 1] = a * std::sin(angle) + b * std::cos(angle);
  }
}

/// The formulas one number at a time in double, for rotations of neighbours; logits of the last
/// token.
Vector reference(const TinyModel& model, const std::vector<Token>& tokens) {
  const Config& c = model.config;
  std::vector<Vector> x;
  for (const Token token : tokens) {
    const auto row = model.tensors.at("model.embed_tokens.weight").row(token);
    x.emplace_back(row.begin(), row.end());
  }
  for (std::size_t l = 0; l < c.layers; ++l) {
    const auto tensor = [&](const std::string& name) -> const Matrix& {
      return model.tensors.at("model.layers." + std::to_string(l) + "." + name + ".weight");
    };
    std::vector<Vector> q, k, v;
    for (std::size_t t = 0; t < x.size(); ++t) {
      const Vector h = normalise(tensor("input_layernorm"), x[t]);
      q.push_back(multiply(tensor("self_attn.q_proj"), h));
      k.push_back(multiply(tensor("self_attn.k_proj"), h));
      v.push_back(multiply(tensor("self_attn.v_proj"), h));
      rotate(q.back(), c.head_dim, double(t));
      rotate(k.back(), c.head_dim, double(t));
    }
    for (std::size_t t = 0; t < x.size(); ++t) {
      Vector heads(c.heads * c.head_dim);
      for (std::size_t head = 0; head < c.heads; ++head) {
        const std::size_t from = head * c.head_dim, kv = head / (c.heads / c.kv_heads) * c.head_dim;
        Vector weights;
        double sum = 0;
        for (std::size_t s = 0; s <= t; ++s) {
          double score = 0;
          for (std::size_t j = 0; j < c.head_dim; ++j) score += q[t][from + j] * k[s][kv + j];
          weights.push_back(std::exp(score / std::sqrt(double(c.head_dim))));
          sum += weights.back();
        }
        for (std::size_t s = 0; s <= t; ++s)
          for (std::size_t j = 0; j < c.head_dim; ++j)
            heads[from + j] += weights[s] / sum * v[s][kv + j];
      }
      const Vector attention = multiply(tensor("self_attn.o_proj"), heads);
      for (std::size_t j = 0; j < c.dim; ++j) x[t][j] += attention[j];
      const Vector h = normalise(tensor("post_attention_layernorm"), x[t]);
      Vector gate = multiply(tensor("mlp.gate_proj"), h);
      const Vector up = multiply(tensor("mlp.up_proj"), h);
      for (std::size_t j = 0; j < c.hidden; ++j)
        gate[j] = gate[j] / (1 + std::exp(-gate[j])) * up[j];
      const Vector down = multiply(tensor("mlp.down_proj"), gate);
      for (std::size_t j = 0; j < c.dim; ++j) x[t][j] += down[j];
    }
  }
  return multiply(model.tensors.at("model.embed_tokens.weight"),
                  normalise(model.tensors.at("model.norm.weight"), x.back()));
}

const std::vector<Token> text{1, 5, 9, 0, 10, 5, 5, 2, 7, 1, 6, 6};

}  // namespace

TEST_CASE("the forward pass follows its formulas, whether or not heads share keys and values") {
  for (const std::size_t kv_heads : {1u, 2u, 4u}) {
    Config c = tiny_config();
    c.kv_heads = kv_heads;
    const TinyModel model = tiny_model(c);
    const Matrix all = logits(model.checkpoint(), text);
    for (std::size_t n = 0; n < text.size(); ++n) {
      const Vector expected =
          reference(model, {text.begin(), text.begin() + std::ptrdiff_t(n) + 1});
      for (std::size_t j = 0; j < expected.size(); ++j)
        CHECK(double(all.row(n)[j]) == Approx(expected[j]).margin(1e-4));
    }
  }
}

TEST_CASE("heads may be wider or narrower than the model") {
  Config c = tiny_config();
  c.heads = 3, c.kv_heads = 1, c.head_dim = 6;
  const TinyModel model = tiny_model(c);
  const Matrix all = logits(model.checkpoint(), text);
  const Vector expected = reference(model, text);
  for (std::size_t j = 0; j < expected.size(); ++j)
    CHECK(double(all.row(text.size() - 1)[j]) == Approx(expected[j]).margin(1e-4));
}

TEST_CASE("a text in parts has the same bits as the whole, on any number of threads") {
  const TinyModel tiny = tiny_model();
  const Model model = load_model(tiny.checkpoint());
  const Matrix whole = logits(tiny.checkpoint(), text);
  for (const cafeq::Index count : {1, 2, 3}) {
    cafeq::ThreadPool threads(count);
    Transformer transformer(model, threads);
    for (const std::size_t part : {1u, 5u, 12u}) {
      transformer.clear();
      for (std::size_t begin = 0; begin < text.size(); begin += part) {
        CHECK(transformer.position() == begin);
        const std::size_t size = std::min(part, text.size() - begin);
        const Matrix some =
            transformer.logits(transformer.forward(std::span(text).subspan(begin, size)));
        for (std::size_t n = 0; n < size; ++n)
          REQUIRE(std::ranges::equal(some.row(n), whole.row(begin + n)));
      }
    }
  }
}

TEST_CASE("texts beyond the context and unknown tokens are refused") {
  const Model model = load_model(tiny_model().checkpoint());
  Transformer transformer(model, {});
  const std::vector<Token> full(20, 1), one{1}, unknown{11};
  CHECK_THROWS_WITH(transformer.forward(unknown), "token 11 is not among the 11 of the model");
  transformer.forward(full);
  CHECK_THROWS_WITH(transformer.forward(one),
                    "a text of 21 tokens is longer than the model's context of 20");
  transformer.clear();
  CHECK(transformer.forward(one).rows == 1);
}

TEST_CASE("rotations slow down as Llama 3.1 has it") {
  Config c;
  c.head_dim = 8;
  c.rope_base = 10000;
  CHECK(engine::detail::rope_frequencies(c) == std::vector<double>{1, 0.1, 0.01, 0.001});
  // Turns within the original context: 100, 10, 1, 0.1. Of 2 and fewer nothing is kept, of 18 and
  // more all; of 10 half.
  c.rope_scaling = RopeScaling{.factor = 8,
                               .low_frequency_factor = 2,
                               .high_frequency_factor = 18,
                               .original_context = 200 * std::numbers::pi};
  const auto scaled = engine::detail::rope_frequencies(c);
  const double expected[] = {1, 0.1 * (0.5 + 0.5 / 8), 0.01 / 8, 0.001 / 8};
  for (std::size_t i = 0; i < 4; ++i) CHECK(scaled[i] == Approx(expected[i]).epsilon(1e-12));
}
