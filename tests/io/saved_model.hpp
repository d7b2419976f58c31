/// A family's model as files.
#pragma once

#include <string>

#include "cafeq/io/safetensors.hpp"
#include "io/temporary_directory.hpp"
#include "model/memory_model.hpp"

namespace cafeq::test {

/// As Hugging Face lays it out.
inline void save_model(const Family& family, const TemporaryDirectory& directory,
                       const std::string& name) {
  const MemoryModel model(family);
  directory.write(name + "/config.json", family.config);
  TensorViewMap views;
  for (const TensorInfo& info : model.tensors())
    views.emplace(info.name, model.load(info.name).view);
  write_safetensors(directory / (name + "/model.safetensors"), views, {{"format", "pt"}});
}

}  // namespace cafeq::test
