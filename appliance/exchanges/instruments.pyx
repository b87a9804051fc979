"""The instruments of one chunk: a name on the wire becomes an index, the index the start of a record."""
import json

from libc.stdint cimport int32_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcmp, memcpy

UNLISTED_MAX = 16_384                # names that the wire brings and no list has: a hostile peer can make up more


cdef enum:
    PREFIX_BYTES_MAX = 512           # with it a trade's payload stays below codec.TRADE_PAYLOAD_BYTES_MAX


cdef inline uint32_t hash_of(const char* name, Py_ssize_t size) noexcept nogil:
    cdef uint64_t state = <uint64_t>size
    cdef uint64_t word = 0
    while size >= 8:
        memcpy(&word, name, 8)
        state = (state ^ word) * <uint64_t>0x9E3779B97F4A7C15
        state ^= state >> 32
        name += 8
        size -= 8
    word = 0
    while size > 0:
        size -= 1
        word = word << 8 | <unsigned char>name[size]
    state = (state ^ word) * <uint64_t>0x9E3779B97F4A7C15
    return <uint32_t>(state >> 32)


cdef class Instruments:
    """Names by index and indexes by name. An index is given once and never changes.

    `exchange` is what records carry, in upper case. Raises ValueError for a name that no record could hold.
    """

    def __cinit__(self, str exchange):
        self.exchange = exchange
        self.kinds = []
        self.names_max = UNLISTED_MAX

    def __dealloc__(self):
        cdef int32_t instrument
        for instrument in range(self.count):
            free(self.items[instrument].prefix)
        free(self.items)
        free(self.slots)

    cdef int32_t lookup(self, const char* name, Py_ssize_t size) noexcept nogil:
        """Index of the instrument with this name, in UTF-8; -1: the chunk does not have it."""
        cdef uint32_t slot
        cdef int32_t instrument
        if self.count == 0 or size > NAME_BYTES_MAX:
            return -1
        slot = hash_of(name, size) & self.slots_mask
        while True:
            instrument = self.slots[slot]
            if instrument < 0:
                return -1
            if self.items[instrument].name_bytes == size and memcmp(self.items[instrument].name, name, size) == 0:
                return instrument
            slot = (slot + 1) & self.slots_mask

    cdef const char* prefix(self, int32_t instrument, int32_t* size) noexcept nogil:
        """The start of the instrument's records up to the price, `size` bytes; valid as long as this object."""
        size[0] = self.items[instrument].prefix_bytes
        return self.items[instrument].prefix

    cdef bint is_wanted(self, int32_t instrument) noexcept nogil:
        return self.items[instrument].wanted

    cdef int32_t learn(self, const char* name, Py_ssize_t size, const char* kind) noexcept nogil:
        """Add a name that the wire brought; its index, -1 for one that no record could hold, or too many. Takes the GIL, once for each."""
        if self.count >= self.names_max:
            return -1
        with gil:
            try:
                return self.add(name[:size].decode(), kind.decode())
            except Exception:  # nothing may leave here: the caller has no place for it
                return -1

    cdef void enter(self, int32_t instrument) noexcept nogil:
        cdef uint32_t slot = hash_of(self.items[instrument].name, self.items[instrument].name_bytes) & self.slots_mask
        while self.slots[slot] >= 0:
            slot = (slot + 1) & self.slots_mask
        self.slots[slot] = instrument

    cdef int enlarge(self) except -1:
        """Room for one more; the slots stay at most half full."""
        cdef int32_t room = max(<int32_t>512, self.room * 2)
        cdef uint32_t slots_count = <uint32_t>room * 2
        cdef uint32_t slot
        cdef int32_t instrument
        cdef int32_t* slots
        cdef Instrument* items = <Instrument*>realloc(self.items, room * sizeof(Instrument))
        if items == NULL:
            raise MemoryError
        self.items = items
        slots = <int32_t*>malloc(slots_count * sizeof(int32_t))
        if slots == NULL:
            raise MemoryError
        free(self.slots)
        self.slots = slots
        self.slots_mask = slots_count - 1
        self.room = room
        for slot in range(slots_count):
            slots[slot] = -1
        for instrument in range(self.count):
            self.enter(instrument)
        return 0

    def add(self, str name, str kind = "Spot") -> int:
        """Index of `name`, which is new or was there before. Never within a socket read: the table may move."""
        cdef bytes encoded = name.encode()
        cdef bytes start
        cdef Instrument* item
        cdef int32_t instrument = self.lookup(encoded, len(encoded))
        if instrument >= 0:
            return instrument
        if not 0 < len(encoded) <= NAME_BYTES_MAX:
            raise ValueError(f"instrument name {name!r} has {len(encoded)} bytes, expected 1 to {NAME_BYTES_MAX}")
        fields = {"exchange": self.exchange, "asset": name, "kind": kind}
        start = (json.dumps(fields, ensure_ascii=False, separators=(",", ":")).removesuffix("}") + ',"px":').encode()
        if len(start) > PREFIX_BYTES_MAX:
            raise ValueError(f"exchange {self.exchange!r} and kind {kind!r} of {name!r} make records that begin with {len(start)} bytes, "
                             f"expected at most {PREFIX_BYTES_MAX}")
        if self.count == self.room:
            self.enlarge()
        item = &self.items[self.count]
        item.prefix = <char*>malloc(len(start))
        if item.prefix == NULL:
            raise MemoryError
        memcpy(item.prefix, <const char*>start, len(start))
        item.prefix_bytes = <int32_t>len(start)
        memcpy(item.name, <const char*>encoded, len(encoded))
        item.name_bytes = <int32_t>len(encoded)
        item.wanted = self.wanted is None or self.wanted(name)
        self.kinds.append(kind)
        self.enter(self.count)
        self.count += 1
        return self.count - 1

    def __len__(self) -> int:
        return self.count

    def __contains__(self, str name) -> bool:
        return self.find(name) >= 0

    def find(self, str name) -> int:
        """Index of `name`; -1: not in this chunk."""
        cdef bytes encoded = name.encode()
        return self.lookup(encoded, len(encoded))

    def name(self, int32_t instrument) -> str:
        self.check(instrument)
        return self.items[instrument].name[:self.items[instrument].name_bytes].decode()

    def kind(self, int32_t instrument) -> str:
        self.check(instrument)
        return self.kinds[instrument]

    def names(self) -> list[str]:
        """All names, by index."""
        return [self.name(instrument) for instrument in range(self.count)]

    def start_of_records(self, int32_t instrument) -> bytes:
        """What each of the instrument's records begins with, up to the price."""
        self.check(instrument)
        return self.items[instrument].prefix[:self.items[instrument].prefix_bytes]

    cdef int check(self, int32_t instrument) except -1:
        if not 0 <= instrument < self.count:
            raise IndexError(f"no instrument {instrument}, there are {self.count}")
        return 0
