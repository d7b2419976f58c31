// The table of one architecture against the scalar references: dispatch <architecture>, which CAFEQ_ARCH names too. This program itself is compiled
// for the baseline.
#include "cafeq/kernel/dispatch.hpp"

#include <algorithm>
#include <cstdio>
#include <vector>

#include "cafeq/core/rng.hpp"

using namespace cafeq;
using kernel::Table;

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

/// Equal, or, where the architecture has no fused multiply-add, the same to a few units in the last place of a sum of n terms near 1.
bool agree(const Table& table, const float* a, const float* b, Index size, Index n) {
  if (table.architecture != cpu::Architecture::generic) return std::equal(a, a + size, b);
  for (Index i = 0; i < size; ++i)
    if (!(std::abs(a[i] - b[i]) <= 1e-6f * (float(n) + std::abs(b[i])))) return false;
  return true;
}
bool agree(const Table& table, const Matrix<float>& a, const Matrix<float>& b, Index n) { return agree(table, a.data(), b.data(), a.size(), n); }
bool agree(const Table& table, double a, double b) {
  return table.architecture != cpu::Architecture::generic ? a == b : std::abs(a - b) <= 1e-5 * (std::abs(b) + 1);
}

constexpr Index sizes[] = {0, 1, 7, 17, 33, 64, 129, 1000};

void transforms(const Table& table) {
  for (Index n = 1; n <= 1 << 13; n *= 2) {
    std::vector<float> x = numbers(n, 1), y = x;
    table.fwht(x.data(), n, 0.125f);
    kernel::fwht_reference(y.data(), n, 0.125f);
    check(x == y, "fwht", n);
  }
  const Index n = 64;
  Matrix<float> X = matrix(5, 3 * n, 2), Y = X;
  table.fwht_rows(X.view(), n, 0.5f);
  for (Index i = 0; i < Y.rows(); ++i)
    for (Index j = 0; j < 3; ++j) kernel::fwht_reference(&Y(i, j * n), n, 0.5f);
  check(agree(table, X, Y, 1), "fwht_rows", n);
}

void groups(const Table& table) {
  for (const Index n : sizes) {
    const std::vector<float> x = numbers(n + 1, 3);
    const std::span<const float> part = std::span(x).subspan(1);  // unaligned
    const kernel::Range range = table.range(part), expected = kernel::range_reference(part);
    check(range.min == expected.min && range.max == expected.max, "range", n);
    const kernel::Moments moments = table.moments(part), sums = kernel::moments_reference(part);
    check(agree(table, moments.sum, sums.sum) && agree(table, moments.sum_squares, sums.sum_squares), "moments", n);

    const auto encode = [&](auto entry, auto levels, const char* name) {
      std::vector<std::uint8_t> codes(static_cast<std::size_t>(n)), wanted = codes;
      const kernel::Line line{0.31f, decltype(levels)::has_offset ? -0.2f : 0.0f};
      entry(part, levels, line, codes);
      kernel::encode_reference(part, levels, line, std::span(wanted));
      check(codes == wanted, name, n);
    };
    encode(table.encode_affine, kernel::UniformLevels<true, false>{0, 15}, "encode_affine");
    encode(table.encode_symmetric, kernel::UniformLevels<false, false>{-8, 7}, "encode_symmetric");
    encode(table.encode_midrise, kernel::UniformLevels<false, true>{-4, 3}, "encode_midrise");
  }
}

void products(const Table& table) {
  for (const Index n : sizes) {
    const Matrix<float> A = matrix(7, 19, 4), B = matrix(19, n, 5);
    Matrix<float> C(7, n), D(7, n);
    table.multiply(A.view(), B.view(), C.view(), kernel::Store::overwrite);
    kernel::multiply_reference<float>(A.view(), B.view(), D.view());
    check(agree(table, C, D, 19), "multiply", n);

    const Matrix<float> M = matrix(16, 16, 6);
    std::vector<float> scratch(std::size_t(table.in_place_scratch(16)));
    Matrix<float> X = matrix(n, 16, 7), Y = X;
    table.multiply_right_in_place(X.view(), M.view(), scratch);
    kernel::multiply_right_in_place_reference<float>(Y.view(), M.view());
    check(agree(table, X, Y, 16), "multiply_right_in_place", n);
    X = Y = matrix(16, n, 8);
    table.multiply_left_in_place(M.view(), X.view(), scratch);
    kernel::multiply_left_in_place_reference<float>(M.view(), Y.view());
    check(agree(table, X, Y, 16), "multiply_left_in_place", n);
  }
}

}  // namespace

int main(int argc, char** argv) {
  const auto wanted = cpu::from_name(argc > 1 ? argv[1] : "");
  if (!wanted) return 2;
  if (!cpu::supports(*wanted)) {
    std::printf("this processor has no %s\n", argv[1]);
    return 77;
  }
  const Table& table = kernel::table();
  if (table.architecture != *wanted) {
    std::printf("chosen: %s\n", std::string(cpu::name(table.architecture)).c_str());
    return 3;
  }
  transforms(table);
  groups(table);
  products(table);
  return failures == 0 ? 0 : 1;
}
