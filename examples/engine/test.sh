# test.sh generate|perplexity|refuses ENGINE DATA: what the program says. Ends with 77 where DATA
# holds no model.
set -eu
what=$1 engine=$2 data=$3
output=$(mktemp -d)
trap 'rm -rf "$output"' EXIT

fail() {
  echo "$*" >&2
  exit 1
}

# expect WORDS COMMAND...: it ends with an error that has the words.
expect() {
  words=$1
  shift
  if "$@" >"$output/out" 2>&1; then fail "succeeded: $*"; fi
  grep -qF -- "$words" "$output/out" ||
    fail "'$words' is not in the answer of $*: $(cat "$output/out")"
}

if [ "$what" = refuses ]; then
  expect "subcommand" "$engine"
  expect "MODEL is required" "$engine" generate
  expect "$output/none.bin: No such file" "$engine" generate "$output/none.bin"
  expect "$output/config.json: No such file" "$engine" perplexity "$output" --text none
  expect "--text or --tokens-json" "$engine" perplexity "$output"
  expect "--temperature" "$engine" generate "$output" --temperature -1
  expect "--texts requires --text" "$engine" perplexity "$output" --texts 3
  exit
fi

for file in stories260K.bin tok512.bin tinystories_200.jsonl; do
  [ -e "$data/$file" ] || { echo "skipped: $data/$file is missing"; exit 77; }
done
run() {
  command=$1
  shift
  "$engine" "$command" "$data/stories260K.bin" --tokenizer "$data/tok512.bin" "$@"
}

if [ "$what" = generate ]; then
  start="Once upon a time, there was a little girl named Lily. She loved to play outside"
  start="$start in the park."
  answer=$(run generate --prompt "Once upon a time" --tokens 60 --temperature 0)
  case $answer in "$start"*) ;; *) fail "expected '$start', got '$answer'" ;; esac
  draw() { run generate --tokens 60 "$@"; }
  [ "$(draw --seed 1)" = "$(draw --seed 1 --threads 1)" ] || fail "a seed gives two texts"
  [ "$(draw --seed 1)" != "$(draw --seed 2)" ] || fail "two seeds give one text"
else
  result=$(run perplexity --text "$data/tinystories_200.jsonl" --texts 58 --length 512 \
    --tokens-json "$output/tokens.json" --json)
  echo "$result"
  case $result in
    *'"perplexity":3.972'*'"predicted_tokens":20071,"texts":58}') ;;
    *) fail "expected perplexity 3.972 on 20071 tokens" ;;
  esac
  again=$("$engine" perplexity "$data/stories260K.bin" --tokens-json "$output/tokens.json" --json)
  [ "$again" = "$result" ] || fail "its own tokens give $again"
  run perplexity --tokens-json "$output/tokens.json" --weights smallest3 |
    grep "^perplexity 4.[89]\|^perplexity 5.0" || fail "expected perplexity 5 by smallest"
  run perplexity --tokens-json "$output/tokens.json" --weights fast4 | grep "^perplexity 4.2" ||
    fail "expected perplexity 4.2 at 4 bits"
fi
