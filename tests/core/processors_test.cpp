#include "cafeq/core/processors.hpp"

#include <filesystem>
#include <fstream>

#include "support/catch.hpp"

using namespace cafeq;
namespace fs = std::filesystem;

namespace {

/// Control groups in a directory of their own.
class Groups {
 public:
  Groups() { fs::create_directories(root_); }
  Groups(const Groups&) = delete;
  Groups& operator=(const Groups&) = delete;
  ~Groups() { fs::remove_all(root_); }

  void write(const fs::path& file, const char* text) {
    fs::create_directories((root_ / file).parent_path());
    std::ofstream(root_ / file) << text;
  }
  Index limit(const char* membership) const {
    return detail::processors_of_groups(membership, root_.string());
  }

 private:
  fs::path root_ = fs::temp_directory_path() /
                   ("cafeq-groups-" + std::to_string(std::hash<const void*>{}(this)));
};

}  // namespace

TEST_CASE("quotas of control groups, version 2", "[core][processors]") {
  Groups groups;
  CHECK(groups.limit("") == 0);
  CHECK(groups.limit("0::/\n") == 0);  // no file

  groups.write("cpu.max", "max 100000\n");
  CHECK(groups.limit("0::/\n") == 0);
  groups.write("cpu.max", "400000 100000\n");
  CHECK(groups.limit("0::/\n") == 4);
  groups.write("service/cpu.max", "150000 100000\n");
  CHECK(groups.limit("0::/service\n") == 2);
  CHECK(groups.limit("0::/service/part\n") == 2);  // its own has no file
  groups.write("service/part/cpu.max", "900000 100000\n");
  CHECK(groups.limit("0::/service/part\n") == 2);
  CHECK(groups.limit("0::/other\n") == 4);
  groups.write("tiny/cpu.max", "5000 100000\n");
  CHECK(groups.limit("0::/tiny") == 1);
}

TEST_CASE("quotas of control groups, version 1", "[core][processors]") {
  Groups groups;
  groups.write("cpu/job/cpu.cfs_quota_us", "300000\n");
  groups.write("cpu/job/cpu.cfs_period_us", "100000\n");
  groups.write("cpu/free/cpu.cfs_quota_us", "-1\n");
  groups.write("cpu/free/cpu.cfs_period_us", "100000\n");
  CHECK(groups.limit("5:memory:/job\n4:cpu,cpuacct:/job\n") == 3);
  CHECK(groups.limit("4:cpu:/free\n") == 0);
  CHECK(groups.limit("4:cpuset:/job\n") == 0);
}

TEST_CASE("what is no list of groups is no limit", "[core][processors]") {
  Groups groups;
  groups.write("cpu.max", "nonsense");
  for (const char* text : {"0::/\n", "nonsense\n", "::", ":", "\n\n\n"})
    CHECK(groups.limit(text) == 0);
  CHECK(available_processors() >= 1);
}

#if defined(__linux__)
TEST_CASE("the affinity mask is a limit", "[core][processors]") {
  cpu_set_t before;
  REQUIRE(sched_getaffinity(0, sizeof before, &before) == 0);
  cpu_set_t one;
  CPU_ZERO(&one);
  for (int i = 0; i < CPU_SETSIZE; ++i)
    if (CPU_ISSET(i, &before)) {
      CPU_SET(i, &one);
      break;
    }
  REQUIRE(sched_setaffinity(0, sizeof one, &one) == 0);
  CHECK(available_processors() == 1);
  REQUIRE(sched_setaffinity(0, sizeof before, &before) == 0);
}
#endif
