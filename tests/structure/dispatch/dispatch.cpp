// The table of one architecture against the scalar references: dispatch <architecture>, which
// CAFEQ_ARCH names too. This program itself is compiled for the baseline.
#include <algorithm>
#include <cstdio>
#include <vector>

#include "cafeq/core/packed.hpp"
#include "cafeq/core/rng.hpp"
#include "cafeq/kernel/packed_product_reference.hpp"
#include "cafeq/kernel/row_range.hpp"
#include "kernel_table/kernels.hpp"

using namespace cafeq;
using Table = example::Kernels;

namespace {

int failures = 0;

void check(bool right, const char* kernel, Index n) {
  if (right) return;
  ++failures;
  std::printf("%s, size %td: differs from the reference\n", kernel, n);
}

std::vector<float> numbers(Index n, std::uint64_t seed) {
  std::vector<float> x(static_cast<std::size_t>(n));
  const CounterRng rng(seed);
  for (Index i = 0; i < n; ++i) x[std::size_t(i)] = float(rng.normal(std::uint64_t(i)));
  return x;
}

Matrix<float> matrix(Index rows, Index cols, std::uint64_t seed) {
  Matrix<float> m(rows, cols);
  const CounterRng rng(seed);
  for (Index i = 0; i < m.size(); ++i) m.data()[i] = float(rng.normal(std::uint64_t(i)));
  return m;
}

/// Equal, or, where the architecture has no fused multiply-add, the same to a few units in the last
/// place of a sum of n terms near 1.
bool agree(const Table& table, const float* a, const float* b, Index size, Index n) {
  if (table.architecture != cpu::Architecture::generic) return std::equal(a, a + size, b);
  for (Index i = 0; i < size; ++i)
    if (!(std::abs(a[i] - b[i]) <= 1e-6f * (float(n) + std::abs(b[i])))) return false;
  return true;
}
bool agree(const Table& table, const Matrix<float>& a, const Matrix<float>& b, Index n) {
  return agree(table, a.data(), b.data(), a.size(), n);
}
bool agree(const Table& table, double a, double b) {
  return table.architecture != cpu::Architecture::generic
             ? a == b
             : std::abs(a - b) <= 1e-5 * (std::abs(b) + 1);
}

constexpr Index sizes[] = {0, 1, 7, 17, 33, 64, 129, 1000};

void transforms(const Table& table) {
  for (Index n = 1; n <= 1 << 13; n *= 2) {
    std::vector<float> x = numbers(n, 1), y = x;
    table.fwht(x.data(), n, 0.125f);
    kernel::fwht_reference(y.data(), n, 0.125f);
    check(x == y, "fwht", n);
  }
  for (const Index n : {8, 64}) {
    const std::vector<float> signs{numbers(4 * n, 9)};
    std::vector<float> before(signs.size());
    for (std::size_t j = 0; j < signs.size(); ++j) before[j] = signs[j] < 0 ? -1.0f : 1.0f;
    Matrix<float> X = matrix(5, 4 * n, 2), Y = X, Z(4 * n, 5);
    copy(X.view(), Z.view().transposed());
    table.fwht_rows(X.view(), n, 0.5f, {before.data(), nullptr});
    table.fwht_columns(Z.view(), n, 0.5f, {before.data(), nullptr});
    for (Index i = 0; i < Y.rows(); ++i)
      for (Index j = 0; j < Y.cols(); ++j) Y(i, j) *= before[std::size_t(j)];
    for (Index i = 0; i < Y.rows(); ++i)
      for (Index j = 0; j < Y.cols(); j += n) kernel::fwht_reference(&Y(i, j), n, 0.5f);
    check(agree(table, X, Y, n), "fwht_rows", n);
    copy(Z.view().transposed(), X.view());
    check(agree(table, X, Y, n), "fwht_columns", n);
  }
}

void groups(const Table& table) {
  for (const Index n : sizes) {
    const std::vector<float> x = numbers(n + 1, 3);
    const std::span<const float> part = std::span(x).subspan(1);  // unaligned
    const kernel::Range range = table.range(part), expected = kernel::range_reference(part);
    check(range.min == expected.min && range.max == expected.max, "range", n);
    const kernel::Moments moments = table.moments(part), sums = kernel::moments_reference(part);
    check(
        agree(table, moments.sum, sums.sum) && agree(table, moments.sum_squares, sums.sum_squares),
        "moments", n);

    for (const Index width : {16, 24, 128}) {
      std::vector<float> low(std::size_t(ceil_div(n, width))), high = low;
      table.group_ranges(part, width, low, high);
      for (std::size_t g = 0; g < low.size(); ++g) {
        const std::size_t begin = g * std::size_t(width);
        const kernel::Range of_group = kernel::range_reference(
            part.subspan(begin, std::min(std::size_t(width), part.size() - begin)));
        check(low[g] == of_group.min && high[g] == of_group.max, "group_ranges", n);
      }
    }

    const auto encode = [&](auto entry, auto levels, const char* name) {
      std::vector<std::uint8_t> codes(static_cast<std::size_t>(n)), wanted = codes;
      const kernel::ScaleOffset at{0.31f, decltype(levels)::has_offset ? -0.2f : 0.0f};
      entry(part, levels, at, codes);
      kernel::encode_reference(part, levels, at, std::span(wanted));
      check(codes == wanted, name, n);
    };
    encode(table.encode_affine, kernel::UniformLevels<true, false>{0, 15}, "encode_affine");
    encode(table.encode_symmetric, kernel::UniformLevels<false, false>{-8, 7}, "encode_symmetric");
    encode(table.encode_midrise, kernel::UniformLevels<false, true>{-4, 3}, "encode_midrise");
  }
}

/// Rows of whole groups of 64, packed at once, against codes that are chosen and packed one by one.
template <class Levels, class Entry>
void packed_rows(const Table& table, Entry entry, const char* name) {
  for (const int bits : {2, 3, 4, 8}) {
    for (const Index n : {64, 192, 200}) {
      const float half = float(1 << (bits - 1));
      const Levels levels = Levels::has_offset ? Levels{0, 2 * half - 1} : Levels{-half, half - 1};
      const std::vector<float> x = numbers(n, 17), scale{0.5f, 0.25f, 0.0f, 0.125f};
      const std::vector<float> offset =
          Levels::has_offset ? std::vector<float>{-1, -0.5f, 0.25f, -2} : std::vector<float>(4);
      std::vector<std::uint8_t> codes(static_cast<std::size_t>(n)),
          packed(std::size_t(ceil_div(n * bits, 8))), expected = packed;
      std::vector<float> values(codes.size()), wanted = values;
      for (std::size_t i = 0; i < codes.size(); ++i) {
        kernel::encode_reference(std::span(x).subspan(i, 1), levels,
                                 {scale[i / 64], offset[i / 64]}, std::span(codes).subspan(i, 1));
        wanted[i] = float(codes[i]) * scale[i / 64] + offset[i / 64];
      }
      pack_codes(codes, bits, expected);
      entry(x, 64, levels, scale.data(), offset.data(), bits, packed);
      check(packed == expected, name, n);
      std::fill(packed.begin(), packed.end(), std::uint8_t(0));
      table.pack(codes, bits, packed);
      check(packed == expected, "pack", n);
      table.decode_packed(packed, bits, 64, scale.data(), offset.data(), values);
      check(values == wanted, "decode_packed", n);
    }
  }
}

void columns(const Table& table) {
  for (const Index n : sizes) {
    const Matrix<float> X = matrix(19, n, 10);
    std::vector<float> peak(static_cast<std::size_t>(n)), low = peak, high = peak;
    table.column_absmax(X.view(), peak.data());
    table.column_ranges(X.view(), low.data(), high.data());
    for (Index j = 0; j < n; ++j) {
      const kernel::Range range = kernel::column_range_reference(X.view(), j, {});
      check(peak[std::size_t(j)] == kernel::column_absmax_reference(X.view(), j, 0.0f),
            "column_absmax", n);
      check(low[std::size_t(j)] == range.min && high[std::size_t(j)] == range.max, "column_ranges",
            n);
    }
  }
}

void products(const Table& table) {
  for (const Index n : sizes) {
    const Matrix<float> A = matrix(7, 19, 4), B = matrix(19, n, 5);
    Matrix<float> C(7, n), D(7, n);
    table.multiply(A.view(), B.view(), C.view(), kernel::Store::overwrite);
    kernel::multiply_reference<float>(A.view(), B.view(), D.view());
    check(agree(table, C, D, 19), "multiply", n);
    std::vector<float> packed(std::size_t(kernel::panels_size<float>(19, n)));
    table.multiply_packed(A.view(), table.pack_panels(B.view(), packed.data()), C.view(),
                          kernel::Store::add);
    kernel::multiply_reference<float>(A.view(), B.view(), D.view(), kernel::Store::add);
    check(agree(table, C, D, 2 * 19), "multiply_packed", n);

    const Matrix<float> M = matrix(16, 16, 6);
    std::vector<float> scratch(std::size_t(kernel::in_place_scratch<float>(16)));
    Matrix<float> X = matrix(n, 16, 7), Y = X;
    table.multiply_right_in_place(X.view(), M.view(), scratch);
    kernel::multiply_right_in_place_reference<float>(Y.view(), M.view());
    check(agree(table, X, Y, 16), "multiply_right_in_place", n);
    packed.resize(std::size_t(kernel::panels_size<float>(16, 16)));
    Y = X;
    table.multiply_packed_right_in_place(X.view(), table.pack_panels(M.view(), packed.data()),
                                         scratch);
    kernel::multiply_right_in_place_reference<float>(Y.view(), M.view());
    check(agree(table, X, Y, 64), "multiply_packed_right_in_place", n);
    X = Y = matrix(16, n, 8);
    table.multiply_left_in_place(M.view(), X.view(), scratch);
    kernel::multiply_left_in_place_reference<float>(M.view(), Y.view());
    check(agree(table, X, Y, 16), "multiply_left_in_place", n);
  }
}

void activations(const Table& table) {
  for (const int bits : {2, 3, 4, 5, 8}) {
    const Index rows = 7, cols = 384, group = 128;
    PackedCodes codes(rows, cols, bits);
    std::vector<std::uint8_t> row(static_cast<std::size_t>(cols));
    for (Index i = 0; i < rows; ++i) {
      for (Index j = 0; j < cols; ++j)
        row[std::size_t(j)] = std::uint8_t(std::uint64_t(i * 131 + j * 89) % (1u << bits));
      codes.pack_row(i, row);
    }
    const kernel::PackedRows W{codes.bytes().data(), rows, cols, codes.row_bytes(), bits, group};
    const Matrix<float> scale = matrix(rows, 3, 11), offset = matrix(rows, 3, 12),
                        X = matrix(5, cols, 13);
    const auto lines = [&](Index i, float, float* s, float* o) {
      for (Index g = 0; g < 3; ++g) {
        s[g] = scale(i, g);
        o[g] = offset(i, g);
      }
    };
    Matrix<float> Y(5, rows), rounded(5, rows);
    const bool supported =
        table.multiply_codes(W, scale.view(), offset.view(), X.view(), Y.view()) &&
        table.multiply_codes_int8(W, scale.view(), offset.view(), X.view(), group, rounded.view());
    check(supported, "multiply_codes is there", bits);
    for (Index n = 0; n < 5; ++n)
      for (Index i = 0; i < rows; ++i) {
        const double expected = kernel::packed_product_reference(W, i, lines, X.view().row(n));
        double magnitude = 0,
               roundings =
                   0;  // of the terms, and of what rounding X to steps of absmax/127 does to them
        for (Index j = 0; j < cols; ++j) {
          const Index g = j / group;
          const double weight =
              std::abs(double(scale(i, g))) * ((1 << bits) - 1) + std::abs(double(offset(i, g)));
          magnitude += weight * std::abs(double(X(n, j)));
          roundings += weight * double(kernel::row_peak_reference(&X(n, g * group), group)) / 254;
        }
        check(std::abs(double(Y(n, i)) - expected) < 4e-6 * magnitude, "multiply_codes", bits);
        check(std::abs(double(rounded(n, i)) - expected) < 4e-6 * magnitude + roundings,
              "multiply_codes_int8", bits);
      }
    const Matrix<float> threes(rows, 128);
    const kernel::PackedRows odd{W.data, rows, cols, W.row_bytes, bits, 3};
    check(!table.multiply_codes(odd, threes.view(), {}, X.view(), Y.view()),
          "multiply_codes of groups of 3", bits);
  }
}

template <class T, class Entry>
void inverse_transform(const Table& table, Entry entry, const char* name) {
  const Index blocks[] = {64, 20, 7};
  kernel::BlockPanels<T> N{std::span<const Index>(blocks)};
  const std::vector<float> entries = numbers(64 * 64, 14);
  for (Index b = 0; b < N.blocks(); ++b)
    for (Index i = 0; i < N.size(b); ++i)
      for (Index j = 0; j < N.size(b); ++j) N(b, i, j) = T(8.0f * entries[std::size_t(i * 64 + j)]);
  N.column_scales() = numbers(N.dim(), 15);
  Matrix<float> X = matrix(5, N.dim(), 16), Y = X;
  std::vector<float> scratch(std::size_t(kernel::block_multiply_scratch<T>(64)));
  entry(N, 0, N.blocks(), X.view(), scratch);
  kernel::block_multiply_reference(N, Y.view());
  check(agree(table, X, Y, 64 * 32), name, N.dim());
}

}  // namespace

int main(int argc, char** argv) {
  const auto wanted = cpu::from_name(argc > 1 ? argv[1] : "");
  if (!wanted) return 2;
  if (!cpu::supports(*wanted)) {
    std::printf("this processor has no %s\n", argv[1]);
    return 77;
  }
  const Table& table = dispatched<Table>();
  if (table.architecture != *wanted) {
    std::printf("chosen: %s\n", std::string(cpu::name(table.architecture)).c_str());
    return 3;
  }
  transforms(table);
  groups(table);
  packed_rows<example::AffineLevels>(table, table.encode_packed_affine, "encode_packed_affine");
  packed_rows<example::SymmetricLevels>(table, table.encode_packed_symmetric,
                                        "encode_packed_symmetric");
  packed_rows<example::MidriseLevels>(table, table.encode_packed_midrise, "encode_packed_midrise");
  columns(table);
  products(table);
  activations(table);
  inverse_transform<float>(table, table.block_multiply, "block_multiply");
  inverse_transform<fp16>(table, table.block_multiply_fp16, "block_multiply_fp16");
  inverse_transform<std::int8_t>(table, table.block_multiply_int8, "block_multiply_int8");
  return failures == 0 ? 0 : 1;
}
