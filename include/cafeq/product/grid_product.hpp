/// Products with the packed codes of a grid.
///
/// A linear grid's weights are scale · level + offset, so a row's product with x is a sum over its
/// groups of scale · Σ level · x + offset · Σ x: codes meet activations as they are stored, and
/// parameters come in once a group. Levels that are one apart are their codes but for the lowest
/// level, which goes into the offset; others are looked up in a table.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include "cafeq/core/scale.hpp"
#include "cafeq/product/activations.hpp"
#include "cafeq/quant/codes.hpp"
#include "cafeq/simd/fma.hpp"

namespace cafeq {

/// Y ← X X̂ᵀ · unit straight from packed codes. Uniform grids, and tables of up to 16 levels, go
/// through kernel::PackedProduct, whose error it has, wherever groups of weights and of activations
/// meet at words of codes; other grids and widths are decoded a row at a time. The same bits for
/// any number of threads and of vectors together.
template <ScalarQuantizer Q>
class GridProduct {
 public:
  explicit GridProduct(const Codes<Q>& codes);

  /// Laid out for the words of these codes.
  Activations arrange(const Codes<Q>& codes, View<const float> X, ActivationFormat format) const;
  void multiply(const Codes<Q>& codes, const Activations& x, ActivationFormat, PowerOfTwo unit,
                View<float> Y, ExecutorRef executor) const;

 private:
  /// What is multiplied, but for the activations, and where the result goes.
  struct Task {
    const Codes<Q>& codes;
    PowerOfTwo unit;
    View<float> Y;
    ExecutorRef executor;

    Index in() const noexcept { return codes.cols(); }
    Index out() const noexcept { return codes.rows(); }
    int bits() const noexcept { return codes.quantizer().bits; }
    /// Rows that a worker takes at once: about 2^18 weights, a multiple of the rows that any kernel
    /// multiplies together.
    Index grain() const noexcept {
      return std::max<Index>(1, (1 << 18) / std::max<Index>(1, in()) / 12) * 12;
    }
  };
  /// Writes the scale and the offset of every group of a row; see kernel::PackedProduct.
  struct RowScales {
    const Codes<Q>& codes;
    float lowest;  // what code 0 stands for
    void operator()(Index row, float bias, float* scale, float* offset) const noexcept {
      write_scales(codes, row, bias + lowest, scale, offset);
    }
  };

  static void write_scales(const Codes<Q>& codes, Index row, float bias, float* scale,
                           float* offset) noexcept;
  template <class X>
  void multiply_packed(const X& x, const Task& task) const;
  template <int Bits, bool Table, class E>
  bool multiply_words(const kernel::PackedActivations<E>& x, const Task& task) const;
  void multiply_decoded(View<const float> X, const Task& task) const;
  static std::pair<double, double> product_and_sum(const float* v, const float* x,
                                                   Index n) noexcept;
  void decode_row(const Codes<Q>& codes, Index row, std::span<std::uint8_t> row_codes,
                  std::span<float> values) const noexcept;

  std::array<float, 256> levels_{};  // of a linear grid
  bool uniform_ = false;             // whether they are one apart
};

/// Asks a linear grid for its levels.
template <ScalarQuantizer Q>
GridProduct<Q>::GridProduct(const Codes<Q>& codes) {
  if constexpr (LinearGrid<Q>) {
    const Q& q = codes.quantizer();
    uniform_ = true;
    for (int c = 0; c < 1 << q.bits; ++c) {
      levels_[std::size_t(c)] = q.level(std::uint8_t(c));
      uniform_ = uniform_ && levels_[std::size_t(c)] == levels_[0] + float(c);
    }
  }
}

template <ScalarQuantizer Q>
Activations GridProduct<Q>::arrange(const Codes<Q>& codes, View<const float> X,
                                    ActivationFormat format) const {
  return Activations(X, codes.quantizer().bits, format);
}

template <ScalarQuantizer Q>
void GridProduct<Q>::multiply(const Codes<Q>& codes, const Activations& x, ActivationFormat,
                              PowerOfTwo unit, View<float> Y, ExecutorRef executor) const {
  const Task task{codes, unit, Y, executor};
  std::visit([&](const auto& packed) { multiply_packed(packed, task); }, x.packed());
}

/// Of every group of a row: its scale, and its offset plus `bias` times its scale.
///
/// A grid that reads the scales of many groups at once (read_scales(), as every Grid does) is asked
/// for those, any other for one after the other.
template <ScalarQuantizer Q>
void GridProduct<Q>::write_scales(const Codes<Q>& codes, Index row, float bias, float* scale,
                                  float* offset) noexcept {
  if constexpr (LinearGrid<Q>) {
    const Q& q = codes.quantizer();
    const Grouping& grouping = codes.grouping();
    const std::size_t count = std::size_t(grouping.per_row_count());
    const auto params = codes.params().subspan(std::size_t(grouping.index(row, 0)), count);
    const std::span<float> scales(scale, count), offsets(offset, count);

    if constexpr (requires { q.read_scales(params, scales, offsets); }) {
      q.read_scales(params, scales, offsets);
    } else {
      for (std::size_t g = 0; g < count; ++g) {
        scale[g] = q.scale(params[g]);
        offset[g] = q.offset(params[g]);
      }
    }

    if (bias == 0) return;
    using V = Batch<float>;
    const std::size_t whole = count / V::size * V::size;
    for (std::size_t g = 0; g < whole; g += V::size)
      simd::fma(V(bias), V::load_unaligned(scale + g), V::load_unaligned(offset + g))
          .store_unaligned(offset + g);
    for (std::size_t g = whole; g < count; ++g) offset[g] = std::fma(bias, scale[g], offset[g]);
  }
}

/// Straight from packed codes where there is a kernel for them, else from decoded rows.
template <ScalarQuantizer Q>
template <class X>
void GridProduct<Q>::multiply_packed(const X& x, const Task& task) const {
  if constexpr (LinearGrid<Q>) {
    bool done = false;
    const auto multiply_bits = [&](auto bits) {
      constexpr int b = decltype(bits)::value;
      if (uniform_) done = multiply_words<b, false>(x, task);
      else if constexpr (b <= 4) done = multiply_words<b, true>(x, task);
    };
    if constexpr (detail::fixed_bits<Q>() > 0)
      multiply_bits(
          std::integral_constant<int, kernel::detail::kernel_bits(detail::fixed_bits<Q>())>{});
    else kernel::detail::with_kernel_bits(task.bits(), multiply_bits);
    if (done) return;
  }

  multiply_decoded(x.values(), task);
}

/// Multiplies codes of Bits bits, or says that there is no kernel for these groups.
template <ScalarQuantizer Q>
template <int Bits, bool Table, class E>
bool GridProduct<Q>::multiply_words(const kernel::PackedActivations<E>& x, const Task& task) const {
  if constexpr (Table && !std::is_same_v<E, float>) {
    // Tables have kernels for fp32 alone; the rounded activations are floats, too.
    return multiply_words<Bits, Table>(kernel::PackedActivations<float>(x.values(), Bits), task);
  } else {
    using Product = kernel::PackedProduct<E, Bits, DefaultArch, Table>;
    const PackedCodes& packed = task.codes.packed();
    const kernel::PackedRows W{packed.bytes().data(), task.out(),  task.in(),
                               packed.row_bytes(),    task.bits(), task.codes.grouping().width()};
    if (!Product::supports(W, x)) return false;

    // Laid out for another layer's bits. Rounding rounded activations again changes none of them.
    if (x.bits() != Bits) {
      return multiply_words<Bits, Table>(
          kernel::PackedActivations<E>(x.values(), Bits, x.group() == 0 ? task.in() : x.group()),
          task);
    }

    const Product product(W, x, levels_);
    const View<float> Y = task.Y;
    task.executor.parallel_for(task.out(), task.grain(), [&](Index begin, Index end, Index) {
      Buffer<std::byte> scratch(std::size_t(product.scratch()));
      product.multiply_rows(begin, end, RowScales{task.codes, uniform_ ? levels_[0] : 0.0f}, Y,
                            scratch);
      for (Index n = 0; n < Y.rows; ++n)
        for (Index i = begin; i < end; ++i) Y(n, i) = float(task.unit(double(Y(n, i))));
    });
    return true;
  }
}

/// Levels of a linear grid in units of its scale, the weights themselves of any other.
template <ScalarQuantizer Q>
void GridProduct<Q>::decode_row(const Codes<Q>& codes, Index row, std::span<std::uint8_t> row_codes,
                                std::span<float> values) const noexcept {
  const int bits = codes.quantizer().bits;
  if (bits == 8) codes.packed().unpack_row(row, row_codes);
  else
    kernel::detail::unpack_row<DefaultArch>(codes.packed().row(row).data(), bits, codes.cols(), 0,
                                            row_codes.data());

  if constexpr (LinearGrid<Q>) {
    for (std::size_t j = 0; j < row_codes.size(); ++j) values[j] = levels_[row_codes[j]];
  } else {
    const Grouping& grouping = codes.grouping();
    for (Index j = 0; j < codes.cols(); ++j)
      values[std::size_t(j)] = codes.quantizer().decode(
          row_codes[std::size_t(j)], codes.params()[std::size_t(grouping.index(row, j))]);
  }
}

/// Rows are decoded one by one. Products are summed in fp32 lanes over a group, and the groups in
/// double.
template <ScalarQuantizer Q>
void GridProduct<Q>::multiply_decoded(View<const float> X, const Task& task) const {
  const Index in = task.in();
  const Index width = LinearGrid<Q> ? task.codes.grouping().width() : std::max<Index>(1, in);
  const auto groups = std::size_t(ceil_div(in, width));
  task.executor.parallel_for(task.out(), task.grain(), [&](Index begin, Index end, Index) {
    std::vector<std::uint8_t> codes(static_cast<std::size_t>(in));
    Buffer<float> values(codes.size());
    // Of a grid that is not linear the values are the weights already.
    std::vector<float> scale(groups, 1.0f), offset(groups, 0.0f);

    for (Index i = begin; i < end; ++i) {
      decode_row(task.codes, i, codes, values);
      write_scales(task.codes, i, 0, scale.data(), offset.data());
      for (Index n = 0; n < X.rows; ++n) {
        const float* x = X.data + n * X.row_stride;
        double sum = 0;
        for (Index j = 0, g = 0; j < in; j += width, ++g) {
          const auto [product, total] =
              product_and_sum(values.data() + j, x + j, std::min(width, in - j));
          sum += double(scale[std::size_t(g)]) * product + double(offset[std::size_t(g)]) * total;
        }
        task.Y(n, i) = float(task.unit(sum));
      }
    }
  });
}

/// Σ v_j x_j and Σ x_j.
template <ScalarQuantizer Q>
std::pair<double, double> GridProduct<Q>::product_and_sum(const float* v, const float* x,
                                                          Index n) noexcept {
  using V = Batch<float>;
  constexpr Index w = Index(V::size);
  V products(0.0f), entries(0.0f);
  Index j = 0;
  for (; j + w <= n; j += w) {
    const V some = V::load_unaligned(x + j);
    products = simd::fma(V::load_unaligned(v + j), some, products);
    entries += some;
  }

  double product = double(simd::reduce_add(products)), sum = double(simd::reduce_add(entries));
  for (; j < n; ++j) {
    product += double(v[j]) * double(x[j]);
    sum += double(x[j]);
  }
  return {product, sum};
}

}  // namespace cafeq
