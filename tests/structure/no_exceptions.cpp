// Every header without exceptions and RTTI; an error calls the handler that the host has set.
#include <cstdio>
#include <cstdlib>

#include "all_headers.hpp"

#if CAFEQ_EXCEPTIONS || defined(__cpp_rtti)
#error "this program is to be compiled with -fno-exceptions -fno-rtti"
#endif

static void handler(const cafeq::Error& error) {
  const bool expected = error.code() == cafeq::ErrorCode::invalid_argument &&
                        error.message() == "PackedCodes: bits is 9, must be 1 to 8";
  std::printf("handler: %s\n", error.what());
  std::exit(expected ? 0 : 1);
}

int main() {
  const cafeq::ErrorHandler before = cafeq::set_error_handler(handler);
  if (cafeq::set_error_handler(nullptr) != handler || cafeq::set_error_handler(handler) != before)
    return 2;
  const cafeq::PackedCodes codes(2, 3, 9);
  std::printf("%d bits were accepted\n", codes.bits());
  return 3;
}
