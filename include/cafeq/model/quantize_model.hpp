/// Carries out a plan, job by job: reads the tensors of one, quantizes them, hands the result over,
/// lets the tensors go.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <string>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include "cafeq/model/plan.hpp"
#include "cafeq/pair/query_key.hpp"
#include "cafeq/pair/value_output.hpp"
#include "cafeq/pipeline/any_quantized.hpp"
#include "cafeq/pipeline/quantize.hpp"
#include "cafeq/quant/gguf.hpp"

namespace cafeq {

/// Rows of blocks of a type of GGUF, one after the other.
struct GgufMatrix {
  GgufType type;
  Index rows;
  Index cols;
  Buffer<std::byte> bytes;

  std::span<std::byte> row(Index i) noexcept {
    return std::span<std::byte>(bytes).subspan(std::size_t(i) * row_bytes(), row_bytes());
  }
  std::span<const std::byte> row(Index i) const noexcept {
    return std::span<const std::byte>(bytes).subspan(std::size_t(i) * row_bytes(), row_bytes());
  }

 private:
  std::size_t row_bytes() const noexcept { return bytes.size() / std::size_t(rows); }
};

/// One matrix of a plan, quantized: with cafeq's grids, or as GGUF where the choice names a type.
struct QuantizedMatrix {
  std::size_t matrix;  ///< in Plan::roles
  std::variant<AnyQuantized, GgufMatrix> quantized;
  double squared_error = 0;  ///< ‖W − Ŵ‖², where a pair is balanced in its basis
  double squared_norm = 0;   ///< ‖W‖²; both are 0 where two matrices are rounded together

  /// Ŵ, in any elements and strides.
  template <class T>
  void dequantize(View<T> out, ExecutorRef executor = {}) const {
    if (const auto* any = std::get_if<AnyQuantized>(&quantized))
      return any->dequantize(out, executor);
    const auto& blocks = std::get<GgufMatrix>(quantized);
    executor.parallel_for(blocks.rows, 16, [&](Index begin, Index end, Index) {
      Matrix<float> row(1, blocks.cols);
      for (Index i = begin; i < end; ++i) {
        gguf::dequantize_row(blocks.type, blocks.row(i), row.view().row(0));
        copy(View<const float>(row.view()), out.row_block(i, 1));
      }
    });
  }
  /// Everything counted.
  std::int64_t storage_bits() const {
    if (const auto* any = std::get_if<AnyQuantized>(&quantized)) return any->storage_bits();
    return 8 * std::int64_t(std::get<GgufMatrix>(quantized).bytes.size());
  }
};

/// A bias that a pair has moved: it belongs to the matrix of that number.
struct MovedBias {
  std::size_t matrix;
  std::vector<float> values;
};

/// The relative error of what a pair's matrices do together.
struct PairError {
  std::size_t pair;
  double error;
};

struct JobResult {
  std::vector<QuantizedMatrix> matrices;
  std::vector<MovedBias> biases;
  std::vector<PairError> pairs;
};

/// f(elements) with the elements of a loaded tensor as a span of their own type.
template <class F>
decltype(auto) with_elements(const TensorView& tensor, std::string_view name, F&& f) {
  switch (tensor.type) {
    case ScalarType::f32: return f(tensor.values<float>(name));
    case ScalarType::f16: return f(tensor.values<fp16>(name));
    case ScalarType::bf16: return f(tensor.values<bf16>(name));
    case ScalarType::f64: return f(tensor.values<double>(name));
    default:
      raise(ErrorCode::unsupported, message(name, ": its elements are ", name_of(tensor.type)));
  }
}

namespace detail {

/// The matrix [out, in] that lies at a place of a tensor.
template <class T>
View<T> matrix_in(std::span<T> elements, const std::vector<Index>& shape,
                  const MatrixPlace& place) noexcept {
  const Index rows = shape[shape.size() - 2], cols = shape.back();
  const View<T> tensor{elements.data() + std::max<Index>(0, place.slice) * rows * cols, rows, cols,
                       cols, 1};
  return (place.transposed ? tensor.transposed() : tensor).row_block(place.begin, place.out);
}

}  // namespace detail

/// f(W) with the matrix [out, in] that lies there, as a view of its own elements.
template <ModelReader R, class F>
void with_matrix(const R& reader, const MatrixPlace& place, F&& f) {
  const LoadedTensor loaded = reader.load(place.tensor);
  with_elements(loaded.view, place.tensor,
                [&](auto elements) { f(detail::matrix_in(elements, loaded.view.shape, place)); });
}

/// The same in floats.
template <ModelReader R>
Matrix<float> load_matrix(const R& reader, const MatrixPlace& place, ExecutorRef executor = {}) {
  Matrix<float> W(place.out, place.in);
  with_matrix(reader, place, [&](auto stored) {
    executor.parallel_for(place.out, 64, [&](Index begin, Index end, Index) {
      copy(stored.row_block(begin, end - begin), W.view().row_block(begin, end - begin));
    });
  });
  return W;
}

/// Some of its rows in floats, evenly spread; all of them where it has no more than `count`.
template <ModelReader R>
Matrix<float> load_rows(const R& reader, const MatrixPlace& place, Index count) {
  Matrix<float> sample(std::min(count, place.out), place.in);
  with_matrix(reader, place, [&](auto stored) {
    for (Index i = 0; i < sample.rows(); ++i)
      copy(stored.row_block(i * place.out / sample.rows(), 1), sample.view().row_block(i, 1));
  });
  return sample;
}

/// The bias of a matrix in floats; empty where it has none.
template <ModelReader R>
std::vector<float> load_bias(const R& reader, const MatrixRole& matrix) {
  std::vector<float> bias;
  if (!matrix.bias) return bias;
  const LoadedTensor loaded = reader.load(matrix.bias->tensor);
  const Index slice = std::max<Index>(0, matrix.bias->slice) * loaded.view.shape.back();
  with_elements(loaded.view, matrix.bias->tensor, [&](auto elements) {
    for (const auto x :
         elements.subspan(std::size_t(slice + matrix.bias->begin), std::size_t(matrix.place.out)))
      bias.push_back(float(x));
  });
  return bias;
}

/// A matrix by any recipe whose result AnyQuantized holds.
template <class Recipe>
QuantizedMatrix quantize_by(std::size_t m, const Matrix<float>& W, const Recipe& recipe,
                            ExecutorRef executor = {}) {
  auto quantized = quantize(W, recipe, executor);
  const auto [error, norm] = quantized.error_and_norm(W, executor);
  const double unit = std::ldexp(1.0, 2 * quantized.exponent());
  return {m, std::move(quantized), error * unit, norm * unit};
}

namespace detail {

inline VectorView<const float> as_bias(const std::vector<float>& values) noexcept {
  return {values.data(), Index(values.size()), 1};
}

inline GgufMatrix empty_gguf(GgufType type, Index rows, Index cols) {
  return {type, rows, cols,
          Buffer<std::byte>(std::size_t(rows * gguf_row_bytes(type, cols).value_or(0)))};
}

CAFEQ_LAZY QuantizedMatrix quantize_to_gguf(std::size_t m, const Matrix<float>& W, GgufType type,
                                            ExecutorRef executor) {
  GgufMatrix blocks = empty_gguf(type, W.rows(), W.cols());
  const auto sums = sum_over_rows(W.rows(), W.cols(), executor, [&](Index begin, Index end) {
    Matrix<float> hat(end - begin, W.cols());
    for (Index i = begin; i < end; ++i) {
      gguf::quantize_row(type, W.row(i), blocks.row(i));
      gguf::dequantize_row(type, blocks.row(i), hat.view().row(i - begin));
    }
    return plain_rows(W.view().row_block(begin, end - begin), View<const float>(hat.view()));
  });
  return {m, std::move(blocks), sums.error, sums.norm};
}

/// One of a pair that was quantized with the quantizer of a type.
template <GgufQuantizer Q>
GgufMatrix to_gguf(const Quantized<Identity::Fitted, Q>& q, ExecutorRef executor) {
  GgufMatrix blocks = empty_gguf(GgufBlock<Q>::type, q.rows(), q.cols());
  const Index groups = q.grouping().per_row_count();
  executor.parallel_for(q.rows(), 16, [&](Index begin, Index end, Index) {
    std::vector<std::uint8_t> codes(std::size_t(q.cols()));
    for (Index i = begin; i < end; ++i) {
      q.codes().unpack_row(i, codes);
      gguf::write_row(q.quantizer(), std::span<const std::uint8_t>(codes),
                      q.params().subspan(std::size_t(i * groups), std::size_t(groups)),
                      blocks.row(i), q.exponent());
    }
  });
  return blocks;
}

CAFEQ_LAZY void quantize_single(std::size_t m, const Matrix<float>& W, const Choice& choice,
                                ExecutorRef executor, JobResult& result) {
  if (choice.type) return result.matrices.push_back(quantize_to_gguf(m, W, *choice.type, executor));
  with_recipe(choice, W.rows(), W.cols(), [&](const auto& recipe) {
    result.matrices.push_back(quantize_by(m, W, recipe, executor));
  });
}

/// The matrices of a pair and their biases, in its order.
struct LoadedPair {
  std::array<Matrix<float>, 2> W;
  std::array<std::vector<float>, 2> bias;

  VectorView<float> bias_view(std::size_t i) noexcept {
    return {bias[i].empty() ? nullptr : bias[i].data(), Index(bias[i].size()), 1};
  }
};

/// The M that balances both factors, applied to them and to their biases: exact, and nothing to
/// undo.
CAFEQ_LAZY void balance_pair(LoadedPair& loaded, const PairRole& pair, ExecutorRef executor) {
  const View<float> first = loaded.W[0].view(), second = loaded.W[1].view();
  if (pair.kind == PairKind::value_output) {
    const HeadTransform M = balance(first.transposed(), second, pair.layout, {}, {}, executor);
    transform_value_output(second, first, pair.layout, M,
                           {loaded.bias_view(1), loaded.bias_view(0)}, pair.attention, executor);
  } else {
    const auto& rotary = pair.attention.rotary;
    const HeadTransform M =
        rotary ? balance_commuting(first, second, pair.layout, *rotary, {}, executor)
               : balance(first, second, pair.layout, {}, {}, executor);
    transform_query_key(first, second, pair.layout, M, {loaded.bias_view(0), loaded.bias_view(1)},
                        pair.attention, executor);
  }
}

/// Both together, by a recipe that learns M and alternates.
template <class Recipe>
void quantize_together(const Step& step, LoadedPair& loaded, const PairRole& pair,
                       const Recipe& recipe, ExecutorRef executor, JobResult& result) {
  const auto stored =
      [&]<class Q>(
          const Quantized<Identity::Fitted, Q>& q) -> std::variant<AnyQuantized, GgufMatrix> {
    if constexpr (std::is_constructible_v<AnyQuantized, Quantized<Identity::Fitted, Q>>)
      return AnyQuantized(q);
    else return to_gguf(q, executor);
  };
  const auto add = [&](const auto& q, const auto& first, const auto& second, const auto& first_bias,
                       const auto& second_bias) {
    result.matrices.push_back({step.matrices[0], stored(first)});
    result.matrices.push_back({step.matrices[1], stored(second)});
    loaded.bias = {first_bias, second_bias};
    result.pairs.push_back({*step.pair, q.error()});
  };
  const auto& [first, second] = loaded.W;
  if (pair.kind == PairKind::value_output) {
    const ValueOutputOptions options{.value_bias = loaded.bias_view(1),
                                     .output_bias = loaded.bias_view(0),
                                     .traits = pair.attention};
    const auto q = quantize_value_output(second, first, pair.layout, recipe, options, executor);
    add(q, q.output(), q.value(), q.output_bias(), q.value_bias());
  } else {
    const QueryKeyOptions options{.query_bias = loaded.bias_view(0),
                                  .key_bias = loaded.bias_view(1),
                                  .traits = pair.attention};
    const auto q = quantize_query_key(first, second, pair.layout, recipe, options, executor);
    add(q, q.query(), q.key(), q.query_bias(), q.key_bias());
  }
}

CAFEQ_LAZY void quantize_pair(LoadedPair& loaded, const Plan& plan, const Step& step,
                              ExecutorRef executor, JobResult& result) {
  const PairRole& pair = plan.roles.pairs[*step.pair];
  if (is_balanced(step.choice, pair)) {
    balance_pair(loaded, pair, executor);
    for (std::size_t i = 0; i < 2; ++i)
      quantize_single(step.matrices[i], loaded.W[i], step.choice, executor, result);
  } else {
    Choice choice = step.choice;
    if (choice.method == Method::smallest && !choice.type)
      choice.budget = smallest_for(choice, plan.trellis_loads(step)).bits;
    with_pair_recipe(choice, [&](const auto& recipe) {
      quantize_together(step, loaded, pair, recipe, executor, result);
    });
  }
  for (std::size_t i = 0; i < 2; ++i)
    if (!loaded.bias[i].empty())
      result.biases.push_back({step.matrices[i], std::move(loaded.bias[i])});
}

}  // namespace detail

/// The results of one job. Memory: those, and of one step at a time the matrices in fp32 with what
/// its recipe takes.
template <ModelReader R>
JobResult quantize_job(const R& reader, const Plan& plan, const Job& job,
                       ExecutorRef executor = {}) {
  JobResult result;
  for (const std::size_t s : job.steps) {
    const Step& step = plan.steps[s];
    if (step.pair) {
      detail::LoadedPair loaded;
      for (std::size_t i = 0; i < 2; ++i) {
        loaded.W[i] = load_matrix(reader, plan.place(step.matrices[i]), executor);
        loaded.bias[i] = load_bias(reader, plan.roles.matrices[step.matrices[i]]);
      }
      detail::quantize_pair(loaded, plan, step, executor, result);
    } else {
      detail::quantize_single(step.matrices[0],
                              load_matrix(reader, plan.place(step.matrices[0]), executor),
                              step.choice, executor, result);
    }
    for (const std::size_t m : step.matrices) reader.release(plan.place(m).tensor);
  }
  return result;
}

}  // namespace cafeq
