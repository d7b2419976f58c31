/// What texts are made of for a model.
#pragma once

#include <cstdint>
#include <vector>

namespace engine {

using Token = std::uint32_t;
using Tokens = std::vector<Token>;

}  // namespace engine
