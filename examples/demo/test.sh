# test.sh DEMO GENERATE_MODEL: what the demo makes of a small model, and what it answers to bad input.
set -eu
demo=$1 generate=$2
output=$(mktemp -d)
trap 'rm -rf "$output"' EXIT

fail() {
  echo "$*" >&2
  exit 1
}

# expect WORDS COMMAND...: it ends with an error that has the words, and leaves no result.
expect() {
  words=$1
  shift
  if "$@" --output "$output/refused" >"$output/out" 2>&1; then fail "succeeded: $*"; fi
  grep -qF -- "$words" "$output/out" ||
    fail "'$words' is not in the answer of $*: $(cat "$output/out")"
  [ ! -e "$output/refused/result.json" ] || fail "left a result: $*"
}

mkdir "$output/model"
"$generate" "$output/model" --hidden 64 --intermediate 128 --layers 2 --heads 4 --kv-heads 2 \
  --vocabulary 300 --tied
"$demo" --model "$output/model" --length 24 --texts 2 --output "$output/done" >"$output/out" 2>&1 ||
  fail "$(cat "$output/out")"
[ "$(wc -l <"$output/out")" -le 60 ] || fail "more than 60 lines: $(cat "$output/out")"
[ "$(grep -c '"recipe"' "$output/done/result.json")" = 7 ] || fail "expected 7 rows"
for recipe in "rtn, 4 bits" "smallest, 2 bits"; do
  grep -qF "$recipe" "$output/out" || fail "no row for $recipe: $(cat "$output/out")"
done
for file in rtn4 fast3 smallest3-own smallest2-own own-text; do
  [ -s "$output/done/$file.safetensors" ] || fail "$file is missing"
done

expect "$output/none" "$demo" --model "$output/none"
mkdir "$output/empty"
expect "$output/empty" "$demo" --model "$output/empty"
expect "--model" "$demo" --builtin --model "$output/model"
expect "--threads" "$demo" --threads 0 --model "$output/model"
# A disk that fills up: a limit on the size of files stands in for it.
(
  trap '' XFSZ
  ulimit -f 8
  expect "own-text" "$demo" --model "$output/model" --length 24 --texts 2
)
