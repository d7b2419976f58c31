/// The weights of a small sentence encoder as plain matrices, so that any of them can be replaced
/// by its quantized reconstruction.
///
/// The architecture is Google's Universal Sentence Encoder Lite: two pre-norm transformer layers of
/// width 256 and 512 with 4 heads each.
#pragma once

#include <cmath>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "cafeq/core/matrix.hpp"
#include "cafeq/io/tfjs.hpp"

namespace cafeq::example {

/// y = W x + b, W [out, in].
struct Dense {
  Matrix<float> weight;
  std::vector<float> bias;
};

struct LayerNorm {
  std::vector<float> scale;
  std::vector<float> bias;
};

/// One transformer layer. The rows of `qkv` are queries, keys, values, each of them heads ×
/// head_dim rows, head after head; the columns of `o` are heads × head_dim likewise.
struct EncoderLayer {
  LayerNorm attention_norm;
  Dense qkv;  // [3 · heads · head_dim, in]
  Dense o;    // [out, heads · head_dim]
  LayerNorm ffn_norm;
  Dense ffn1;  // [hidden, out]
  Dense ffn2;  // [out, hidden]

  static constexpr Index heads = 4;
  Index width() const noexcept { return o.weight.cols(); }
  Index head_dim() const noexcept { return width() / heads; }

  /// Head h of one projection, [head_dim, in], and its bias.
  View<float> query(Index h) noexcept { return projection(0, h); }
  View<float> key(Index h) noexcept { return projection(1, h); }
  View<float> value(Index h) noexcept { return projection(2, h); }
  /// What head h writes: [out, head_dim]. The layer's function of x depends on output(h) · value(h)
  /// and key(h)ᵀ · query(h).
  View<float> output(Index h) noexcept {
    return o.weight.view().col_block(h * head_dim(), head_dim());
  }
  std::span<float> query_bias(Index h) noexcept { return projection_bias(0, h); }
  std::span<float> key_bias(Index h) noexcept { return projection_bias(1, h); }
  std::span<float> value_bias(Index h) noexcept { return projection_bias(2, h); }

 private:
  View<float> projection(Index which, Index h) noexcept {
    return qkv.weight.view().row_block(which * width() + h * head_dim(), head_dim());
  }
  std::span<float> projection_bias(Index which, Index h) noexcept {
    return std::span(qkv.bias).subspan(std::size_t(which * width() + h * head_dim()),
                                       std::size_t(head_dim()));
  }
};

struct EncoderWeights {
  Matrix<float> embeddings;               // [tokens, in]
  std::vector<float> inverse_timescales;  // [in / 2], of the positional signal
  std::vector<EncoderLayer> layers;
  Dense dense;  // [out, in], carries the residual of layer 0 from its width to the next
  Dense tanh;   // [out, out]

  /// Every matrix with its name, embeddings first, then in the order of the forward pass.
  std::vector<std::pair<std::string, Matrix<float>*>> matrices() {
    std::vector<std::pair<std::string, Matrix<float>*>> all{{"embeddings", &embeddings},
                                                            {"dense", &dense.weight}};
    for (std::size_t i = 0; i < layers.size(); ++i) {
      EncoderLayer& layer = layers[i];
      const std::string prefix = message("layer", i, ".");
      all.emplace_back(prefix + "qkv", &layer.qkv.weight);
      all.emplace_back(prefix + "o", &layer.o.weight);
      all.emplace_back(prefix + "ffn1", &layer.ffn1.weight);
      all.emplace_back(prefix + "ffn2", &layer.ffn2.weight);
    }
    all.emplace_back("tanh", &tanh.weight);
    return all;
  }

  Matrix<float>& matrix(std::string_view name) {
    for (auto& [key, value] : matrices())
      if (key == name) return *value;
    raise(ErrorCode::invalid_argument, message("EncoderWeights: no matrix is named ", name));
  }
};

/// Raises invalid_shape, naming the matrix, unless all shapes fit together.
inline void check_weights(const EncoderWeights& weights) {
  const auto expect = [](std::string_view name, Index got, Index expected) {
    if (got != expected || got == 0)
      raise(ErrorCode::invalid_shape, message(name, ": size ", got, ", expected ", expected));
  };
  const auto expect_dense = [&](const std::string& name, const Dense& layer, Index out, Index in) {
    expect(name + " rows", layer.weight.rows(), out);
    expect(name + " columns", layer.weight.cols(), in);
    expect(name + " bias", Index(layer.bias.size()), out);
  };
  const auto expect_norm = [&](const std::string& name, const LayerNorm& norm, Index size) {
    expect(name + " scale", Index(norm.scale.size()), size);
    expect(name + " bias", Index(norm.bias.size()), size);
  };
  const Index in = weights.embeddings.cols();
  const Index out = weights.dense.weight.rows();
  expect("embeddings rows", weights.embeddings.rows(), weights.embeddings.rows());
  expect("inverse timescales (twice)", 2 * Index(weights.inverse_timescales.size()), in);
  expect_dense("dense", weights.dense, out, in);
  expect_dense("tanh", weights.tanh, weights.tanh.weight.rows(), out);
  expect("layers", Index(weights.layers.size()), 2);
  for (std::size_t i = 0; i < weights.layers.size(); ++i) {
    const EncoderLayer& layer = weights.layers[i];
    const std::string prefix = message("layer", i, ".");
    const Index layer_in = i == 0 ? in : out;
    const Index hidden = layer.ffn1.weight.rows();
    expect(prefix + "o columns", layer.width(), layer.head_dim() * EncoderLayer::heads);
    expect_norm(prefix + "attention_norm", layer.attention_norm, layer_in);
    expect_dense(prefix + "qkv", layer.qkv, 3 * layer.width(), layer_in);
    expect_dense(prefix + "o", layer.o, out, layer.width());
    expect_norm(prefix + "ffn_norm", layer.ffn_norm, out);
    expect_dense(prefix + "ffn1", layer.ffn1, hidden, out);
    expect_dense(prefix + "ffn2", layer.ffn2, out, hidden);
  }
}

/// The weights of the published TensorFlow.js model in `directory`. Its kernels are [in, out]; ours
/// are their transposes.
inline EncoderWeights load_encoder_weights(const std::string& directory) {
  const TensorMap tensors = read_tfjs(directory);
  const std::string module = "module/Encoder_en/";
  const std::string applied = "module_apply_default/Encoder_en/KonaTransformer/Encode/";
  const auto vector = [&](const std::string& name) {
    const auto values = tensor_at(tensors, name).values<float>(name);
    return std::vector<float>(values.begin(), values.end());
  };
  const auto dense = [&](const std::string& kernel, const std::string& bias) {
    return Dense{to_matrix<float>(tensor_at(tensors, kernel).matrix(kernel).transposed()),
                 vector(bias)};
  };
  const auto norm = [&](const std::string& prefix) {
    const std::string name = prefix + "layer_prepostprocess/layer_norm/layer_norm_";
    return LayerNorm{vector(name + "scale/ConcatPartitions/concat"),
                     vector(name + "bias/ConcatPartitions/concat")};
  };

  EncoderWeights weights;
  weights.embeddings =
      to_matrix<float>(tensor_at(tensors, "module/Embeddings_en").matrix("module/Embeddings_en"));
  weights.inverse_timescales =
      vector(applied + "TransformerStack/Layer_0/AddTimingSignal/TimingSignal/ExpandDims_1");
  const std::string residual = applied + "Layer_0/TransformerLayer/dense/";
  weights.dense =
      dense(residual + "kernel/ConcatPartitions/concat", residual + "bias/ConcatPartitions/concat");
  for (const char* number : {"0", "1"}) {
    const std::string stem = message("Layer_", number, "/TransformerLayer/");
    const std::string kernels = module + "KonaTransformer/Encode/" + stem + "MultiheadAttention/";
    const std::string biases = applied + stem + "MultiheadAttention/";
    const std::string ffn = applied + "TransformerStack/" + stem + "FFN/";
    const std::string ffn_biases = applied + stem + "FFN/";
    const auto attention = [&](const std::string& name) {
      return dense(kernels + name + "/kernel/part_0",
                   biases + name + "/bias/ConcatPartitions/concat");
    };
    const auto convolution = [&](const std::string& name) {
      return dense(ffn + name + "/Tensordot/Reshape_1",
                   ffn_biases + name + "/bias/ConcatPartitions/concat");
    };
    weights.layers.push_back({norm(applied + stem), attention("qkv_transform_single"),
                              attention("output_transform_single"), norm(ffn_biases),
                              convolution("conv1"), convolution("conv2")});
  }
  weights.tanh = dense(module + "hidden_layers/tanh_layer_0/weights",
                       module + "hidden_layers/tanh_layer_0/bias");
  check_weights(weights);
  return weights;
}

}  // namespace cafeq::example
