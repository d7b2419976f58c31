// Every quantizer, rounder and side, and the types of GGUF.
#include "cafeq/quant/gguf.hpp"

#include "golden/bytes.hpp"

using namespace cafeq;
using namespace cafeq::test;

TEST_CASE("Every quantizer, rounder and side gives the same bytes as ever") {
  if (left_out()) return;
  Set set;
  for (const auto& [name, search] :
       {std::pair("minmax", ScaleSearch::minmax), std::pair("absmax", ScaleSearch::absmax),
        std::pair("mse", ScaleSearch::mse)}) {
    const std::string s = name;
    add_pipeline(set, "affine " + s, Identity{}, Affine<>{.bits = 3, .group = 32, .search = search},
                 Nearest{});
    add_pipeline(set, "integer zero " + s, Identity{},
                 AffineIntegerZero<>{.bits = 3, .group = 40, .search = search}, Nearest{});
    add_pipeline(set, "symmetric " + s, Identity{},
                 Symmetric<>{.bits = 4, .group = 64, .search = search}, Nearest{});
    add_pipeline(set, "midrise " + s, Identity{},
                 Midrise<>{.bits = 2, .group = 16, .search = search}, Nearest{});
    add_pipeline(set, "nf4 " + s, Identity{}, nf4(64, search), Nearest{});
    add_pipeline(set, "nf3 " + s, Identity{}, nf3(48, search), Nearest{});
    add_pipeline(set, "mxfp4 " + s, Identity{}, MxFp4{.search = search}, Nearest{});
    add_pipeline(set, "nvfp4 " + s, Identity{}, NvFp4{.search = search}, Nearest{});
    add_pipeline(set, "fp8 " + s, Identity{}, Fp8E4M3{.group = 64, .search = search}, Nearest{});
  }
  add_pipeline(set, "midrise tensor", Identity{}, Midrise<>{.bits = 4, .group = per_tensor},
               Nearest{});
  add_pipeline(set, "affine tensor", BlockHadamard{16}, Affine<>{.bits = 4, .group = per_tensor},
               ErrorFeedback{});
  add_pipeline(set, "iq4_nl", Identity{}, gguf::iq4_nl, ErrorFeedback{});
  add_pipeline(set, "lloyd_max", RandomizedHadamard{}, lloyd_max_gaussian<3>(), ErrorFeedback{});
  const ErrorFeedback feedback{.sweeps = 2};
  add_pipeline(set, "scaled affine feedback", DualScaling{}, Affine<>{.bits = 3, .group = 32},
               feedback);
  add_pipeline(set, "scaled midrise feedback", DualScaling{}, Midrise<>{.bits = 3, .group = 64},
               feedback);
  add_pipeline(set, "scaled integer zero feedback", DualScaling{},
               AffineIntegerZero<>{.bits = 3, .group = 64}, feedback);
  add_pipeline(set, "scaled nf4 feedback", DualScaling{}, nf4(), feedback);
  add_pipeline(set, "scaled midrise descent", DualScaling{}, Midrise<>{.bits = 3},
               ErrorFeedback{.sweeps = 2, .feedback = false});
  add_pipeline(set, "output side", DualScaling{}, Affine<>{.bits = 3, .group = 32}, feedback,
               Side::output);
  add_pipeline(set, "output side nearest", BlockHadamard{32} * DualScaling{}, Midrise<>{.bits = 4},
               Nearest{}, Side::output);

  const Matrix<double> factor = test::gaussian<double>(256, 300, 9);
  Matrix<double> H(256, 256);
  for (Index i = 0; i < 256; ++i)
    for (Index j = 0; j < 256; ++j)
      for (Index k = 0; k < 300; ++k) H(i, j) += factor(i, k) * factor(j, k);
  const Metric metric = Metric::dense(H);
  const auto add_metric = [&](const std::string& name, const auto& q) {
    set.add(name, Quantized(round(feedback, weights().view(), q, metric).pack(),
                            Identity::Fitted{256}, Side::input, 0));
  };
  add_metric("hessian affine", Affine<>{.bits = 3, .group = 64});
  add_metric("hessian midrise", Midrise<>{.bits = 2});
  add_metric("hessian nf3", nf3());
  add_metric("hessian q4_k", gguf::q4_k);
  set.check();
}

TEST_CASE("Types of GGUF give the same bytes as ever") {
  if (left_out()) return;
  Set set;
  for (const GgufTypeInfo& info : gguf_types) {
    std::vector<std::byte> bytes;
    for (Index i = 0; i < weights().rows(); ++i) {
      std::vector<std::byte> row(std::size_t(*gguf_row_bytes(info.type, weights().cols())));
      gguf::quantize_row(info.type, weights().row(i), row);
      bytes.insert(bytes.end(), row.begin(), row.end());
    }
    set.add_bytes("gguf " + std::string(info.name), bytes);
  }
  set.check();
}
