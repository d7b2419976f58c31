#include "cafeq/core/fault.hpp"

#include "support/error_of.hpp"

using namespace cafeq;
using test::error_of;

namespace {

/// Needs an even number of columns.
struct Even {
  std::optional<Error> fault(Index rows, Index cols) const {
    if (cols % 2 == 0) return std::nullopt;
    return Error(ErrorCode::invalid_shape, message("even: ", rows, " x ", cols));
  }
};

/// Is wrong by itself, whatever the matrix.
struct Broken {
  std::optional<Error> fault() const { return Error(ErrorCode::invalid_argument, "broken"); }
};

/// What a transform of known dimension looks like from here.
struct FixedDimension {
  int dim() const { return 8; }
};

struct Carefree {};

}  // namespace

TEST_CASE("a fault that depends on the matrix", "[core][fault]") {
  CHECK_FALSE(fault_of(Even{}, 3, 4));
  CHECK(fault_of(Even{}, 3, 5)->message() == "even: 3 x 5");
  check(Even{}, 3, 4);
  const Error error = error_of([] { check(Even{}, 3, 5); });
  CHECK(error.code() == ErrorCode::invalid_shape);
  CHECK(error.message() == "even: 3 x 5");
}

TEST_CASE("a fault that no matrix makes right", "[core][fault]") {
  CHECK(fault_of(Broken{}, 3, 4)->message() == "broken");
  CHECK(fault_of(Broken{})->message() == "broken");
  CHECK(error_of([] { check(Broken{}.fault()); }).code() == ErrorCode::invalid_argument);
}

TEST_CASE("a known dimension must be the number of columns", "[core][fault]") {
  CHECK_FALSE(fault_of(FixedDimension{}, 3, 8));
  CHECK(fault_of(FixedDimension{}, 8, 3)->code() == ErrorCode::invalid_shape);
  CHECK(fault_of(FixedDimension{}, 8, 3)->message() ==
        "transform: dimension 8 does not fit 3 columns");
}

TEST_CASE("what says nothing has no fault", "[core][fault]") {
  CHECK_FALSE(fault_of(Carefree{}, 3, 4));
  CHECK_FALSE(fault_of(Carefree{}));
  check(Carefree{}, 3, 4);
  check(std::nullopt);
}
