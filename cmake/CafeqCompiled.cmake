# cafeq::compiled: what most programs would compile themselves, compiled once (include/cafeq/compiled).
# It is built as part of the project that links it, so that its flags are that project's, and not at
# all where nothing does. CAFEQ_COMPILED_OPTIONS, a list, is set before for options that the
# project's own targets have, such as -march=x86-64-v3; the linker misses
# cafeq::compiled::BuiltFor<…> where the two do not go together.

if(TARGET cafeq_compiled)
  return()
endif()

# cafeq_compiled_source(<name> [<list that others compile> ...])
function(cafeq_compiled_source name)
  set(text "")
  foreach(header ${ARGN})
    string(APPEND text "#include \"cafeq/${header}.hpp\"\n")
  endforeach()
  string(APPEND text "#include \"cafeq/compiled/instance.hpp\"\n"
         "#undef CAFEQ_INSTANCE\n#define CAFEQ_INSTANCE template\n"
         "#include \"cafeq/compiled/${name}_instances.hpp\"\n")
  set(file ${CMAKE_BINARY_DIR}/cafeq_compiled/${name}.cpp)
  file(CONFIGURE OUTPUT ${file} CONTENT "${text}" @ONLY)
  target_sources(cafeq_compiled PRIVATE ${file})
endfunction()

# cafeq_add_compiled(<target> [<source> ...])
function(cafeq_add_compiled target)
  add_library(${target} STATIC EXCLUDE_FROM_ALL ${ARGN})
  target_link_libraries(${target} PUBLIC cafeq::cafeq
                                         $<TARGET_NAME_IF_EXISTS:nlohmann_json::nlohmann_json>)
  target_compile_definitions(${target} PUBLIC CAFEQ_COMPILED=1)
  target_compile_options(${target} PRIVATE ${CAFEQ_COMPILED_OPTIONS})
  set_target_properties(${target} PROPERTIES POSITION_INDEPENDENT_CODE ON UNITY_BUILD OFF)
endfunction()

# cafeq_compiled_for(<variable> <architecture>): the target that all dispatched units of the build
# link for that architecture. Where the property CAFEQ_ARCH of cafeq_compiled says that its flags
# are those already, it is this one.
function(cafeq_compiled_for variable arch)
  get_target_property(compiled_arch cafeq_compiled CAFEQ_ARCH)
  set(target cafeq_compiled_${arch})
  if(compiled_arch STREQUAL arch)
    set(target cafeq_compiled)
  elseif(NOT TARGET ${target})
    get_target_property(sources cafeq_compiled SOURCES)
    cafeq_add_compiled(${target} ${sources})
    cafeq_compile_for(${target} ${arch})
  endif()
  set(${variable} ${target} PARENT_SCOPE)
endfunction()

cafeq_add_compiled(cafeq_compiled)
add_library(cafeq::compiled ALIAS cafeq_compiled)

file(CONFIGURE OUTPUT ${CMAKE_BINARY_DIR}/cafeq_compiled/built_for.cpp CONTENT
"#include \"cafeq/compiled/built_for.hpp\"
namespace cafeq::compiled {
template <class Arch, bool Exceptions>
const int BuiltFor<Arch, Exceptions>::mark = 0;
template struct BuiltFor<DefaultArch, CAFEQ_EXCEPTIONS>;
}  // namespace cafeq::compiled
" @ONLY)
target_sources(cafeq_compiled PRIVATE ${CMAKE_BINARY_DIR}/cafeq_compiled/built_for.cpp)

set(below compiled/eigen_instances compiled/product_instances)
cafeq_compiled_source(eigen linalg/eigen)
cafeq_compiled_source(product compiled/eigen_instances)
foreach(name fast hadamard learned pairs paper smallest)
  cafeq_compiled_source(${name} ${below})
endforeach()
cafeq_compiled_source(paper_pairs ${below} compiled/pairs_instances)
cafeq_compiled_source(recipes compiled/instances)
cafeq_compiled_source(gguf compiled/instances)
cafeq_compiled_source(run compiled/gguf_instances compiled/recipes_instances)
unset(below)
