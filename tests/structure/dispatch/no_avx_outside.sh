#!/bin/sh
# no_avx_outside.sh <objdump> <program or object>: fails where code outside the sections of the
# dispatched units (cafeq_avx2, cafeq_avx512) is of an encoding that came with AVX or BMI, and
# names the functions.
set -e
dump=$(mktemp)
trap 'rm -f "$dump"' EXIT
"$1" -d --no-show-raw-insn "$2" >"$dump"
awk '
  /^Disassembly of section / {
    section = $4
    sub(":", "", section)
    kernels = section ~ /^cafeq_/
    next
  }
  /^[0-9a-f]+ <.*>:$/ { name = $2; next }
  NF < 2 { next }
  { ++instructions }
  ($2 ~ /^(v[a-z]|k(mov|and|or|xor|xnor|not|test|unpck|shift|add))/ ||
      $2 ~ /^(andn|bextr|blsi|blsr|blsmsk|bzhi|mulx|pdep|pext)[lq]?$/ ||
      $2 ~ /^(rorx|sarx|shlx|shrx|movbe|lzcnt)[lq]?$/) && $2 !~ /^(verr|verw)$/ {
    if (kernels) ++inside
    else if (!(name in seen)) {
      seen[name] = 1
      ++outside
      print "AVX outside the units: " section " " name " " $2 " " $3
    }
  }
  END {
    print instructions + 0 " instructions, " inside + 0 " for AVX in the units, " \
      outside + 0 " functions with such outside"
    exit outside > 0 || inside == 0
  }' "$dump"
