// A model in memory, for what takes any ModelReader.
#pragma once

#include <cmath>
#include <map>
#include <set>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "cafeq/core/rng.hpp"
#include "cafeq/io/json_config.hpp"
#include "cafeq/model/model.hpp"
#include "model/families.hpp"

namespace cafeq::test {

class MemoryModel {
 public:
  explicit MemoryModel(ModelConfig config = {}) : config_(std::move(config)) {}
  /// A family's tensors with normal numbers in them; rows differ in size, so that pairs are out of
  /// balance.
  explicit MemoryModel(const Family& family, std::uint64_t seed = 0)
      : config_(config_from_json(family.config)) {
    for (const TensorInfo& info : family.tensors) {
      const auto type = scalar_type_named(info.type);
      const CounterRng rng(seed, stream_of(info.name));
      std::vector<double> values(std::size_t(*element_count(info.shape)));
      for (std::size_t i = 0; i < values.size(); ++i)
        values[i] = std::ldexp(rng.normal(i), int(i / std::size_t(info.shape.back()) % 5));
      if (*type == ScalarType::bf16) add<bf16>(info.name, info.shape, values);
      else if (*type == ScalarType::f16) add<fp16>(info.name, info.shape, values);
      else if (*type == ScalarType::f32) add<float>(info.name, info.shape, values);
      else add<std::int64_t>(info.name, info.shape, values);
    }
  }

  template <class T>
  void add(const std::string& name, std::vector<Index> shape, const std::vector<double>& values) {
    Tensor tensor{scalar_type_of<T>, shape, Buffer<std::byte>(values.size() * sizeof(T))};
    for (std::size_t i = 0; i < values.size(); ++i)
      reinterpret_cast<T*>(tensor.bytes.data())[i] = element<T>(values[i]);
    infos_.push_back({.name = name,
                      .type = std::string(name_of(tensor.type)),
                      .shape = std::move(shape),
                      .bytes = Index(tensor.bytes.size()),
                      .loadable = is_element(tensor.type)});
    tensors_.emplace(name, std::move(tensor));
  }

  std::span<const TensorInfo> tensors() const noexcept { return infos_; }
  const ModelConfig& config() const noexcept { return config_; }
  LoadedTensor load(std::string_view name) const { return {tensors_.find(name)->second.view()}; }
  void release(std::string_view name) const { released_.emplace(name); }
  const std::set<std::string>& released() const noexcept { return released_; }

 private:
  template <class T>
  static T element(double value) {
    if constexpr (std::is_same_v<T, double> || std::is_integral_v<T>) return T(value);
    else return T(float(value));
  }

  ModelConfig config_;
  std::vector<TensorInfo> infos_;
  std::map<std::string, Tensor, std::less<>> tensors_;
  mutable std::set<std::string> released_;
};

}  // namespace cafeq::test
