#include "accuracy/peers/gptq.hpp"
#include "accuracy/peers/higgs.hpp"
#include "accuracy/peers/hqq.hpp"
#include "accuracy/peers/nf4.hpp"
#include "accuracy/peers/sinq.hpp"
#include "cafeq/core/rng.hpp"
#include "support/catch.hpp"

using namespace cafeq;
using namespace cafeq::accuracy::peers;

namespace {

Matrix<float> gaussian(Index rows, Index cols) {
  Matrix<float> W(rows, cols);
  const CounterRng rng(3);
  for (Index i = 0; i < W.size(); ++i) W.data()[i] = 0.02f * float(rng.normal(std::uint64_t(i)));
  return W;
}

/// ‖W − Ŵ‖² / ‖W‖²
double error(const Matrix<float>& W, const Matrix<float>& hat) {
  double sum = 0, norm = 0;
  for (Index i = 0; i < W.size(); ++i) {
    const double w = double(W.data()[i]), left = w - double(hat.data()[i]);
    sum += left * left;
    norm += w * w;
  }
  return sum / norm;
}

Matrix<float> min_max_rounded(const Matrix<float>& W, int bits) {
  Matrix<float> hat(W.rows(), W.cols());
  for (Index i = 0; i < W.rows(); ++i)
    for (Index j = 0; j < W.cols(); j += 64) {
      const auto w = W.row(i).subspan(std::size_t(j), 64);
      const AffineGroup q = min_max(w, bits).rounded();
      std::transform(w.begin(), w.end(), hat.row(i).begin() + j, q);
    }
  return hat;
}

}  // namespace

TEST_CASE("peers lose what is known of them on normally distributed weights") {
  const Matrix<float> W = gaussian(64, 256);
  CHECK(error(W, Nf4{}(W.view())) == Approx(.0087).epsilon(.1));
  CHECK(error(W, Higgs<2>{}(W.view())) == Approx(.107).epsilon(.1));
  CHECK(error(W, Higgs<3>{}(W.view())) == Approx(.030).epsilon(.1));
  for (const int bits : {3, 4}) {
    const double plain = error(W, min_max_rounded(W, bits));
    CHECK(error(W, Hqq{.bits = bits}(W.view())) < plain);
    CHECK(error(W, Sinq{.bits = bits}(W.view())) < 1.2 * plain);
  }
  CHECK(Hqq{.bits = 3}.bits_per_weight(576, 576) == 3.5);
  CHECK(Sinq{.bits = 3}.bits_per_weight(576, 576) == Approx(3.528).epsilon(.001));
  CHECK(Nf4{}.bits_per_weight(576, 576) == 4.25);
  CHECK(Higgs<2>{}.bits_per_weight(576, 1024) == Approx(2.0156).epsilon(.0001));
}

TEST_CASE("SINQ makes up for rows and columns of different sizes") {
  Matrix<float> W = gaussian(64, 128);
  for (Index i = 0; i < W.rows(); ++i)
    for (Index j = 0; j < W.cols(); ++j) W(i, j) *= float(1 + i % 7) * (j % 50 == 0 ? 8.0f : 1.0f);
  CHECK(error(W, Sinq{.bits = 3}(W.view())) < .5 * error(W, min_max_rounded(W, 3)));
}

TEST_CASE("GPTQ rounds to nearest where inputs are uncorrelated, and loses less in their metric") {
  const Matrix<float> W = gaussian(16, 128);
  const Gptq gptq{.bits = 3};
  const Matrix<float> plain = min_max_rounded(W, 3);
  const Matrix<float> alone = gptq(W.view(), Eigen::MatrixXf::Identity(128, 128));
  CHECK(std::equal(alone.data(), alone.data() + alone.size(), plain.data()));

  // Inputs that share a direction.
  Eigen::MatrixXf gram = Eigen::MatrixXf::Identity(128, 128);
  gram.array() += 0.5f;
  const auto loss = [&](const Matrix<float>& hat) {
    double sum = 0;
    for (Index i = 0; i < W.rows(); ++i) {
      Eigen::VectorXf left(W.cols());
      for (Index j = 0; j < W.cols(); ++j) left[j] = W(i, j) - hat(i, j);
      sum += double(left.dot(gram * left));
    }
    return sum;
  };
  CHECK(loss(gptq(W.view(), gram)) < .7 * loss(plain));
}

TEST_CASE("weights that are all zero stay zero") {
  Matrix<float> W(4, 64);
  for (const Matrix<float>& hat :
       {Nf4{}(W.view()), Hqq{}(W.view()), Sinq{}(W.view()), Higgs<2>{}(W.view()),
        Gptq{}(W.view(), Eigen::MatrixXf::Zero(64, 64))})
    CHECK(std::all_of(hat.data(), hat.data() + hat.size(),
                      [](float w) { return std::abs(w) < 1e-6f; }));
}
