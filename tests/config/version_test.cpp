#include "cafeq/config/version.hpp"

#include <string>

#include "support/catch.hpp"

TEST_CASE("The version is spelled once as text and once as numbers") {
  CHECK(std::string(CAFEQ_VERSION) == std::to_string(CAFEQ_VERSION_MAJOR) + "." +
                                          std::to_string(CAFEQ_VERSION_MINOR) + "." +
                                          std::to_string(CAFEQ_VERSION_PATCH));
}
