/// What other methods that need no data make of the same two models, for the tables: measured with
/// their own code (ggml, ik_llama.cpp, HQQ, SINQ) or a faithful reimplementation (HIGGS, QuIP#'s
/// E8P, QTIP's 3INST). Every bit counts. The language model's perplexities were taken on another
/// selection of stories, where fp32 has 3.584.
#pragma once

#include <array>

namespace cafeq::example {

struct Peer {
  const char* method;
  int bits;  ///< where it stands in the tables
  double encoder_bits, encoder_error, cosine;
  double stories_bits, stories_error, perplexity;
};

inline constexpr double peers_fp32_perplexity = 3.584;

inline constexpr std::array peers{
    Peer{"HQQ g64", 2, 2.50, .192, .535, 2.50, .179, 702},
    Peer{"HIGGS p = 2, n = 16", 2, 2.06, .107, .591, 2.31, .1036, 50.2},
    Peer{"QuIP# E8P, input-side Hadamard, row scales", 2, 2.03, .0910, .674, 2.21, .0904, 33.6},
    Peer{"ik_llama.cpp IQ2_K", 2, 2.38, .0901, .717, 2.38, .0873, 49.1},
    Peer{"QTIP trellis (3INST, L = 12), the same", 2, 2.03, .0729, .731, 2.21, .0720, 21.2},
    Peer{"HQQ g64", 3, 3.50, .0354, .894, 3.50, .0327, 6.89},
    Peer{"SINQ + HQQ g64", 3, 3.52, .0336, .902, 3.76, .0305, 6.04},
    Peer{"HIGGS p = 2, n = 64", 3, 3.06, .0297, .888, 3.34, .0285, 6.14},
    Peer{"ggml Q3_K", 3, 3.44, .0233, .914, 3.44, .0222, 5.18},
    Peer{"QTIP trellis", 3, 3.03, .0194, .927, 3.21, .0191, 4.91},
    Peer{"ik_llama.cpp IQ3_K", 3, 3.44, .0185, .932, 3.44, .0181, 4.84},
    Peer{"NF4 (double-quantized) g64", 4, 4.13, .0087, .965, 4.13, .0084, 4.002},
    Peer{"HQQ g64", 4, 4.50, .0079, .975, 4.50, .0073, 3.912},
    Peer{"HIGGS p = 2, n = 256", 4, 4.06, .0079, .969, 4.37, .0075, 3.912},
    Peer{"ik_llama.cpp IQ4_KS", 4, 4.30, .0056, .980, 4.30, .0054, 3.808},
    Peer{"QTIP trellis", 4, 4.03, .0053, .980, 4.21, .0052, 3.780},
    Peer{"ggml Q4_K", 4, 4.50, .0052, .981, 4.50, .0049, 3.794},
    Peer{"ik_llama.cpp IQ4_K", 4, 4.50, .0043, .984, 4.50, .0041, 3.777}};

}  // namespace cafeq::example
