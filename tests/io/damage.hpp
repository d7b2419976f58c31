// What may happen to a file: it ends early, bits of it change, the disk is full while it is
// written.
#pragma once
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "cafeq/core/error.hpp"
#include "cafeq/core/rng.hpp"
#include "support/catch.hpp"

namespace cafeq::test {

/// A copy that ends where its memory does, so that a sanitizer sees whoever reads on.
inline std::vector<std::byte> exact_bytes(std::string_view text) {
  std::vector<std::byte> bytes(text.size());
  if (!text.empty()) std::memcpy(bytes.data(), text.data(), text.size());
  return bytes;
}

/// Whether f raises an Error; any other exception ends the test.
template <class F>
bool raises(F&& f) {
  try {
    f();
  } catch (const Error&) {
    return true;
  }
  return false;
}

/// Every beginning of the content but the whole is refused by read(content).
template <class F>
void check_prefixes(std::string_view content, F&& read) {
  for (std::size_t length = 0; length < content.size(); ++length) {
    INFO("the first " << length << " of " << content.size() << " bytes");
    REQUIRE(raises([&] { read(content.substr(0, length)); }));
  }
}

/// Content in which one to four bits differ is read or refused, never worse. Returns how often it
/// was read.
template <class F>
int check_bit_flips(std::string_view content, int rounds, std::uint64_t seed, F&& read) {
  const CounterRng rng(seed, 9);
  std::uint64_t counter = 0;
  int accepted = 0;
  for (int round = 0; round < rounds; ++round) {
    std::string changed(content);
    const auto flips = 1 + rng.below(counter++, 4);
    for (std::uint64_t i = 0; i < flips; ++i) {
      const auto bit = rng.below(counter++, 8 * content.size());
      changed[bit / 8] = char(changed[bit / 8] ^ (1 << (bit % 8)));
    }
    accepted += raises([&] { read(std::string_view(changed)); }) ? 0 : 1;
  }
  return accepted;
}

/// The message of the Error of code io that f raises in a process of its own after `prepare`; ""
/// where it raises none.
template <class Prepare, class F>
std::string io_error_in_child(Prepare&& prepare, F&& f) {
  int ends[2];
  REQUIRE(::pipe(ends) == 0);
  const pid_t child = ::fork();
  if (child == 0) {
    prepare();
    std::string text;
    try {
      f();
    } catch (const Error& error) {
      if (error.code() == ErrorCode::io) text = error.message();
    }
    const bool sent = ::write(ends[1], text.data(), text.size()) == ssize_t(text.size());
    ::_exit(sent ? 0 : 1);
  }
  ::close(ends[1]);
  std::string text(4096, '\0');
  const ssize_t count = ::read(ends[0], text.data(), text.size());
  ::close(ends[0]);
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  CHECK(WIFEXITED(status));
  text.resize(count > 0 ? std::size_t(count) : 0);
  return text;
}

/// The same where files may not grow beyond `limit` bytes.
template <class F>
std::string error_on_full_disk(rlim_t limit, F&& f) {
  const auto prepare = [limit] {
    std::signal(SIGXFSZ, SIG_IGN);  // so that write() fails with EFBIG
    const rlimit size{limit, limit};
    ::setrlimit(RLIMIT_FSIZE, &size);
  };
  return io_error_in_child(prepare, f);
}

/// The same without the rights of the superuser, whom no permission stops.
template <class F>
std::string error_as_user(F&& f) {
  const auto prepare = [] {
    if (::geteuid() == 0 && ::setuid(65534) != 0) ::_exit(1);
  };
  return io_error_in_child(prepare, f);
}

}  // namespace cafeq::test
