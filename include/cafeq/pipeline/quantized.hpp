/// Quantized: the owning result of quantizing one matrix.
#pragma once

#include <cmath>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "cafeq/core/packed.hpp"
#include "cafeq/core/scale.hpp"
#include "cafeq/linalg/metric.hpp"
#include "cafeq/loss/reconstruction.hpp"
#include "cafeq/quant/encoding.hpp"
#include "cafeq/quant/rows.hpp"
#include "cafeq/transform/transform.hpp"

namespace cafeq {

namespace detail {

/// What codes (rows start at a byte), parameters, tensor-wide state and an exponent of 16 bits
/// take.
template <ScalarQuantizer Q>
std::int64_t storage_bits(const Q& quantizer, const Grouping& grouping) {
  return 8 * std::int64_t(grouping.rows) * ceil_div(grouping.cols * Index(quantizer.bits), 8) +
         std::int64_t(grouping.count()) * param_bits(quantizer) + tensor_bits(quantizer) + 16;
}

}  // namespace detail

namespace detail {

/// What decoded rows, an exponent and a transform stand for. Derived has rows(), cols(), side(),
/// exponent(), transform(), storage_bits() and decode_rows().
template <class Derived>
class Reconstruction {
 public:
  double bits_per_weight() const {
    return double(self().storage_bits()) / (double(self().rows()) * double(self().cols()));
  }

  /// Ŵ into `out` [rows, cols], any strides and element type. Memory: a few rows (input side), or
  /// one fp32 matrix (output side).
  template <MatrixView M>
  void dequantize(M&& out, ExecutorRef executor = {}) const {
    const auto view = as_view(out);
    check_view(view, "out");
    check_shape(view, "dequantize: out");
    const PowerOfTwo scale(self().exponent());
    for_each_panel(executor, [&](Index begin, View<const float> panel) {
      for (Index i = 0; i < panel.rows; ++i)
        for (Index j = 0; j < panel.cols; ++j)
          store(scale(double(panel(i, j))), view(begin + i, j));
      return ErrorAndNorm{};
    });
  }

  /// ‖W − Ŵ‖²_F / ‖W‖²_F, summed in fp64 (0 where W is zero and reproduced).
  template <MatrixView M>
  double error(M&& W, ExecutorRef executor = {}) const {
    return error_and_norm(W, executor).relative();
  }
  /// ‖W − Ŵ‖²_F and ‖W‖²_F, both in units of 4^exponent, so that those of weights near 1e±300
  /// neither overflow nor vanish.
  template <MatrixView M>
  ErrorAndNorm error_and_norm(M&& W, ExecutorRef executor = {}) const {
    const auto view = as_view(W);
    check_shape(view, "error: W");
    check_view(view, "W");
    check_finite(view, "W");
    using Element = std::remove_const_t<typename decltype(view)::value_type>;
    return for_each_panel(executor, [&](Index begin, View<const float> panel) {
      Matrix<float> rows(panel.rows, panel.cols);
      copy_scaled(View<const Element>(view.row_block(begin, panel.rows)), -self().exponent(),
                  rows.view());
      return plain_rows(View<const float>(rows.view()), panel);
    });
  }

 protected:
  /// Raises corrupt where the transform does not fit.
  void check_transform() const {
    const Derived& q = self();
    if (q.transform().dim() != (q.side() == Side::input ? q.cols() : q.rows()))
      raise(ErrorCode::corrupt,
            message("Quantized: a transform of dimension ", Index(q.transform().dim()), " on ",
                    q.rows(), " x ", q.cols()));
  }
  /// What decode_rows() asks of its arguments.
  void check_rows(Index begin, View<float> out) const {
    const Derived& q = self();
    if (begin < 0 || begin + out.rows > q.rows() || out.cols != q.cols())
      raise(ErrorCode::invalid_shape,
            message("decode_rows: rows ", begin, " to ", begin + out.rows, " of ", out.cols,
                    " columns, the result is ", q.rows(), " x ", q.cols()));
  }

 private:
  template <class E>
  static void store(double value, E& out) noexcept {
    if constexpr (std::is_same_v<E, double>) out = value;
    else out = E(float(value));
  }

  template <class E>
  void check_shape(View<E> view, std::string_view name) const {
    if (view.rows != self().rows() || view.cols != self().cols())
      raise(ErrorCode::invalid_shape,
            message(name, " is ", view.rows, " x ", view.cols, ", the result ", self().rows(),
                    " x ", self().cols()));
  }

  /// f(first row, X̂ M⁻¹ of some rows), its results summed in the order of the rows.
  template <class F>
  ErrorAndNorm for_each_panel(ExecutorRef executor, F&& f) const {
    const Derived& q = self();
    if (q.side() == Side::input)
      return sum_over_rows(q.rows(), q.cols(), executor, [&](Index begin, Index end) {
        Matrix<float> panel(end - begin, q.cols());
        q.decode_rows(begin, panel.view());
        q.transform().apply(panel.view(), Op::inverse);
        return f(begin, View<const float>(panel.view()));
      });
    Matrix<float> all(q.rows(), q.cols());
    executor.parallel_for(q.rows(), 16, [&](Index begin, Index end, Index) {
      q.decode_rows(begin, all.view().row_block(begin, end - begin));
    });
    apply_left(q.transform(), all.view(), Op::inverse_transpose, executor);
    return sum_over_rows(q.rows(), q.cols(), executor, [&](Index begin, Index end) {
      return f(begin, View<const float>(all.view()).row_block(begin, end - begin));
    });
  }

  const Derived& self() const noexcept { return static_cast<const Derived&>(*this); }
};

}  // namespace detail

/// Codes, parameters, one power-of-two exponent and the fitted transform. It stands for `Ŵ =
/// 2^exponent · X̂ M⁻¹` (input side) or `2^exponent · M⁻ᵀ X̂` (output side), X̂ the decoded codes.
template <Transform T, class Q>
class Quantized;

template <Quantizer Q, Transform T>
Quantized(const Encoding<Q>&, T, Side, int) -> Quantized<T, Q>;
template <ScalarQuantizer Q, Transform T>
Quantized(Q, Index, PackedCodes, std::vector<typename Q::Params>, T, Side, int) -> Quantized<T, Q>;

/// Of a scalar quantizer: packed codes, and the parameters of every group.
template <Transform T, ScalarQuantizer Q>
class Quantized<T, Q> : public detail::Reconstruction<Quantized<T, Q>> {
 public:
  using Params = typename Q::Params;

  Quantized(const Encoding<Q>& encoding, T transform, Side side, int exponent)
      : quantizer_(encoding.quantizer()),
        grouping_(encoding.grouping()),
        transform_(std::move(transform)),
        side_(side),
        exponent_(exponent),
        codes_(encoding.rows(), encoding.cols(), encoding.quantizer().bits),
        params_(encoding.all_params().begin(), encoding.all_params().end()) {
    for (Index i = 0; i < rows(); ++i) codes_.pack_row(i, encoding.codes(i));
  }

  /// From stored parts; raises where they contradict each other.
  Quantized(Q quantizer, Index cols, PackedCodes codes, std::vector<Params> params, T transform,
            Side side, int exponent)
      : quantizer_(std::move(quantizer)),
        grouping_{codes.rows(), cols, quantizer_.group},
        transform_(std::move(transform)),
        side_(side),
        exponent_(exponent),
        codes_(std::move(codes)),
        params_(std::move(params)) {
    if (codes_.cols() != cols || codes_.bits() != quantizer_.bits)
      raise(ErrorCode::corrupt,
            message("Quantized: codes of ", codes_.cols(), " columns and ", codes_.bits(),
                    " bits, expected ", cols, " and ", int(quantizer_.bits)));
    if (Index(params_.size()) != grouping_.count())
      raise(ErrorCode::corrupt, message("Quantized: ", params_.size(),
                                        " groups of parameters, expected ", grouping_.count()));
    this->check_transform();
  }

  Index rows() const noexcept { return grouping_.rows; }
  Index cols() const noexcept { return grouping_.cols; }
  int bits() const noexcept { return quantizer_.bits; }
  const Q& quantizer() const noexcept { return quantizer_; }
  const Grouping& grouping() const noexcept { return grouping_; }
  const T& transform() const noexcept { return transform_; }
  Side side() const noexcept { return side_; }
  int exponent() const noexcept { return exponent_; }
  const PackedCodes& codes() const noexcept { return codes_; }
  std::span<const Params> params() const noexcept { return params_; }

  /// Everything that inference needs, in bits: codes (rows start at a byte), parameters,
  /// tensor-wide state, exponent (16) and what undoes the transform.
  std::int64_t storage_bits() const {
    return detail::storage_bits(quantizer_, grouping_) + std::int64_t(transform_.storage_bits());
  }

  /// X̂ of rows [begin, begin + out.rows), before exponent and transform.
  void decode_rows(Index begin, View<float> out) const {
    this->check_rows(begin, out);
    Buffer<float> dense(static_cast<std::size_t>(out.rows_contiguous() ? 0 : cols()));
    for (Index i = 0; i < out.rows; ++i) {
      const Index first = grouping_.index(begin + i, 0);
      const Index count = grouping_.group == per_tensor ? 1 : grouping_.per_row_count();
      const std::span<float> row = dense.empty() ? out.row(i) : std::span<float>(dense);
      unpack_row(quantizer_, codes_.row(begin + i), grouping_.width(),
                 params().subspan(std::size_t(first), std::size_t(count)), row);
      for (std::size_t j = 0; j < dense.size(); ++j) out(i, Index(j)) = dense[j];
    }
  }

 private:
  Q quantizer_;
  Grouping grouping_;
  T transform_;
  Side side_;
  int exponent_;
  PackedCodes codes_;
  std::vector<Params> params_;
};

/// Ŵ into `out`, [rows, cols] of any strides and element type.
template <Transform T, class Q, MatrixView M>
void dequantize(const Quantized<T, Q>& quantized, M&& out, ExecutorRef executor = {}) {
  quantized.dequantize(out, executor);
}

}  // namespace cafeq
