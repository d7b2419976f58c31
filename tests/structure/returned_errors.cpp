// Without exceptions and RTTI: whatever a caller can get wrong comes back from the `try_` functions
// and never reaches the error handler.
#include <cstdio>
#include <cstdlib>
#include <string>

#include "pipeline/wrong_arguments.hpp"

#if CAFEQ_EXCEPTIONS || defined(__cpp_rtti)
#error "this program is to be compiled with -fno-exceptions -fno-rtti"
#endif

namespace {

using namespace cafeq;

const char* expected_now = "";
int cases = 0, failures = 0;

void handler(const Error& error) {
  std::printf("\"%s\" reached the handler as \"%s\"\n", expected_now, error.what());
  std::exit(1);
}

struct TryTwin {
  template <class T>
  void expect(const char* expected, const Result<T>& result) const {
    ++cases;
    const std::string found = result.has_value() ? "" : result.error().message();
    if (found == expected) return;
    ++failures;
    std::printf("expected \"%s\", found \"%s\"\n", expected, found.c_str());
  }

  template <class M, class R>
  void matrix(const char* expected, const M& W, const R& recipe) const {
    expected_now = expected;
    expect(expected, try_quantize(W, recipe));
  }
  template <class M, class N, class R>
  void value_output(const char* expected, const M& Wv, const N& Wo, const HeadLayout& layout,
                    const R& recipe, const ValueOutputOptions& options = {}) const {
    expected_now = expected;
    expect(expected, try_quantize_value_output(Wv, Wo, layout, recipe, options));
  }
  template <class M, class N, class R>
  void query_key(const char* expected, const M& Wq, const N& Wk, const HeadLayout& layout,
                 const R& recipe, const QueryKeyOptions& options = {}) const {
    expected_now = expected;
    expect(expected, try_quantize_query_key(Wq, Wk, layout, recipe, options));
  }
};

}  // namespace

int main() {
  set_error_handler(handler);
  test::for_each_wrong_argument(TryTwin{});
  const int wrong = cases;
  test::for_each_good_argument(TryTwin{});
  std::printf("%d wrong and %d right arguments, %d failures\n", wrong, cases - wrong, failures);
  return failures == 0 ? 0 : 1;
}
