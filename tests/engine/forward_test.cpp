#include "engine/forward.hpp"

#include "support/catch.hpp"
#include "support/error_of.hpp"
#include "tiny_model.hpp"

using namespace engine;
using namespace engine::test;
using cafeq::Activation;
using cafeq::test::error_of;

namespace {

using Vector = std::vector<double>;

Vector sum_of(Vector a, const Vector& b) {
  for (std::size_t j = 0; j < a.size(); ++j) a[j] += b[j];
  return a;
}

/// The formulas one number at a time in double, for rotations of neighbours.
class ReferenceModel {
 public:
  explicit ReferenceModel(const TinyModel& model) : model_(model), c_(model.config) {}

  /// Logits of the last token.
  Vector operator()(const std::vector<Token>& tokens) const {
    std::vector<Vector> x;
    for (const Token token : tokens) {
      const auto row = at("model.embed_tokens.weight").row(Index(token));
      x.emplace_back(row.begin(), row.end());
      for (double& value : x.back()) value *= c_.embedding_scale;
    }
    for (Index l = 0; l < c_.layers; ++l) {
      const std::string p = "model.layers." + std::to_string(l) + ".";
      const bool sandwich = model_.find(p + "pre_feedforward_layernorm.weight") != nullptr;
      const std::vector<Vector> heads = attention(l, p, x);
      for (std::size_t t = 0; t < x.size(); ++t) {
        const Vector change = linear(p + "self_attn.o_proj", heads[t]);
        x[t] = sum_of(x[t], sandwich ? norm(p + "post_attention_layernorm", change) : change);
        const Vector h =
            norm(p + (sandwich ? "pre_feedforward_layernorm" : "post_attention_layernorm"), x[t]);
        Vector gate = linear(p + "mlp.gate_proj", h);
        const Vector up = linear(p + "mlp.up_proj", h);
        for (std::size_t j = 0; j < gate.size(); ++j) gate[j] = activation(gate[j]) * up[j];
        const Vector down = linear(p + "mlp.down_proj", gate);
        x[t] = sum_of(x[t], sandwich ? norm(p + "post_feedforward_layernorm", down) : down);
      }
    }
    Vector logits =
        linear(c_.tied_embeddings ? "model.embed_tokens" : "lm_head", norm("model.norm", x.back()));
    for (double& logit : logits) logit = capped(logit, c_.logit_softcap);
    return logits;
  }

  /// What each matrix has read so far.
  mutable std::map<std::string, std::vector<Vector>> inputs{};

 private:
  const Matrix<float>& at(const std::string& name) const { return model_.tensors.at(name); }

  Vector linear(const std::string& name, const Vector& x) const {
    inputs[name].push_back(x);
    const Matrix<float>& W = at(name + ".weight");
    const Matrix<float>* bias = model_.find(name + ".bias");
    Vector y;
    for (Index i = 0; i < W.rows(); ++i) {
      y.push_back(bias == nullptr ? 0 : double((*bias)(0, i)));
      for (Index j = 0; j < W.cols(); ++j) y.back() += double(W(i, j)) * x[std::size_t(j)];
    }
    return y;
  }
  Vector norm(const std::string& name, const Vector& x) const {
    double squares = 0;
    for (const double v : x) squares += v * v / double(x.size());
    Vector y;
    for (std::size_t j = 0; j < x.size(); ++j)
      y.push_back(x[j] / std::sqrt(squares + c_.norm_epsilon) *
                  (double(at(name + ".weight")(0, Index(j))) + c_.norm_offset));
    return y;
  }
  static double capped(double x, double cap) { return cap > 0 ? cap * std::tanh(x / cap) : x; }
  double activation(double x) const {
    if (c_.mlp.activation == Activation::silu) return x / (1 + std::exp(-x));
    return x / 2 * (1 + std::tanh(std::sqrt(2 / std::acos(-1.0)) * (x + 0.044715 * x * x * x)));
  }

  /// Of each head of a token: normalised where the model does so, and x + iy turned by the angle.
  Vector placed(Vector x, const std::string& norm_name, bool windowed, double position) const {
    const std::size_t dim = std::size_t(c_.head_dim);
    const bool own = windowed && c_.window_rope_base > 0;
    for (std::size_t head = 0; head < x.size(); head += dim) {
      const auto begin = x.begin() + std::ptrdiff_t(head);
      Vector h(begin, begin + std::ptrdiff_t(dim));
      if (model_.find(norm_name + ".weight") != nullptr) h = norm(norm_name, h);
      for (std::size_t i = 0; i < dim / 2; ++i) {
        double angle = position * std::pow(own ? c_.window_rope_base : c_.rope_base,
                                           -2 * double(i) / double(dim));
        if (!own && !c_.rope_scaling.factors.empty()) angle /= c_.rope_scaling.factors[i];
        const double size = own ? 1 : c_.rope_scaling.magnitude, a = h[2 * i], b = h[2 * i + 1];
        h[2 * i] = size * (a * std::cos(angle) - b * std::sin(angle));
        h[2 * i + 1] = size * (a * std::sin(angle) + b * std::cos(angle));
      }
      std::ranges::copy(h, begin);
    }
    return x;
  }

  std::vector<Vector> attention(Index layer, const std::string& p,
                                const std::vector<Vector>& x) const {
    const bool windowed = c_.is_windowed(layer);
    std::vector<Vector> q, k, v, result;
    for (std::size_t t = 0; t < x.size(); ++t) {
      const Vector h = norm(p + "input_layernorm", x[t]);
      q.push_back(
          placed(linear(p + "self_attn.q_proj", h), p + "self_attn.q_norm", windowed, double(t)));
      k.push_back(
          placed(linear(p + "self_attn.k_proj", h), p + "self_attn.k_norm", windowed, double(t)));
      v.push_back(linear(p + "self_attn.v_proj", h));
    }
    const std::size_t dim = std::size_t(c_.head_dim), group = std::size_t(c_.heads / c_.kv_heads);
    const double scale = c_.attention_scale > 0 ? c_.attention_scale : 1 / std::sqrt(double(dim));
    for (std::size_t t = 0; t < x.size(); ++t) {
      result.emplace_back(q[t].size());
      for (std::size_t head = 0; head < std::size_t(c_.heads); ++head) {
        const std::size_t from = head * dim, kv = head / group * dim;
        double sum = 0;
        Vector weighted(dim);
        for (std::size_t s = 0; s <= t; ++s) {
          if (windowed && t - s >= std::size_t(c_.window)) continue;
          double score = 0;
          for (std::size_t j = 0; j < dim; ++j) score += q[t][from + j] * k[s][kv + j];
          const double weight = std::exp(capped(scale * score, c_.attention_softcap));
          sum += weight;
          for (std::size_t j = 0; j < dim; ++j) weighted[j] += weight * v[s][kv + j];
        }
        for (std::size_t j = 0; j < dim; ++j) result[t][from + j] = weighted[j] / sum;
      }
    }
    return result;
  }

  const TinyModel& model_;
  const cafeq::ModelConfig& c_;
};

const std::vector<Token> tokens{1, 5, 9, 0, 10, 5, 5, 2, 7, 1, 6, 6};

void check(const TinyModel& model) {
  const Matrix<float> all = logits_of(model.model(), tokens);
  const ReferenceModel reference(model);
  for (std::size_t n = 0; n < tokens.size(); ++n) {
    const Vector expected = reference({tokens.begin(), tokens.begin() + std::ptrdiff_t(n) + 1});
    for (std::size_t j = 0; j < expected.size(); ++j)
      CHECK(double(all(Index(n), Index(j))) == Approx(expected[j]).margin(2e-4));
  }
}

}  // namespace

TEST_CASE("the forward pass follows its formulas, whether or not heads share keys and values") {
  for (const Index kv_heads : {1, 2, 4}) {
    auto c = tiny_config();
    c.kv_heads = kv_heads;
    check(tiny_model(c));
  }
}

TEST_CASE("heads may be wider or narrower than the model, and part of them not rotated") {
  auto c = tiny_config();
  c.heads = 3, c.kv_heads = 1, c.head_dim = 6;
  c.attention.rotary->dims = 6;
  check(tiny_model(c));
}

TEST_CASE("each thing that a family of models does otherwise") {
  const auto with = [](auto&& change, const Extras& extras = {}) {
    auto c = tiny_config();
    change(c);
    check(tiny_model(c, extras));
  };
  SECTION("a head of its own") {
    with([](auto& c) { c.tied_embeddings = false; });
  }
  SECTION("biases") {
    with([](auto&) {}, {.biases = true});
  }
  SECTION("norms of heads") {
    with([](auto&) {}, {.head_norms = true});
  }
  SECTION("norms of what is added") {
    with([](auto&) {}, {.sandwich_norms = true});
  }
  SECTION("gains that count from 1") {
    with([](auto& c) { c.norm_offset = 1; });
  }
  SECTION("larger embeddings") {
    with([](auto& c) { c.embedding_scale = 4; });
  }
  SECTION("GELU") {
    with([](auto& c) { c.mlp.activation = Activation::gelu; });
  }
  SECTION("another scale of scores") {
    with([](auto& c) { c.attention_scale = 0.1; });
  }
  SECTION("capped scores") {
    with([](auto& c) { c.attention_softcap = 0.5; });
  }
  SECTION("capped logits") {
    with([](auto& c) { c.logit_softcap = 3; });
  }
  SECTION("windows in some layers") {
    for (const Index window : {1, 3, 5})
      with([&](auto& c) { c.window = window, c.windowed = {true, false}; });
  }
  SECTION("windows with rotary positions of their own") {
    with([](auto& c) {
      c.window = 4, c.windowed = {false, true}, c.window_rope_base = 100;
      c.rope_scaling.factors = {8, 8};
    });
  }
  SECTION("scaled rotary positions") {
    with([](auto& c) { c.rope_scaling.factors = {1, 3}, c.rope_scaling.magnitude = 1.2; });
  }
}

TEST_CASE("a text in parts has the same bits as the whole, on any number of threads") {
  auto c = tiny_config();
  c.window = 4, c.windowed = {true, false};
  const Model model = tiny_model(c).model();
  const Matrix<float> whole = logits_of(model, tokens);
  for (const Index count : {1, 2, 3}) {
    cafeq::ThreadPool threads(count);
    const Transformer transformer(model, threads);
    for (const std::size_t part : {1u, 5u, 12u}) {
      Text text;
      for (std::size_t begin = 0; begin < tokens.size(); begin += part) {
        CHECK(text.length() == Index(begin));
        const std::size_t size = std::min(part, tokens.size() - begin);
        const Matrix<float> states =
            transformer.forward(text, std::span(tokens).subspan(begin, size));
        Matrix<float> some(states.rows(), c.vocabulary);
        transformer.logits(states.view(), some.view());
        for (std::size_t n = 0; n < size; ++n)
          REQUIRE(std::ranges::equal(some.row(Index(n)), whole.row(Index(begin + n))));
      }
    }
  }
}

TEST_CASE("texts that go together have the states that each has alone") {
  const Model model = tiny_model().model();
  const Transformer transformer(model, {});
  const std::vector<Token> other{3, 3, 8};
  Text first, second, alone, other_alone;
  const Part begun{&first, std::span(tokens).first(4)};
  transformer.forward(std::span(&begun, 1));
  const std::vector<Part> parts{{&second, other}, {&first, std::span(tokens).subspan(4)}};
  const Matrix<float> together = transformer.forward(parts);
  const Matrix<float> expected = transformer.forward(alone, tokens),
                      others = transformer.forward(other_alone, other);
  REQUIRE(together.rows() == 11);
  for (Index i = 0; i < 3; ++i) CHECK(std::ranges::equal(together.row(i), others.row(i)));
  for (Index i = 3; i < 11; ++i) CHECK(std::ranges::equal(together.row(i), expected.row(i + 1)));
  CHECK(first.length() == 12);
  CHECK(second.length() == 3);
}

TEST_CASE("texts beyond the context and unknown tokens are refused") {
  const Model model = tiny_model().model();
  const Transformer transformer(model, {});
  const std::vector<Token> full(20, 1), one{1}, unknown{11};
  Text text;
  CHECK(error_of([&] { transformer.forward(text, unknown); }).message() ==
        "token 11 is not among the 11 of the model");
  transformer.forward(text, full);
  CHECK(error_of([&] { transformer.forward(text, one); }).message() ==
        "a text of 21 tokens is longer than the model's context of 20");
}

TEST_CASE("observing a model tells what each stack of each layer takes in, text after text") {
  for (const bool sandwich : {false, true}) {
    const TinyModel tiny = tiny_model(tiny_config(), {.biases = true, .sandwich_norms = sandwich});
    const Model model = tiny.model();
    const std::vector<Tokens> texts{{1, 5, 9, 0}, {2}, {10, 5, 5, 2, 7}};
    std::map<std::string, std::vector<std::vector<float>>> seen;
    std::vector<Index> done;
    const std::map<cafeq::Role, std::string> names{{cafeq::Role::query, "self_attn.q_proj"},
                                                   {cafeq::Role::output, "self_attn.o_proj"},
                                                   {cafeq::Role::gate, "mlp.gate_proj"},
                                                   {cafeq::Role::down, "mlp.down_proj"}};
    Transformer(model, {}).observe(
        texts,
        [&](Index layer) -> Watch {
          return [&, layer](cafeq::Role role, View<const float> x) {
            auto& rows = seen["model.layers." + std::to_string(layer) + "." + names.at(role)];
            for (Index i = 0; i < x.rows; ++i) rows.emplace_back(x.row(i).begin(), x.row(i).end());
          };
        },
        [&](Index layer) { done.push_back(layer); });
    CHECK(done == std::vector<Index>{0, 1});

    const ReferenceModel reference(tiny);
    for (const Tokens& text : texts) reference(text);
    CHECK(seen.size() == 8);
    for (const auto& [name, rows] : seen) {
      INFO(name);
      const auto& expected = reference.inputs.at(name);
      REQUIRE(rows.size() == 10);
      REQUIRE(expected.size() == 10);
      for (std::size_t i = 0; i < rows.size(); ++i)
        for (std::size_t j = 0; j < rows[i].size(); ++j)
          CHECK(double(rows[i][j]) == Approx(expected[i][j]).margin(1e-4));
    }
  }
}
