# test.sh ACCURACY GENERATE: the whole job on a small generated model, whose tokens are numbers, and
# what the program answers to bad input.
set -eu
accuracy=$1 generate=$2
output=$(mktemp -d)
trap 'rm -rf "$output"' EXIT
cd "$output"
mkdir model
"$generate" model --hidden 64 --intermediate 256 --layers 2 --heads 2 --kv-heads 1 --vocabulary 64 \
  --fp32
echo '[[1,5,9,13,17,21,25,29,33,37,41,45,49,53],[1,60,3,58,5,56,7,54,9,52,11,50,13,48]]' >tokens.json

fail() {
  echo "$*" >&2
  exit 1
}
# expect WORDS COMMAND...: it ends with an error that has the words.
expect() {
  words=$1
  shift
  if "$@" >out 2>&1; then fail "succeeded: $*"; fi
  grep -qF -- "$words" out || fail "'$words' is not in the answer of $*: $(cat out)"
}
# has FILE WORDS...
has() {
  file=$1
  shift
  for words; do
    grep -qF -- "$words" "$file" || fail "'$words' is not in $file: $(cat "$file")"
  done
}

echo '[{"recipe": "as it was", "file": "model", "seconds": 0}]' >files.json
"$accuracy" --model model --tokens-json tokens.json --files files.json --seeds 2 --output done \
  --rows rtn smallest gguf:Q4_0 types HQQ SINQ NF4 GPTQ HIGGS was >out 2>&1 || fail "$(cat out)"
has done/llm.json '"recipe": "unquantized"' '"recipe": "`smallest`"' '"recipe": "gguf:Q4_0"' \
  '"recipe": "HQQ g64"' '"recipe": "SINQ g64"' '"recipe": "NF4 g64"' '"recipe": "GPTQ g64"' \
  '"recipe": "HIGGS p = 2, n = 16"' '"recipe": "as it was"' '"seed": 1' '"metric": "none"'
has done/llm.json 'by sensitivity"' '"expected_kl": '
has done/tables.md '| about 3 bits |' '± ' '| expected | bits | expected KL | KL | ratio |'
# What is not quantized loses nothing: twice.
[ "$(grep -c '"kl": 0.0,' done/llm.json)" = 2 ] || fail "$(cat done/llm.json)"
[ "$(echo done/*)" = "done/llm.json done/tables.md" ] || fail "left behind: $(echo done/*)"

"$accuracy" --model model --tokens-json tokens.json --only gguf --output some >out 2>&1 ||
  fail "$(cat out)"
has some/llm.json '"recipe": "gguf:Q8_0"'
if grep -q fast some/llm.json; then fail "--only gguf: $(cat some/llm.json)"; fi

# Rows are kept to the bit, seconds too; what is not there is measured; another model's are not taken.
cp some/llm.json before.json
"$accuracy" --model model --tokens-json tokens.json --only gguf --output some --resume >out 2>&1 ||
  fail "$(cat out)"
cmp some/llm.json before.json || fail "--resume measured again"
sed -i 's/gguf:Q8_0/gguf:Q8_9/' some/llm.json
"$accuracy" --model model --tokens-json tokens.json --only gguf --output some --resume >out 2>&1 ||
  fail "$(cat out)"
has some/llm.json '"recipe": "gguf:Q8_0"'
sed 's/"model": "model"/"model": "other"/; s/"perplexity": /"perplexity": 1/' before.json >some/llm.json
"$accuracy" --model model --tokens-json tokens.json --only gguf --output some --resume >out 2>&1 ||
  fail "$(cat out)"
if grep -q other some/llm.json; then fail "--resume took another model's rows"; fi

expect "neither --model nor --encoder" "$accuracy" --output none
expect "--text or --tokens-json" "$accuracy" --model model --output none
expect "absent: cannot open: No such file" "$accuracy" --model absent --tokens-json tokens.json --output none
expect "no tokenizer of its own" "$accuracy" --model model --text tokens.json --output none
expect "--only" "$accuracy" --model model --tokens-json tokens.json --only everything
echo '[{"file": "model"}]' >files.json
expect "files.json: is no list of models" "$accuracy" --model model --tokens-json tokens.json \
  --files files.json --output none
