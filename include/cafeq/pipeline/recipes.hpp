/// The recipes of the library, a file each. Bits and grid are part of a recipe's type:
/// fast<3>{.group = 32}; or the grid alone is, fast<>{.bits = b, .group = 32}.
#pragma once

#include "cafeq/pipeline/recipes/fast.hpp"
#include "cafeq/pipeline/recipes/hadamard_only.hpp"
#include "cafeq/pipeline/recipes/learned.hpp"
#include "cafeq/pipeline/recipes/mse.hpp"
#include "cafeq/pipeline/recipes/paper.hpp"
#include "cafeq/pipeline/recipes/rtn.hpp"
#include "cafeq/pipeline/recipes/smallest.hpp"
