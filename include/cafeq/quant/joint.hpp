/// What a joint quantizer is: it chooses the codes of a sequence of weights together, at any rate.
///
/// X [rows, cols] is seen as lines: its rows, or its columns. Lines fall into chunks
/// (quant/chunks.hpp), each of which is one sequence; each line has a logarithmic scale
/// (quant/line_scales.hpp), which is refitted to the codes by least squares. What is left for the
/// quantizer to say is how a sequence of weights of unit mean square becomes bits, and what the
/// bits stand for:
///
///   x̂ = level · (unit · scale of the line)
///
/// or that times the scale of the row, where sequences are columns of rows that differ in size.
///
/// Pipelines, error feedback, pairs, files and products take it from there. The smallest complete
/// model is in tests/pipeline/toy_joint.hpp; Trellis (trellis/trellis.hpp) is the one in use.
#pragma once

#include <concepts>
#include <cstdint>
#include <span>
#include <string_view>
#include <type_traits>
#include <utility>

#include "cafeq/core/fault.hpp"
#include "cafeq/linalg/metric.hpp"
#include "cafeq/quant/quantizer.hpp"

namespace cafeq {

/// Which weights follow each other in a sequence, and which share a scale.
enum class Sequence {
  rows,           ///< chunks of whole rows, some 8,192 weights; a scale a row
  row,            ///< each row a chunk by itself: what error feedback from row to row needs
  column,         ///< each column, which then has a scale of its own
  scaled_column,  ///< the same, and a scale a row besides
};

/// Whether sequences are columns.
constexpr bool along_columns(Sequence sequence) noexcept {
  return sequence == Sequence::column || sequence == Sequence::scaled_column;
}

/// Chooses the codes of one chunk after the other: what a worker needs to search, made once.
///   E(quantizer)
///   encode(x, chunk)   the codes of x, weights of unit mean square a line, into the bytes of a
///   chunk
template <class E, class Q>
concept SequenceEncoder = std::constructible_from<E, const Q&> &&
                          requires(E& encoder, std::span<const float> x,
                                   std::span<std::uint8_t> chunk) { encoder.encode(x, chunk); };

/// Reads chunks.
///   D(quantizer)
///   Level                        float, or an integer type whose values a float holds exactly
///   unit()                       what a level is multiplied by beside the scale of its line
///   levels(chunk, first, out)    the levels of the weights from `first` on
/// Optional:
///   decode(chunk, first, scale, out)   level · (unit · scale) in floats, faster and the same bits
template <class D, class Q>
concept SequenceDecoder = std::constructible_from<D, const Q&> &&
                          requires(const D& decoder, const std::uint8_t* chunk, Index first,
                                   std::span<typename D::Level> levels) {
                            requires std::is_arithmetic_v<typename D::Level>;
                            { decoder.unit() } -> std::convertible_to<float>;
                            decoder.levels(chunk, first, levels);
                          };

/// A joint quantizer.
///   name             what files call it
///   sequence         which weights follow each other: a member that rounders may change
///   scale_bits       of a scale: 3 to 8
///   chunk_bits(n)    the bits of a chunk of n weights as it is stored, of each byte the most
///                    significant first
///   Encoder, Decoder models of SequenceEncoder and SequenceDecoder
///   fields(q, f)     static: f(name, member, least, most) for each whole number among the other
///                    members, by which files store them
///   ==               whether two of them give the same codes
/// Optional members:
///   fault(rows, cols)   what is wrong with the members (core/fault.hpp)
///   chunk_bytes(n)      of a chunk in memory, where that is longer than its bits
///   complete(chunk, n)  from the stored bits to the form in memory
template <class Q>
concept JointQuantizer =
    std::copyable<Q> && std::equality_comparable<Q> && requires(Q& q, Index n) {
      { Q::name } -> std::convertible_to<std::string_view>;
      requires std::same_as<decltype(q.sequence), Sequence>;
      { q.scale_bits } -> std::convertible_to<int>;
      { std::as_const(q).chunk_bits(n) } -> std::convertible_to<Index>;
      requires SequenceEncoder<typename Q::Encoder, Q>;
      requires SequenceDecoder<typename Q::Decoder, Q>;
    };

/// Either kind: a code a weight, or codes chosen together.
template <class Q>
concept Quantizer = ScalarQuantizer<Q> || JointQuantizer<Q>;

namespace detail {

/// A quantizer as a rounder takes it that goes from line to line, columns where the metric is on
/// the input side, rows where it is on the output side: a joint one has its sequences along these
/// lines.
template <Quantizer Q>
constexpr Q for_lines(Q quantizer, Side side) noexcept {
  if constexpr (JointQuantizer<Q>) {
    if (side == Side::output) quantizer.sequence = Sequence::row;
    else if (!along_columns(quantizer.sequence)) quantizer.sequence = Sequence::column;
  }
  return quantizer;
}

/// Whether the codes of one row depend on the others: those of a column are one sequence.
template <JointQuantizer Q>
constexpr bool couples_rows(const Q& quantizer) noexcept {
  return along_columns(quantizer.sequence);
}

/// Weights of a row that share a scale, as `group` says: a line of a joint quantizer is one group.
template <Quantizer Q>
constexpr Index group_of(const Q& quantizer) noexcept {
  if constexpr (ScalarQuantizer<Q>) return quantizer.group;
  else return per_row;
}

}  // namespace detail

}  // namespace cafeq
