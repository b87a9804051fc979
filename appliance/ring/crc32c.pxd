from libc.stdint cimport uint32_t, uint8_t

cdef extern from "appliance/ring/crc32c.hpp" namespace "mdc" nogil:
    uint32_t crc32c(const void* data, size_t size)
    uint32_t crc32c_of_record(const void* record, size_t length)
    uint32_t crc32c_table(uint32_t crc, const uint8_t* data, size_t size)
    uint32_t crc32c_native(uint32_t crc, const uint8_t* data, size_t size)
