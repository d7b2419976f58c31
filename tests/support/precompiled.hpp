// What most tests include and never changes. The headers of the library are left out: each test
// names its own.
#pragma once
#include <Eigen/Dense>
#include <nlohmann/json.hpp>
#include <xsimd/xsimd.hpp>

#include "support/catch.hpp"
