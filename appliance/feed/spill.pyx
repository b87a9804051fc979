"""The spill: messages that a socket read brought when the ring had no room left, kept until it has.

Reading pauses while the ring is short of room, yet one read may bring more than any reserve: picows' buffer grows to what the
kernel holds. Nothing that was read is given up for that before SPILL_BYTES_MAX.
"""
from libc.stdint cimport int64_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy, memmove

cdef enum:
    SPILL_BYTES_MAX = 256 << 20      # more than the kernel holds for eight legs (tcp_rmem: 32 MiB each)
    SPILL_BYTES_AT_FIRST = 1 << 20


cdef class Spill:

    def __dealloc__(self):
        free(self.bytes)

    def __len__(self) -> int:
        return self.messages

    cdef bint push(self, const char* payload, Py_ssize_t size, int64_t recv_ns, int leg) noexcept nogil:
        """Keep a copy; False when there is no memory, or too much of it used, for that."""
        cdef SpilledMessage message
        cdef uint64_t needed = sizeof(SpilledMessage) + size
        cdef uint64_t allocated = max(self.allocated, <uint64_t>SPILL_BYTES_AT_FIRST)
        cdef void* moved
        if self.end + needed > self.allocated:
            if self.begin:
                memmove(self.bytes, self.bytes + self.begin, self.end - self.begin)
                self.end -= self.begin
                self.begin = 0
            while allocated < self.end + needed:
                allocated *= 2
            if allocated > SPILL_BYTES_MAX:
                return False
            if allocated > self.allocated:
                moved = realloc(self.bytes, allocated)
                if moved == NULL:
                    return False
                self.bytes = <char*>moved
                self.allocated = allocated
        message.recv_ns = recv_ns
        message.size = size
        message.leg = leg
        memcpy(self.bytes + self.end, &message, sizeof(SpilledMessage))
        memcpy(self.bytes + self.end + sizeof(SpilledMessage), payload, size)
        self.end += needed
        self.messages += 1
        return True

    cdef const char* front(self, SpilledMessage* message) noexcept nogil:
        """The oldest message, which lives until the next `push` or `pop`; NULL when there is none."""
        if self.messages == 0:
            return NULL
        memcpy(message, self.bytes + self.begin, sizeof(SpilledMessage))
        return self.bytes + self.begin + sizeof(SpilledMessage)

    cdef void pop(self) noexcept nogil:
        """Drop the oldest message; the last one gives the memory back."""
        cdef SpilledMessage message
        if self.front(&message) == NULL:
            return
        self.begin += sizeof(SpilledMessage) + message.size
        self.messages -= 1
        if self.messages == 0:
            free(self.bytes)
            self.bytes = NULL
            self.begin = self.end = self.allocated = 0
