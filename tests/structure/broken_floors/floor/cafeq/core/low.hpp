#pragma once
#include "cafeq/quant/high.hpp"
