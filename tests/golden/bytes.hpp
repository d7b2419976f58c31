// Codes and scales are the same bytes from version to version: hashes of what every recipe,
// quantizer, rounder, pair and type of GGUF makes of a few matrices, in tests/golden/bytes.json. A
// change of them is a change of every file written.
#pragma once
#include <cstdlib>
#include <fstream>
#include <map>
#include <sstream>

#include "cafeq/cafeq.hpp"
#include "support/build.hpp"
#include "support/catch.hpp"
#include "support/golden.hpp"
#include "support/random.hpp"

namespace cafeq::test {

/// 64-bit FNV-1a.
class Hash {
 public:
  void add(std::span<const std::byte> bytes) {
    for (const std::byte b : bytes) value_ = (value_ ^ std::uint64_t(b)) * 0x100000001b3u;
  }
  template <class T>
  void add(const T& value) {
    add(std::as_bytes(std::span(&value, 1)));
  }
  std::string text() const {
    std::ostringstream out;
    out << std::hex << value_;
    return out.str();
  }

 private:
  std::uint64_t value_ = 0xcbf29ce484222325u;
};

template <Transform T, ScalarQuantizer Q>
void add_codes(Hash& hash, const Quantized<T, Q>& q) {
  for (Index i = 0; i < q.rows(); ++i)
    hash.add(std::as_bytes(std::span(q.codes().packed().row(i))));
  for (const auto& params : q.codes().params()) {
    if constexpr (LinearGrid<Q>) {
      hash.add(q.quantizer().scale(params));
      hash.add(q.quantizer().offset(params));
    }
  }
}
template <Transform T>
void add_codes(Hash& hash, const Quantized<T, Trellis>& q) {
  const auto& codes = q.codes();
  for (Index c = 0; c < codes.chunks().count(); ++c) hash.add(std::as_bytes(codes.chunk(c)));
  hash.add(std::as_bytes(codes.scales().codes()));
  hash.add(codes.scales().base());
  hash.add(codes.scales().step());
}

template <Transform T, class Q>
void add_result(Hash& hash, const Quantized<T, Q>& q) {
  Matrix<float> W(q.rows(), q.cols());
  q.dequantize(W);
  add_codes(hash, q);
  hash.add(std::as_bytes(std::span(W.data(), std::size_t(W.size()))));
  hash.add(std::int64_t(q.exponent()));
  hash.add(q.storage_bits());
}

using Hashes = std::map<std::string, std::string>;

/// What makes the hashes of a part of the set.
class Set {
 public:
  template <class... Results>
  void add(const std::string& name, const Results&... results) {
    Hash hash;
    (add_result(hash, results), ...);
    hashes_.emplace(name, hash.text());
  }
  void add_bytes(const std::string& name, std::span<const std::byte> bytes) {
    Hash hash;
    hash.add(bytes);
    hashes_.emplace(name, hash.text());
  }
  /// Compares with the golden hashes; CAFEQ_GOLDEN_BYTES names a file that the set is appended to,
  /// a line a hash.
  void check() const {
    if (const char* path = std::getenv("CAFEQ_GOLDEN_BYTES")) {
      std::ofstream out(path, std::ios::app);
      for (const auto& [name, hash] : hashes_) out << "\"" << name << "\": \"" << hash << "\",\n";
    }
    static const auto expected = golden("bytes.json");
    for (const auto& [name, hash] : hashes_) {
      INFO(name);
      REQUIRE(expected.contains(name));
      CHECK(expected.at(name).get<std::string>() == hash);
    }
  }

 private:
  Hashes hashes_;
};

/// Sums may differ in their last bits without fused multiply-adds.
inline bool left_out() {
#if defined(__FMA__)
  if (sanitized) WARN("left out: takes minutes under a sanitizer");
  return sanitized;
#else
  return true;
#endif
}

inline const Matrix<float>& weights() {
  static const auto W = heavy_tailed(96, 256, 1, 3);
  return W;
}
/// No side is a multiple of anything.
inline const Matrix<float>& odd_weights() {
  static const auto W = heavy_tailed(37, 149, 2, 1);
  return W;
}

template <class R>
void add_recipe(Set& set, const std::string& name, const R& recipe) {
  ThreadPool pool(2);
  set.add(name + " 96x256", quantize(weights(), recipe, pool));
  set.add(name + " 37x149", quantize(odd_weights().view().transposed().transposed(), recipe));
}

template <class T, class Q, class R>
void add_pipeline(Set& set, const std::string& name, T transform, Q quantizer, R rounder,
                  Side side = Side::input) {
  set.add(name, Pipeline{transform, quantizer, rounder, side}.quantize(weights()));
  set.add(name + " odd",
          Pipeline{transform, quantizer, rounder, side}.quantize(odd_weights().view()));
}

}  // namespace cafeq::test
