// What most tests include. That each header of the library brings what it needs is another test's
// (structure/CMakeLists.txt).
#pragma once
#include <Eigen/Dense>
#include <nlohmann/json.hpp>
#include <xsimd/xsimd.hpp>

#include "cafeq/cafeq.hpp"
#include "cafeq/compiled/gguf_instances.hpp"
#include "cafeq/compiled/recipes_instances.hpp"
#include "support/catch.hpp"
