/// How the lists of cafeq::compiled are written: functions that a program which links it finds
/// compiled. The library's own sources (cmake/CafeqCompiled.cmake) define CAFEQ_INSTANCE, and so
/// compile what programs declare.
#pragma once

#include "cafeq/config/config.hpp"

#if !defined(CAFEQ_INSTANCE)
#define CAFEQ_INSTANCE extern template
#endif

/// F(R<b>) for 2, 3, 4 and 8 bits, and for bits that are known when the program runs.
#define CAFEQ_EACH_BITS(F, R) \
  F(R<2>)                     \
  F(R<3>)                     \
  F(R<4>)                     \
  F(R<8>)                     \
  F(R<>)
