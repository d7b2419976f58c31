#pragma once

namespace cafeq {

struct Circle {};

}  // namespace cafeq
