#pragma once

namespace cafeq::recipes {

inline constexpr int corners = 4;

}  // namespace cafeq::recipes
