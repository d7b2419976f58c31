# cmake -DSOURCE=file.cpp -P expect_error.cmake -- compiler and its flags
cmake_minimum_required(VERSION 3.21)

set(command)
set(begun FALSE)
math(EXPR last "${CMAKE_ARGC} - 1")
foreach(i RANGE ${last})
  if(begun)
    list(APPEND command ${CMAKE_ARGV${i}})
  elseif(CMAKE_ARGV${i} STREQUAL "--")
    set(begun TRUE)
  endif()
endforeach()

file(STRINGS ${SOURCE} expected LIMIT_COUNT 1 REGEX "^// expect: ")
string(REPLACE "// expect: " "" expected "${expected}")
if(NOT expected)
  message(FATAL_ERROR "${SOURCE} has no line `// expect: <regular expression>`")
endif()

execute_process(COMMAND ${command} ${SOURCE} RESULT_VARIABLE status ERROR_VARIABLE errors
                OUTPUT_VARIABLE errors)
if(NOT status EQUAL 0)
  message(FATAL_ERROR "Must compile without CAFEQ_MISUSE, but:\n${errors}")
endif()
execute_process(COMMAND ${command} -DCAFEQ_MISUSE ${SOURCE} RESULT_VARIABLE status
                ERROR_VARIABLE errors OUTPUT_VARIABLE errors)
if(status EQUAL 0)
  message(FATAL_ERROR "Compiles with CAFEQ_MISUSE")
endif()
if(NOT errors MATCHES "${expected}")
  message(FATAL_ERROR
          "Fails with CAFEQ_MISUSE, but without `${expected}` in its messages:\n${errors}")
endif()
