// simdjson's first stage: where the tokens of a JSON text begin.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "simdjson.h"

namespace mdc {

// Where the tokens of one text begin: simdjson's first stage. Owns the memory for it.
class JsonIndex {
 public:
  static constexpr size_t BYTES_MAX = size_t(16) << 20;  // a websocket message is no larger, the transport refuses it
  static constexpr size_t BYTES_AT_FIRST = size_t(64) << 10;

  JsonIndex() noexcept {
    // Depth is for simdjson's own second stage, which is not used.
    usable_ = simdjson::get_active_implementation()->create_dom_parser_implementation(BYTES_AT_FIRST, 1, stage1_) == simdjson::SUCCESS;
  }

  bool usable() const noexcept { return usable_; }

  // False: not JSON as far as this stage sees. Reads nothing behind `size`. Allocates for a larger text than any before.
  bool build(const char* text, size_t size) noexcept {
    if (size == 0 || size > BYTES_MAX) return false;
    if (size > stage1_->capacity() && !enlarge(size)) return false;
    if (stage1_->stage1(reinterpret_cast<const uint8_t*>(text), size, simdjson::stage1_mode::regular) != simdjson::SUCCESS) return false;
    stage1_->structural_indexes[stage1_->n_structural_indexes] = uint32_t(size);  // simdjson allocates room for it
    return true;
  }

  // One for each token, and the size of the text behind the last.
  const uint32_t* begins() const noexcept { return stage1_->structural_indexes.get(); }
  uint32_t count() const noexcept { return stage1_->n_structural_indexes; }

 private:
  bool enlarge(size_t size) noexcept {
    size_t capacity = BYTES_AT_FIRST;
    while (capacity < size) capacity *= 2;
    return stage1_->set_capacity(capacity) == simdjson::SUCCESS;
  }

  std::unique_ptr<simdjson::internal::dom_parser_implementation> stage1_;
  bool usable_ = false;
};

}  // namespace mdc
