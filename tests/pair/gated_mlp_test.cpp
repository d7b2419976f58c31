#include "cafeq/pair/gated_mlp.hpp"

#include "attention.hpp"
#include "support/catch.hpp"

using namespace cafeq;
using namespace cafeq::test;

namespace {

struct Mlp {
  Matrix<float> gate, up, down;
  std::vector<float> bg, bu, bd;

  Mlp(Index in, Index channels, Index out, std::uint64_t seed)
      : gate(gaussian(channels, in, seed)),
        up(gaussian(channels, in, seed + 1)),
        down(gaussian(out, channels, seed + 2)) {
    const auto fill = [&](std::vector<float>& b, Index n, std::uint64_t s) {
      const auto m = gaussian(n, 1, seed + s);
      b.assign(m.data(), m.data() + n);
    };
    fill(bg, channels, 3);
    fill(bu, channels, 4);
    fill(bd, out, 5);
  }

  template <class Act>
  Matrix<double> operator()(const Matrix<double>& X, bool gated, Act act) const {
    auto Y = Attention::project(up, bu, X);
    const auto G = Attention::project(gate, bg, X);
    for (Index i = 0; i < Y.size(); ++i)
      Y.data()[i] = gated ? act(G.data()[i]) * Y.data()[i] : act(Y.data()[i]);
    return Attention::project(down, bd, Y);
  }
};

double silu(double x) { return x / (1 + std::exp(-x)); }
double relu(double x) { return x > 0 ? x : 0; }
double gelu(double x) { return 0.5 * x * (1 + std::erf(x / std::sqrt(2.0))); }

HeadTransform scales(Index channels, bool signs, std::uint64_t seed = 9) {
  auto D = gaussian<double>(channels, 1, seed);
  for (Index c = 0; c < channels; ++c)
    D(c, 0) = (signs && D(c, 0) < 0 ? -1 : 1) * (0.1 + std::abs(D(c, 0)));
  return HeadTransform(channel_layout(channels), D);
}

}  // namespace

TEST_CASE("a gated MLP allows scales of any sign", "[gated_mlp]") {
  for (const Index channels : {Index(1), Index(17), Index(129)}) {
    const Mlp exact(7, channels, 5, 1);
    const auto X = gaussian<double>(6, 7, 100);
    for (const auto& D : {scales(channels, true), balance_up_down(exact.up, exact.down)}) {
      Mlp moved = exact;
      transform_up_down(moved.up, moved.down, D, vec(moved.bu));
      CHECK(distance(exact(X, true, silu), moved(X, true, silu)) < 1e-6);
      CHECK(relative_error<float, float>(exact.up.view(), moved.up.view()) > 1e-3);
      moved.bu = exact.bu;
      CHECK(distance(exact(X, true, silu), moved(X, true, silu)) > 1e-4);
    }
  }
}

TEST_CASE("the balance gives rows of up and columns of down equal norms", "[gated_mlp]") {
  Mlp mlp(31, 12, 23, 1);
  transform_up_down(mlp.up, mlp.down, balance_up_down(mlp.up, mlp.down));
  for (Index c = 0; c < 12; ++c) {
    double row = 0, column = 0;
    for (Index j = 0; j < 31; ++j) row += double(mlp.up(c, j)) * double(mlp.up(c, j));
    for (Index o = 0; o < 23; ++o) column += double(mlp.down(o, c)) * double(mlp.down(o, c));
    CHECK(row == Approx(column).epsilon(1e-5));
  }
}

TEST_CASE("without a gate scales are positive for ReLU and refused for GELU", "[gated_mlp]") {
  const Mlp exact(7, 20, 5, 1);
  const auto X = gaussian<double>(6, 7, 100);
  const MlpTraits plain_relu{.gated = false, .activation = Activation::relu},
      plain_gelu{.gated = false, .activation = Activation::gelu};
  Mlp moved = exact;
  transform_up_down(moved.up, moved.down, scales(20, false), vec(moved.bu), plain_relu);
  CHECK(distance(exact(X, false, relu), moved(X, false, relu)) < 1e-6);
  CHECK(distance(exact(X, false, gelu), moved(X, false, gelu)) > 1e-3);
  moved = exact;
  CHECK(raises(ErrorCode::unsupported, "must be positive",
               [&] { transform_up_down(moved.up, moved.down, scales(20, true), {}, plain_relu); }));
  CHECK(raises(ErrorCode::unsupported, "permutations", [&] {
    transform_up_down(moved.up, moved.down, scales(20, false), {}, plain_gelu);
  }));
  CHECK(raises(ErrorCode::unsupported, "normalised", [&] {
    transform_up_down(moved.up, moved.down, scales(20, false), {}, {.inner_norm = true});
  }));
  CHECK(relative_error<float, float>(exact.up.view(), moved.up.view()) == 0.0);
}

TEST_CASE("channels may be permuted whatever the activation", "[gated_mlp]") {
  const Mlp exact(70, 20, 65, 1);
  const auto X = gaussian<double>(6, 70, 100, 0.1);
  const auto order = order_by_column_norm(exact.down);
  Mlp moved = exact;
  permute_channels(moved.gate, moved.up, moved.down, order);
  CHECK(distance(exact(X, true, silu), moved(X, true, silu)) >
        1e-3);  // the biases have not followed yet
  permute_rows(as_view(moved.bg.data(), 20, 1), std::span<const Index>(order));
  permute_rows(as_view(moved.bu.data(), 20, 1), std::span<const Index>(order));
  CHECK(distance(exact(X, true, silu), moved(X, true, silu)) < 1e-13);
  double last = INFINITY;
  for (Index c = 0; c < 20; ++c) {
    double norm = 0;
    for (Index o = 0; o < 65; ++o) norm += double(moved.down(o, c)) * double(moved.down(o, c));
    CHECK(norm <= last);
    last = norm;
  }
  Mlp ungated = exact;
  permute_channels(View<float>{}, ungated.up, ungated.down, order);
  permute_rows(as_view(ungated.bu.data(), 20, 1), std::span<const Index>(order));
  CHECK(distance(exact(X, false, gelu), ungated(X, false, gelu)) < 1e-13);
}

TEST_CASE("bad orders and shapes of an MLP", "[gated_mlp]") {
  Mlp mlp(3, 4, 5, 1);
  const Mlp before = mlp;
  const auto refused = [&](std::vector<Index> order, ErrorCode code, const char* text) {
    return raises(code, text, [&] { permute_channels(mlp.gate, mlp.up, mlp.down, order); });
  };
  CHECK(refused({0, 1, 2}, ErrorCode::invalid_shape, "order: 3 entries for 4"));
  CHECK(refused({0, 1, 2, 4}, ErrorCode::invalid_argument, "entry 3 is 4"));
  CHECK(refused({0, 1, 1, 2}, ErrorCode::invalid_argument, "entry 2 is 1"));
  CHECK(refused({0, -1, 1, 2}, ErrorCode::invalid_argument, "entry 1 is -1"));
  CHECK(relative_error<float, float>(before.up.view(), mlp.up.view()) == 0.0);
  Matrix<float> wrong(3, 3);
  CHECK(raises(ErrorCode::invalid_shape, "down: 3 columns",
               [&] { transform_up_down(mlp.up, wrong, scales(4, true)); }));
  CHECK(raises(ErrorCode::invalid_shape, "M: made for 3",
               [&] { transform_up_down(mlp.up, mlp.down, scales(3, true)); }));
  CHECK(raises(ErrorCode::invalid_shape, "up bias: 5",
               [&] { transform_up_down(mlp.up, mlp.down, scales(4, true), vec(mlp.bd)); }));
  CHECK(raises(ErrorCode::invalid_shape, "gate: 3 rows",
               [&] { permute_channels(wrong, mlp.up, mlp.down, std::vector<Index>{0, 1, 2, 3}); }));
  CHECK(raises(ErrorCode::singular, "KV head 1", [&] {
    Matrix<double> D(2, 1);
    D(0, 0) = 1;
    HeadTransform(channel_layout(2), D);
  }));
}

TEST_CASE("what keeps an MLP from taking scales", "[gated_mlp]") {
  const auto positive = scales(4, false), any = scales(40, true);
  CHECK_FALSE(up_down_fault(MlpTraits{}));
  CHECK_FALSE(up_down_fault(MlpTraits{}, any));
  const MlpTraits relu{.gated = false, .activation = Activation::relu};
  CHECK_FALSE(up_down_fault(relu, positive));
  const auto negative = up_down_fault(relu, any);
  REQUIRE(negative);
  CHECK(negative->code() == ErrorCode::unsupported);
  CHECK_THAT(negative->message(), Contains("without a gate scales must be positive"));
  for (const MlpTraits& traits :
       {MlpTraits{.inner_norm = true}, MlpTraits{.gated = false, .activation = Activation::gelu}}) {
    CHECK(up_down_fault(traits)->code() == ErrorCode::unsupported);
    CHECK(up_down_fault(traits, positive)->message() == up_down_fault(traits)->message());
  }
}
