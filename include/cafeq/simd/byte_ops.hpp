/// 32 bytes as one vector: look-ups of bytes, shifts of each 32-bit lane by its own count, products
/// of 8- and 16-bit lanes.
///
/// ByteOps<Arch> is a set of static functions over its types Vector, the 32 bytes, and Floats,
/// eight floats. Both have the same size whatever the architecture, so that what is laid out for
/// them, and every integer that comes out of them, is the same everywhere: one register of AVX2,
/// two of NEON, an array elsewhere. PortableByteOps says what each function means. "Half" is 16
/// bytes. Lanes are little endian, and integer arithmetic wraps. (All of them are templates on the
/// architecture, so that translation units which are compiled with different flags share none of
/// their code.)
#pragma once

#include "cafeq/simd/byte_ops_avx2.hpp"
#include "cafeq/simd/byte_ops_neon.hpp"
#include "cafeq/simd/byte_ops_portable.hpp"

namespace cafeq::simd {

template <class Arch>
struct ByteOps : PortableByteOps<Arch> {};

#if defined(__AVX2__)
template <class Arch>
  requires(is_avx2<Arch> || is_avx512<Arch>)
struct ByteOps<Arch> : Avx2ByteOps<Arch> {};
#endif

#if defined(__aarch64__)
template <class Arch>
  requires is_neon64<Arch>
struct ByteOps<Arch> : NeonByteOps<Arch> {};
#endif

}  // namespace cafeq::simd
