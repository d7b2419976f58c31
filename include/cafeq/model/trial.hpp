/// What rounding a matrix costs, found on some of its rows. Internal.
#pragma once

#include <cmath>
#include <optional>
#include <utility>

#include "cafeq/model/load_matrix.hpp"
#include "cafeq/model/quantize_model.hpp"
#include "cafeq/model/recipe_model.hpp"

namespace cafeq::detail {

/// Rows of a matrix [out, in], the metric of its inputs where that is known, and what an error of
/// its whole energy costs.
class Trial {
 public:
  template <ModelReader R>
  Trial(const R& reader, const MatrixPlace& place, AnyRecipe usual, std::optional<Metric> metric,
        double weight, ExecutorRef executor)
      : out_(place.out),
        in_(place.in),
        usual_(std::move(usual)),
        rows_(load_rows(reader, place, sampled_rows)),
        metric_(std::move(metric)),
        weight_(weight),
        executor_(executor) {
    reader.release(place.tensor);
  }

  /// By a recipe that is the usual one but for its bits. One with a continuous rate is tried once,
  /// as it usually is: from there on errors fall to a quarter a bit.
  double cost(const AnyRecipe& recipe) {
    if (!usual_->with_bits(4)) return weight_ * error(recipe);
    if (!usual_error_) usual_error_ = error(usual_);
    const double fewer = usual_->code_bits(rows_.rows(), in_) - recipe->code_bits(out_, in_);
    return weight_ * *usual_error_ * std::exp2(2 * fewer);
  }

 private:
  static constexpr Index sampled_rows = 64;

  double error(const AnyRecipe& recipe) const {
    return metric_ ? recipe->trial_error(rows_, *metric_, executor_)
                   : recipe->trial_error(rows_, executor_);
  }

  Index out_, in_;
  AnyRecipe usual_;
  Matrix<float> rows_;
  std::optional<Metric> metric_;
  double weight_;
  ExecutorRef executor_;
  std::optional<double> usual_error_;
};

}  // namespace cafeq::detail
