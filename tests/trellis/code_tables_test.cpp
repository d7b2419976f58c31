#include "cafeq/trellis/code_tables.hpp"

#include <algorithm>
#include <cmath>
#include <string>

#include "support/catch.hpp"
#include "support/golden.hpp"

using namespace cafeq;

TEST_CASE("the levels of trellis codes are the golden ones") {
  const auto file = test::golden("trellis.json");
  for (const char* group : {"codes", "codes_L10"})
    for (const auto& [name, wanted] : file[group].items()) {
      const TrellisCode& code =
          trellis_code({16 * std::stoi(name)}, group == std::string("codes") ? 12 : 10);
      CHECK(code.multiplier == wanted["m"].get<int>());
      CHECK(code.levels == wanted["levels"].get<int>());
      CHECK(double(code.unit) == Approx(wanted["unit"].get<double>()).epsilon(1e-6));
      for (std::size_t i = 0; i < wanted["T"].size(); ++i)
        CHECK(int(code.magnitudes[i]) == wanted["T"][i].get<int>());
    }
  for (const auto& [name, head] : file["state_table_head"].items())
    for (std::size_t s = 0; s < head.size(); ++s)
      CHECK(trellis_code({16 * std::stoi(name)}, 12).level(std::uint32_t(s)) == head[s].get<int>());
}

TEST_CASE("Codes are centred, ascending and made for weights of variance one") {
  for (const TrellisCode& code : cafeq::detail::trellis_codes) {
    double squares = 0, sum = 0;
    for (std::uint32_t s = 0; s < code.states(); ++s) {
      sum += code.level(s);
      squares += double(code.level(s)) * code.level(s);
    }
    const double variance = squares / code.states() * double(code.unit) * double(code.unit);
    // Large levels are there, but chosen less often. At 1 to 2 bits, with which a fifth of the
    // variance is lost, they matter less.
    const auto number = &code - cafeq::detail::trellis_codes.data();
    CHECK(variance > (number % 4 == 0 ? 0.9 : 1.05));
    CHECK(variance < 1.3);
    CHECK(std::abs(sum) / code.states() < 2);
    CHECK(std::is_sorted(code.magnitudes.begin(), code.magnitudes.begin() + code.levels));
  }
}
