#pragma once
#include "cafeq/core/one.hpp"
