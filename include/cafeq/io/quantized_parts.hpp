/// A quantized matrix as a description and a few tensors, and back: what a quantized file keeps of
/// it.
#pragma once

#include <string>
#include <utility>

#include "cafeq/io/stored_codes.hpp"
#include "cafeq/io/stored_transform.hpp"
#include "cafeq/pipeline/quantized.hpp"

namespace cafeq::detail {

template <Transform T, class Q>
MatrixParts parts_of(const Quantized<T, Q>& q, const std::string& name) {
  if (name.empty()) raise(ErrorCode::invalid_argument, "a matrix without a name");
  MatrixParts parts;
  Json factors = Json::array();
  put_transform(parts, factors, q.transform());
  parts.description = {{"rows", q.rows()},
                       {"cols", q.cols()},
                       {"side", q.side() == Side::input ? "input" : "output"},
                       {"exponent", q.exponent()},
                       {"transform", std::move(factors)}};
  put_codes(parts, q.codes());
  return parts;
}

template <Transform T, class Q>
Quantized<T, Q> load_quantized(const StoredMatrix& stored) {
  Codes<Q> codes = load_codes<Q>(stored);
  const Side side = stored.side();
  StoredFactors factors(stored, side == Side::input ? codes.cols() : codes.rows());
  T transform = TransformLoader<T>::load(factors);
  return {std::move(codes), std::move(transform), side, stored.exponent()};
}

}  // namespace cafeq::detail
