// JSON read strictly, in place, without an allocation per document.
//
// simdjson's first stage finds where tokens begin, and checks UTF-8, control characters and open strings, with the
// best instructions this machine has. The walk over those beginnings checks all the rest of RFC 8259: simdjson's On-Demand
// front end leaves what it skips unchecked (docs/decisions/0004-strict-json.md).
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "simdjson.h"

namespace mdc {

enum TokenKind : uint8_t { STRING = '"', OBJECT = '{', ARRAY = '[', NUMBER = '0', TRUE_ = 't', FALSE_ = 'f', NULL_ = 'n' };

// A value where it stands. Strings: what is between the quotes, as written. Objects and arrays: their bracket.
struct Token {
  const char* text;
  uint32_t size;
  uint8_t kind;
  bool escaped;  // a string with at least one backslash
};

// A place in an indexed text. A small value: walk with a local copy, which the compiler then keeps in registers.
class JsonCursor {
 public:
  static constexpr int DEPTH_MAX = 64;

  JsonCursor() noexcept = default;
  // `begins`, `count`: what json_index made of the same text.
  JsonCursor(const uint32_t* begins, uint32_t count, const char* text, size_t size) noexcept
      : text_(text), begins_(begins), count_(count), backslashes_(std::memchr(text, '\\', size) != nullptr) {}

  // True: an object begins here, and the cursor is in it.
  simdjson_inline bool enter_object() noexcept {
    if (current() != '{') return false;
    if (++depth_ > DEPTH_MAX) return fail();
    ++position_;
    return true;
  }

  // The next key of the object the cursor is in, its value comes next. False: the object ended, or the text is broken.
  simdjson_inline bool next_field(Token* key) noexcept {
    char next = current();
    if (next == '}') {
      --depth_;
      ++position_;
      return false;
    }
    if (text_[begins_[position_ - 1]] != '{') {
      if (next != ',') return fail();
      ++position_;
      next = current();
    }
    if (next != '"' || !string(key)) return fail();
    if (current() != ':') return fail();
    ++position_;
    return true;
  }

  // True: an array begins here, and the cursor is in it.
  simdjson_inline bool enter_array() noexcept {
    if (current() != '[') return false;
    if (++depth_ > DEPTH_MAX) return fail();
    ++position_;
    return true;
  }

  // Whether the array the cursor is in has a further element, which comes next. False: it ended, or the text is broken.
  simdjson_inline bool next_element() noexcept {
    const char next = current();
    if (next == ']') {
      --depth_;
      ++position_;
      return false;
    }
    if (text_[begins_[position_ - 1]] == '[') return position_ < count_ || fail();
    if (next != ',') return fail();
    ++position_;
    return current() != ']' || fail();
  }

  // Any value, checked to its end. False: the text is broken.
  simdjson_inline bool value(Token* token) noexcept {
    const char first = current();
    if (first == '"') return string(token);
    if (first == '{' || first == '[') {
      *token = Token{text_ + begins_[position_], 1, uint8_t(first), false};
      *this = behind_container(*this);
      return !broken_;
    }
    return scalar(token);
  }

  // Something that was walked over is no JSON.
  bool broken() const noexcept { return broken_; }

  // The document was whole, and nothing stands behind it.
  bool finish() const noexcept { return !broken_ && position_ == count_; }

 private:
  simdjson_inline char current() const noexcept { return position_ < count_ ? text_[begins_[position_]] : '\0'; }

  simdjson_inline bool fail() noexcept {
    broken_ = true;
    position_ = count_;
    return false;
  }

  static simdjson_never_inline JsonCursor behind_container(JsonCursor cursor) noexcept {
    Token ignored;
    if (cursor.enter_object()) {
      while (cursor.next_field(&ignored)) cursor.value(&ignored);
    } else if (cursor.current() == '[') {
      cursor.walk_array();
    }
    return cursor;
  }

  void walk_array() noexcept {
    Token ignored;
    if (++depth_ > DEPTH_MAX) {
      fail();
      return;
    }
    ++position_;
    if (current() != ']') {
      while (value(&ignored) && current() == ',') ++position_;
      if (current() != ']') {
        fail();
        return;
      }
    }
    --depth_;
    ++position_;
  }

  // Up to where the next token begins, but for white space.
  simdjson_inline const char* end_of_token() const noexcept {
    const char* end = text_ + begins_[position_ + 1];
    while (is_space(end[-1])) --end;
    return end;
  }

  simdjson_inline bool string(Token* token) noexcept {
    const char* begin = text_ + begins_[position_];
    const char* end = end_of_token();
    ++position_;
    if (end - begin < 2 || end[-1] != '"') return fail();
    *token = Token{begin + 1, uint32_t(end - begin - 2), STRING, false};
    if (simdjson_unlikely(backslashes_)) {
      token->escaped = std::memchr(token->text, '\\', token->size) != nullptr;
      if (token->escaped && !escapes_are_valid(token->text, end - 1)) return fail();
    }
    return true;
  }

  simdjson_inline bool scalar(Token* token) noexcept {
    if (position_ >= count_) return fail();
    const char* begin = text_ + begins_[position_];
    const char* end = end_of_token();
    ++position_;
    switch (*begin) {
      case 't':
        *token = Token{begin, 4, TRUE_, false};
        return (end - begin == 4 && std::memcmp(begin, "true", 4) == 0) || fail();
      case 'f':
        *token = Token{begin, 5, FALSE_, false};
        return (end - begin == 5 && std::memcmp(begin, "false", 5) == 0) || fail();
      case 'n':
        *token = Token{begin, 4, NULL_, false};
        return (end - begin == 4 && std::memcmp(begin, "null", 4) == 0) || fail();
      default:
        *token = Token{begin, uint32_t(end - begin), NUMBER, false};
        return is_number(begin, end) || fail();
    }
  }

  static bool is_space(char c) noexcept { return c == ' ' || c == '\n' || c == '\r' || c == '\t'; }
  static bool is_digit(char c) noexcept { return uint8_t(c - '0') <= 9; }

  static int hex_digit(char c) noexcept {
    if (is_digit(c)) return c - '0';
    const char lower = char(c | 0x20);
    return lower >= 'a' && lower <= 'f' ? lower - 'a' + 10 : -1;
  }

  static bool escapes_are_valid(const char* at, const char* end) noexcept {
    while (at < end) {
      if (*at++ != '\\') continue;
      if (at == end) return false;
      const char letter = *at++;
      if (letter == 'u') {
        if (end - at < 4) return false;
        for (int digit = 0; digit < 4; ++digit) {
          if (hex_digit(*at++) < 0) return false;
        }
      } else if (std::memchr("\"\\/bfnrt", letter, 8) == nullptr) {
        return false;
      }
    }
    return true;
  }

  // The code point at `at` in a checked string, be it escaped, a surrogate pair or plain UTF-8; `at` moves behind it.
  static uint32_t next_point(const char*& at, const char* end) noexcept {
    const uint8_t first = uint8_t(*at++);
    if (first < 0x80 && first != '\\') return first;
    if (first >= 0xc0) {
      const int more = first < 0xe0 ? 1 : first < 0xf0 ? 2 : 3;
      uint32_t point = first & (0x3f >> more);
      for (int byte = 0; byte < more; ++byte) point = point << 6 | (uint8_t(*at++) & 0x3f);
      return point;
    }
    const char letter = *at++;
    switch (letter) {
      case 'b': return '\b';
      case 'f': return '\f';
      case 'n': return '\n';
      case 'r': return '\r';
      case 't': return '\t';
      case 'u': break;
      default: return uint8_t(letter);
    }
    const uint32_t unit = hex_unit(at);
    at += 4;
    const bool pair = unit >> 10 == 0x36 && end - at >= 6 && at[0] == '\\' && at[1] == 'u' && hex_unit(at + 2) >> 10 == 0x37;
    if (!pair) return unit;
    const uint32_t low = hex_unit(at + 2);
    at += 6;
    return 0x10000 + ((unit & 0x3ff) << 10) + (low & 0x3ff);
  }

  static uint32_t hex_unit(const char* at) noexcept {
    uint32_t unit = 0;
    for (int digit = 0; digit < 4; ++digit) unit = unit << 4 | uint32_t(hex_digit(at[digit]));
    return unit;
  }

 public:
  // The number of digits in the exponent of the JSON number that is all of the text; 0: no exponent; -1: it is no JSON number.
  static simdjson_inline ptrdiff_t exponent_digits(const char* at, const char* end) noexcept {
    if (at < end && *at == '-') ++at;
    const char* whole = at;
    while (at < end && is_digit(*at)) ++at;
    if (at == whole || (*whole == '0' && at - whole > 1)) return -1;
    if (at < end && *at == '.') {
      const char* fraction = ++at;
      while (at < end && is_digit(*at)) ++at;
      if (at == fraction) return -1;
    }
    if (simdjson_likely(at == end)) return 0;
    if ((*at++ | 0x20) != 'e') return -1;
    if (at < end && (*at == '+' || *at == '-')) ++at;
    const char* exponent = at;
    while (at < end && is_digit(*at)) ++at;
    return at == end && at > exponent ? at - exponent : -1;
  }

  static simdjson_inline bool is_number(const char* begin, const char* end) noexcept {
    if (end - begin >= 8 && end - begin <= 16 && *begin != '0' && eight_digits(begin) && eight_digits(end - 8)) return true;
    return exponent_digits(begin, end) >= 0;
  }

  // The value of a checked number that is digits only, at most 18 of them, which always fit; -1: any other.
  static simdjson_inline int64_t whole_number(const Token& token) noexcept {
    const char* at = token.text;
    const char* end = at + token.size;
    if (token.kind != NUMBER || token.size > 18) return -1;
    int64_t total = 0;
    if (end - at >= 8) {
      if (!eight_digits(at)) return -1;
      total = value_of_eight(at);
      at += 8;
    }
    for (; at < end; ++at) {
      if (!is_digit(*at)) return -1;
      total = total * 10 + (*at - '0');
    }
    return total;
  }

 private:
  // Both read eight bytes at once, as a little-endian word.
  static simdjson_inline bool eight_digits(const char* at) noexcept {
    uint64_t word;
    std::memcpy(&word, at, 8);
    return (((word + 0x4646464646464646) | (word - 0x3030303030303030)) & 0x8080808080808080) == 0;
  }

  static simdjson_inline int64_t value_of_eight(const char* at) noexcept {
    uint64_t word;
    std::memcpy(&word, at, 8);
    word -= 0x3030303030303030;
    word = word * 10 + (word >> 8);  // pairs, each in the low byte of two
    word = ((word & 0x000000ff000000ff) * 0x000f424000000064 + ((word >> 16) & 0x000000ff000000ff) * 0x0000271000000001) >> 32;
    return int64_t(uint32_t(word));
  }

 public:
  // The same text, however it is spelled. Both are checked strings.
  static bool same(const Token& one, const Token& other) noexcept {
    if (!one.escaped && !other.escaped) return one.size == other.size && std::memcmp(one.text, other.text, one.size) == 0;
    const char *one_at = one.text, *other_at = other.text;
    const char *one_end = one_at + one.size, *other_end = other_at + other.size;
    while (one_at < one_end && other_at < other_end) {
      if (next_point(one_at, one_end) != next_point(other_at, other_end)) return false;
    }
    return one_at == one_end && other_at == other_end;
  }

  // A checked string without its escapes, as UTF-8; lone surrogates as three bytes each, which no name has.
  // Returns the bytes written, or -1 if there is not `room` for them.
  static ptrdiff_t unescape(const Token& string, char* out, ptrdiff_t room) noexcept {
    const char* at = string.text;
    const char* end = at + string.size;
    ptrdiff_t size = 0;
    while (at < end) {
      const uint32_t point = next_point(at, end);
      const int more = point < 0x80 ? 0 : point < 0x800 ? 1 : point < 0x10000 ? 2 : 3;  // bytes behind the first
      if (size + 1 + more > room) return -1;
      constexpr uint8_t FIRST[] = {0x00, 0xc0, 0xe0, 0xf0};
      out[size++] = char(FIRST[more] | point >> 6 * more);
      for (int byte = more - 1; byte >= 0; --byte) out[size++] = char(0x80 | (point >> 6 * byte & 0x3f));
    }
    return size;
  }

 private:
  const char* text_ = nullptr;
  const uint32_t* begins_ = nullptr;
  uint32_t position_ = 0;  // in begins_
  uint32_t count_ = 0;
  int depth_ = 0;
  bool backslashes_ = false;  // anywhere in the text
  bool broken_ = false;
};

}  // namespace mdc
