#pragma once
#include "cafeq/core/nowhere.hpp"
