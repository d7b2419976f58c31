#pragma once

template <class V>
V sum(V a, V b) {
  return _mm256_add_ps(a, b);
}
