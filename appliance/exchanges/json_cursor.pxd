"""A strict cursor over one JSON text (json_cursor.hpp)."""
from libc.stddef cimport ptrdiff_t
from libc.stdint cimport int64_t, uint8_t, uint32_t
from libcpp cimport bool

cdef extern from "appliance/exchanges/json_cursor.hpp" namespace "mdc" nogil:
    cdef enum TokenKind:
        STRING
        OBJECT
        ARRAY
        NUMBER
        TRUE_
        FALSE_
        NULL_

    cdef struct Token:
        const char* text
        uint32_t size
        uint8_t kind
        bool escaped

    cdef cppclass JsonCursor:
        JsonCursor() noexcept
        JsonCursor(const uint32_t* begins, uint32_t count, const char* text, size_t size) noexcept
        bool enter_object() noexcept
        bool next_field(Token* key) noexcept
        bool enter_array() noexcept
        bool next_element() noexcept
        bool value(Token* token) noexcept
        bool broken() noexcept
        bool finish() noexcept

        @staticmethod
        ptrdiff_t exponent_digits(const char* at, const char* end) noexcept

        @staticmethod
        int64_t whole_number(const Token& token) noexcept

        @staticmethod
        bool same(const Token& one, const Token& other) noexcept

        @staticmethod
        ptrdiff_t unescape(const Token& string, char* out, ptrdiff_t room) noexcept
