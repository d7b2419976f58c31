# test.sh generate|perplexity|quantized|refuses ENGINE TOOL DATA: what the program says, of what
# cafeq-quantize writes too. Ends with 77 where DATA holds no model.
set -eu
what=$1 engine=$2 tool=$3 data=$4
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
  expect "$output/none.bin: cannot open: No such file" "$engine" generate "$output/none.bin"
  expect "$output: is no model that is understood" "$engine" perplexity "$output" --text none
  expect "OTHER is required" "$engine" compare "$output"
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

if [ "$what" = quantized ]; then
  "$tool" "$data/stories260K.bin" "$output/small.safetensors" --recipe smallest --bits 4 \
    --tokenizer "$data/tok512.bin" >"$output/out" 2>&1 || fail "$(cat "$output/out")"
  answer=$("$engine" generate "$output/small.safetensors" --prompt "Once upon a time" --tokens 20 \
    --temperature 0 2>/dev/null)
  case $answer in "Once upon a time, there was a little"*) ;; *) fail "it says '$answer'" ;; esac
  compare() {
    "$engine" compare "$data/stories260K.bin" "$@" --tokenizer "$data/tok512.bin" --length 128 \
      --texts 8 --text "$data/tinystories_200.jsonl" --json
  }
  result=$(compare "$output/small.safetensors")
  case $result in *'"kl":0.0'*'"same_top":0.9'*) ;; *) fail "compared: $result" ;; esac
  # Packed weights give what their floats give, but for the rounding of activations.
  packed=$(compare "$output/small.safetensors" --weights stored)
  printf '%s\n%s\n' "$result" "$packed" | sed 's/.*"kl":\([0-9.e-]*\),.*/\1/' |
    awk '{ kl[NR] = $1 } END { d = kl[1] / kl[2] - 1; exit !(NR == 2 && d * d < 1e-4) }' ||
    fail "packed $packed, as floats $result"
  result=$(compare "$data/stories260K.bin")
  case $result in *'"kl":0.0,'*'"same_top":1.0,'*) ;; *) fail "with itself: $result" ;; esac
elif [ "$what" = generate ]; then
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
    *'"perplexity":3.972'*'"predicted_tokens":20071'*'"texts":58}') ;;
    *) fail "expected perplexity 3.972 on 20071 tokens" ;;
  esac
  again=$("$engine" perplexity "$data/stories260K.bin" --tokens-json "$output/tokens.json" --json)
  [ "$again" = "$result" ] || fail "its own tokens give $again"
  run perplexity --tokens-json "$output/tokens.json" --weights smallest3 |
    grep "^perplexity 4.[89]\|^perplexity 5.0" || fail "expected perplexity 5 by smallest"
  run perplexity --tokens-json "$output/tokens.json" --weights fast4 | grep "^perplexity 4.2" ||
    fail "expected perplexity 4.2 at 4 bits"
fi
