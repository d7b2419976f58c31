# cmake -DFILE=… -DKEY="a;0;b" -P value.cmake: prints what a JSON file has there. Fails where the
# file is anything but JSON.
file(READ ${FILE} text)
string(JSON value GET "${text}" ${KEY})
execute_process(COMMAND ${CMAKE_COMMAND} -E echo "${value}")
