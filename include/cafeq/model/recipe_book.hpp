/// Recipes by name: what a program offers, with the options that it was asked for.
#pragma once

#include <cmath>
#include <cstdint>
#include <functional>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "cafeq/model/any_recipe.hpp"

namespace cafeq {

namespace detail {

/// Whether a number of type To can be what `value` is: a whole number within its range, or any
/// number where To is a floating-point type.
template <class To, class From>
bool holds(From value) noexcept {
  using Limits = std::numeric_limits<To>;
  if constexpr (std::is_floating_point_v<To>) {
    return true;
  } else if constexpr (std::is_floating_point_v<From>) {
    // The largest To plus one, which unlike the largest one itself is a floating-point number.
    constexpr From end = 2 * From(Limits::max() / 2 + 1);
    return value >= From(Limits::min()) && value < end && value == std::trunc(value);
  } else {
    return value < 0 ? std::is_signed_v<To> && std::int64_t(value) >= std::int64_t(Limits::min())
                     : std::uint64_t(value) <= std::uint64_t(Limits::max());
  }
}

}  // namespace detail

/// Recipes that can be made by name. A recipe of your own is one line, `book.add(mine{})`: plans,
/// command lines and files know it from then on.
class RecipeBook {
 public:
  /// A recipe as it is without options.
  struct Entry {
    std::string_view name;
    std::string_view description;
    AnyRecipe usual;
  };

  /// Replaces one of the same name.
  template <NamedRecipe R>
  void add(const R& usual = {}) {
    std::erase_if(pages_, [](const Page& page) { return page.entry.name == R::name; });
    Entry entry{R::name, R::description, usual};  // in one with the page, g++ 12 warns at -O3
    pages_.push_back({std::move(entry), [usual](std::span<const RecipeOption> options) {
                        return with_options(usual, options);
                      }});
  }

  std::vector<Entry> entries() const {
    std::vector<Entry> all;
    for (const Page& page : pages_) all.push_back(page.entry);
    return all;
  }
  /// "rtn, fast, learned", for messages.
  std::string names() const {
    std::string all;
    for (const Page& page : pages_) all += message(all.empty() ? "" : ", ", page.entry.name);
    return all;
  }

  /// The recipe of that name with these options in place of its usual ones. Raises invalid_argument
  /// for a name that is not there, an option that the recipe has not, or a value that it does not
  /// take.
  AnyRecipe make(std::string_view name, std::span<const RecipeOption> options = {}) const {
    for (const Page& page : pages_) {
      if (page.entry.name != name) continue;
      AnyRecipe recipe = page.make(options);
      if (auto fault = recipe->fault()) raise(*fault);
      return recipe;
    }
    raise(ErrorCode::invalid_argument, message("recipe ", name, " is not one of ", names()));
  }

 private:
  struct Page {
    Entry entry;
    std::function<AnyRecipe(std::span<const RecipeOption>)> make;
  };

  template <NamedRecipe R>
  static AnyRecipe with_options(R recipe, std::span<const RecipeOption> options) {
    for (const RecipeOption& option : options) {
      bool found = false;
      R::options(recipe, [&](std::string_view name, auto& member) {
        if (name != option.name) return;
        found = true;
        set(member, option, R::name);
      });
      if (!found)
        raise(ErrorCode::invalid_argument,
              message("recipe ", R::name, " has no option ", option.name));
    }
    return AnyRecipe(recipe);
  }

  template <class Member>
  static void set(Member& member, const RecipeOption& option, std::string_view recipe) {
    using Number = std::conditional_t<std::is_arithmetic_v<Member>, Member, int>;
    std::visit(
        [&](auto value) {
          if constexpr (std::is_assignable_v<Member&, Number>) {
            if (detail::holds<Number>(value)) {
              member = static_cast<Number>(value);
              return;
            }
          }
          raise(ErrorCode::invalid_argument,
                message("recipe ", recipe, ": ", option.name, " cannot be ", value));
        },
        option.value);
  }

  std::vector<Page> pages_;
};

}  // namespace cafeq
