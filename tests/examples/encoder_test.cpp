#include "encoder/encoder.hpp"

#include "cafeq/core/thread_pool.hpp"
#include "io/tfjs_model.hpp"
#include "support/catch.hpp"
#include "support/random.hpp"

using namespace cafeq;
using namespace cafeq::example;
using test::error_of;

namespace {

constexpr Index in = 8, out = 16, hidden = 12, tokens = 10;

std::vector<float> random_vector(Index size, std::uint64_t seed) {
  const auto m = test::gaussian<float>(1, size, seed, 0.5);
  return {m.data(), m.data() + size};
}
Dense random_dense(Index rows, Index cols, std::uint64_t seed) {
  return {test::gaussian<float>(rows, cols, seed, 0.4), random_vector(rows, seed + 1000)};
}
LayerNorm random_norm(Index size, std::uint64_t seed) {
  return {random_vector(size, seed), random_vector(size, seed + 1000)};
}

/// A small encoder whose layers differ in width, as the published one's do.
EncoderWeights small_weights() {
  EncoderWeights w;
  w.embeddings = test::gaussian<float>(tokens, in, 1);
  w.inverse_timescales = {1.0f, 0.5f, 0.1f, 0.01f};
  w.layers.push_back({random_norm(in, 2), random_dense(3 * in, in, 3), random_dense(out, in, 4),
                      random_norm(out, 5), random_dense(hidden, out, 6),
                      random_dense(out, hidden, 7)});
  w.layers.push_back({random_norm(out, 8), random_dense(3 * out, out, 9),
                      random_dense(out, out, 10), random_norm(out, 11),
                      random_dense(hidden, out, 12), random_dense(out, hidden, 13)});
  w.dense = random_dense(out, in, 14);
  w.tanh = random_dense(out, out, 15);
  check_weights(w);
  return w;
}

using Vector = std::vector<double>;

Vector multiply(const Dense& layer, const Vector& x) {
  Vector y;
  for (Index i = 0; i < layer.weight.rows(); ++i) {
    y.push_back(layer.bias[std::size_t(i)]);
    for (Index j = 0; j < layer.weight.cols(); ++j)
      y.back() += double(layer.weight(i, j)) * x[std::size_t(j)];
  }
  return y;
}

Vector normalise(const LayerNorm& norm, const Vector& x) {
  double mean = 0, variance = 0;
  for (const double v : x) mean += v / double(x.size());
  for (const double v : x) variance += (v - mean) * (v - mean) / double(x.size());
  Vector y;
  for (std::size_t i = 0; i < x.size(); ++i)
    y.push_back((x[i] - mean) / std::sqrt(variance + 1e-6) * double(norm.scale[i]) +
                double(norm.bias[i]));
  return y;
}

/// The formulas at the top of encoder.hpp, one number at a time in double.
Vector reference(const EncoderWeights& w, const Tokens& sentence) {
  std::vector<Vector> x;
  for (std::size_t p = 0; p < sentence.size(); ++p) {
    Vector row;
    for (Index j = 0; j < in; ++j) {
      const double angle = double(p) * double(w.inverse_timescales[std::size_t(j % (in / 2))]);
      row.push_back(2 * double(w.embeddings(sentence[p], j)) +
                    (j < in / 2 ? std::sin(angle) : std::cos(angle)));
    }
    x.push_back(row);
  }
  for (std::size_t l = 0; l < 2; ++l) {
    const EncoderLayer& layer = w.layers[l];
    const auto width = std::size_t(layer.width()), dim = std::size_t(layer.head_dim());
    std::vector<Vector> qkv;
    for (const Vector& row : x)
      qkv.push_back(multiply(layer.qkv, normalise(layer.attention_norm, row)));
    std::vector<Vector> next;
    for (std::size_t i = 0; i < x.size(); ++i) {
      Vector attention(width);
      for (std::size_t h = 0; h < 4; ++h) {
        Vector weights;
        double sum = 0;
        for (std::size_t j = 0; j < x.size(); ++j) {
          double score = 0;
          for (std::size_t d = 0; d < dim; ++d)
            score += qkv[i][h * dim + d] * qkv[j][width + h * dim + d];
          weights.push_back(std::exp(score / std::sqrt(double(dim))));
          sum += weights.back();
        }
        for (std::size_t j = 0; j < x.size(); ++j)
          for (std::size_t d = 0; d < dim; ++d)
            attention[h * dim + d] += weights[j] / sum * qkv[j][2 * width + h * dim + d];
      }
      Vector y = multiply(layer.o, attention);
      const Vector residual = l == 0 ? multiply(w.dense, x[i]) : x[i];
      for (std::size_t j = 0; j < y.size(); ++j) y[j] += residual[j];
      Vector inner = multiply(layer.ffn1, normalise(layer.ffn_norm, y));
      for (double& v : inner) v = std::max(v, 0.0);
      Vector z = multiply(layer.ffn2, inner);
      for (std::size_t j = 0; j < y.size(); ++j) z[j] += y[j];
      next.push_back(z);
    }
    x = next;
  }
  Vector mean(std::size_t(out), 0.0);
  for (const Vector& row : x)
    for (std::size_t j = 0; j < mean.size(); ++j) mean[j] += row[j] / double(x.size());
  Vector result = multiply(w.tanh, mean);
  double squares = 0;
  for (double& v : result) {
    v = std::tanh(v);
    squares += v * v;
  }
  for (double& v : result) v /= std::sqrt(squares);
  return result;
}

const std::vector<Tokens> token_lists{
    {1, 2, 3}, {4}, {}, {9, 8, 7, 6, 5, 4, 3, 2, 1, 0, 0, 0, 5}, {2, 1, 3}};

/// The tensors of an encoder under the names and with the layout of the published model.
std::vector<test::TfjsTensor> published_layout(const EncoderWeights& w) {
  std::vector<test::TfjsTensor> all;
  const auto vector = [&](const std::string& name, const std::vector<float>& v,
                          std::vector<Index> shape = {}) {
    if (shape.empty()) shape = {Index(v.size())};
    all.push_back(
        {name, "float32", shape, {reinterpret_cast<const char*>(v.data()), v.size() * 4}});
  };
  const auto kernel = [&](const std::string& name, const Matrix<float>& m, bool convolution) {
    const auto t = to_matrix<float>(m.view().transposed());
    std::vector<Index> shape{t.rows(), t.cols()};
    if (convolution) shape.insert(shape.begin(), 2, 1);
    all.push_back({name,
                   "float32",
                   shape,
                   {reinterpret_cast<const char*>(t.data()), std::size_t(t.size()) * 4}});
  };
  const std::string m = "module/Encoder_en/",
                    a = "module_apply_default/Encoder_en/KonaTransformer/Encode/",
                    c = "/ConcatPartitions/concat";
  const auto norm = [&](const std::string& prefix, const LayerNorm& n) {
    vector(prefix + "layer_prepostprocess/layer_norm/layer_norm_scale" + c, n.scale);
    vector(prefix + "layer_prepostprocess/layer_norm/layer_norm_bias" + c, n.bias);
  };
  all.push_back(
      {"module/Embeddings_en",
       "float32",
       {tokens, in},
       {reinterpret_cast<const char*>(w.embeddings.data()), std::size_t(w.embeddings.size()) * 4}});
  vector(a + "TransformerStack/Layer_0/AddTimingSignal/TimingSignal/ExpandDims_1",
         w.inverse_timescales, {1, in / 2});
  kernel(a + "Layer_0/TransformerLayer/dense/kernel" + c, w.dense.weight, false);
  vector(a + "Layer_0/TransformerLayer/dense/bias" + c, w.dense.bias);
  for (std::size_t l = 0; l < 2; ++l) {
    const EncoderLayer& layer = w.layers[l];
    const std::string t = message("Layer_", l, "/TransformerLayer/"), h = t + "MultiheadAttention/";
    norm(a + t, layer.attention_norm);
    norm(a + t + "FFN/", layer.ffn_norm);
    kernel(m + "KonaTransformer/Encode/" + h + "qkv_transform_single/kernel/part_0",
           layer.qkv.weight, true);
    kernel(m + "KonaTransformer/Encode/" + h + "output_transform_single/kernel/part_0",
           layer.o.weight, true);
    vector(a + h + "qkv_transform_single/bias" + c, layer.qkv.bias);
    vector(a + h + "output_transform_single/bias" + c, layer.o.bias);
    kernel(a + "TransformerStack/" + t + "FFN/conv1/Tensordot/Reshape_1", layer.ffn1.weight, false);
    kernel(a + "TransformerStack/" + t + "FFN/conv2/Tensordot/Reshape_1", layer.ffn2.weight, false);
    vector(a + t + "FFN/conv1/bias" + c, layer.ffn1.bias);
    vector(a + t + "FFN/conv2/bias" + c, layer.ffn2.bias);
  }
  kernel(m + "hidden_layers/tanh_layer_0/weights", w.tanh.weight, false);
  vector(m + "hidden_layers/tanh_layer_0/bias", w.tanh.bias);
  return all;
}

}  // namespace

TEST_CASE("the forward pass follows its formulas") {
  const EncoderWeights w = small_weights();
  for (const Tokens& sentence : token_lists) {
    if (sentence.empty()) continue;
    const auto result = encode(w, sentence);
    const Vector expected = reference(w, sentence);
    REQUIRE(result.size() == expected.size());
    for (std::size_t j = 0; j < result.size(); ++j)
      CHECK(double(result[j]) == Approx(expected[j]).margin(2e-5));
  }
}

TEST_CASE("a sentence has the same bits alone, in a batch and on any number of threads") {
  const EncoderWeights w = small_weights();
  std::vector<Tokens> many;
  for (int i = 0; i < 9; ++i) many.insert(many.end(), token_lists.begin(), token_lists.end());
  const auto together = encode_all(w, many);
  for (Index i = 0; i < together.rows(); ++i) {
    const auto alone = encode(w, many[std::size_t(i)]);
    REQUIRE(std::equal(alone.begin(), alone.end(), together.row(i).begin()));
  }
  for (const Index threads : {1, 2, 3}) {
    ThreadPool pool(threads);
    const auto parallel = encode_all(w, many, pool);
    CHECK(std::equal(parallel.data(), parallel.data() + parallel.size(), together.data()));
  }
}

TEST_CASE("results have unit length and depend on tokens, order and position") {
  const EncoderWeights w = small_weights();
  const auto all = encode_all(w, token_lists);
  for (Index i = 0; i < all.rows(); ++i) {
    double squares = 0;
    for (const float v : all.row(i)) squares += double(v) * double(v);
    CHECK(squares == Approx(1).epsilon(1e-6));
  }
  CHECK(cosine(all.row(0), all.row(4)) < 1 - 1e-4);
  CHECK(cosine(all.row(0), all.row(1)) < 0.99);
  CHECK(cosine(all.row(0), all.row(0)) == Approx(1));
  CHECK(encode_all(w, {}).rows() == 0);
}

TEST_CASE("sentences are cut after 128 tokens") {
  const EncoderWeights w = small_weights();
  Tokens longer(200, 3);
  longer[127] = 4;
  Tokens cut(longer.begin(), longer.begin() + 128);
  CHECK(encode(w, longer) == encode(w, cut));
  cut.pop_back();
  CHECK(encode(w, longer) != encode(w, cut));
}

TEST_CASE("a token without an embedding is refused") {
  const EncoderWeights w = small_weights();
  for (const Token token : {Token(-1), Token(tokens)}) {
    const Error error = error_of([&] { encode(w, {0, token}); });
    CHECK(error.code() == ErrorCode::invalid_argument);
    CHECK_THAT(error.message(), Contains(message("tokens: ", token, " at 1")));
  }
}

TEST_CASE("what matters of a head is output · value and keyᵀ · query") {
  EncoderWeights w = small_weights();
  const auto before = encode(w, token_lists[0]);
  for (EncoderLayer& changed : w.layers)
    for (Index h = 0; h < EncoderLayer::heads; ++h) {
      const auto scale = [](View<float> m, float factor) {
        for (Index i = 0; i < m.rows; ++i)
          for (Index j = 0; j < m.cols; ++j) m(i, j) *= factor;
      };
      const auto scale_bias = [](std::span<float> bias, float factor) {
        for (float& b : bias) b *= factor;
      };
      const float factor =
          float(1 << h);  // each head its own, so that a slice of the wrong head shows
      scale(changed.value(h), factor);
      scale_bias(changed.value_bias(h), factor);
      scale(changed.output(h), 1 / factor);
      scale(changed.query(h), 1 / factor);
      scale_bias(changed.query_bias(h), 1 / factor);
      scale(changed.key(h), factor);
      scale_bias(changed.key_bias(h), factor);
    }
  const auto after = encode(w, token_lists[0]);
  for (std::size_t j = 0; j < before.size(); ++j) CHECK(after[j] == Approx(before[j]).margin(1e-6));

  EncoderLayer& layer = w.layers[1];
  CHECK(layer.query(1).data == layer.qkv.weight.data() + 4 * out);
  CHECK(layer.key(0).data == layer.qkv.weight.data() + out * out);
  CHECK(layer.value(3).data == layer.qkv.weight.data() + (2 * out + 12) * out);
  CHECK(layer.output(2).rows == out);
  CHECK(layer.output(2).data == layer.o.weight.data() + 8);
}

TEST_CASE("every matrix has a name and changes the result") {
  EncoderWeights w = small_weights();
  const auto before = encode(w, token_lists[3]);
  const auto all = w.matrices();
  CHECK(all.size() == 11);
  for (const auto& [name, matrix] : all) {
    INFO(name);
    CHECK(&w.matrix(name) == matrix);
    const Matrix<float> kept = *matrix;
    for (Index i = 0; i < matrix->size(); ++i) matrix->data()[i] *= 1.5f;
    CHECK(encode(w, token_lists[3]) != before);
    *matrix = kept;
  }
  CHECK(encode(w, token_lists[3]) == before);
  CHECK_THAT(error_of([&] { w.matrix("layer2.qkv"); }).message(), Contains("layer2.qkv"));
}

TEST_CASE("shapes that do not fit are refused by name") {
  EncoderWeights w = small_weights();
  w.layers[1].ffn2.weight = Matrix<float>(out, hidden + 1);
  CHECK_THAT(error_of([&] { check_weights(w); }).message(),
             Contains("layer1.ffn2 columns: size 13, expected 12"));
  w = small_weights();
  w.layers[0].qkv.bias.pop_back();
  CHECK_THAT(error_of([&] { check_weights(w); }).message(), Contains("layer0.qkv bias"));
  w = small_weights();
  w.layers.pop_back();
  CHECK(error_of([&] { check_weights(w); }).code() == ErrorCode::invalid_shape);
  CHECK(error_of([&] { check_weights(EncoderWeights{}); }).code() == ErrorCode::invalid_shape);
}

TEST_CASE("the published layout is read into the same encoder") {
  const test::TemporaryDirectory directory;
  const EncoderWeights w = small_weights();
  auto tensors = published_layout(w);
  directory.write("model.json", test::tfjs_manifest(directory, tensors, 1000).dump());
  EncoderWeights loaded = load_encoder_weights(directory.path());
  for (const Tokens& sentence : token_lists) CHECK(encode(loaded, sentence) == encode(w, sentence));

  tensors[5].name += "?";
  directory.write("model.json", test::tfjs_manifest(directory, tensors, 1000).dump());
  CHECK_THAT(error_of([&] { load_encoder_weights(directory.path()); }).message(),
             Contains("no tensor is named"));
}

TEST_CASE("similarities") {
  const std::vector<float> x{1, 0}, y{0, 2}, minus{-3, 0}, zero{0, 0};
  CHECK(cosine(x, y) == 0);
  CHECK(cosine(x, minus) == Approx(-1));
  CHECK(cosine(x, zero) == 0);
  CHECK(angular_similarity(x, x) == Approx(1));
  CHECK(angular_similarity(x, y) == Approx(0.5));
  CHECK(angular_similarity(x, minus) == Approx(0).margin(1e-12));
}
