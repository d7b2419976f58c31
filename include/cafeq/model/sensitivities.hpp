/// Sensitivities: what an error in each matrix of a model costs.
#pragma once

#include <cmath>
#include <cstddef>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

#include "cafeq/model/roles.hpp"
#include "cafeq/model/tensor_names.hpp"

namespace cafeq {

/// Of one matrix: the loss of the model, in nats a token, is α t where W gets Gaussian noise of t
/// times its energy, ‖E‖² = t ‖W‖², as far as it grows in proportion. An error that is not white
/// costs α ρ, ρ = tr(E H Eᵀ) / (‖W‖² tr H / cols) for the metric H of its inputs.
struct Sensitivity {
  std::string tensor;
  Index slice = -1;  ///< as in MatrixPlace
  Index first_row = 0;
  Index rows = 0;
  double value = 0;  ///< α
};

namespace detail {

/// What is wrong with a list of them; empty where nothing is.
inline std::string sensitivities_fault(std::span<const Sensitivity> all) {
  std::set<std::tuple<std::string_view, Index, Index, Index>> places;
  for (const Sensitivity& s : all) {
    if (!(s.value >= 0) || !std::isfinite(s.value))
      return message("sensitivities: that of ", s.tensor, " is ", s.value);
    if (!places.emplace(s.tensor, s.slice, s.first_row, s.rows).second)
      return message("sensitivities: ", s.tensor, " is there twice");
  }
  return {};
}

}  // namespace detail

/// Those of a model's matrices, looked up by place.
class Sensitivities {
 public:
  Sensitivities() = default;
  /// `model` is the fingerprint_of() the model that was measured, or empty. Raises invalid_argument
  /// for a value that is negative or not finite, and for a matrix that is there twice.
  explicit Sensitivities(std::vector<Sensitivity> all, std::string model = {})
      : all_(std::move(all)), model_(std::move(model)) {
    if (const std::string fault = detail::sensitivities_fault(all_); !fault.empty())
      raise(ErrorCode::invalid_argument, fault);
    for (std::size_t i = 0; i < all_.size(); ++i) {
      const Sensitivity& s = all_[i];
      places_.emplace(Place(s.tensor, s.slice, s.first_row, s.rows), i);
      const auto place = detail::place_in_layers(s.tensor);
      if (!place || s.slice >= 0) continue;
      const auto [entry, is_new] = by_role_.emplace(*place, i);
      if (!is_new) entry->second = all_.size();  // two of them: which is meant is not known
    }
  }

  std::span<const Sensitivity> all() const noexcept { return all_; }
  const std::string& model() const noexcept { return model_; }

  /// That of a matrix; nothing where it is not there. Other names for a model's tensors, such as
  /// those of another format, are understood by layer and role.
  std::optional<double> find(const MatrixRole& matrix) const {
    const MatrixPlace& place = matrix.place;
    const auto found = places_.find(Place(place.tensor, place.slice, place.begin, place.out));
    if (found != places_.end()) return all_[found->second].value;
    const auto alike = by_role_.find({matrix.layer, matrix.role});
    if (alike == by_role_.end() || alike->second == all_.size() || matrix.expert >= 0)
      return std::nullopt;
    const Sensitivity& other = all_[alike->second];
    return other.first_row == 0 && other.rows == place.out ? std::optional(other.value)
                                                           : std::nullopt;
  }

 private:
  using Place = std::tuple<std::string, Index, Index, Index>;

  std::vector<Sensitivity> all_;
  std::string model_;
  std::map<Place, std::size_t> places_;
  std::map<std::pair<Index, Role>, std::size_t> by_role_;
};

}  // namespace cafeq
