/// A list whose items have a name of their own each: kept in order, found by name.
#pragma once

#include <cstddef>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "cafeq/core/error.hpp"

namespace cafeq::detail {

/// Items of type T, which has a member `name`. Nobody may change that name later.
template <class T>
class NamedList {
 public:
  /// False, and nothing is added, where the name is taken.
  bool add(T item) {
    if (!places_.try_emplace(item.name, items_.size()).second) return false;
    items_.push_back(std::move(item));
    return true;
  }

  std::span<const T> items() const noexcept { return items_; }
  std::size_t size() const noexcept { return items_.size(); }
  auto begin() const noexcept { return items_.begin(); }
  auto end() const noexcept { return items_.end(); }

  /// The item of that name, or null where there is none.
  const T* find(std::string_view name) const noexcept {
    const auto found = places_.find(name);
    return found == places_.end() ? nullptr : &items_[found->second];
  }
  T* find(std::string_view name) noexcept {
    return const_cast<T*>(std::as_const(*this).find(name));
  }
  /// The item of that name. Raises invalid_argument where there is none.
  const T& at(std::string_view name) const {
    const T* found = find(name);
    if (found == nullptr) raise(ErrorCode::invalid_argument, message("no tensor is named ", name));
    return *found;
  }
  T& at(std::string_view name) { return const_cast<T&>(std::as_const(*this).at(name)); }

 private:
  std::vector<T> items_;
  std::map<std::string, std::size_t, std::less<>> places_;
};

}  // namespace cafeq::detail
