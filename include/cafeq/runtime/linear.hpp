/// Linear: packed weights times activations.
///
///   const Linear q{Wq, {.precision = ActivationPrecision::int8}}, k{Wk, …}, v{Wv, …};
///   const Activations x = q.prepare(h);  // the transform that the three share is undone once
///   q.multiply(x, yq); k.multiply(x, yk); v.multiply(x, yv);
#pragma once

#include <array>
#include <bit>
#include <cstdint>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include "cafeq/runtime/linear_base.hpp"

namespace cafeq {

template <Transform T, class Q>
class Linear;

template <Transform T, class Q>
Linear(Quantized<T, Q>, ActivationFormat) -> Linear<T, Q>;
template <Transform T, class Q>
Linear(Quantized<T, Q>) -> Linear<T, Q>;

/// y = Ŵ x straight from packed codes: the transform is undone on x (or on y, for an output-side
/// transform), once a call or once for several layers. Uniform grids, and tables of up to 16
/// levels, go through kernel::PackedProduct, whose error it has, wherever groups of weights and of
/// activations meet at words of codes; other grids and widths are decoded a row at a time. The same
/// bits for any number of threads and of vectors together. Owns the quantized matrix, and a compact
/// inverse of a block-diagonal transform.
template <Transform T, class Q>
class Linear : public detail::LinearBase<Linear<T, Q>, T, Q> {
  static_assert(ScalarQuantizer<Q>,
                "cafeq: products of trellis codes need cafeq/runtime/trellis_linear.hpp");
  using Base = detail::LinearBase<Linear<T, Q>, T, Q>;

 public:
  explicit Linear(Quantized<T, Q> weights, ActivationFormat format = {})
      : Base(std::move(weights), format) {
    examine();
  }
  using Base::in, Base::out;

 private:
  friend Base;
  using Base::weights_, Base::format_;

  Activations arrange(View<const float> X) const {
    return Activations(X, weights_.bits(), format_);
  }
  void multiply_arranged(const Activations& x, View<float> Y, ExecutorRef executor) const {
    std::visit([&](const auto& packed) { multiply_packed(packed, Y, executor); }, x.packed_);
  }

  /// Writes the scale and the offset of every group of a row; see kernel::PackedProduct.
  struct RowLines {
    const Linear& layer;
    float lowest;  // what code 0 stands for
    void operator()(Index row, float bias, float* scale, float* offset) const noexcept {
      layer.lines(row, bias + lowest, scale, offset);
    }
  };

  void examine();
  void lines(Index row, float bias, float* scale, float* offset) const noexcept;
  Index grain() const noexcept {
    return std::max<Index>(1, (1 << 18) / std::max<Index>(1, in()) / 12) * 12;
  }
  template <class X>
  void multiply_packed(const X& x, View<float> Y, ExecutorRef executor) const;
  template <int Bits, bool Table, class E>
  bool multiply_words(const kernel::PackedActivations<E>& x, View<float> Y,
                      ExecutorRef executor) const;
  void multiply_decoded(View<const float> X, View<float> Y, ExecutorRef executor) const;
  void decode_row(Index row, std::span<std::uint8_t> codes, std::span<float> values) const noexcept;

  std::array<float, 256> levels_{};  // of a linear grid
  bool uniform_ = false;             // whether they are one apart
  bool halves_ = false;  // whether Params are the fp16 scale, or scale and offset, themselves
};

/// Recognises what the grid allows by asking it.
template <Transform T, class Q>
void Linear<T, Q>::examine() {
  if constexpr (LinearGrid<Q>) {
    const Q& q = weights_.quantizer();
    uniform_ = true;
    for (int c = 0; c < 1 << q.bits; ++c) {
      levels_[std::size_t(c)] = q.level(std::uint8_t(c));
      uniform_ = uniform_ && levels_[std::size_t(c)] == levels_[0] + float(c);
    }
    using Params = typename Q::Params;
    constexpr Index fields = Q::has_offset ? 2 : 1;
    if constexpr (sizeof(Params) == std::size_t(fields) * sizeof(fp16)) {
      halves_ = true;
      for (const Params& p : weights_.params()) {
        const auto stored = std::bit_cast<std::array<std::uint16_t, std::size_t(fields)>>(p);
        const float offset = fields == 1 ? 0.0f : float(fp16::from_bits(stored[fields - 1]));
        halves_ =
            halves_ && float(fp16::from_bits(stored[0])) == q.scale(p) && offset == q.offset(p);
      }
    }
  }
}

template <Transform T, class Q>
void Linear<T, Q>::lines(Index row, float bias, float* scale, float* offset) const noexcept {
  if constexpr (LinearGrid<Q>) {
    const Grouping& grouping = weights_.grouping();
    const Index count = grouping.per_row_count();
    const auto* params = weights_.params().data() + grouping.index(row, 0);
    Index g = 0;
    if (halves_) {
      using V = Batch<float>;
      constexpr Index w = Index(V::size);
      const auto* halves = reinterpret_cast<const fp16*>(params);
      for (; g + w <= count; g += w) {
        if constexpr (Q::has_offset) {
          const fp16* pairs = halves + 2 * g;
          const auto [s, z] = simd::unzip(simd::load_float<DefaultArch>(pairs),
                                          simd::load_float<DefaultArch>(pairs + w));
          s.store_unaligned(scale + g);
          simd::fma(V(bias), s, z).store_unaligned(offset + g);
        } else {
          const V s = simd::load_float<DefaultArch>(halves + g);
          s.store_unaligned(scale + g);
          (V(bias) * s).store_unaligned(offset + g);
        }
      }
    }
    for (; g < count; ++g) {
      scale[g] = weights_.quantizer().scale(params[g]);
      offset[g] = bias * scale[g] + weights_.quantizer().offset(params[g]);
    }
  }
}

template <Transform T, class Q>
template <class X>
void Linear<T, Q>::multiply_packed(const X& x, View<float> Y, ExecutorRef executor) const {
  if constexpr (LinearGrid<Q>) {
    bool done = false;
    const auto multiply_bits = [&](auto bits) {
      constexpr int b = decltype(bits)::value;
      if (uniform_) done = multiply_words<b, false>(x, Y, executor);
      else if constexpr (b <= 4) done = multiply_words<b, true>(x, Y, executor);
    };
    if constexpr (fixed_bits<Q>() > 0)
      multiply_bits(std::integral_constant<int, kernel::detail::kernel_bits(fixed_bits<Q>())>{});
    else kernel::detail::with_kernel_bits(weights_.bits(), multiply_bits);
    if (done) return;
  }
  multiply_decoded(x.values(), Y, executor);
}

/// Whether there is a kernel for it.
template <Transform T, class Q>
template <int Bits, bool Table, class E>
bool Linear<T, Q>::multiply_words(const kernel::PackedActivations<E>& x, View<float> Y,
                                  ExecutorRef executor) const {
  if constexpr (Table && !std::is_same_v<E, float>) {
    return multiply_words<Bits, Table>(kernel::PackedActivations<float>(x.values(), Bits), Y,
                                       executor);
  } else {
    using Product = kernel::PackedProduct<E, Bits, DefaultArch, Table>;
    const PackedCodes& codes = weights_.codes();
    const kernel::PackedRows W{codes.bytes().data(), out(),           in(),
                               codes.row_bytes(),    weights_.bits(), weights_.grouping().width()};
    if (!Product::supports(W, x)) return false;
    if (x.bits() != Bits) {  // rounding rounded activations again changes none
      return multiply_words<Bits, Table>(
          kernel::PackedActivations<E>(x.values(), Bits, x.group() == 0 ? in() : x.group()), Y,
          executor);
    }
    const Product product(W, x, levels_);
    const PowerOfTwo unit(weights_.exponent());
    executor.parallel_for(out(), grain(), [&](Index begin, Index end, Index) {
      Buffer<std::byte> scratch(std::size_t(product.scratch()));
      product.multiply_rows(begin, end, RowLines{*this, uniform_ ? levels_[0] : 0.0f}, Y, scratch);
      for (Index n = 0; n < Y.rows; ++n)
        for (Index i = begin; i < end; ++i) Y(n, i) = float(unit(double(Y(n, i))));
    });
    return true;
  }
}

/// Levels of a linear grid in units of its scale, the weights themselves of any other.
template <Transform T, class Q>
void Linear<T, Q>::decode_row(Index row, std::span<std::uint8_t> codes,
                              std::span<float> values) const noexcept {
  if (weights_.bits() == 8) weights_.codes().unpack_row(row, codes);
  else
    kernel::detail::unpack_row<DefaultArch>(weights_.codes().row(row).data(), weights_.bits(), in(),
                                            0, codes.data());
  if constexpr (LinearGrid<Q>) {
    for (std::size_t j = 0; j < codes.size(); ++j) values[j] = levels_[codes[j]];
  } else {
    const Grouping& grouping = weights_.grouping();
    for (Index j = 0; j < in(); ++j)
      values[std::size_t(j)] = weights_.quantizer().decode(
          codes[std::size_t(j)], weights_.params()[std::size_t(grouping.index(row, j))]);
  }
}

template <Transform T, class Q>
void Linear<T, Q>::multiply_decoded(View<const float> X, View<float> Y,
                                    ExecutorRef executor) const {
  using V = Batch<float>;
  constexpr Index w = Index(V::size);
  const PowerOfTwo unit(weights_.exponent());
  const Index width = LinearGrid<Q> ? weights_.grouping().width() : std::max<Index>(1, in());
  executor.parallel_for(out(), grain(), [&](Index begin, Index end, Index) {
    std::vector<std::uint8_t> codes(static_cast<std::size_t>(in()));
    Buffer<float> values(codes.size());
    const auto groups = std::size_t(ceil_div(in(), width));
    std::vector<float> scale(groups, 1.0f), offset(groups, 0.0f);
    for (Index i = begin; i < end; ++i) {
      decode_row(i, codes, values);
      if constexpr (LinearGrid<Q>) lines(i, 0, scale.data(), offset.data());
      for (Index n = 0; n < X.rows; ++n) {
        const float* x = X.data + n * X.row_stride;
        double sum = 0;
        for (Index j = 0, g = 0; j < in(); j += width, ++g) {
          const Index stop = std::min(j + width, in());
          V products(0.0f), total(0.0f);
          Index l = j;
          for (; l + w <= stop; l += w) {
            const V v = V::load_unaligned(x + l);
            products = simd::fma(V::load_unaligned(values.data() + l), v, products);
            total += v;
          }
          double product = double(simd::reduce_add(products)),
                 all = double(simd::reduce_add(total));
          for (; l < stop; ++l) {
            product += double(values[std::size_t(l)]) * double(x[l]);
            all += double(x[l]);
          }
          sum += double(scale[std::size_t(g)]) * product + double(offset[std::size_t(g)]) * all;
        }
        Y(n, i) = float(unit(sum));
      }
    }
  });
}

}  // namespace cafeq
