// Writes small TensorFlow.js models.
#pragma once
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "io/temporary_directory.hpp"

namespace cafeq::test {

struct TfjsTensor {
  std::string name;
  std::string dtype;
  std::vector<Index> shape;
  std::string bytes;
};

/// One entry of the manifest, its bytes cut into shards of `shard_size`.
inline nlohmann::json tfjs_manifest(const TemporaryDirectory& directory,
                                    const std::vector<TfjsTensor>& tensors,
                                    std::size_t shard_size) {
  std::string bytes;
  nlohmann::json weights = nlohmann::json::array();
  for (const auto& tensor : tensors) {
    weights.push_back({{"name", tensor.name}, {"dtype", tensor.dtype}, {"shape", tensor.shape}});
    bytes += tensor.bytes;
  }
  nlohmann::json paths = nlohmann::json::array();
  for (std::size_t begin = 0; begin < bytes.size(); begin += shard_size) {
    const std::string name = message("shard", begin / shard_size);
    directory.write(name, std::string_view(bytes).substr(begin, shard_size));
    paths.push_back(name);
  }
  return {{"weightsManifest", {{{"paths", paths}, {"weights", weights}}}}};
}

}  // namespace cafeq::test
