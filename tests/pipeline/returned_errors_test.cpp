// Whatever a caller can get wrong: each function throws what its `try_` twin returns.
#include "pipeline/wrong_arguments.hpp"

#include "support/catch.hpp"
#include "support/error_of.hpp"

using namespace cafeq;

namespace {

/// Compares the two twins with what is expected of them.
struct BothTwins {
  template <class Try, class Throw>
  void compare(const char* expected, Try&& returning, Throw&& throwing) const {
    test::CountingExecutor executor;
    const auto result = returning(ExecutorRef(executor));
    INFO(expected);
    if (*expected == '\0') {
      CHECK(result.has_value());
      CHECK_NOTHROW(throwing());
      return;
    }
    REQUIRE(!result.has_value());
    CHECK(result.error().message() == expected);
    // One pass over each matrix sees what is not finite; nothing else is looked for so late.
    CHECK(executor.loops <= (result.error().code() == ErrorCode::non_finite ? 2 : 0));
    try {
      throwing();
      FAIL_CHECK("nothing was thrown");
    } catch (const Error& error) {
      CHECK(error.code() == result.error().code());
      CHECK(error.message() == expected);
    }
  }

  template <class M, class R>
  void matrix(const char* expected, const M& W, const R& recipe) const {
    compare(
        expected, [&](ExecutorRef executor) { return try_quantize(W, recipe, executor); },
        [&] { return quantize(W, recipe); });
  }
  template <class M, class N, class R>
  void value_output(const char* expected, const M& Wv, const N& Wo, const HeadLayout& layout,
                    const R& recipe, const ValueOutputOptions& options = {}) const {
    compare(
        expected,
        [&](ExecutorRef executor) {
          return try_quantize_value_output(Wv, Wo, layout, recipe, options, executor);
        },
        [&] { return quantize_value_output(Wv, Wo, layout, recipe, options); });
  }
  template <class M, class N, class R>
  void query_key(const char* expected, const M& Wq, const N& Wk, const HeadLayout& layout,
                 const R& recipe, const QueryKeyOptions& options = {}) const {
    compare(
        expected,
        [&](ExecutorRef executor) {
          return try_quantize_query_key(Wq, Wk, layout, recipe, options, executor);
        },
        [&] { return quantize_query_key(Wq, Wk, layout, recipe, options); });
  }
};

}  // namespace

TEST_CASE("A wrong argument is returned by one twin and thrown by the other, before any work") {
  test::for_each_wrong_argument(BothTwins{});
}

TEST_CASE("Right arguments give a value in both") { test::for_each_good_argument(BothTwins{}); }
