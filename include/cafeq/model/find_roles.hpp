/// Finds out which matrices the tensors of a model hold, what each one does, and which of them meet
/// so that an M between the two leaves the model unchanged.
///
/// Names say the roles. Shapes and the configuration say where packed tensors part and how rows
/// divide into heads. A pair that is not known to be exact is listed with the reason.
#pragma once

#include <algorithm>
#include <array>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "cafeq/model/model.hpp"
#include "cafeq/model/pair_rules.hpp"
#include "cafeq/model/roles.hpp"
#include "cafeq/model/tensor_names.hpp"
#include "cafeq/model/tensor_parts.hpp"

namespace cafeq {

/// The roles of a model's tensors. No model is refused: what has no known name is Role::other, and
/// where shapes, names and configuration contradict each other the pair says so.
inline ModelRoles find_roles(std::span<const TensorInfo> tensors, const ModelConfig& config);

namespace detail {

class RoleFinder {
 public:
  RoleFinder(std::span<const TensorInfo> tensors, const ModelConfig& config);
  ModelRoles find();

 private:
  /// Adds a tensor to the others, or the matrices that it holds to those.
  void place(const TensorInfo& tensor);
  void note_sign(const NameMatch& match, const TensorInfo& tensor);
  void cut(const TensorInfo& tensor, const ParsedName& name);
  /// The tensor that holds the biases of all rows of another one.
  const TensorInfo* bias_of(const TensorInfo& tensor, const ParsedName& name, Index rows);
  void note_tied_embeddings();
  /// The matrices of each module, and of each of its experts, as indices.
  std::vector<std::vector<std::size_t>> matrices_by_module() const;
  /// Adds the pairs among the matrices of one module.
  void find_pairs(std::span<const std::size_t> module);
  /// Fills in the layout and the traits of a pair, and says why it is not exact.
  std::string refusal_of(PairRole& pair, Index gate_size) const;
  ModuleSigns signs_of(const std::string& module) const;

  std::span<const TensorInfo> tensors_;
  const ModelConfig& config_;
  std::map<std::string_view, const TensorInfo*> by_name_;
  bool conv1d_ = false;                            // whether Conv1D modules are stored [in, out]
  std::map<std::string_view, ModuleSigns> signs_;  // by module
  std::vector<std::string_view> unknown_;          // names that say nothing; sorted after placing
  ModelRoles roles_;
};

inline RoleFinder::RoleFinder(std::span<const TensorInfo> tensors, const ModelConfig& config)
    : tensors_(tensors), config_(config) {
  for (const TensorInfo& tensor : tensors) {
    by_name_.emplace(tensor.name, &tensor);
    const Leaf* leaf = parse_name(tensor.name).leaf();
    // The name does not tell whether such a module is stored [in, out]. The shape of a packed one
    // does, since it has more outputs than inputs; all the others are then stored the same way.
    if (leaf != nullptr && leaf->conv1d && leaf->packing != Packing::none &&
        tensor.shape.size() == 2)
      conv1d_ |= tensor.shape[1] > tensor.shape[0];
  }
}

inline ModelRoles RoleFinder::find() {
  for (const TensorInfo& tensor : tensors_) place(tensor);
  std::sort(unknown_.begin(), unknown_.end());
  note_tied_embeddings();

  for (const auto& module : matrices_by_module()) find_pairs(module);
  return std::move(roles_);
}

inline std::vector<std::vector<std::size_t>> RoleFinder::matrices_by_module() const {
  std::map<std::pair<std::string_view, Index>, std::size_t> numbers;
  std::vector<std::vector<std::size_t>> modules;
  for (std::size_t i = 0; i < roles_.matrices.size(); ++i) {
    const MatrixRole& matrix = roles_.matrices[i];
    if (matrix.layer < 0) continue;
    const auto [entry, is_new] =
        numbers.try_emplace({matrix.module, matrix.expert}, modules.size());
    if (is_new) modules.emplace_back();
    modules[entry->second].push_back(i);
  }
  return modules;
}

inline void RoleFinder::place(const TensorInfo& tensor) {
  const ParsedName name = parse_name(tensor.name);
  const Leaf* leaf = name.leaf();
  if (leaf == nullptr) unknown_.push_back(tensor.name);
  else note_sign(*name.match, tensor);

  if (name.is_bias) {
    roles_.others.push_back({tensor.name, Role::bias, "bias"});
  } else if (leaf != nullptr && !leaf->kept.empty()) {
    roles_.others.push_back({tensor.name, leaf->role, std::string(leaf->kept)});
  } else if (std::string problem = matrix_problem(tensor, leaf); !problem.empty()) {
    const Role role = leaf != nullptr           ? leaf->role
                      : is_norm_name(name.stem) ? Role::norm
                                                : Role::other;
    roles_.others.push_back({tensor.name, role, role == Role::norm ? "norm" : std::move(problem)});
  } else {
    cut(tensor, name);
  }
}

inline void RoleFinder::note_sign(const NameMatch& match, const TensorInfo& tensor) {
  if (match.leaf->sign == Sign::none) return;
  ModuleSigns& signs = signs_[match.module];
  signs.present.insert(match.leaf->sign);
  if (match.leaf->sign != Sign::qk_norm) return;

  // A norm of queries or keys that works head by head has as many entries as a head, which tells
  // the size of heads where the configuration does not.
  const Index size = tensor.shape.size() == 1 ? tensor.shape[0] : 0;
  signs.norm_size = signs.norm_size.value_or(size) == size ? size : 0;
}

inline void RoleFinder::cut(const TensorInfo& tensor, const ParsedName& name) {
  const Leaf* leaf = name.leaf();
  const bool stacked = tensor.shape.size() == 3;
  const bool transposed = leaf != nullptr && leaf->conv1d && conv1d_;
  Index out = tensor.shape[tensor.shape.size() - 2];
  Index in = tensor.shape.back();
  if (transposed) std::swap(out, in);

  const TensorInfo* bias = bias_of(tensor, name, out);
  const auto parts = parts_of(leaf, out, config_);

  for (Index slice = stacked ? 0 : -1; slice < (stacked ? tensor.shape[0] : 0); ++slice) {
    Index begin = 0;
    for (const auto& [role, rows] : parts) {
      MatrixRole matrix{.role = role,
                        .place = {.tensor = tensor.name,
                                  .slice = slice,
                                  .transposed = transposed,
                                  .begin = begin,
                                  .out = rows,
                                  .in = in}};
      if (name.match) {
        matrix.layer = name.match->layer;
        matrix.expert = stacked ? slice : name.match->expert;
        matrix.module = name.match->module;
      }
      if (leaf == nullptr) matrix.note = "its name is not known";
      else if (leaf->packing != Packing::none && role == Role::other)
        matrix.note = "packed, and where its matrices part is not known";
      if (bias != nullptr) matrix.bias = BiasPlace{bias->name, slice, begin};
      roles_.matrices.push_back(std::move(matrix));
      begin += rows;
    }
  }
}

inline const TensorInfo* RoleFinder::bias_of(const TensorInfo& tensor, const ParsedName& name,
                                             Index rows) {
  const auto found = by_name_.find(message(name.stem, ".bias"));
  if (found == by_name_.end()) return nullptr;

  std::vector<Index> shape(tensor.shape.begin(), tensor.shape.end() - 2);
  shape.push_back(rows);
  if (found->second->shape == shape) return found->second;
  // It has the name of a bias, but not as many entries as there are rows: what it does is unknown.
  unknown_.push_back(found->first);
  return nullptr;
}

inline void RoleFinder::note_tied_embeddings() {
  const auto is_unembedding = [](const MatrixRole& matrix) {
    return matrix.role == Role::unembedding;
  };
  const bool has_unembedding =
      std::any_of(roles_.matrices.begin(), roles_.matrices.end(), is_unembedding);
  for (MatrixRole& matrix : roles_.matrices) {
    if (matrix.role == Role::embedding && !has_unembedding)
      matrix.note = config_.tied_embeddings ? "tied: also the unembedding"
                                            : "the model has no unembedding of its own";
    if (is_unembedding(matrix) && config_.tied_embeddings)
      matrix.note = "tied: the embedding again";
  }
}

inline void RoleFinder::find_pairs(std::span<const std::size_t> module) {
  struct Kind {
    PairKind kind;
    Role first;
    Role second;
  };
  constexpr std::array kinds{
      Kind{.kind = PairKind::value_output, .first = Role::output, .second = Role::value},
      Kind{.kind = PairKind::query_key, .first = Role::query, .second = Role::key},
      Kind{.kind = PairKind::up_down, .first = Role::down, .second = Role::up}};
  const auto find_all = [&](Role role) {
    std::vector<std::size_t> found;
    for (const std::size_t i : module)
      if (roles_.matrices[i].role == role) found.push_back(i);
    return found;
  };

  const auto gates = find_all(Role::gate);
  for (const auto& [kind, first_role, second_role] : kinds) {
    const auto firsts = find_all(first_role);
    const auto seconds = find_all(second_role);
    if (firsts.empty() || seconds.empty()) continue;

    PairRole pair{.kind = kind, .first = firsts[0], .second = seconds[0]};
    pair.refusal = refusal_of(pair, gates.empty() ? 0 : roles_.matrices[gates[0]].place.out);
    if (firsts.size() + seconds.size() > 2 || (kind == PairKind::up_down && gates.size() > 1))
      pair.refusal = "the module has several matrices of one role";
    roles_.pairs.push_back(std::move(pair));
  }
}

inline std::string RoleFinder::refusal_of(PairRole& pair, Index gate_size) const {
  const MatrixRole& first = roles_.matrices[pair.first];
  const MatrixRole& second = roles_.matrices[pair.second];
  const ModuleSigns signs = signs_of(second.module);
  const bool by_rows = pair.kind == PairKind::query_key;
  const Factor factor{.tensor = first.place.tensor,
                      .size = by_rows ? first.place.out : first.place.in,
                      .width = by_rows ? first.place.in : first.place.out,
                      .unit = by_rows ? "rows" : "columns"};
  const Factor other{.tensor = second.place.tensor,
                     .size = second.place.out,
                     .width = second.place.in,
                     .unit = "rows"};

  std::optional<Error> fault;
  if (pair.kind == PairKind::up_down) {
    pair.layout = channel_layout(other.size);
    pair.mlp = with_signs(config_.mlp, signs);
    fault = mlp_fault(factor, other, gate_size, pair.mlp, config_);
  } else {
    pair.layout = head_layout(config_, signs, factor, other);
    pair.attention = with_signs(config_.attention_of(second.layer), signs);
    fault = attention_fault(pair.kind, factor, other, pair.layout, pair.attention, config_, signs);
  }

  if (fault) return fault->message();
  return signs.unknown_tensor.empty()
             ? std::string()
             : message("what ", signs.unknown_tensor, " does is not known");
}

inline ModuleSigns RoleFinder::signs_of(const std::string& module) const {
  const auto found = signs_.find(module);
  ModuleSigns signs = found == signs_.end() ? ModuleSigns{} : found->second;

  // Sorted names that begin with the module's stand together, so that one search finds the first.
  const std::string prefix = module + ".";
  const auto unknown = std::lower_bound(unknown_.begin(), unknown_.end(), prefix);
  if (unknown != unknown_.end() && unknown->starts_with(prefix)) signs.unknown_tensor = *unknown;
  return signs;
}

}  // namespace detail

inline ModelRoles find_roles(std::span<const TensorInfo> tensors, const ModelConfig& config) {
  return detail::RoleFinder(tensors, config).find();
}

}  // namespace cafeq
