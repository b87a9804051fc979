// The frame that Binance sends in all but a handful of cases, matched byte by byte.
//
// Everything but the five values is compared as a whole, so what matches is valid JSON with the keys of a spot trade,
// each once; what does not match is left to the parser, which alone says what is malformed. Measured beside the parser:
// docs/decisions/0005-the-usual-frame.md.
#pragma once

#include <cstdint>
#include <cstring>

namespace mdc {

struct UsualTrade {
  const char* symbol;
  const char* px;
  const char* sz;
  int64_t trade_id;
  int64_t time;  // as on the wire, ms or us
  uint32_t symbol_bytes;
  uint32_t px_bytes;
  uint32_t sz_bytes;
  bool buyer_is_maker;
};

class UsualFrame {
 public:
  UsualFrame(const char* text, size_t size) noexcept : at_(text), end_(text + size) {}

  // True: the whole text is one trade, in `trade`. Symbols are capital letters and digits here, times and ids have at most 18 digits.
  bool match(UsualTrade* trade) noexcept {
    int64_t event_time;
    const bool combined = literal("{\"stream\":\"");
    if (combined) {
      while (at_ < end_ && (is_digit(*at_) || uint8_t(*at_ - 'a') < 26)) ++at_;
      if (!literal("@trade\",\"data\":")) return false;
    }
    if (!literal("{\"e\":\"trade\",\"E\":") || !whole(&event_time) || !literal(",\"s\":\"")) return false;
    trade->symbol = at_;
    while (at_ < end_ && (is_digit(*at_) || uint8_t(*at_ - 'A') < 26)) ++at_;
    trade->symbol_bytes = uint32_t(at_ - trade->symbol);
    if (!literal("\",\"t\":") || !whole(&trade->trade_id) || !literal(",\"p\":\"")) return false;
    trade->px = at_;
    if (!decimal()) return false;
    trade->px_bytes = uint32_t(at_ - trade->px);
    if (!literal("\",\"q\":\"")) return false;
    trade->sz = at_;
    if (!decimal()) return false;
    trade->sz_bytes = uint32_t(at_ - trade->sz);
    if (!literal("\",\"T\":") || !whole(&trade->time)) return false;
    if (literal(",\"m\":true")) trade->buyer_is_maker = true;
    else if (literal(",\"m\":false")) trade->buyer_is_maker = false;
    else return false;
    if (!literal(",\"M\":true}")) return false;
    if (combined && !literal("}")) return false;
    return at_ == end_;
  }

 private:
  static bool is_digit(char c) noexcept { return uint8_t(c - '0') <= 9; }

  template <size_t N>
  bool literal(const char (&text)[N]) noexcept {
    if (size_t(end_ - at_) < N - 1 || std::memcmp(at_, text, N - 1) != 0) return false;
    at_ += N - 1;
    return true;
  }

  // A JSON integer without sign or leading zero.
  bool whole(int64_t* number) noexcept {
    const char* begin = at_;
    int64_t total = 0;
    while (at_ < end_ && at_ - begin < 18 && is_digit(*at_)) total = total * 10 + (*at_++ - '0');
    *number = total;
    return at_ > begin && *begin != '0';  // a 19th digit is what no key begins with
  }

  // Digits, a point, digits: JSON's number grammar without sign and exponent, at most 40 bytes.
  bool decimal() noexcept {
    const char* begin = at_;
    while (at_ < end_ && is_digit(*at_)) ++at_;
    if (at_ == begin || (*begin == '0' && at_ - begin > 1)) return false;
    if (at_ == end_ || *at_ != '.') return false;
    const char* fraction = ++at_;
    while (at_ < end_ && is_digit(*at_)) ++at_;
    return at_ != fraction && at_ - begin <= 40;
  }

  const char* at_;
  const char* end_;
};

// True: `size` bytes at `text` are one trade as it is usually spelled, told in `trade`.
inline bool match_usual_trade(const char* text, size_t size, UsualTrade* trade) noexcept { return UsualFrame(text, size).match(trade); }

}  // namespace mdc
