// The kernels of one architecture; compiled once for each (CMakeLists.txt).
#include "kernel_table/kernels.hpp"

namespace example {
namespace {

using In = Kernels::In;
using Codes = Kernels::Codes;
using Floats = Kernels::Floats;
using ConstView = View<const float>;
using Flips = SignFlips<float>;

template <class Levels>
void encode_packed(Kernels::In x, Index width, const Levels& levels, const float* scale,
                   const float* offset, int bits, Kernels::Codes packed) noexcept {
  kernel::encode_packed(x, width, levels, scale, offset, bits, packed);
}

template <class T>
bool multiply_codes(const PackedRows& W, View<const float> scale, View<const float> offset,
                    View<const float> X, Index group, View<float> Y) {
  const kernel::PackedActivations<T> x(X, W.bits, group);
  const auto lines = [&](Index row, float bias, float* scales, float* offsets) {
    for (Index g = 0; g < W.groups(); ++g) {
      scales[g] = scale(row, g);
      offsets[g] = (offset.empty() ? 0.0f : offset(row, g)) + bias * scales[g];
    }
  };
  bool supported = false;
  kernel::detail::with_kernel_bits(W.bits, [&](auto bits) {
    using Product = kernel::PackedProduct<T, decltype(bits)::value>;
    supported = Product::supports(W, x);
    if (!supported) return;
    const Product product(W, x);
    Buffer<std::byte> scratch(std::size_t(product.scratch()));
    product.multiply_rows(0, W.rows, lines, Y, scratch);
  });
  return supported;
}

}  // namespace
}  // namespace example

template <>
constinit const example::Kernels cafeq::Dispatched<example::Kernels>::table = [] {
  using namespace example;
  return Kernels{
      .architecture = cpu::compiled_for,
      .fwht = [](float* x, Index n, float scale) noexcept { kernel::fwht<float>(x, n, scale); },
      .fwht_rows = [](View<float> X, Index n, float scale,
                      Flips flips) noexcept { kernel::fwht_rows<float>(X, n, scale, flips); },
      .fwht_columns = [](View<float> X, Index n, float scale,
                         Flips flips) noexcept { kernel::fwht_columns<float>(X, n, scale, flips); },
      .range = [](In x) noexcept { return kernel::range(x); },
      .moments = [](In x) noexcept { return kernel::moments(x); },
      .group_ranges = [](In x, Index width, Floats low,
                         Floats high) noexcept { kernel::group_ranges(x, width, low, high); },
      .column_absmax = [](ConstView X, float* peak) noexcept { kernel::column_absmax(X, peak); },
      .column_ranges = [](ConstView X, float* low,
                          float* high) noexcept { kernel::column_ranges(X, low, high); },
      .encode_affine = [](In x, const AffineLevels& levels, ScaleOffset at,
                          Codes codes) noexcept { kernel::encode(x, levels, at, codes); },
      .encode_symmetric = [](In x, const SymmetricLevels& levels, ScaleOffset at,
                             Codes codes) noexcept { kernel::encode(x, levels, at, codes); },
      .encode_midrise = [](In x, const MidriseLevels& levels, ScaleOffset at,
                           Codes codes) noexcept { kernel::encode(x, levels, at, codes); },
      .pack = [](std::span<const std::uint8_t> codes, int bits,
                 Codes packed) noexcept { kernel::pack(codes, bits, packed); },
      .encode_packed_affine = encode_packed<AffineLevels>,
      .encode_packed_symmetric = encode_packed<SymmetricLevels>,
      .encode_packed_midrise = encode_packed<MidriseLevels>,
      .decode_packed =
          [](std::span<const std::uint8_t> packed, int bits, Index width, const float* scale,
             const float* start, Floats out) noexcept {
            kernel::decode_packed(packed, bits, width, scale, start, out);
          },
      .pack_panels = [](ConstView B,
                        float* to) noexcept { return kernel::pack_panels<float>(B, to); },
      .multiply = [](ConstView A, ConstView B, View<float> C,
                     Store store) noexcept { kernel::multiply<float>(A, B, C, store); },
      .multiply_packed = [](ConstView A, Panels<float> B, View<float> C,
                            Store store) noexcept { kernel::multiply<float>(A, B, C, store); },
      .multiply_right_in_place =
          [](View<float> X, ConstView M, Floats scratch) noexcept {
            kernel::multiply_right_in_place<float>(X, M, scratch);
          },
      .multiply_packed_right_in_place =
          [](View<float> X, Panels<float> M, Floats scratch) noexcept {
            kernel::multiply_right_in_place<float>(X, M, scratch);
          },
      .multiply_left_in_place =
          [](ConstView A, View<float> X, Floats scratch) noexcept {
            kernel::multiply_left_in_place<float>(A, X, scratch);
          },
      .multiply_codes =
          [](const PackedRows& W, ConstView scale, ConstView offset, ConstView X, View<float> Y) {
            return multiply_codes<float>(W, scale, offset, X, 1, Y);
          },
      .multiply_codes_int8 =
          [](const PackedRows& W, ConstView scale, ConstView offset, ConstView X, Index group,
             View<float> Y) { return multiply_codes<std::int8_t>(W, scale, offset, X, group, Y); },
      .block_multiply =
          [](const BlockPanels<float>& N, Index begin, Index end, View<float> X,
             Floats scratch) noexcept { kernel::block_multiply(N, begin, end, X, scratch); },
      .block_multiply_fp16 =
          [](const BlockPanels<fp16>& N, Index begin, Index end, View<float> X,
             Floats scratch) noexcept { kernel::block_multiply(N, begin, end, X, scratch); },
      .block_multiply_int8 =
          [](const BlockPanels<std::int8_t>& N, Index begin, Index end, View<float> X,
             Floats scratch) noexcept { kernel::block_multiply(N, begin, end, X, scratch); },
  };
}();
