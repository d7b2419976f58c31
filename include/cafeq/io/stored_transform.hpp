/// A transform as a quantized file keeps it: a list of factors, each an object with its "kind", and
/// their tensors.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include "cafeq/io/stored_matrix.hpp"
#include "cafeq/transform/any_transform.hpp"

namespace cafeq::detail {

inline void put_transform(MatrixParts&, Json&, const Identity::Fitted&) {}
inline void put_transform(MatrixParts& parts, Json& factors, const Diagonal& t) {
  int largest = std::numeric_limits<int>::min();
  for (const float d : t.entries()) largest = std::max(largest, floor_log2(double(d)));
  const int exponent = largest - 14;  // Diagonal keeps halves times one power of two
  std::vector<fp16> halves;
  for (const float d : t.entries()) halves.emplace_back(float(std::ldexp(double(d), -exponent)));
  parts.put("diagonal", {t.dim()}, halves);
  factors.push_back({{"kind", "diagonal"}, {"exponent", exponent}});
}
inline void put_transform(MatrixParts&, Json& factors, const Hadamard& t) {
  std::vector<Index> sizes;
  for (const auto& run : t.runs()) sizes.insert(sizes.end(), std::size_t(run.count), run.size);
  if (const auto seed = t.signs().seed())
    return void(factors.push_back({{"kind", "hadamard"}, {"sizes", sizes}, {"seed", *seed}}));
  // What is left alone has signs of 1 and blocks of 1, and is stored without any.
  const auto is_one = [](auto value) { return value == 1; };
  if (!std::all_of(sizes.begin(), sizes.end(), is_one) ||
      !std::all_of(t.signs().entries().begin(), t.signs().entries().end(), is_one))
    raise(ErrorCode::unsupported,
          "quantized file: only Hadamards whose signs come from a seed are stored");
  factors.push_back({{"kind", "hadamard"}, {"sizes", Json::array()}});
}
inline void put_transform(MatrixParts& parts, Json& factors, const BlockDiagonal& t) {
  const Int8Inverse stored = t.int8_inverse();
  std::vector<Index> sizes;
  std::vector<std::int8_t> codes;
  std::vector<std::uint8_t> exponents;
  for (const auto& block : stored.blocks) {
    sizes.push_back(block.size);
    codes.insert(codes.end(), block.codes.begin(), block.codes.end());
    exponents.insert(exponents.end(), block.exponents.begin(), block.exponents.end());
  }
  parts.put("inverse", {Index(codes.size())}, codes);
  parts.put("inverse_exponents", {Index(exponents.size())}, exponents);
  factors.push_back({{"kind", "block_diagonal"}, {"sizes", sizes}, {"base", stored.base}});
}

template <Transform A, Transform B>
void put_transform(MatrixParts& parts, Json& factors, const Composed<A, B>& t) {
  put_transform(parts, factors, t.first());
  put_transform(parts, factors, t.second());
}
inline void put_transform(MatrixParts& parts, Json& factors, const AnyTransform& t) {
  t.visit([&](const auto& own) { put_transform(parts, factors, own); });
}

/// The factors of a stored transform, taken one after the other.
class StoredFactors {
 public:
  StoredFactors(const StoredMatrix& stored, Index dim)
      : stored_(stored), dim_(dim), factors_(find_member(stored.description, "transform")) {
    if (factors_ == nullptr || !factors_->is_array()) stored.fail("has no list transform");
  }

  [[noreturn]] void raise_unknown(std::string_view kinds) const {
    raise(ErrorCode::unsupported,
          message(stored_.where, ": its transform is ", kinds, "; load_as() can load it"));
  }

  /// The kinds, joined by "*".
  std::string kinds() const {
    std::string joined;
    for (const Json& factor : *factors_) {
      const std::string* kind = find_string(factor, "kind");
      if (kind == nullptr) stored_.fail("a factor of its transform has no kind");
      joined += (joined.empty() ? "" : "*") + *kind;
    }
    return joined;
  }

  void take(Identity::Fitted& t) { t.size = dim_; }
  void take(Diagonal& t) {
    const Json& factor = next("diagonal");
    const int exponent = int(stored_.number(factor, "exponent", -exponent_limit, exponent_limit));
    std::vector<double> entries;
    for (const fp16 half : stored_.values<fp16>("diagonal", {dim_}))
      entries.push_back(std::ldexp(double(float(half)), exponent));
    t = Diagonal(std::move(entries));
  }
  void take(Hadamard& t) {
    const Json& factor = next("hadamard");
    const auto blocks = sizes(factor);
    if (blocks.empty()) {
      t = Hadamard::identity(dim_);
      return;
    }
    check_sizes(blocks);
    const Json* seed = find_member(factor, "seed");
    if (seed == nullptr || !seed->is_number_unsigned()) stored_.fail("its Hadamard has no seed");
    t = Hadamard(cafeq::Signs(dim_, seed->get<std::uint64_t>()), blocks);
  }
  void take(BlockDiagonal& t) {
    const Json& factor = next("block_diagonal");
    const auto blocks = sizes(factor);
    check_sizes(blocks);
    Index entries = 0;
    for (const Index k : blocks) {
      Index square = 0;
      if (__builtin_mul_overflow(k, k, &square) ||
          __builtin_add_overflow(entries, square, &entries))
        stored_.fail("the blocks of its transform are too large");
    }
    const auto codes = stored_.values<std::int8_t>("inverse", {entries});
    const auto exponents = stored_.values<std::uint8_t>("inverse_exponents", {dim_});
    Int8Inverse stored{int(stored_.number(factor, "base", -exponent_limit, exponent_limit)), {}};
    auto code = codes.begin();
    auto exponent = exponents.begin();
    for (const Index k : blocks) {
      stored.blocks.push_back({k, {code, code + k * k}, {exponent, exponent + k}});
      code += k * k;
      exponent += k;
    }
    t = BlockDiagonal::from_int8(stored);
  }

 private:
  const Json& next(std::string_view kind) {
    if (taken_ >= factors_->size() || *find_string((*factors_)[taken_], "kind") != kind)
      stored_.fail(message("its transform has no ", kind, " where one is expected"));
    return (*factors_)[taken_++];
  }
  std::vector<Index> sizes(const Json& factor) const {
    const auto found = to_sizes(find_member(factor, "sizes"));
    if (!found) stored_.fail("its transform has no list sizes");
    return *found;
  }
  void check_sizes(const std::vector<Index>& sizes) const {
    Index covered = 0;
    for (const Index size : sizes)
      if (size < 1 || __builtin_add_overflow(covered, size, &covered))
        stored_.fail(message("its transform has a block of size ", size));
    if (covered != dim_)
      stored_.fail(message("the blocks of its transform cover ", covered, " of ", dim_));
  }

  const StoredMatrix& stored_;
  Index dim_;
  const Json* factors_;
  std::size_t taken_ = 0;
};

/// How a type of transform is recognised and read. Identity, Diagonal, Hadamard and BlockDiagonal
/// are single factors (none for the identity), compositions one after the other.
template <class T>
struct TransformLoader {
  static std::string kinds() {
    if constexpr (std::is_same_v<T, Identity::Fitted>) return "";
    else if constexpr (std::is_same_v<T, Diagonal>) return "diagonal";
    else if constexpr (std::is_same_v<T, Hadamard>) return "hadamard";
    else return "block_diagonal";
  }
  static T load(StoredFactors& factors) {
    T t;
    factors.take(t);
    return t;
  }
};
template <class A, class B>
struct TransformLoader<Composed<A, B>> {
  static std::string kinds() {
    return TransformLoader<A>::kinds() + "*" + TransformLoader<B>::kinds();
  }
  static Composed<A, B> load(StoredFactors& factors) {
    A a = TransformLoader<A>::load(factors);
    return {std::move(a), TransformLoader<B>::load(factors)};
  }
};
/// Whichever of those that AnyTransform holds has the kinds of the factors.
template <>
struct TransformLoader<AnyTransform> {
  static AnyTransform load(StoredFactors& factors) {
    return load(factors, std::type_identity<AnyTransform::Variant>{});
  }

 private:
  template <class... T>
  static AnyTransform load(StoredFactors& factors, std::type_identity<std::variant<T...>>) {
    const std::string kinds = factors.kinds();
    std::optional<AnyTransform> found;
    const auto try_one = [&]<class One>(std::type_identity<One>) {
      if (TransformLoader<One>::kinds() != kinds) return false;
      found = TransformLoader<One>::load(factors);
      return true;
    };
    if (!(try_one(std::type_identity<T>{}) || ...)) factors.raise_unknown(kinds);
    return *found;
  }
};

}  // namespace cafeq::detail
