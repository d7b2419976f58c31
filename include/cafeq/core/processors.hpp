/// How many processors this process may use.
#pragma once

#include <algorithm>
#include <cstdio>
#include <string>
#include <string_view>
#include <thread>

#include "cafeq/core/numeric.hpp"

#if defined(__linux__)
#include <sched.h>
#endif

namespace cafeq {
namespace detail {

/// A small file, or nothing where it cannot be read.
inline std::string read_small_file(const std::string& path) {
  std::string text;
  if (std::FILE* file = std::fopen(path.c_str(), "re")) {
    char part[1024];
    for (std::size_t n; (n = std::fread(part, 1, sizeof part, file)) > 0;) text.append(part, n);
    std::fclose(file);
  }
  return text;
}

/// The processors that `quota` microseconds a `period` are worth, rounded up; 0 for no limit.
inline Index processors_of_quota(double quota, double period) noexcept {
  return quota > 0 && period > 0 ? std::max<Index>(1, Index((quota + period - 1) / period)) : 0;
}

/// What one control group allows, 0 for no limit. Version 2 has cpu.max ("150000 100000", "max
/// 100000"), version 1 cpu.cfs_quota_us (-1: none) and cpu.cfs_period_us.
inline Index processors_of_group(const std::string& directory) {
  double quota = 0, period = 0;
  if (std::sscanf(read_small_file(directory + "/cpu.max").c_str(), "%lf %lf", &quota, &period) == 2)
    return processors_of_quota(quota, period);
  const std::string quota_text = read_small_file(directory + "/cpu.cfs_quota_us"),
                    period_text = read_small_file(directory + "/cpu.cfs_period_us");
  if (std::sscanf(quota_text.c_str(), "%lf", &quota) == 1 &&
      std::sscanf(period_text.c_str(), "%lf", &period) == 1)
    return processors_of_quota(quota, period);
  return 0;
}

/// The smallest limit of the control groups that a process belongs to and of those above them, 0
/// for none. `membership` is the text of /proc/self/cgroup, lines of "id:controllers:/path";
/// `root` is where the groups are mounted.
inline Index processors_of_groups(std::string_view membership, const std::string& root) {
  Index least = 0;
  while (!membership.empty()) {
    const std::string_view line = membership.substr(0, membership.find('\n'));
    membership.remove_prefix(std::min(membership.size(), line.size() + 1));

    const std::size_t first = line.find(':'), second = line.find(':', first + 1);
    if (first == line.npos || second == line.npos) continue;
    const std::string_view controllers = line.substr(first + 1, second - first - 1);
    const bool unified = controllers.empty();
    if (!unified && (',' + std::string(controllers) + ',').find(",cpu,") == std::string::npos)
      continue;

    const std::string mount = unified ? root : root + "/cpu";
    for (std::string path(line.substr(second + 1));; path.resize(path.rfind('/'))) {
      const Index limit = processors_of_group(mount + path);
      if (limit > 0) least = least > 0 ? std::min(least, limit) : limit;
      if (path.rfind('/') == std::string::npos) break;
    }
  }
  return least;
}

}  // namespace detail

/// At least 1: as many as the affinity mask of the calling thread and the quota of its control
/// groups allow, a part of one counted whole.
inline Index available_processors() {
  Index count = Index(std::max(1u, std::thread::hardware_concurrency()));
#if defined(__linux__)
  // The mask of a machine with more processors than fit is refused; then hardware_concurrency()
  // has to do.
  cpu_set_t mask;
  if (sched_getaffinity(0, sizeof mask, &mask) == 0) count = std::max(1, CPU_COUNT(&mask));
  const Index limit =
      detail::processors_of_groups(detail::read_small_file("/proc/self/cgroup"), "/sys/fs/cgroup");
  if (limit > 0) count = std::min(count, limit);
#endif
  return count;
}

}  // namespace cafeq
