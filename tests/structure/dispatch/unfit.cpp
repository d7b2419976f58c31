// A unit that may not be linked: its constructor runs before any table is chosen, whatever the
// processor.
#include <cstdlib>

extern "C" {
extern const int kept;
constexpr int kept = 1;
}
static const bool asked = std::getenv("CAFEQ_ARCH") != nullptr;
bool unfit() { return asked; }
