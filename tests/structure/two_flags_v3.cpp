#define CAFEQ_TWO_FLAGS_WORK work_v3
#include "two_flags.hpp"
