/// The rules by which two matrices of a layer are a pair, and what is said where they are none.
///
/// Each rule returns an Error of code unsupported, or nothing where it has no objection.
#pragma once

#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>

#include "cafeq/model/model.hpp"
#include "cafeq/model/naming_schemes.hpp"
#include "cafeq/model/roles.hpp"
#include "cafeq/pair/query_key.hpp"
#include "cafeq/pair/value_output.hpp"

namespace cafeq::detail {

/// What the tensors of a module tell of it, beside what the configuration says.
struct ModuleSigns {
  std::set<Sign> present{};
  std::optional<Index> norm_size{};   ///< entries of the norms of queries and keys; 0 where these
                                      ///< differ
  std::string_view unknown_tensor{};  ///< a tensor whose purpose is not known

  bool has(Sign sign) const { return present.count(sign) > 0; }
};

/// Traits as the configuration has them, and as the tensors of the module contradict it.
inline AttentionTraits with_signs(AttentionTraits traits, const ModuleSigns& signs) {
  traits.qk_norm |= signs.has(Sign::qk_norm);
  traits.value_norm |= signs.has(Sign::value_norm);
  traits.output_norm |= signs.has(Sign::output_norm);
  traits.rows_sum_to_one &= !signs.has(Sign::sinks);
  return traits;
}
/// The same for an MLP.
inline MlpTraits with_signs(MlpTraits traits, const ModuleSigns& signs) {
  traits.inner_norm |= signs.has(Sign::inner_norm);
  return traits;
}

/// A matrix at the dimension that it shares with its partner.
struct Factor {
  std::string_view tensor;
  Index size;             ///< of the shared dimension
  Index width;            ///< of the other one
  std::string_view unit;  ///< what the shared dimension counts: "rows" or "columns"
};

/// How the rows of a pair divide into heads: as the configuration says, and where that leaves out
/// the number of heads as their size and the shapes say. head_dim is 0 where neither tells.
inline HeadLayout head_layout(const ModelConfig& config, const ModuleSigns& signs,
                              const Factor& first, const Factor& second) noexcept {
  if (config.heads > 0 && config.head_dim > 0) return config.head_layout();

  // A norm as long as all heads together works across them and tells nothing of their size.
  const Index norm_size =
      signs.norm_size.value_or(0) < first.size ? signs.norm_size.value_or(0) : 0;
  const Index head_dim = config.head_dim > 0 ? config.head_dim : norm_size;
  if (config.heads > 0 || head_dim <= 0 || first.size % head_dim != 0 ||
      second.size % head_dim != 0)
    return {};

  return {.head_dim = head_dim, .heads = first.size / head_dim, .kv_heads = second.size / head_dim};
}

inline std::optional<Error> unsupported(std::string text) {
  return Error(ErrorCode::unsupported, std::move(text));
}

/// Why an M that commutes with the rotary positions of a query/key pair is not known.
inline std::optional<Error> rotary_fault(const AttentionTraits& traits, const ModuleSigns& signs,
                                         Index head_dim) {
  if (!traits.rotary) return std::nullopt;
  if (traits.rotary->dims == 0)
    return unsupported("query/key: how many coordinates of a head are rotated is not known");
  if (signs.has(Sign::interleaved) && traits.rotary->pairing != Rotary::Pairing::interleaved)
    return unsupported(
        "query/key: the names are Meta's, whose rotary pairs are interleaved, but the "
        "configuration says half-split");
  return traits.rotary->fault(head_dim);
}

/// Why a value/output or a query/key pair is not exact.
inline std::optional<Error> attention_fault(PairKind kind, const Factor& first,
                                            const Factor& second, const HeadLayout& layout,
                                            const AttentionTraits& traits,
                                            const ModelConfig& config, const ModuleSigns& signs) {
  if (layout.head_dim == 0) return unsupported("the number of heads is not known");
  if (!config.attention_doubt.empty()) return unsupported(config.attention_doubt);
  if (auto fault = layout.fault()) return fault;
  if (auto fault = layout.first_fault(first.size, first.tensor, first.unit)) return fault;
  if (auto fault = layout.second_fault(second.size, second.tensor, second.unit)) return fault;

  if (kind == PairKind::value_output) {
    if (traits.gated_output)
      return unsupported(
          "value/output: the heads' output is gated channel by channel, which does not commute "
          "with M");
    return value_output_fault(traits);
  }

  if (first.width != second.width)
    return unsupported(message(first.tensor, ": ", first.width, " inputs, but ", second.tensor,
                               " has ", second.width));
  if (auto fault = query_key_fault(traits)) return fault;
  return rotary_fault(traits, signs, layout.head_dim);
}

/// Why an up/down pair is not exact; `gate_size` is the number of the gate's rows, 0 where there is
/// no gate.
inline std::optional<Error> mlp_fault(const Factor& down, const Factor& up, Index gate_size,
                                      const MlpTraits& traits, const ModelConfig& config) {
  if (!config.mlp_doubt.empty()) return unsupported(config.mlp_doubt);
  if (up.size != down.size)
    return unsupported(message(down.tensor, ": ", down.size, " columns, but ", up.tensor, " has ",
                               up.size, " rows"));
  if (traits.gated != (gate_size > 0))
    return unsupported(message("up/down: the MLP ", gate_size > 0 ? "has a" : "lacks the",
                               " gate, contrary to the configuration"));
  if (traits.gated && gate_size != up.size)
    return unsupported(message(up.tensor, ": ", up.size, " rows, but the gate has ", gate_size));
  return up_down_fault(traits);
}

}  // namespace cafeq::detail
