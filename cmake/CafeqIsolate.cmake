# cmake -DUNIT=in.o -DRESULT=out.o -DSYMBOL=kept -DSECTION=name -DLINKER=ld -DOBJCOPY=objcopy
# -DNM=nm -P CafeqIsolate.cmake
#
# A copy of an object file that shares nothing with the rest of a program but SYMBOL: COMDAT groups
# are dissolved, so that the linker cannot take another object's copy for this one's or the other
# way round, every other symbol becomes local, and all code goes to a section of its own.
cmake_minimum_required(VERSION 3.21)

function(run)
  execute_process(COMMAND ${ARGV} RESULT_VARIABLE status ERROR_VARIABLE text OUTPUT_VARIABLE output)
  if(NOT status EQUAL 0)
    string(REPLACE ";" " " command "${ARGV}")
    message(FATAL_ERROR
            "cafeq: cannot keep ${UNIT} apart from the rest of the program:\n${command}\n${text}")
  endif()
  set(output "${output}" PARENT_SCOPE)
endfunction()

file(WRITE ${RESULT}.ld "SECTIONS { ${SECTION} : { *(.text .text.*) } }\n")
run(${LINKER} -r --force-group-allocation -T ${RESULT}.ld -o ${RESULT} ${UNIT})
run(${OBJCOPY} --keep-global-symbol=${SYMBOL} ${RESULT})

run(${NM} --defined-only --extern-only ${RESULT})
string(REGEX REPLACE "[^\n]* ([^\n ]+)\n" "\\1;" symbols "${output}")
if(NOT symbols STREQUAL "${SYMBOL};")
  message(FATAL_ERROR
          "cafeq: ${RESULT} still shares these symbols with the rest of the program: ${symbols}")
endif()

# A constructor of a static object would run on every processor.
run(${NM} --defined-only ${RESULT})
if(output MATCHES "_GLOBAL__(sub_)?[ID][^\n]*")
  message(FATAL_ERROR "cafeq: ${RESULT} runs code before a table is chosen: ${CMAKE_MATCH_0}")
endif()
