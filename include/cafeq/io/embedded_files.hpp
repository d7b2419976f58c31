/// What a file in cafeq's own format carries beside the weights. Internal.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "cafeq/io/gguf_model.hpp"
#include "cafeq/io/model_file.hpp"

namespace cafeq::detail {

/// A file that is to be carried: one that lies somewhere, or what is in memory.
struct EmbeddedFile {
  std::string name;
  std::string path{};     // empty where the content is here
  std::string content{};  // else

  Index bytes() const {
    return path.empty() ? Index(content.size()) : Index(std::filesystem::file_size(path));
  }
  std::string tensor() const { return message(file_prefix, name); }
};

/// All that a model needs beside its tensors: the companions of a Hugging Face model, or the fields
/// of GGUF. `tokenizer` is that of a llama2.c checkpoint, which has none itself. Raises
/// invalid_argument where the model has one, or where nothing says what it is.
inline std::vector<EmbeddedFile> embedded_files(const ModelFile& model,
                                                const std::string& tokenizer) {
  if (model.format() == ModelFormat::gguf || model.format() == ModelFormat::llama2c)
    return {{.name = std::string(gguf_metadata_file),
             .content = GgufWriter::without_tensors(to_gguf_model(model, tokenizer).metadata)}};

  if (!tokenizer.empty())
    raise(ErrorCode::invalid_argument,
          message(model.path(), ": ", tokenizer, " is not taken: only a llama2.c checkpoint has ",
                  "no tokenizer beside it"));
  std::vector<EmbeddedFile> files;
  for (const std::string& path : model.companions())
    files.push_back({.name = std::string(name_in_directory(path)), .path = path});
  return files;
}

}  // namespace cafeq::detail
