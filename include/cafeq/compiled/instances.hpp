/// What cafeq::compiled contains of cafeq.hpp, as declarations; recipes_instances.hpp,
/// gguf_instances.hpp and run_instances.hpp have the rest.
#pragma once

#include "cafeq/compiled/built_for.hpp"
#include "cafeq/compiled/eigen_instances.hpp"
#include "cafeq/compiled/fast_instances.hpp"
#include "cafeq/compiled/hadamard_instances.hpp"
#include "cafeq/compiled/learned_instances.hpp"
#include "cafeq/compiled/pairs_instances.hpp"
#include "cafeq/compiled/paper_instances.hpp"
#include "cafeq/compiled/paper_pairs_instances.hpp"
#include "cafeq/compiled/product_instances.hpp"
#include "cafeq/compiled/smallest_instances.hpp"
