/// The part that the writers of all formats share: a file whose size and places are known before
/// the first tensor is.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "cafeq/io/file.hpp"
#include "cafeq/io/named_list.hpp"

namespace cafeq {

/// Writes one tensor after the other to places fixed in advance, so that memory never holds more of
/// the file than the caller does. The file appears whole or not at all: under a temporary name,
/// synced, then renamed over its target by commit().
///
/// Every error ends the writer, leaves nothing behind and the target as it was: invalid_argument
/// for a tensor that was not declared, has another size, comes twice or is missing at commit(); io
/// where the file cannot be written.
class TensorFileWriter {
 public:
  /// All bytes of one tensor, in any order of tensors.
  void write(std::string_view name, std::span<const std::byte> bytes) {
    Slot* slot = slots_.find(name);
    if (slot == nullptr) fail(name, "was not declared");
    if (slot->written) fail(name, "is written twice");
    if (Index(bytes.size()) != slot->bytes)
      fail(name, message("has ", bytes.size(), " bytes, declared were ", slot->bytes));
    file_.write_at(data_offset_ + slot->offset, bytes);
    slot->written = true;
  }

  /// The first half of commit(): the content is complete and on the disk, and the target still as
  /// it was. Several files can so be finished before the first one appears.
  void finish() {
    for (const Slot& slot : slots_)
      if (!slot.written) fail(slot.name, "was not written");
    file_.finish();
  }
  /// Gives the file its name.
  void commit() {
    finish();
    file_.commit();
  }

 protected:
  /// The place of a tensor.
  struct Slot {
    std::string name;
    Index offset;  // in the data
    Index bytes;
    bool written = false;
  };
  /// What a file consists of: a header, and behind it the data. What no slot covers is zero.
  struct Layout {
    std::string header;
    detail::NamedList<Slot> slots{};
    Index data_bytes = 0;

    /// Places a tensor behind the others and returns its offset in the data.
    Index append(const std::string& name, Index bytes) {
      constexpr Index most = Index(1) << 62;
      const Index offset = data_bytes;
      if (bytes < 0 || bytes > most - offset)
        raise(ErrorCode::invalid_argument,
              message("tensor ", name, " of ", bytes, " bytes at byte ", offset,
                      " does not fit a file"));

      data_bytes += bytes;
      if (!slots.add({name, offset, bytes}))
        raise(ErrorCode::invalid_argument, message("tensor ", name, " is declared twice"));
      return offset;
    }
    /// Of the whole file.
    Index file_bytes() const noexcept { return Index(header.size()) + data_bytes; }
    /// What comes next starts at a multiple of `step`.
    void pad(Index step) { data_bytes += (step - data_bytes % step) % step; }
  };

  TensorFileWriter(const std::string& path, Layout layout)
      : file_(path), slots_(std::move(layout.slots)), data_offset_(Index(layout.header.size())) {
    file_.write(std::as_bytes(std::span(layout.header)));
    file_.resize(data_offset_ + layout.data_bytes);
  }

 private:
  [[noreturn]] void fail(std::string_view name, std::string_view problem) {
    file_.discard();
    raise(ErrorCode::invalid_argument, message("tensor ", name, " ", problem));
  }

  AtomicFile file_;
  detail::NamedList<Slot> slots_;
  Index data_offset_;
};

}  // namespace cafeq
