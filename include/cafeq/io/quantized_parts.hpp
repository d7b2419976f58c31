/// A quantized matrix as a description and a few tensors, and back: what a quantized file keeps of it.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "cafeq/core/tensor.hpp"
#include "cafeq/io/json.hpp"
#include "cafeq/pipeline/any_quantized.hpp"

namespace cafeq::detail {

inline constexpr const char* version_key = "cafeq.version";
inline constexpr const char* matrices_key = "cafeq.matrices";

inline constexpr std::array<std::string_view, 8> part_suffixes{"codes", "scales", "scale_codes", "offsets", "zeros", "diagonal", "inverse", "inverse_exponents"};
inline bool is_part_suffix(std::string_view suffix) noexcept {
  for (const auto known : part_suffixes)
    if (suffix == known) return true;
  return false;
}

// ---- grids

template <class Q>
struct GridName;
template <int Bits>
struct GridName<Affine<Bits>> {
  static constexpr const char* name = "affine";
};
template <int Bits>
struct GridName<AffineIntegerZero<Bits>> {
  static constexpr const char* name = "affine_integer_zero";
};
template <int Bits>
struct GridName<Symmetric<Bits>> {
  static constexpr const char* name = "symmetric";
};
template <int Bits>
struct GridName<Midrise<Bits>> {
  static constexpr const char* name = "midrise";
};

/// A matrix on its way into a file.
struct MatrixParts {
  Json description;
  TensorMap tensors;

  template <class T>
  void put(const char* suffix, std::vector<Index> shape, std::span<const T> values) {
    const auto bytes = std::as_bytes(values);
    tensors[suffix] = Tensor{scalar_type_of<T>, std::move(shape), Buffer<std::byte>(bytes.begin(), bytes.end())};
  }
  template <class T>
  void put(const char* suffix, std::vector<Index> shape, const std::vector<T>& values) {
    put(suffix, std::move(shape), std::span<const T>(values));
  }
};

/// A matrix in a file. `where` names it in messages.
struct StoredMatrix {
  std::string where;
  std::string name;
  const Json& description;
  const TensorViewMap& tensors;

  [[noreturn]] void fail(std::string_view problem) const { raise(ErrorCode::corrupt, message(where, ": ", problem)); }

  Index number(const Json& object, const char* key, Index least, Index most) const {
    const Json* member = find_member(object, key);
    if (member == nullptr || !member->is_number_integer()) fail(message("has no whole number ", key));
    const bool huge = member->is_number_unsigned() && member->get<std::uint64_t>() > std::uint64_t(std::numeric_limits<Index>::max());
    const Index value = huge ? std::numeric_limits<Index>::max() : member->get<Index>();
    if (value < least || value > most) fail(message(key, " is ", value, ", must be ", least, " to ", most));
    return value;
  }
  Index number(const char* key, Index least, Index most) const { return number(description, key, least, most); }
  std::string text(const char* key) const {
    const std::string* found = find_string(description, key);
    if (found == nullptr) fail(message("has no text ", key));
    return *found;
  }

  /// All values of a part, which must have that shape.
  template <class T>
  std::vector<T> values(const char* suffix, const std::vector<Index>& shape) const {
    const std::string part = message(name, ".", suffix);
    const auto found = tensors.find(part);
    if (found == tensors.end()) fail(message("its part ", part, " is missing"));
    const TensorView& tensor = found->second;
    if (tensor.type != scalar_type_of<T> || tensor.shape != shape)
      fail(message(part, " is ", describe(tensor.type, tensor.shape), ", expected ", describe(scalar_type_of<T>, shape)));
    std::vector<T> result(tensor.bytes.size() / sizeof(T));
    if (!result.empty()) std::memcpy(result.data(), tensor.bytes.data(), tensor.bytes.size());
    return result;
  }
};

inline std::vector<Index> param_shape(const Grouping& grouping) {
  if (grouping.group == per_tensor) return {1, 1};
  return {grouping.rows, grouping.per_row_count()};
}

template <class Params>
void put_params(MatrixParts& parts, std::vector<Index> shape, std::span<const Params> params) {
  const auto put = [&](const char* suffix, auto&& member) {
    std::vector<std::remove_cvref_t<decltype(member(params[0]))>> values;
    for (const Params& p : params) values.push_back(member(p));
    parts.put(suffix, shape, values);
  };
  put("scales", [](const Params& p) { return p.scale; });
  if constexpr (requires(Params p) { p.offset; }) put("offsets", [](const Params& p) { return p.offset; });
  if constexpr (requires(Params p) { p.zero; }) put("zeros", [](const Params& p) { return p.zero; });
}

template <class Params>
std::vector<Params> load_params(const StoredMatrix& stored, const std::vector<Index>& shape) {
  std::vector<Params> params;
  for (const fp16 scale : stored.values<fp16>("scales", shape)) {
    if (!std::isfinite(float(scale))) stored.fail("a scale is not finite");
    params.push_back(Params{});
    params.back().scale = scale;
  }
  if constexpr (requires(Params p) { p.offset; }) {
    const auto offsets = stored.values<fp16>("offsets", shape);
    for (std::size_t i = 0; i < params.size(); ++i) {
      if (!std::isfinite(float(offsets[i]))) stored.fail("an offset is not finite");
      params[i].offset = offsets[i];
    }
  }
  if constexpr (requires(Params p) { p.zero; }) {
    const auto zeros = stored.values<std::uint8_t>("zeros", shape);
    for (std::size_t i = 0; i < params.size(); ++i) params[i].zero = zeros[i];
  }
  return params;
}

// ---- transforms: a list of factors, each an object with its "kind"

/// Powers of two that a double takes without harm.
inline constexpr Index exponent_limit = 2000;

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
  if (const auto seed = t.signs().seed()) return void(factors.push_back({{"kind", "hadamard"}, {"sizes", sizes}, {"seed", *seed}}));
  // What is left alone has signs of 1 and blocks of 1, and is stored without any.
  const auto is_one = [](auto value) { return value == 1; };
  if (!std::all_of(sizes.begin(), sizes.end(), is_one) || !std::all_of(t.signs().entries().begin(), t.signs().entries().end(), is_one))
    raise(ErrorCode::unsupported, "quantized file: only Hadamards whose signs come from a seed are stored");
  factors.push_back({{"kind", "hadamard"}, {"sizes", Json::array()}});
}
template <Transform A, Transform B>
void put_transform(MatrixParts& parts, Json& factors, const Composed<A, B>& t) {
  put_transform(parts, factors, t.first());
  put_transform(parts, factors, t.second());
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

/// The factors of a stored transform, taken one after the other.
class StoredFactors {
 public:
  StoredFactors(const StoredMatrix& stored, Index dim) : stored_(stored), dim_(dim), factors_(find_member(stored.description, "transform")) {
    if (factors_ == nullptr || !factors_->is_array()) stored.fail("has no list transform");
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
    for (const fp16 half : stored_.values<fp16>("diagonal", {dim_})) entries.push_back(std::ldexp(double(float(half)), exponent));
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
      if (__builtin_mul_overflow(k, k, &square) || __builtin_add_overflow(entries, square, &entries)) stored_.fail("the blocks of its transform are too large");
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
    if (taken_ >= factors_->size() || *find_string((*factors_)[taken_], "kind") != kind) stored_.fail(message("its transform has no ", kind, " where one is expected"));
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
      if (size < 1 || __builtin_add_overflow(covered, size, &covered)) stored_.fail(message("its transform has a block of size ", size));
    if (covered != dim_) stored_.fail(message("the blocks of its transform cover ", covered, " of ", dim_));
  }

  const StoredMatrix& stored_;
  Index dim_;
  const Json* factors_;
  std::size_t taken_ = 0;
};

template <class T>
struct TransformLoader {
  static T load(StoredFactors& factors) {
    T t;
    factors.take(t);
    return t;
  }
};
template <class A, class B>
struct TransformLoader<Composed<A, B>> {
  static Composed<A, B> load(StoredFactors& factors) {
    A a = TransformLoader<A>::load(factors);
    return {std::move(a), TransformLoader<B>::load(factors)};
  }
};

// ---- both together

template <Transform T, Quantizer Q>
MatrixParts parts_of(const Quantized<T, Q>& q, const std::string& name) {
  static_assert(requires { GridName<Q>::name; }, "cafeq: the quantized file has no words for this grid");
  if (name.empty()) raise(ErrorCode::invalid_argument, "a matrix without a name");
  MatrixParts parts;
  Json factors = Json::array();
  put_transform(parts, factors, q.transform());
  parts.put("codes", {q.rows(), q.codes().row_bytes()}, q.codes().bytes());
  put_params(parts, param_shape(q.grouping()), q.params());
  parts.description = {{"rows", q.rows()},
                       {"cols", q.cols()},
                       {"bits", q.bits()},
                       {"group", q.quantizer().group},
                       {"grid", GridName<Q>::name},
                       {"side", q.side() == Side::input ? "input" : "output"},
                       {"exponent", q.exponent()},
                       {"transform", std::move(factors)}};
  return parts;
}

template <Transform T, Quantizer Q>
Quantized<T, Q> load_quantized(const StoredMatrix& stored) {
  if (stored.text("grid") != GridName<Q>::name) stored.fail(message("its grid is ", stored.text("grid"), ", not ", GridName<Q>::name));
  constexpr Index most = Index(1) << 40;
  const Index rows = stored.number("rows", 1, most), cols = stored.number("cols", 1, most);
  const int bits = int(stored.number("bits", 2, 8));
  const std::string side = stored.text("side");
  if (side != "input" && side != "output") stored.fail(message("its side is ", side));
  Q quantizer{};
  if constexpr (fixed_bits<Q>() == 0) quantizer.bits = bits;
  else if (quantizer.bits != bits) stored.fail(message("has ", bits, " bits, not ", int(quantizer.bits)));
  quantizer.group = stored.number("group", per_tensor, most);
  const Grouping grouping{rows, cols, quantizer.group};
  // Parts are read before anything of the size that the description claims is allocated.
  const auto bytes = stored.values<std::uint8_t>("codes", {rows, ceil_div(cols * bits, 8)});
  auto params = load_params<typename Q::Params>(stored, param_shape(grouping));
  StoredFactors factors(stored, side == "input" ? cols : rows);
  T transform = TransformLoader<T>::load(factors);
  PackedCodes codes(rows, cols, bits);
  std::memcpy(codes.bytes().data(), bytes.data(), bytes.size());
  const int exponent = int(stored.number("exponent", -exponent_limit, exponent_limit));
  return {std::move(quantizer), cols, std::move(codes), std::move(params), std::move(transform), side == "input" ? Side::input : Side::output, exponent};
}

inline constexpr const char* trellis_grid = "trellis";
inline constexpr std::array<const char*, 3> trellis_sequences{"rows", "row", "column"};  // in the order of TrellisSequence

inline constexpr Index trellis_side_limit = Index(1) << 31, trellis_weight_limit = Index(1) << 41;

template <Transform T>
MatrixParts parts_of(const Quantized<T, Trellis>& q, const std::string& name) {
  if (std::max(q.rows(), q.cols()) > trellis_side_limit || q.rows() * q.cols() > trellis_weight_limit)
    raise(ErrorCode::unsupported, message("quantized file: a trellis of ", q.rows(), " x ", q.cols(), " weights"));
  if (name.empty()) raise(ErrorCode::invalid_argument, "a matrix without a name");
  MatrixParts parts;
  Json factors = Json::array();
  put_transform(parts, factors, q.transform());
  const Encoding<Trellis>& encoding = q.encoding();
  const TrellisScales& scales = encoding.scales();
  std::vector<std::uint8_t> codes;
  for (Index c = 0; c < encoding.chunks().count(); ++c) {
    const Index bits = encoding.chunks().bits_of(c);
    const auto chunk = encoding.chunk(c).first(std::size_t(ceil_div(bits, Index(8))));
    codes.insert(codes.end(), chunk.begin(), chunk.end());
    codes.back() = std::uint8_t(codes.back() & (0xff << (8 * Index(chunk.size()) - bits)));  // what is repeated in memory is left out
  }
  std::vector<std::uint8_t> packed(std::size_t(ceil_div(Index(scales.codes().size()) * scales.bits(), Index(8))));
  pack_codes(scales.codes(), scales.bits(), packed);
  parts.put("codes", {Index(codes.size())}, codes);
  parts.put("scale_codes", {Index(packed.size())}, packed);
  parts.description = {{"rows", q.rows()},
                       {"cols", q.cols()},
                       {"grid", trellis_grid},
                       {"rate", q.quantizer().rate.sixteenths},
                       {"window", q.quantizer().window},
                       {"sequence", trellis_sequences[std::size_t(q.quantizer().sequence)]},
                       {"scale_bits", scales.bits()},
                       {"scale_base", scales.base()},
                       {"scale_step", scales.step()},
                       {"side", q.side() == Side::input ? "input" : "output"},
                       {"exponent", q.exponent()},
                       {"transform", std::move(factors)}};
  return parts;
}

template <Transform T>
Quantized<T, Trellis> load_trellis(const StoredMatrix& stored) {
  if (stored.text("grid") != trellis_grid) stored.fail(message("its grid is ", stored.text("grid"), ", not ", trellis_grid));
  constexpr Index most = trellis_side_limit;
  const Index rows = stored.number("rows", 1, most), cols = stored.number("cols", 1, most);
  Trellis quantizer{.rate = {int(stored.number("rate", TrellisRate::least, TrellisRate::most))},
                          .scale_bits = int(stored.number("scale_bits", 6, 8)),
                          .window = int(stored.number("window", 10, 14))};
  if (auto fault = quantizer_fault(quantizer)) stored.fail(fault->message());
  const auto sequence = std::find(trellis_sequences.begin(), trellis_sequences.end(), stored.text("sequence"));
  if (sequence == trellis_sequences.end()) stored.fail(message("its sequence is ", stored.text("sequence")));
  quantizer.sequence = TrellisSequence(sequence - trellis_sequences.begin());
  const std::string side = stored.text("side");
  if (side != "input" && side != "output") stored.fail(message("its side is ", side));
  const auto logarithm = [&](const char* key, double least) {  // of scales that fp32 can hold
    const Json* member = find_member(stored.description, key);
    if (member == nullptr || !member->is_number() || !(member->get<double>() >= least && member->get<double>() <= 88)) stored.fail(message("has no number ", key));
    return member->get<float>();
  };
  const float base = logarithm("scale_base", -1000), step = logarithm("scale_step", 0);
  // Parts are read before anything of the size that the description claims is allocated.
  if (rows * cols > trellis_weight_limit) stored.fail(message("has ", rows, " x ", cols, " weights"));
  const TrellisChunks chunks(quantizer, rows, cols);
  const auto packed = stored.values<std::uint8_t>("scale_codes", {ceil_div(chunks.lines * quantizer.scale_bits, Index(8))});
  const auto codes = stored.values<std::uint8_t>("codes", {Index(chunks.storage_bits() / 8)});
  StoredFactors factors(stored, side == "input" ? cols : rows);
  T transform = TransformLoader<T>::load(factors);
  Encoding<Trellis> encoding(quantizer, rows, cols);
  auto from = codes.begin();
  for (Index c = 0; c < chunks.count(); ++c) {
    const Index bits = chunks.bits_of(c);
    const auto bytes = ceil_div(bits, Index(8));
    std::copy_n(from, bytes, encoding.chunk(c).begin());
    close_trellis_chunk(encoding.chunk(c), bits, quantizer.window);
    from += bytes;
  }
  std::vector<std::uint8_t> scales(static_cast<std::size_t>(chunks.lines));
  unpack_codes(packed, quantizer.scale_bits, scales);
  encoding.set_scales(TrellisScales(quantizer.scale_bits, base, step, std::move(scales)));
  const int exponent = int(stored.number("exponent", -exponent_limit, exponent_limit));
  return {std::move(encoding), std::move(transform), side == "input" ? Side::input : Side::output, exponent};
}

CAFEQ_LAZY AnyQuantized load_any(const StoredMatrix& stored) {
  const std::string grid = stored.text("grid");
  const std::string kinds = StoredFactors(stored, 0).kinds();
  if (grid == trellis_grid) {
    if (kinds == "hadamard") return load_trellis<Hadamard>(stored);
    if (kinds.empty()) return load_trellis<Identity::Fitted>(stored);
    raise(ErrorCode::unsupported, message(stored.where, ": its transform is ", kinds, ", which no trellis has here"));
  }
  const auto load = [&]<class T>(T*) -> AnyQuantized {
    if (grid == GridName<Affine<>>::name) return load_quantized<T, Affine<>>(stored);
    if (grid == GridName<Midrise<>>::name) return load_quantized<T, Midrise<>>(stored);
    raise(ErrorCode::unsupported, message(stored.where, ": its grid is ", grid, "; load_as() can load it"));
  };
  if (kinds.empty()) return load(static_cast<Identity::Fitted*>(nullptr));
  if (kinds == "diagonal*hadamard") return load(static_cast<ScaledHadamard*>(nullptr));
  if (kinds == "block_diagonal") return load(static_cast<BlockDiagonal*>(nullptr));
  raise(ErrorCode::unsupported, message(stored.where, ": its transform is ", kinds, "; load_as() can load it"));
}

}  // namespace cafeq::detail
