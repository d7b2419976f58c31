# cmake -DPROGRAM=… -DDIRECTORY=… -P refuses.cmake: the demo must end with an error, name what is
# wrong and leave no result behind.
function(expect_refusal message)
  file(REMOVE_RECURSE ${DIRECTORY}/output)
  execute_process(COMMAND ${ARGN} --output ${DIRECTORY}/output RESULT_VARIABLE status
                  OUTPUT_VARIABLE out ERROR_VARIABLE err)
  if(status EQUAL 0)
    message(FATAL_ERROR "succeeded: ${ARGN}")
  endif()
  if(NOT "${out}${err}" MATCHES "${message}")
    message(FATAL_ERROR "'${message}' is not in the answer of ${ARGN}:\n${out}${err}")
  endif()
  file(GLOB left ${DIRECTORY}/output/*)
  if(left)
    message(FATAL_ERROR "left behind: ${left}")
  endif()
endfunction()

file(REMOVE_RECURSE ${DIRECTORY})
file(MAKE_DIRECTORY ${DIRECTORY}/empty ${DIRECTORY}/corrupt)
expect_refusal("layer9.qkv" ${PROGRAM} --builtin --only layer9.qkv)
expect_refusal("--bits" ${PROGRAM} --builtin --bits 7)
expect_refusal("--threads" ${PROGRAM} --builtin --threads 0)
expect_refusal("--model" ${PROGRAM} --builtin --model ${DIRECTORY}/empty)
expect_refusal("${DIRECTORY}/empty" ${PROGRAM} --model ${DIRECTORY}/empty)
file(WRITE ${DIRECTORY}/corrupt/vocab.json "[[\"a\", -1.0]")
expect_refusal("vocab.json" ${PROGRAM} --model ${DIRECTORY}/corrupt)

# A cache that holds something else is left alone; a registry that cannot be reached leads to the
# generated model.
file(WRITE ${DIRECTORY}/foreign/notes.txt "mine")
set(ENV{CAFEQ_MODEL_DIR} ${DIRECTORY}/foreign)
expect_refusal("fetch-model" ${PROGRAM})
if(NOT EXISTS ${DIRECTORY}/foreign/notes.txt)
  message(FATAL_ERROR "the directory of somebody else was touched")
endif()
set(ENV{CAFEQ_MODEL_DIR} ${DIRECTORY}/none)
set(ENV{npm_config_registry} "http://127.0.0.1:9/")
execute_process(COMMAND ${PROGRAM} --only layer0.o --bits 2 --paper-steps 0
                        --output ${DIRECTORY}/output
                RESULT_VARIABLE status OUTPUT_VARIABLE out ERROR_VARIABLE err)
if(NOT status EQUAL 0 OR NOT err MATCHES "cannot be reached"
   OR NOT EXISTS ${DIRECTORY}/output/result.json)
  message(FATAL_ERROR "without a registry: ${status}\n${out}${err}")
endif()

# A disk that fills up: a limit on the size of files stands in for it.
file(REMOVE_RECURSE ${DIRECTORY}/output)
execute_process(COMMAND sh -c "trap '' XFSZ; ulimit -f 8; exec \"$@\"" sh ${PROGRAM} --builtin
                        --only layer0.o --bits 2 --paper-steps 0 --output ${DIRECTORY}/output
                RESULT_VARIABLE status OUTPUT_VARIABLE out ERROR_VARIABLE err)
file(GLOB left ${DIRECTORY}/output/*)
if(status EQUAL 0 OR NOT err MATCHES "quantized.safetensors" OR left)
  message(FATAL_ERROR "full disk: status ${status}, left '${left}'\n${out}${err}")
endif()
