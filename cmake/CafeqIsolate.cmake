# cmake "-DUNIT=in.o;..." -DRESULT=out.o -DSECTION=name -DLINKER=ld -DOBJCOPY=objcopy -DNM=nm
# -P CafeqIsolate.cmake
#
# Objects and archives as one object file that shares no code with the rest of a program: COMDAT
# groups are dissolved, so that the linker cannot take another object's copy for this one's or the
# other way round, all code goes to a section of its own, and of the symbols only data without the
# address of a function stays global. That is
#   - the tables, cafeq::Dispatched<...>::table, which have such addresses and are of one
#     architecture by name,
#   - what a program has once, cafeq::process_wide,
#   - the descriptions of types, so that a type is the same on both sides of an exception.
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

set(table "_ZN5cafeq10DispatchedI[^\n ]*E5tableE")
set(shared "_ZN5cafeq12process_wide[^\n ]*|_ZT[IS][^\n ]*")

file(WRITE ${RESULT}.ld "SECTIONS { ${SECTION} : { *(.text .text.*) } }\n")
run(${LINKER} -r --force-group-allocation -T ${RESULT}.ld -o ${RESULT} ${UNIT})
run(${OBJCOPY} --wildcard --keep-global-symbol=_ZN5cafeq10DispatchedI*E5tableE
    --keep-global-symbol=_ZN5cafeq12process_wide* --keep-global-symbol=_ZT[IS]* ${RESULT})

run(${NM} --defined-only --extern-only ${RESULT})
string(REGEX REPLACE "[0-9a-f]+ [BDRVu] (${table}|${shared})\n" "" others "${output}")
if(NOT others STREQUAL "")
  message(FATAL_ERROR
          "cafeq: ${RESULT} still shares these symbols with the rest of the program:\n${others}")
endif()
if(NOT output MATCHES " ${table}\n")
  message(FATAL_ERROR "cafeq: ${UNIT} define no table of functions (cafeq::Dispatched)")
endif()

# A constructor of a static object would run on every processor.
run(${NM} --defined-only ${RESULT})
if(output MATCHES "_GLOBAL__(sub_)?[ID][^\n]*")
  message(FATAL_ERROR "cafeq: ${RESULT} runs code before a table is chosen: ${CMAKE_MATCH_0}; no "
          "object of namespace scope may need a constructor (<iostream> has one; Eigen has some "
          "at -O0)")
endif()
