# Sourced by the scripts beside it: where the project is, and what it needs from the machine.
set -euo pipefail
exec </dev/null # nothing here asks questions

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
build=${CAFEQ_BUILD_DIR:-$root/build}
jobs=$(nproc)

# Whether the machine has what a Debian package would bring, from wherever it came.
has() {
  case $1 in
    cmake) command -v cmake ;;
    ninja-build) command -v ninja ;;
    pkg-config) command -v pkg-config || command -v pkgconf ;;
    g++) compiles g++ ;;
    clang) compiles clang++ ;;
    libclang-rt-dev) links_with_sanitizers clang++ ;;
    libeigen3-dev) has_file share/eigen3/cmake/Eigen3Config.cmake ;;
    libxsimd-dev) has_file include/xsimd/xsimd.hpp ;;
    catch2) has_file include/catch2/catch.hpp || has_file include/catch2/catch_all.hpp ;;
    nlohmann-json3-dev) has_file include/nlohmann/json.hpp ;;
    libcli11-dev) has_file include/CLI/CLI.hpp ;;
    g++-aarch64-linux-gnu) compiles aarch64-linux-gnu-g++ ;;
    qemu-user) command -v qemu-aarch64 ;;
    npm) command -v npm ;;
    python3) [ -x /usr/bin/python3 ] ;;
    python3-numpy) /usr/bin/python3 -c 'import numpy' ;;
    libbenchmark-dev) has_file include/benchmark/benchmark.h ;;
    libopenblas-dev) has_file include/cblas.h || has_file "include/$(uname -m)-linux-gnu/cblas.h" ;;
    libfftw3-dev) has_file include/fftw3.h ;;
    libdnnl-dev) has_file include/dnnl.hpp ;;
    clang-format-19) command -v clang-format-19 ;;
    *) return 1 ;;
  esac >/dev/null 2>&1 ||
    [ "$(dpkg-query -W -f='${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

# A compiler that is there but finds no C++20 library does not count.
compiles() {
  command -v "$1" &&
    printf '#include <concepts>\n#include <span>\nint main() {}\n' |
    "$1" -std=c++20 -fsyntax-only -x c++ -
}
links_with_sanitizers() {
  printf 'int main() {}\n' | "$1" -fsanitize=address,undefined -o /dev/null -x c++ -
}

has_file() { [ -e "/usr/$1" ] || [ -e "/usr/local/$1" ]; }

# Installs those of the named packages that the machine lacks; where none is missing the package
# manager is not touched.
need() {
  local missing=() package
  for package; do
    has "$package" || missing+=("$package")
  done
  [ ${#missing[@]} -gt 0 ] || return 0

  local as_root=()
  if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null ||
      { echo "Missing, and neither root nor sudo to install them: ${missing[*]}" >&2; exit 1; }
    as_root=(sudo)
  fi
  command -v apt-get >/dev/null ||
    { echo "Missing, and no apt-get to install them: ${missing[*]}" >&2; exit 1; }
  echo "Installing ${missing[*]}"
  "${as_root[@]}" apt-get -qq update
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
    apt-get -qq install -y --no-install-recommends "${missing[@]}" >/dev/null
}

# configure <preset> [options]: a build tree of that preset in $build/<preset>.
configure() {
  local preset=$1
  shift
  (cd "$root" && cmake --preset "$preset" -B "$build/$preset" "$@" >"$build/$preset.log" 2>&1) || {
    cat "$build/$preset.log" >&2
    exit 1
  }
}
