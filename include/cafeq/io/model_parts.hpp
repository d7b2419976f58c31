/// The results of a plan's jobs on their way into a file: each is kept in a file of its own until all are there, so that nothing that was done
/// is done again after an interruption.
#pragma once

#include <sys/stat.h>

#include <cmath>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "cafeq/io/open_model.hpp"
#include "cafeq/io/quantized_file.hpp"
#include "cafeq/model/quantize_model.hpp"

namespace cafeq {

/// A directory of parts. It belongs to one plan: `fingerprint` tells plans apart.
class PartStore {
 public:
  enum class Start {
    fresh,   ///< the directory must not exist
    resume,  ///< or it has parts of the same plan, which count
    anew,    ///< or what is in it goes
  };

  PartStore(std::string directory, const std::string& fingerprint, Start start);

  const std::string& directory() const noexcept { return directory_; }
  std::string path(std::size_t job) const { return message(directory_, "/", job, ".part"); }
  bool has(std::size_t job) const noexcept { return detail::kind_of(path(job)) == S_IFREG; }
  /// Removes all of it.
  void remove() noexcept;

 private:
  static constexpr const char* plan_name = "/plan";
  std::string directory_;
};

/// Of a model's own tensors as its file holds them, whatever their elements; block formats are decoded to fp32.
inline LoadedTensor stored_tensor(const ModelFile& model, std::string_view name) {
  if (const auto* file = model.as<SafetensorsModel>()) return {file->tensor(name).view};
  return model.load(name);
}

/// The tensors of a job with Ŵ in place of W, in the elements that they have in the model's file.
inline TensorMap rebuilt_tensors(const ModelFile& model, const Plan& plan, const Job& job, const JobResult& result, ExecutorRef executor = {});

inline PartStore::PartStore(std::string directory, const std::string& fingerprint, Start start) : directory_(std::move(directory)) {
  const bool exists = detail::kind_of(directory_) != 0;
  if (exists && start == Start::fresh)
    raise(ErrorCode::invalid_argument, message(directory_, ": is there already, with what an interrupted run has done; resume it, or overwrite it"));
  if (exists && start == Start::resume) {
    const auto bytes = read_file(directory_ + plan_name);
    if (std::string_view(reinterpret_cast<const char*>(bytes.data()), bytes.size()) == fingerprint) return;
    raise(ErrorCode::invalid_argument, message(directory_, ": belongs to another plan or another model; resume with the options it was begun with, or overwrite it"));
  }
  if (exists) remove();
  if (::mkdir(directory_.c_str(), 0777) != 0) detail::raise_system(directory_, "create", errno);
  AtomicFile file(directory_ + plan_name);
  file.write(std::as_bytes(std::span(fingerprint)));
  file.commit();
}

inline void PartStore::remove() noexcept {
  if (const std::unique_ptr<DIR, int (*)(DIR*)> stream(::opendir(directory_.c_str()), ::closedir); stream != nullptr)
    while (const dirent* entry = ::readdir(stream.get())) ::unlink((directory_ + "/" + entry->d_name).c_str());
  ::rmdir(directory_.c_str());
}

namespace detail {

/// The part of a tensor that a matrix is, as [out, in].
template <class T>
View<T> matrix_in(T* data, const std::vector<Index>& shape, const MatrixPlace& place) noexcept {
  const Index rows = shape[shape.size() - 2], cols = shape.back();
  const View<T> tensor{data + std::max<Index>(0, place.slice) * rows * cols, rows, cols, cols, 1};
  return (place.transposed ? tensor.transposed() : tensor).row_block(place.begin, place.out);
}

/// Ŵ, in any elements and strides.
template <class T>
void dequantize(const QuantizedMatrix& part, View<T> out, ExecutorRef executor) {
  if (const auto* quantized = std::get_if<AnyQuantized>(&part.quantized)) return quantized->dequantize(out, executor);
  const auto& blocks = std::get<GgufMatrix>(part.quantized);
  executor.parallel_for(blocks.rows, 16, [&](Index begin, Index end, Index) {
    Matrix<float> row(1, blocks.cols);
    for (Index i = begin; i < end; ++i) {
      gguf::dequantize_row(blocks.type, blocks.row(i), row.view().row(0));
      copy(View<const float>(row.view()), out.row_block(i, 1));
    }
  });
}

template <class F>
void with_mutable_elements(Tensor& tensor, std::string_view name, F&& f) {
  with_elements(tensor.view(), name, [&](auto elements) {
    using T = std::remove_const_t<typename decltype(elements)::element_type>;
    f(std::span<T>(reinterpret_cast<T*>(tensor.bytes.data()), elements.size()));
  });
}

}  // namespace detail

inline TensorMap rebuilt_tensors(const ModelFile& model, const Plan& plan, const Job& job, const JobResult& result, ExecutorRef executor) {
  TensorMap tensors;
  for (const std::string& name : job.tensors) {
    const LoadedTensor loaded = model.load(name);
    tensors.emplace(name, Tensor{loaded.view.type, loaded.view.shape, Buffer<std::byte>(loaded.view.bytes.begin(), loaded.view.bytes.end())});
  }
  for (const auto& part : result.matrices) {
    const MatrixPlace& place = plan.place(part.matrix);
    Tensor& tensor = tensors.at(place.tensor);
    detail::with_mutable_elements(tensor, place.tensor,
                                  [&](auto elements) { detail::dequantize(part, detail::matrix_in(elements.data(), tensor.shape, place), executor); });
  }
  for (const auto& [matrix, values] : result.biases) {
    const BiasPlace& place = *plan.roles.matrices[matrix].bias;
    Tensor& tensor = tensors.at(place.tensor);
    detail::with_mutable_elements(tensor, place.tensor, [&](auto elements) {
      using T = typename decltype(elements)::element_type;
      const Index begin = std::max<Index>(0, place.slice) * tensor.shape.back() + place.begin;
      for (std::size_t i = 0; i < values.size(); ++i) elements[std::size_t(begin) + i] = T(values[i]);
    });
  }
  return tensors;
}

}  // namespace cafeq
