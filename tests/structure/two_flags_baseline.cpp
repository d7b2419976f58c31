#define CAFEQ_TWO_FLAGS_WORK work_baseline
#include "two_flags.hpp"
