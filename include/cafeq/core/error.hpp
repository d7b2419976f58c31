/// How the library reports what went wrong: Error, raise(), Result.
///
/// With exceptions, raise() throws cafeq::Error. Without (-fno-exceptions) it calls the handler
/// that the host has set, which must not return. Pipeline-level entry points have a `try_` twin
/// that returns a Result instead.
#pragma once

#include <atomic>
#include <concepts>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

#include "cafeq/config/config.hpp"

namespace cafeq {

enum class ErrorCode {
  invalid_argument,  ///< a value outside its range (bits, group, block, probability …)
  invalid_shape,     ///< sizes that do not fit together, or an empty matrix where one is needed
  invalid_stride,    ///< a view whose elements overlap or that has no data
  non_finite,        ///< NaN or infinity among the weights; the message names row and column
  singular,          ///< a transform that cannot be inverted
  not_positive_definite,  ///< a metric that is not symmetric positive definite
  unsupported,            ///< a combination for which the method is not exact
  io,                     ///< a file that cannot be read or written
  corrupt,                ///< a file whose content contradicts its format
};

/// A code for programs, and a message for people that names the argument and the numbers.
class Error : public std::exception {
 public:
  Error(ErrorCode code, std::string message) : code_(code), message_(std::move(message)) {}

  ErrorCode code() const noexcept { return code_; }
  const std::string& message() const noexcept { return message_; }
  const char* what() const noexcept override { return message_.c_str(); }

 private:
  ErrorCode code_;
  std::string message_;
};

using ErrorHandler = void (*)(const Error&);

/// What a program has once, however many units of it are kept apart by cafeq_add_dispatch(), which
/// lets them share the names of this namespace: data, constant before the program starts, without
/// the address of a function.
namespace process_wide {

inline std::atomic<ErrorHandler> error_handler{nullptr};  // the default one

}  // namespace process_wide

namespace detail {

inline void default_error_handler(const Error& error) {
  std::fprintf(stderr, "cafeq: %s\n", error.what());
  std::abort();
}

}  // namespace detail

/// Sets what raise() calls in builds without exceptions; returns the handler before. Null restores
/// the default (print and abort).
inline ErrorHandler set_error_handler(ErrorHandler handler) {
  const ErrorHandler before = process_wide::error_handler.exchange(handler);
  return before != nullptr ? before : detail::default_error_handler;
}

[[noreturn]] inline void raise(const Error& error) {
#if CAFEQ_EXCEPTIONS
  throw error;
#else
  const ErrorHandler handler = process_wide::error_handler.load();
  (handler != nullptr ? handler : detail::default_error_handler)(error);
  std::abort();  // a handler must not return
#endif
}

[[noreturn]] inline void raise(ErrorCode code, std::string message) {
  raise(Error(code, std::move(message)));
}

/// A value, or the Error that kept it from being made.
template <class T>
class [[nodiscard]] Result {
 public:
  Result(T value) : value_(std::move(value)) {}      // NOLINT(google-explicit-constructor)
  Result(Error error) : error_(std::move(error)) {}  // NOLINT(google-explicit-constructor)

  bool has_value() const noexcept { return value_.has_value(); }
  explicit operator bool() const noexcept { return has_value(); }

  const T& value() const& { return check(), *value_; }
  T& value() & { return check(), *value_; }
  T&& value() && { return check(), std::move(*value_); }
  /// Only where has_value() is false.
  const Error& error() const { return *error_; }

 private:
  void check() const {
    if (!value_) raise(*error_);
  }
  std::optional<T> value_;
  std::optional<Error> error_;
};

/// Runs f and turns an Error that it throws into a Result. Without exceptions an Error still
/// reaches the handler, so entry points validate their arguments first and return that Error
/// themselves.
template <class F>
auto catch_error(F&& f) -> Result<std::invoke_result_t<F>> {
#if CAFEQ_EXCEPTIONS
  try {
    return std::forward<F>(f)();
  } catch (const Error& error) {
    return error;
  }
#else
  return std::forward<F>(f)();
#endif
}

namespace detail {

/// A text or a number; it lives as long as the expression that it stands in.
class MessagePart {
 public:
  MessagePart(std::string_view text) noexcept : text_(text) {}    // NOLINT
  MessagePart(const std::string& text) noexcept : text_(text) {}  // NOLINT
  MessagePart(const char* text) noexcept : text_(text) {}         // NOLINT
  MessagePart(char c) noexcept : format_("%c"), integer_(c) {}    // NOLINT
  MessagePart(double x) noexcept : format_("%.6g"), real_(x) {}   // NOLINT
  template <std::integral I>
  MessagePart(I number) noexcept  // NOLINT(google-explicit-constructor)
      : format_(std::is_signed_v<I> ? "%lld" : "%llu"), integer_(static_cast<long long>(number)) {}

  [[gnu::cold]] void append_to(std::string& text) const {
    if (format_ == nullptr) {
      text.append(text_);
      return;
    }
    char number[32];
    if (real_) std::snprintf(number, sizeof number, format_, *real_);
    else std::snprintf(number, sizeof number, format_, integer_);
    text.append(number);
  }

 private:
  std::string_view text_;
  const char* format_ = nullptr;  // of a number
  long long integer_ = 0;
  std::optional<double> real_;
};

/// One function for all messages: there are hundreds, and none is in a hurry.
[[gnu::cold, gnu::noinline]] inline std::string join(std::initializer_list<MessagePart> parts) {
  std::string text;
  for (const MessagePart& part : parts) part.append_to(text);
  return text;
}

}  // namespace detail

/// "W: row 3, column 7 is nan" from its parts.
template <class... Parts>
std::string message(const Parts&... parts) {
  return detail::join({detail::MessagePart(parts)...});
}

}  // namespace cafeq
