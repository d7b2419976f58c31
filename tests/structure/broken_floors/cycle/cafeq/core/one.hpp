#pragma once
#include "cafeq/core/other.hpp"
