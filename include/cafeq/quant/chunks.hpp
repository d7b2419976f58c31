/// How the lines of a matrix fall into the chunks of a joint quantizer.
#pragma once

#include <algorithm>

#include "cafeq/quant/joint.hpp"

namespace cafeq {

/// Lines are rows, or columns where those are the sequences. A chunk is some whole lines one after
/// the other: of `lines` lines of `length` weights there are ⌈lines·length / 8192⌋ chunks (to
/// nearest, at least one, at most one a line), as even as can be; or each line is one by itself.
template <JointQuantizer Q>
class Chunks {
 public:
  /// A chunk has about as many weights. Longer ones gain nothing, shorter ones pay more often for
  /// where a sequence begins and ends.
  static constexpr Index usual_weights = 8192;

  Chunks(const Q& quantizer, Index rows, Index cols)
      : quantizer_(quantizer),
        lines_(along_columns(quantizer.sequence) ? cols : rows),
        length_(along_columns(quantizer.sequence) ? rows : cols) {}

  Index lines() const noexcept { return lines_; }
  Index length() const noexcept { return length_; }

  Index count() const noexcept {
    if (lines_ == 0 || quantizer_.sequence != Sequence::rows) return lines_;
    return std::clamp((lines_ * length_ + usual_weights / 2) / usual_weights, Index(1), lines_);
  }
  Index first_line(Index chunk) const noexcept { return chunk * lines_ / count(); }
  Index lines_of(Index chunk) const noexcept { return first_line(chunk + 1) - first_line(chunk); }
  Index weights_of(Index chunk) const noexcept { return lines_of(chunk) * length_; }
  Index chunk_of(Index line) const noexcept {
    Index c = line * count() / lines_;
    while (first_line(c + 1) <= line) ++c;
    return c;
  }

  /// Bytes of a chunk in a file: it begins at a byte.
  Index stored_bytes(Index chunk) const { return stored_bytes_of(weights_of(chunk)); }
  /// Bytes of a chunk in memory.
  Index bytes(Index chunk) const {
    const Index n = weights_of(chunk);
    if constexpr (requires { quantizer_.chunk_bytes(n); }) return quantizer_.chunk_bytes(n);
    else return stored_bytes_of(n);
  }
  /// Of all chunks. The remainder of the lines makes as many chunks one line longer.
  std::int64_t storage_bits() const {
    if (lines_ == 0) return 0;
    const Index each = lines_ / count(), longer = lines_ % count();
    return 8 * (longer * stored_bytes_of((each + 1) * length_) +
                (count() - longer) * stored_bytes_of(each * length_));
  }

 private:
  Index stored_bytes_of(Index weights) const {
    return ceil_div(Index(quantizer_.chunk_bits(weights)), Index(8));
  }

  Q quantizer_;
  Index lines_;
  Index length_;
};

}  // namespace cafeq
