#!/bin/sh
# The three programs in the directory at hand, on the baseline of the processor.
set -e
./headers_only >headers_only.txt
./compiled >compiled.txt
arch=generic
[ "$(uname -m)" != aarch64 ] || arch=neon
CAFEQ_ARCH=$arch ./consumer >dispatched.txt
cmp headers_only.txt compiled.txt
cmp headers_only.txt dispatched.txt
