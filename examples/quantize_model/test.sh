# test.sh formats|format|options|blocks|resume|refuses|metric TOOL GENERATE CMAKE: what the program makes of a small
# generated model, and what it answers to bad input.
set -eu
what=$1 tool=$2 generate=$3 cmake=$4
here=$(cd "$(dirname "$0")" && pwd)
output=$(mktemp -d)
trap 'rm -rf "$output"' EXIT
mkdir "$output/model"
"$generate" "$output/model" --hidden 64 --intermediate 256 --layers 2 --heads 2 \
  --kv-heads 1 --vocabulary 64 --shard-bytes 100000
# Weights alone, but where a metric is what is tried.
program=$tool
printf '#!/bin/sh\nexec "%s" --metric none "$@"\n' "$program" >"$output/.weights-alone"
chmod +x "$output/.weights-alone"
tool=$output/.weights-alone
cd "$output"

fail() {
  echo "$*" >&2
  exit 1
}

# expect STATUS WORDS COMMAND...: it ends with that status, and its answer has the words.
expect() {
  status=$1 words=$2
  shift 2
  found=0
  "$@" >out 2>&1 || found=$?
  [ "$found" = "$status" ] || fail "status $found, not $status: $*: $(cat out)"
  grep -qF -- "$words" out || fail "'$words' is not in the answer of $*: $(cat out)"
}
run() { "$tool" model "$@" >out 2>&1 || fail "$tool model $*: $(cat out)"; }
# value KEY...: of the JSON in the file json
value() {
  "$cmake" -DFILE=json "-DKEY=$(IFS=';'; echo "$*")" -P "$here/value.cmake"
}
same() { cmp -s "$1" "$2" || fail "$1 is not $2"; }
only() {
  names=$(echo *)
  [ "$names" = "$*" ] || fail "expected '$*', found '$names'"
}

formats() {
  for recipe in rtn mse fast learned paper smallest; do
    set -- --recipe $recipe
    [ $recipe != paper ] || set -- "$@" --include '*.0.self_attn.[vo]_proj.*' # it takes long
    run $recipe "$@"
    run $recipe.again "$@" --threads 1
    same $recipe $recipe.again
    run $recipe.float "$@" --format float
    for file in config.json model.safetensors; do
      [ -f $recipe.float/$file ] || fail "$recipe.float has no $file"
    done
    same model/config.json $recipe.float/config.json
    expect 1 "is quantized already" "$tool" $recipe again
  done
  run fast8 --bits 8 && run fast2 --bits 2
  [ "$(wc -c <fast8)" -gt "$(wc -c <fast)" ] && [ "$(wc -c <fast)" -gt "$(wc -c <fast2)" ] ||
    fail "more bits take no more bytes"
  run q4.gguf --format gguf:Q4_0
  [ "$(head -c 4 q4.gguf)" = GGUF ] || fail "q4.gguf is no GGUF file"
  "$tool" q4.gguf floats.gguf --format float --bits 2 >out 2>&1 ||
    fail "blocks are no model: $(cat out)"
  run seeded --seed 1
  if cmp -s fast seeded; then fail "two seeds give one file"; fi
  run slash --format float && run slashes/ --format float
  same slash/model.safetensors slashes/model.safetensors
  expect 1 "model.safetensors" \
    cmp fast.float/model.safetensors model/model-00001-of-00003.safetensors
  "$tool" fast.float requantized --recipe rtn --bits 8 >out 2>&1 ||
    fail "floats are no model: $(cat out)"
}

# What another reader makes of the format, by its documentation alone. Widths are such that Hadamard
# matrices of all constructions occur: of order 28 and 92, 52 and 36.
format() {
  root=$here/../..
  if ! /usr/bin/python3 -c 'import numpy' 2>/dev/null; then
    echo "skipped: /usr/bin/python3 has no numpy"
    exit 77
  fi
  reader() {
    for options in "--recipe rtn" "--recipe fast" "--recipe fast --bits 3 --no-pairs" \
      "--recipe learned" "--recipe smallest" "--recipe smallest --bits 2 --embeddings" \
      "--recipe smallest --target-bits 4.6" "--recipe smallest --target-bits 1.9"; do
      rm -rf whole floats
      "$tool" odd whole $options >out 2>&1 || fail "$options: $(cat out)"
      "$tool" odd floats $options --format float >out 2>&1 || fail "$options: $(cat out)"
      /usr/bin/python3 "$root/tests/docs/read_format.py" "$root/docs/reference/format.md" whole \
        floats/model.safetensors >out 2>&1 || fail "$options: $(cat out)"
      echo "$options: $(cat out)"
    done
  }
  for widths in "112 184" "104 144"; do
    rm -rf odd && mkdir odd
    "$generate" odd --fp32 --hidden ${widths% *} --intermediate ${widths#* } --layers 1 --heads 2 \
      --kv-heads 1 --vocabulary 40
    reader
  done
}

options() {
  "$tool" model --dry-run >out
  words="0-1 *2 *query *64 x 64 .*scaling, Hadamard *affine4 g64"
  grep -q "$words" out || fail "the plan is $(cat out)"
  [ "$(wc -l <out)" = 13 ] || fail "the plan has $(wc -l <out) lines: $(cat out)"
  tail -n 1 out | grep -q "^0.12 M weights at 4.[0-9]* bits; output .* KiB, input .*; memory about" ||
    fail "the plan ends with $(tail -n 1 out)"
  grep -q "lm_head.weight.*as it is.*embeddings stay unless asked for" out ||
    fail "the plan is $(cat out)"
  "$tool" model --dry-run --json >json
  [ "$(value steps 0 matrices 0 name)" = model.layers.0.self_attn.q_proj.weight ] ||
    fail "the first step is for $(value steps 0 matrices 0 name)"
  [ "$(value weights)" = 122880 ] || fail "$(value weights) weights"
  only json model out

  "$tool" model fast8 --bits 8 --json >json 2>out || fail "$(cat out)"
  [ "$(value bytes_after)" = "$(wc -c <fast8)" ] || fail "$(value bytes_after) bytes are said"
  rm fast8
  run fast.float --format float
  grep -q "^fast.float: $(awk "BEGIN { printf \"%.1f\", $(cat fast.float/* | wc -c) / 1024 }") KiB" out ||
    fail "$(cat fast.float/* | wc -c) bytes are not what $(tail -n 1 out) says"
  rm -r fast.float

  "$tool" model fast --json >json 2>out
  grep -q "quantizing 100%" out || fail "no progress in $(cat out)"
  [ "$(value bytes_before)" -gt "$(value bytes_after)" ] || fail "no fewer bytes"
  error=$(value steps 0 matrices 0 error)
  case $error in 0.00[5-9]*) ;; *) fail "the error is $error" ;; esac

  for target in 4.6 5.5 7; do
    "$tool" model target$target --target-bits $target --json >json 2>out || fail "$(cat out)"
    bits=$(value bits_per_weight)
    awk "BEGIN { exit !($bits <= $target && $bits > $target - 0.5) }" ||
      fail "$bits bits for $target"
  done
  for target in 1.4 2.3 3.25 4.5; do
    "$tool" model smallest$target --recipe smallest --target-bits $target --json >json 2>out ||
      fail "$(cat out)"
    bits=$(value bits_per_weight)
    awk "BEGIN { exit !($bits <= $target && $bits > $target - 0.15) }" ||
      fail "smallest takes $bits bits for $target"
  done
  "$tool" model --dry-run --recipe smallest >out
  grep -q "query.*Hadamard.*trellis3.1" out || fail "the plan is $(cat out)"
  expect 1 "target bits: 2.5 are fewer than" "$tool" model low --target-bits 2.5

  for size in 75000 80KB 100KiB; do
    run small --target-size $size
    case $size in *KB) most=80000 ;; *KiB) most=102400 ;; *) most=75000 ;; esac
    bytes=$(wc -c <small)
    [ "$bytes" -le $most ] && [ "$bytes" -gt $((most - 15000)) ] || fail "$bytes bytes for $size"
    rm small
  done
  run small --target-size 70000 --recipe smallest
  [ "$(wc -c <small)" -le 70000 ] || fail "$(wc -c <small) bytes for 70000"
  rm small
  run small --target-size 160000 --format gguf:Q4_0
  [ "$(wc -c <small)" -le 160000 ] || fail "$(wc -c <small) bytes for 160000"
  expect 1 "that are not quantized" "$tool" model low --target-size 20000
  least=$(sed 's/.*that is possible, \([0-9]*\):.*/\1/' out)
  rm small
  run small --target-size "$least"
  [ "$(wc -c <small)" -le "$least" ] || fail "$(wc -c <small) bytes for $least"
  expect 1 "fewer than the least" "$tool" model low --target-size $((least - 1))
  rm small

  "$tool" model --dry-run --json --include '*.layers.1.*' 'lm_head.*' --exclude '*.q_proj.*' >json
  weights=$(value weights)
  [ "$weights" = $((122880 / 2 - 64 * 64 + 64 * 64)) ] || fail "$weights weights included"
  grep -q '"why": "excluded"' json && grep -q '"why": "not included"' json ||
    fail "no reasons in $(cat json)"
  "$tool" model --dry-run --json --format gguf:Q4_0 >json
  grep -q '"type": "Q4_0"' json || fail "no type in $(cat json)"
  "$tool" model --dry-run --json --embeddings >json
  weights=$(value weights)
  [ "$weights" = $((122880 + 2 * 64 * 64)) ] || fail "$weights weights with embeddings"
  "$tool" model --dry-run --no-pairs >out
  if grep -q "balance" out; then fail "a pair in $(cat out)"; fi
}

resume() {
  run whole --recipe learned
  # Killed at any moment, it goes on to the same file.
  for pause in 0.02 0.05 0.1 0.15 0.2 0.3; do
    for signal in KILL TERM; do
      "$tool" model killed --recipe learned --resume >out 2>&1 &
      sleep $pause
      kill -$signal $! 2>/dev/null || true
      status=0
      wait $! 2>/dev/null || status=$?
      case $status in 0 | 130 | 137 | 143) ;; *) fail "status $status: $(cat out)" ;; esac
      if [ -e killed ]; then same killed whole && rm -r killed*; fi
    done
  done
  run killed --recipe learned --resume
  same killed whole
  only killed model out whole
  rm whole killed

  # A disk that fills up: a limit on the size of files stands in for it.
  run whole
  expect 1 "File too large" sh -c 'ulimit -f 16; exec "$@"' sh "$tool" model out.st
  [ -d out.st.partial ] && [ ! -e out.st ] || fail "left behind: $(echo *)"
  if ls out.st.partial | grep -v '^plan$\|^[0-9]*\.part$'; then
    fail "half written: $(ls out.st.partial)"
  fi
  expect 1 "out.st.partial: is there already" "$tool" model out.st
  expect 1 "belongs to another plan" "$tool" model out.st --resume --bits 3
  expect 1 "belongs to another plan" "$tool" model out.st --resume --format float
  cp -p model/config.json config.json
  touch model/config.json
  expect 1 "or the model has changed" "$tool" model out.st --resume
  cp -p config.json model/config.json
  run out.st --resume
  same out.st whole
  only config.json model out out.st whole

  # The whole does not fit, its parts do.
  expect 1 "out.float.partial/whole" \
    sh -c 'ulimit -f 128; exec "$@"' sh "$tool" model out.float --format float
  [ ! -e out.float ] || fail "half a directory"
  run out.float --format float --resume
  run whole.float --format float
  same out.float/model.safetensors whole.float/model.safetensors
  [ ! -e out.float.partial ] || fail "left behind: $(ls out.float.partial)"

  # What is there is replaced only when asked for, and then at once.
  expect 1 "whole: is there already" "$tool" model whole --bits 3
  [ ! -e whole.partial ] || fail "left behind: $(ls whole.partial)"
  expect 1 "whole: is there already" "$tool" model whole --resume
  run whole --overwrite --bits 3
  [ "$(wc -c <whole)" -lt "$(wc -c <out.st)" ] || fail "three bits are no less than four"
  expect 1 "whole.float: is a directory, which is not overwritten" \
    "$tool" model whole.float --overwrite --format float
  expect 1 "whole: is there already" "$tool" model whole
  expect 1 "File too large" sh -c 'ulimit -f 16; exec "$@"' sh "$tool" model whole --overwrite
  run whole --overwrite --resume
  same whole out.st

  # One run at a time.
  "$tool" model slow --recipe paper >slow.out 2>&1 &
  until [ -e slow.partial/plan ]; do sleep 0.01; done
  expect 1 "another run is at work in it" "$tool" model slow --recipe paper --resume
  expect 1 "another run is at work in it" "$tool" model slow --overwrite
  kill $!
  status=0
  wait $! || status=$?
  [ $status = 130 ] || fail "interrupted, it ends with $status"
  grep -q -- "--resume" slow.out || fail "interrupted, it says $(cat slow.out)"
  [ -d slow.partial ] && [ ! -e slow ] || fail "interrupted, it leaves $(echo slow*)"
}

# What is quantized already, and types whose blocks do not fit.
blocks() {
  run q8.gguf --format gguf:q8_0
  if grep -q warning out; then fail "warned of $(cat out)"; fi
  grep -q "^grids: Q8_0 14$" out || fail "no types in $(cat out)"
  grep -q "^kept: 2 tensors: embeddings stay unless asked for$" out || fail "nothing kept: $(cat out)"
  "$tool" q8.gguf small >out 2>&1 || fail "$(cat out)"
  head -n 1 out | grep -q "^warning: q8.gguf is quantized already, to Q8_0:" || fail "$(cat out)"
  expect 0 "warning: q8.gguf is quantized already, to Q8_0:" "$tool" q8.gguf --dry-run
  "$tool" q8.gguf --dry-run --json >json 2>out
  case $(value warnings 0) in *"is quantized already"*) ;; *) fail "$(cat json)" ;; esac
  expect 0 "warning: the output takes" "$tool" q8.gguf floats.gguf --format float
  expect 1 "quantized it would not be smaller than as Q8_0" "$tool" q8.gguf copy --format gguf:q8_0
  expect 1 "nothing in it would be quantized" "$tool" q8.gguf copy --format gguf:f16

  # Rows of 64.
  run k.gguf --format gguf:q4_k
  grep -q "^grids: Q4_K 2, Q5_0 12$" out || fail "no types in $(cat out)"
  grep -q "rows of 64 are no multiple of Q4_K's 256" out || fail "no reason in $(cat out)"
}

refuses() {
  expect 0 "--target-bits" "$tool" --help
  expect 2 "INPUT is required" "$tool"
  expect 2 "OUTPUT is required" "$tool" model
  expect 2 "--recipe" "$tool" model new --recipe best
  expect 2 "--bits" "$tool" model new --recipe smallest --bits 8
  expect 2 "--target-bits" "$tool" model new --recipe smallest --target-bits 6
  expect 2 "--target-size" "$tool" model new --target-size 0
  expect 1 "target bits: 1 are fewer than" "$tool" model new --recipe smallest --target-bits 1
  expect 2 "--group" "$tool" model new --recipe smallest --group 64
  expect 1 "cannot hold the codes of smallest" \
    "$tool" model new --recipe smallest --format gguf:Q4_K
  expect 2 "--bits" "$tool" model new --bits 1
  expect 2 "--target-bits" "$tool" model new --target-bits .5
  expect 2 "--target-size" "$tool" model new --target-size 1GB --target-bits 3
  expect 2 "--target-size" "$tool" model new --target-size 1GB --format float
  expect 2 "--bits" "$tool" model new --bits 4 --format gguf:Q4_K
  expect 2 "--bits" "$tool" model new --bits 4 --target-bits 3
  expect 2 "--bits" "$tool" model new --bits 4 --target-size 1GB
  expect 2 "--recipe: rtn has nothing to say of gguf:Q4_K" \
    "$tool" model new --recipe rtn --format gguf:Q4_K
  expect 0 "recipe learned changes nothing" \
    "$tool" model --dry-run --recipe learned --no-pairs --format gguf:Q4_0
  expect 2 "--tokenizer" "$tool" model new --tokenizer model/config.json --format float
  expect 1 "model/config.json is not taken" "$tool" model new --tokenizer model/config.json
  expect 2 "--threads" "$tool" model new --threads 0
  expect 2 "--format" "$tool" model new --format onnx
  expect 2 "--format" "$tool" model new --format gguf:Q9_9
  expect 1 "none: cannot open: No such file" "$tool" none new
  expect 1 "no tensor is named like *.mpl.*" "$tool" model new --exclude '*.mpl.*'
  expect 1 "nothing in it would be quantized" "$tool" model new --exclude '*'
  expect 1 "none/new.partial: cannot create: No such file" "$tool" model none/new

  echo "no model" >garbage
  expect 1 "garbage: is no model that is understood" "$tool" garbage new
  mkdir empty
  expect 1 "empty: is no model that is understood" "$tool" empty new
  mkdir damaged
  cp model/* damaged
  head -c 1000 model/model-00002-of-00003.safetensors >damaged/model-00002-of-00003.safetensors
  expect 1 "damaged/model-00002-of-00003.safetensors" "$tool" damaged new
  rm damaged/model-00002-of-00003.safetensors
  expect 1 "damaged/model-00002-of-00003.safetensors: cannot open" "$tool" damaged new

  if [ "$(id -u)" != 0 ]; then # nothing is read-only to root
    mkdir -m 555 locked
    expect 1 "locked/new.partial: cannot create: Permission denied" "$tool" model locked/new
  fi
  mkdir new.partial
  echo mine >new.partial/notes.txt
  run new --include '*.0.mlp.up_proj.*'
  [ "$(cat new.partial/notes.txt)" = mine ] || fail "somebody else's file was touched"
}

# In the metric of what the layers read.
metric() {
  few="--metric-texts 2 --metric-tokens 24"
  own() {
    to=$1
    shift
    "$program" model "$to" $few "$@" >out 2>&1 || fail "$to $*: $(cat out)"
  }
  own own --recipe smallest --bits 4 --save-metric saved
  head -n 1 out | grep -q "^metric: the model's own text, 2 x 24 tokens, seed 0, .* on the disk" ||
    fail "the first line is $(head -n 1 out)"
  grep -q "writing texts 100%" out && grep -q "reading them 100%" out || fail "no progress: $(cat out)"
  grep -q "trellis.* column" out || fail "no columns in $(cat out)"
  own one --recipe smallest --bits 4 --threads 1
  same own one
  # What was kept serves again, and alone.
  "$program" model kept --recipe smallest --bits 4 --metric saved >out 2>&1 || fail "$(cat out)"
  grep -q "^metric: inputs in saved" out || fail "the first line is $(head -n 1 out)"
  same own kept
  own random --recipe smallest --bits 4 --metric random
  own diagonal --recipe smallest --bits 4 --metric-diagonal
  own seeded --recipe smallest --bits 4 --seed 1
  run none --recipe smallest --bits 4
  for other in random diagonal seeded none; do
    if cmp -s own $other; then fail "own and $other are the same"; fi
  done
  "$program" model --dry-run $few >out
  grep -q "^metric: the model's own" out && grep -q "query .*affine4" out || fail "$(cat out)"
  "$program" model --dry-run --json $few >json
  [ "$(value steps 0 in_metric)" = ON ] || fail "in_metric is $(value steps 0 in_metric)"

  # Types of GGUF in it.
  own own.gguf --format gguf:Q4_0
  grep -q "writing texts" out || fail "$(cat out)"
  run none.gguf --format gguf:Q4_0 --no-pairs
  [ "$(wc -c <own.gguf)" = "$(wc -c <none.gguf)" ] || fail "sizes of GGUF files differ"
  if cmp -s own.gguf none.gguf; then fail "GGUF blocks do not mind the metric"; fi

  # Nothing to do for it.
  own rtn --recipe rtn
  if grep -q "writing texts" out; then fail "$(cat out)"; fi
  own rtn --recipe rtn --metric own --overwrite
  grep -q "^metric: none: what is asked for" out || fail "$(cat out)"
  expect 2 "--save-metric" "$program" model new --metric none --save-metric it
  expect 1 "nowhere: cannot open" "$program" model new --metric nowhere

  # Bits by what errors cost.
  own even --recipe smallest --target-bits 3.5 --metric saved
  own spread --recipe smallest --target-bits 3.5 --metric saved --sensitivities own \
    --save-sensitivities costs
  grep -q "disturbing matrices 100%" out && grep -q "choosing bits 100%" out || fail "$(cat out)"
  grep -q "^expected KL divergence" out || fail "nothing is expected: $(cat out)"
  if cmp -s even spread; then fail "bits do not mind sensitivities"; fi
  own again --recipe smallest --target-bits 3.5 --metric saved --sensitivities costs
  same spread again
  own blocks.gguf --format gguf:Q4_0 --target-bits 5.2 --sensitivities costs --fused-alike
  grep -q "^expected KL divergence" out || fail "nothing is expected: $(cat out)"
  "$program" model --dry-run $few --json --bits 3 --sensitivities own >json
  [ "$(value expected_loss)" != "" ] || fail "no expected_loss"
  if ls | grep -q partial; then fail "a dry run has left $(ls)"; fi
  mkdir temporary
  TMPDIR=$PWD/temporary "$program" model --dry-run --metric-texts 2000 --sensitivities own \
    >slow.out 2>&1 &
  until grep -q "writing" slow.out; do sleep 0.01; done
  kill $!
  status=0
  wait $! || status=$?
  [ $status = 130 ] || fail "an interrupted dry run ends with $status"
  rmdir temporary || fail "an interrupted dry run has left $(find temporary)"
  expect 2 "--save-sensitivities" "$program" model new --sensitivities costs --save-sensitivities it
  expect 1 "nowhere: cannot open" "$program" model new --metric none --sensitivities nowhere

  # An architecture that the engine does not know: weights alone, unless a metric was asked for.
  cp -r model zebra
  sed 's/llama/zebra/; s/LlamaForCausalLM/ZebraForCausalLM/' model/config.json >zebra/config.json
  "$program" zebra new >out 2>&1 || fail "$(cat out)"
  grep -q "^metric: none, weights alone: .*zebra" out || fail "the first line is $(head -n 1 out)"
  expect 1 "zebra" "$program" zebra asked --metric own
}
$what
