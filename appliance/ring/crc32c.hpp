// CRC32C (Castagnoli, reflected polynomial 0x82F63B78), by the processor's own instruction where it has one.
//
// Chosen once at load: SSE4.2 on x86-64, the CRC extension on ARMv8, else a table of 8 x 256 words.
#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>

#if defined(__x86_64__)
#include <nmmintrin.h>
#elif defined(__aarch64__)
#include <arm_acle.h>
#include <sys/auxv.h>
#ifndef HWCAP_CRC32
#define HWCAP_CRC32 (1 << 7)
#endif
#endif

namespace mdc {

constexpr std::array<std::array<uint32_t, 256>, 8> make_crc32c_tables() {
    std::array<std::array<uint32_t, 256>, 8> tables{};
    for (uint32_t byte = 0; byte < 256; ++byte) {
        uint32_t crc = byte;
        for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1) ? 0x82F63B78u : 0u);
        tables[0][byte] = crc;
    }
    for (uint32_t byte = 0; byte < 256; ++byte)
        for (int k = 1; k < 8; ++k)
            tables[k][byte] = (tables[k - 1][byte] >> 8) ^ tables[0][tables[k - 1][byte] & 0xFF];
    return tables;
}

inline uint32_t crc32c_table(uint32_t crc, const uint8_t* data, size_t size) {
    static constexpr auto t = make_crc32c_tables();
    for (; size >= 8; data += 8, size -= 8) {
        uint64_t word;
        std::memcpy(&word, data, 8);
        word ^= crc;
        crc = t[7][word & 0xFF] ^ t[6][(word >> 8) & 0xFF] ^ t[5][(word >> 16) & 0xFF] ^ t[4][(word >> 24) & 0xFF] ^
              t[3][(word >> 32) & 0xFF] ^ t[2][(word >> 40) & 0xFF] ^ t[1][(word >> 48) & 0xFF] ^ t[0][word >> 56];
    }
    for (; size; ++data, --size) crc = (crc >> 8) ^ t[0][(crc ^ *data) & 0xFF];
    return crc;
}

#if defined(__x86_64__)
__attribute__((target("sse4.2"))) inline uint32_t crc32c_native(uint32_t crc, const uint8_t* data, size_t size) {
    uint64_t wide = crc;
    for (; size >= 8; data += 8, size -= 8) {
        uint64_t word;
        std::memcpy(&word, data, 8);
        wide = _mm_crc32_u64(wide, word);
    }
    crc = static_cast<uint32_t>(wide);
    for (; size; ++data, --size) crc = _mm_crc32_u8(crc, *data);
    return crc;
}
inline bool crc32c_has_native() { return __builtin_cpu_supports("sse4.2"); }
#elif defined(__aarch64__)
__attribute__((target("+crc"))) inline uint32_t crc32c_native(uint32_t crc, const uint8_t* data, size_t size) {
    for (; size >= 8; data += 8, size -= 8) {
        uint64_t word;
        std::memcpy(&word, data, 8);
        crc = __crc32cd(crc, word);
    }
    for (; size; ++data, --size) crc = __crc32cb(crc, *data);
    return crc;
}
inline bool crc32c_has_native() { return getauxval(AT_HWCAP) & HWCAP_CRC32; }
#else
inline uint32_t crc32c_native(uint32_t crc, const uint8_t* data, size_t size) { return crc32c_table(crc, data, size); }
inline bool crc32c_has_native() { return false; }
#endif

using Crc32cFunction = uint32_t (*)(uint32_t, const uint8_t*, size_t);
inline const Crc32cFunction crc32c_update = crc32c_has_native() ? crc32c_native : crc32c_table;

// CRC32C of `size` bytes.
inline uint32_t crc32c(const void* data, size_t size) {
    return ~crc32c_update(~0u, static_cast<const uint8_t*>(data), size);
}

// CRC32C of a record: all of its `length` bytes but the field itself, bytes 8 to 12.
inline uint32_t crc32c_of_record(const void* record, size_t length) {
    const auto* bytes = static_cast<const uint8_t*>(record);
    uint32_t crc = crc32c_update(~0u, bytes, 8);
    crc = crc32c_update(crc, bytes + 12, 4);
    return ~crc32c_update(crc, bytes + 16, length - 16);
}

}  // namespace mdc
