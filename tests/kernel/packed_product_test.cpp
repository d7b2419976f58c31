#include "cafeq/kernel/packed_product.hpp"

#include <limits>
#include <vector>

#include "cafeq/core/packed.hpp"
#include "cafeq/core/thread_pool.hpp"
#include "cafeq/kernel/packed_product_reference.hpp"
#include "support/allocations.hpp"
#include "support/build.hpp"
#include "support/catch.hpp"
#include "support/random.hpp"

using namespace cafeq;
using kernel::PackedActivations;
using kernel::PackedProduct;
using kernel::PackedRows;

namespace {

/// Random codes of every value, and a scale and an offset for every group.
struct Weights {
  Weights(Index rows, Index cols, int bits, Index group, std::uint64_t seed = 1)
      : codes(rows, cols, bits),
        packed{codes.bytes().data(), rows, cols, codes.row_bytes(), bits, group},
        groups(packed.groups()) {
    const CounterRng rng(seed, 3);
    std::vector<std::uint8_t> row(static_cast<std::size_t>(cols));
    for (Index i = 0; i < rows; ++i) {
      for (Index j = 0; j < cols; ++j)
        row[std::size_t(j)] =
            std::uint8_t(rng.below(std::uint64_t(i * cols + j), std::uint64_t(1) << bits));
      codes.pack_row(i, row);
    }
    for (Index g = 0; g < rows * groups; ++g) {
      scale.push_back(0.5f + float(rng.uniform(std::uint64_t(g) + 1000000)));
      offset.push_back(float(rng.normal(std::uint64_t(g) + 2000000)));
    }
  }
  void operator()(Index row, float bias, float* s, float* z) const noexcept {
    for (Index g = 0; g < groups; ++g) {
      s[g] = scale[std::size_t(row * groups + g)];
      z[g] = offset[std::size_t(row * groups + g)] + bias * s[g];
    }
  }

  PackedCodes codes;
  PackedRows packed;
  Index groups;
  std::vector<float> scale, offset;
};

template <class T, class Arch = DefaultArch>
bool supported(const Weights& W, const PackedActivations<T, Arch>& x) {
  bool result = false;
  kernel::detail::with_kernel_bits(W.packed.bits, [&](auto bits) {
    result = PackedProduct<T, decltype(bits)::value, Arch>::supports(W.packed, x);
  });
  return result;
}

template <class T, class Arch = DefaultArch>
Matrix<float> multiply(const Weights& W, const PackedActivations<T, Arch>& x,
                       ExecutorRef executor = {}, Index grain = 1 << 20) {
  Matrix<float> Y(x.count(), W.packed.rows);
  kernel::detail::with_kernel_bits(W.packed.bits, [&](auto bits) {
    const PackedProduct<T, decltype(bits)::value, Arch> product(W.packed, x);
    executor.parallel_for(W.packed.rows, grain, [&](Index begin, Index end, Index) {
      std::vector<std::byte> scratch(std::size_t(product.scratch()));
      product.multiply_rows(begin, end, W, Y.view(), scratch);
    });
  });
  return Y;
}

/// Within the bound of the header.
template <class T, class Arch = DefaultArch>
void check_product(const Weights& W, const Matrix<float>& X, Index group = 128) {
  const PackedActivations<T, Arch> x(X.view(), W.packed.bits, group);
  REQUIRE(supported(W, x));
  const Matrix<float> Y = multiply(W, x);
  for (Index n = 0; n < X.rows(); ++n)
    for (Index i = 0; i < W.packed.rows; ++i) {
      const auto values = x.values().row(n);
      double magnitude = 0;
      const int top = W.packed.bits == 8 ? 255 : (1 << W.packed.bits) - 1;
      for (Index j = 0; j < W.packed.cols; ++j) {
        const auto g = std::size_t(i * W.groups + j / W.packed.group);
        magnitude += (double(W.scale[g]) * top + std::abs(double(W.offset[g]))) *
                     std::abs(double(values[std::size_t(j)]));
      }
      const double expected = kernel::packed_product_reference(W.packed, i, W, values);
      const double bound = double(W.packed.cols / 16 + 16) * 0x1p-24 * magnitude;
      if (std::abs(expected - double(Y(n, i))) > bound) {
        INFO("bits " << W.packed.bits << " group " << W.packed.group << " cols " << W.packed.cols
                     << " row " << i << " vector " << n);
        REQUIRE(double(Y(n, i)) == Approx(expected).margin(bound));
      }
    }
}

}  // namespace

TEMPLATE_TEST_CASE("packed codes times activations equal the sums in double",
                   "[kernel][packed_product]", float, std::int8_t) {
  for (int bits = 1; bits <= 8; ++bits)
    for (const Index cols :
         test::sweep<Index>({1, 7, 17, 33, 64, 129, 256, 640, 1283}, {1, 7, 17, 33, 64, 129, 256}))
      for (const Index group :
           {Index(16), Index(32), Index(48), Index(64), Index(96), Index(128), Index(256), cols}) {
        if (group > cols) continue;
        const Weights W(7, cols, bits, group);
        check_product<TestType>(W, test::gaussian<float>(1, cols, 5), 128);
      }
}

TEMPLATE_TEST_CASE("several vectors, and rows longer than one sum", "[kernel][packed_product]",
                   float, std::int8_t) {
  for (const int bits : {2, 3, 4, 5, 8}) {
    check_product<TestType>(Weights(5, 384, bits, 64), test::gaussian<float>(9, 384, 6));
    check_product<TestType>(Weights(4, 9001, bits, 9001), test::gaussian<float>(2, 9001, 7));
    check_product<TestType>(Weights(4, 9001, bits, 9001), test::gaussian<float>(2, 9001, 7),
                            1 << 20);
    check_product<TestType>(Weights(3, 3072, bits, 1536), test::gaussian<float>(1, 3072, 8),
                            1 << 20);
  }
}

TEST_CASE("the largest codes and activations overflow no sum", "[kernel][packed_product]") {
  for (int bits = 1; bits <= 8; ++bits)
    for (const float sign : {1.0f, -1.0f})
      for (const int code : {0, (1 << bits) - 1}) {
        Weights W(3, 16384, bits, 16384);
        std::vector<std::uint8_t> row(16384, std::uint8_t(code));
        for (Index i = 0; i < 3; ++i) W.codes.pack_row(i, row);
        Matrix<float> X(1, 16384);
        std::fill_n(X.data(), X.size(), sign * 127.0f);
        check_product<std::int8_t>(W, X, 1 << 20);
        check_product<std::int8_t>(W, X, 128);
      }
}

TEST_CASE("vectors together and rows on any thread give the same bits",
          "[kernel][packed_product]") {
  const auto run = [](auto type) {
    using T = decltype(type);
    for (const int bits : {2, 3, 4, 6, 8})
      for (const Index group : {32, 128, 517}) {
        const Weights W(29, 517, bits, group);
        const auto X = test::gaussian<float>(6, 517, 9);
        const auto Y = multiply(W, PackedActivations<T>(X.view(), bits));
        for (Index n = 0; n < 6; ++n) {
          const auto one = multiply(W, PackedActivations<T>(X.view().row_block(n, 1), bits));
          for (Index i = 0; i < 29; ++i) REQUIRE(one(0, i) == Y(n, i));
        }
        for (const Index threads : {1, 2, 3}) {
          ThreadPool pool(threads);
          const auto Z = multiply(W, PackedActivations<T>(X.view(), bits), pool, 5);
          REQUIRE(std::equal(Y.data(), Y.data() + Y.size(), Z.data()));
        }
      }
  };
  run(float{});
  run(std::int8_t{});
}

TEST_CASE("codes that name the levels of a table", "[kernel][packed_product]") {
  const auto run = [](auto constant) {
    constexpr int bits = decltype(constant)::value;
    const auto levels = test::gaussian<float>(1, 1 << bits, 21);
    for (const Index cols : {1, 33, 64, 640, 1283})
      for (const Index group : {Index(16), Index(128), cols}) {
        if (group > cols) continue;
        const Weights W(8, cols, bits, group);
        const auto X = test::gaussian<float>(5, cols, 22);
        const PackedActivations<float> x(X.view(), bits);
        const PackedProduct<float, bits, DefaultArch, true> product(W.packed, x, levels.row(0));
        std::vector<std::byte> scratch(std::size_t(product.scratch()));
        Matrix<float> Y(5, 8);
        product.multiply_rows(0, 8, W, Y.view(), scratch);
        std::vector<std::uint8_t> codes(static_cast<std::size_t>(cols));
        for (Index i = 0; i < 8; ++i) {
          W.codes.unpack_row(i, codes);
          for (Index n = 0; n < 5; ++n) {
            double sum = 0, magnitude = 0;
            for (Index j = 0; j < cols; ++j) {
              const auto g = std::size_t(i * W.groups + j / group);
              const double product_of_level =
                  double(W.scale[g]) * double(levels(0, codes[std::size_t(j)]));
              sum += (product_of_level + double(W.offset[g])) * double(X(n, j));
              magnitude += (std::abs(product_of_level) + std::abs(double(W.offset[g]))) *
                           std::abs(double(X(n, j)));
            }
            REQUIRE(double(Y(n, i)) ==
                    Approx(sum).margin(double(cols / 16 + 16) * 0x1p-24 * magnitude));
          }
        }
      }
  };
  run(std::integral_constant<int, 2>{});
  run(std::integral_constant<int, 3>{});
  run(std::integral_constant<int, 4>{});
}

TEST_CASE("groups that end inside a word are left to the caller", "[kernel][packed_product]") {
  const auto X = test::gaussian<float>(1, 640, 1);
  for (int bits = 1; bits <= 8; ++bits)
    for (const Index group : {7, 20, 24, 129}) {
      const Index word = kernel::detail::word_fields(kernel::detail::kernel_bits(bits));
      CHECK(supported(Weights(1, 640, bits, group), PackedActivations<float>(X.view(), bits)) ==
            (group % word == 0));
      CHECK(supported(Weights(1, 640, bits, group),
                      PackedActivations<std::int8_t>(X.view(), bits, 128)) == (group % word == 0));
      CHECK(supported(Weights(1, 640, bits, 128),
                      PackedActivations<std::int8_t>(X.view(), bits, group)) ==
            (group % word == 0));
    }
  const Matrix<float> none(1, 0);
  CHECK_FALSE(supported(Weights(1, 0, 4, 1), PackedActivations<float>(none.view(), 4)));
}

TEST_CASE("rounded activations are within half a step", "[kernel][packed_product]") {
  for (const Index cols : {1, 7, 64, 129, 1000})
    for (const Index group : {1, 5, 16, 128, 5000}) {
      auto X = test::gaussian<float>(3, cols, 11);
      for (Index j = 0; j < cols; ++j) X(1, j) = 0;
      const PackedActivations<std::int8_t> x(X.view(), 4, group);
      for (Index n = 0; n < 3; ++n)
        for (Index begin = 0; begin < cols; begin += group) {
          const Index end = std::min(begin + group, cols);
          float absmax = 0;
          for (Index j = begin; j < end; ++j) absmax = std::max(absmax, std::abs(X(n, j)));
          for (Index j = begin; j < end; ++j) {
            REQUIRE(std::abs(double(x.values()(n, j)) - double(X(n, j))) <=
                    double(absmax) / 127 * 0.5 * (1 + 0x1p-15));
            const double steps =
                absmax == 0 ? 0 : double(x.values()(n, j)) / (double(absmax) / 127);
            REQUIRE(std::abs(steps - std::nearbyint(steps)) < 1e-4);
          }
        }
    }
}

TEST_CASE("activations that are not finite, or next to nothing", "[kernel][packed_product]") {
  const Weights W(3, 256, 4, 64);
  for (const float bad :
       {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(),
        -std::numeric_limits<float>::infinity()})
    for (const Index at : {0, 100, 255}) {
      auto X = test::gaussian<float>(2, 256, 13);
      X(1, at) = bad;
      const auto Y = multiply(W, PackedActivations<std::int8_t>(X.view(), 4));
      const auto Z = multiply(W, PackedActivations<float>(X.view(), 4));
      for (Index i = 0; i < 3; ++i) {
        CHECK(std::isfinite(Y(0, i)));
        CHECK(std::isnan(Y(1, i)));
        CHECK(std::isfinite(Z(0, i)));
        CHECK_FALSE(std::isfinite(Z(1, i)));
      }
    }
  Matrix<float> tiny(1, 256);
  std::fill_n(tiny.data(), 256, 1e-42f);
  const auto Y = multiply(W, PackedActivations<std::int8_t>(tiny.view(), 4));
  for (Index i = 0; i < 3; ++i) CHECK(Y(0, i) == 0);
}

TEST_CASE("strided activations and results; codes at any address", "[kernel][packed_product]") {
  const auto X = test::gaussian<float>(256, 3, 15);
  Weights W(10, 256, 3, 32);
  const auto dense = to_matrix<float>(X.view().transposed());
  const auto expected = multiply(W, PackedActivations<float>(dense.view(), 3));
  const PackedActivations<float> x(X.view().transposed(), 3);
  std::vector<std::uint8_t> moved(W.codes.bytes().size() + 1);
  std::copy(W.codes.bytes().begin(), W.codes.bytes().end(), moved.begin() + 1);
  W.packed.data = moved.data() + 1;
  const PackedProduct<float, 3> product(W.packed, x);
  std::vector<std::byte> scratch(std::size_t(product.scratch()));
  Matrix<float> Y(10, 3);
  CHECK(test::allocations_of([&] {
          product.multiply_rows(0, 4, W, Y.view().transposed(), scratch);
          product.multiply_rows(4, 10, W, Y.view().transposed(), scratch);
        }) == 0);
  for (Index n = 0; n < 3; ++n)
    for (Index i = 0; i < 10; ++i) REQUIRE(Y(i, n) == expected(n, i));
}

TEST_CASE("rows of any number of bits unpack to bytes, raised by a constant",
          "[kernel][packed_product]") {
  for (int bits = 1; bits <= 7; ++bits)
    for (const Index cols : {1, 7, 8, 17, 33, 64, 129, 1000}) {
      const Weights W(1, cols, bits, cols);
      std::vector<std::uint8_t> expected(static_cast<std::size_t>(cols)),
          codes(static_cast<std::size_t>(cols) + 1, 77);
      W.codes.unpack_row(0, expected);
      kernel::detail::unpack_row<DefaultArch>(W.packed.data, bits, cols, 100, codes.data());
      for (std::uint8_t& code : expected) code = std::uint8_t(code + 100);
      CHECK(codes.back() == 77);
      codes.pop_back();
      REQUIRE(codes == expected);
    }
}
