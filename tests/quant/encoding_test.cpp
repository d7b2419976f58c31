#include "cafeq/quant/encoding.hpp"

#include "cafeq/core/thread_pool.hpp"
#include "cafeq/quant/affine.hpp"
#include "cafeq/quant/codebook.hpp"
#include "cafeq/quant/microfloat.hpp"
#include "cafeq/quant/midrise.hpp"
#include "laws.hpp"
#include "support/build.hpp"

using namespace cafeq;

namespace {

template <class Params>
bool same_bytes(std::span<const Params> a, std::span<const Params> b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size_bytes()) == 0;
}

/// fit, encode and decode of a whole matrix do to every group what the quantizer does to it.
template <ScalarQuantizer Q>
void check_encoding(const Q& quantizer, Index rows, Index cols) {
  CAPTURE(rows, cols, Index(quantizer.group));
  const auto W = test::heavy_tailed(rows, cols, 3, cols > 0 ? 1 : 0, 1000.0);
  const auto X = std::as_const(W).view();
  Encoding<Q> encoding(quantizer, rows, cols);
  encoding.fit(X);
  encoding.encode(X);
  Matrix<float> decoded(rows, cols);
  encoding.decode(decoded.view());
  const Q q = for_tensor(quantizer, X);
  const Index width = Grouping{rows, cols, q.group}.width();
  bool codes_agree = true, values_agree = true, scales_agree = true;
  for (Index i = 0; i < rows; ++i)
    for (Index j = 0; j < cols; ++j) {
      const Index begin = j / width * width;
      const auto group =
          q.group == per_tensor
              ? std::span<const float>(W.data(), std::size_t(W.size()))
              : W.row(i).subspan(std::size_t(begin), std::size_t(std::min(width, cols - begin)));
      const auto p = q.fit(group);
      scales_agree &= q.scale(p) == q.scale(encoding.params(i, j)) &&
                      q.offset(p) == q.offset(encoding.params(i, j));
      codes_agree &= encoding.code(i, j) == q.encode(W(i, j), p);
      values_agree &= decoded(i, j) == q.decode(encoding.code(i, j), p) &&
                      decoded(i, j) == encoding.value(i, j);
    }
  CHECK(scales_agree);
  CHECK(codes_agree);
  CHECK(values_agree);
  const Index row_bytes = ceil_div(cols * Index(q.bits), Index(8));  // a row starts at a byte
  CHECK(encoding.pack().storage_bits() ==
        8 * rows * row_bytes + encoding.grouping().count() * param_bits(q) + tensor_bits(q));

  if (X.empty()) return;

  // Lines, one at a time, agree with the whole.
  Encoding<Q> by_column = encoding, by_row = encoding;
  std::vector<float> target(std::size_t(std::max(rows, cols))), value(target.size());
  bool columns_agree = true, rows_agree = true;
  for (Index j = 0; j < cols; ++j) {
    const Index from = rows / 3, n = rows - from;
    for (Index i = 0; i < n; ++i) {
      target[std::size_t(i)] = W(from + i, j);
      by_column.code(from + i, j) = 0;
    }
    by_column.encode_column(j, from, std::span(target).first(std::size_t(n)), value);
    for (Index i = 0; i < n; ++i)
      columns_agree &= by_column.code(from + i, j) == encoding.code(from + i, j) &&
                       value[std::size_t(i)] == decoded(from + i, j);
  }
  for (Index i = 0; i < rows; ++i) {
    const Index from = cols / 3, n = cols - from;
    for (Index j = from; j < cols; ++j) by_row.code(i, j) = 0;
    by_row.encode_row(i, from, W.row(i).subspan(std::size_t(from)), value);
    for (Index j = 0; j < n; ++j)
      rows_agree &= by_row.code(i, from + j) == encoding.code(i, from + j) &&
                    value[std::size_t(j)] == decoded(i, from + j);
  }
  CHECK(columns_agree);
  CHECK(rows_agree);

  // Neither threads nor the strides of what is written change anything.
  for (const Index threads : {1, 2, 3}) {
    ThreadPool pool(threads);
    Encoding<Q> again(quantizer, rows, cols);
    again.fit(X, pool);
    again.encode(X, pool);
    CHECK(same_bytes(std::as_const(again).all_params(), std::as_const(encoding).all_params()));
    Matrix<float> columns(cols, rows);
    again.decode(columns.view().transposed(), pool);
    bool same = true;
    for (Index i = 0; i < rows; ++i)
      for (Index j = 0; j < cols; ++j)
        same &= again.code(i, j) == encoding.code(i, j) && columns(j, i) == decoded(i, j);
    CHECK(same);
  }
}

template <class Q>
void check_all_shapes(Q q) {
  for (const Index group :
       test::sweep<Index>({per_row, per_tensor, 1, 5, 16, 64}, {per_row, per_tensor, 5, 16})) {
    q.group = group;
    for (const auto& [rows, cols] : test::sweep<std::pair<Index, Index>>(
             {{0, 5}, {5, 0}, {1, 1}, {3, 7}, {7, 17}, {4, 33}, {3, 129}},
             {{0, 5}, {5, 0}, {1, 1}, {3, 7}, {4, 33}}))
      check_encoding(q, rows, cols);
  }
}

}  // namespace

TEST_CASE("an encoding treats every group as its quantizer does, ragged ones too") {
  check_all_shapes(Midrise<3>{});
  check_all_shapes(Affine<2>{});
  check_all_shapes(NvFp4{});
  check_all_shapes(nf3(64, ScaleSearch::mse));
}

TEST_CASE("permuting rows permutes codes and parameters") {
  const auto W = test::gaussian<float>(6, 70, 4, 1000.0);
  Matrix<float> P(6, 70);
  for (Index i = 0; i < 6; ++i)
    for (Index j = 0; j < 70; ++j) P(i, j) = W((5 * i + 2) % 6, j);
  Encoding<Affine<3>> a(Affine<3>{.group = 32}, 6, 70), b = a;
  a.fit(W.view());
  a.encode(W.view());
  b.fit(std::as_const(P).view());
  b.encode(std::as_const(P).view());
  bool same = true;
  for (Index i = 0; i < 6; ++i)
    for (Index j = 0; j < 70; ++j)
      same &= b.code(i, j) == a.code((5 * i + 2) % 6, j) &&
              b.value(i, j) == a.value((5 * i + 2) % 6, j);
  CHECK(same);
}

TEST_CASE("error falls with bits, with smaller groups and with the search") {
  const auto W = test::heavy_tailed(16, 512, 5, 4, 500.0);
  const auto X = std::as_const(W).view();
  const auto errors = [&](Index group, ScaleSearch search) {
    return std::vector<double>{test::matrix_error(Affine<2>{.group = group, .search = search}, X),
                               test::matrix_error(Affine<3>{.group = group, .search = search}, X),
                               test::matrix_error(Affine<4>{.group = group, .search = search}, X),
                               test::matrix_error(Affine<6>{.group = group, .search = search}, X),
                               test::matrix_error(Affine<8>{.group = group, .search = search}, X)};
  };
  const auto row = errors(per_row, ScaleSearch::mse), small = errors(64, ScaleSearch::mse),
             plain = errors(64, ScaleSearch::minmax), tensor = errors(per_tensor, ScaleSearch::mse);
  for (std::size_t b = 0; b < row.size(); ++b) {
    if (b > 0) CHECK(row[b] < row[b - 1]);
    if (b > 0) CHECK(plain[b] < plain[b - 1]);
    CHECK(small[b] < row[b]);
    CHECK(small[b] < plain[b]);
    CHECK(row[b] <= tensor[b]);
  }
}
