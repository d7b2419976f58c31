#!/bin/sh
# neon.sh <cmake> <build directory> <directory of xsimd/>: the dispatched kernels compiled for
# aarch64 and run by qemu; 77 where the machine has no cross compiler or no emulator.
compiler=aarch64-linux-gnu-g++
emulator=qemu-aarch64
for tool in $compiler $emulator; do
  command -v $tool >/dev/null ||
    { echo "skipped: there is no $tool (Debian: g++-aarch64-linux-gnu and qemu-user)"; exit 77; }
done
printf '#include <concepts>\nint main() {}\n' | $compiler -std=c++20 -fsyntax-only -x c++ - ||
  { echo "skipped: $compiler does not work"; exit 77; }

set -e
"$1" -S "$(dirname "$0")" -B "$2" -DCMAKE_BUILD_TYPE=Release -DCMAKE_CXX_FLAGS_RELEASE=-O1 \
  -DCMAKE_SYSTEM_NAME=Linux -DCMAKE_SYSTEM_PROCESSOR=aarch64 -DCMAKE_CXX_COMPILER=$compiler \
  "-DCMAKE_CROSSCOMPILING_EMULATOR=$emulator;-L;/usr/aarch64-linux-gnu" \
  "-DCAFEQ_SYSTEM_HEADERS=$3" >/dev/null
"$1" --build "$2"
cd "$2"
"$(dirname "$1")/ctest" --output-on-failure --no-tests=error
