/// ProductOf<Q>: how stored codes of a quantizer meet activations. A product is made for some codes
/// and is asked for them alone; it knows neither transforms nor files.
///
///   P(codes)                              what is worth preparing once
///   arrange(codes, X, format)             the rows of X [n, in] as Activations for multiply()
///   multiply(codes, x, format, unit, Y, executor)
///                                         Y [n, out] ← X X̂ᵀ · unit
///
/// Grids go through packed kernels where there are some (product/grid_product.hpp). The lines of a
/// joint quantizer are decoded to floats (product/joint_product.hpp), unless it declares a nested
/// class Product of this form, as Trellis does: then that must be included too
/// (trellis/multiply.hpp).
#pragma once

#include "cafeq/product/grid_product.hpp"
#include "cafeq/product/joint_product.hpp"

namespace cafeq {

namespace detail {

template <class Q>
struct ProductFor;
template <class Q>
  requires requires { typename Q::Product; }
struct ProductFor<Q> {
  using type = typename Q::Product;
};
template <ScalarQuantizer Q>
struct ProductFor<Q> {
  using type = GridProduct<Q>;
};
template <JointQuantizer Q>
  requires(!requires { typename Q::Product; })
struct ProductFor<Q> {
  using type = JointProduct<Q>;
};

}  // namespace detail

template <class Q>
using ProductOf = typename detail::ProductFor<Q>::type;

}  // namespace cafeq
