"""Writer and readers of one ring as threads without the GIL, on one mapping: what ThreadSanitizer can watch.

Compiled by scripts/sanitize.py alone. With the GIL, or through mappings of their own, no thread would be seen to meet another.
"""
from libc.stdint cimport uint64_t

from appliance.clock cimport now_ns
from appliance.ring.atomics cimport load_acquire
from appliance.ring.layout cimport RECORD_HEADER_BYTES, TRADE, RecordHeader
from appliance.ring.reader cimport STEP_CORRUPT, STEP_LAPPED, STEP_NOTHING, STEP_RECORD, RingReader, Step
from appliance.ring.writer cimport Writer

cdef extern from "<sched.h>" nogil:
    int sched_yield()


def write(Writer writer, uint64_t records):
    """Commit `records` records; each word of a payload is its record's sequence."""
    cdef uint64_t sequence, words, i
    cdef char* out
    with nogil:
        for sequence in range(1, records + 1):
            words = sequence * 7919 % 80
            out = writer.claim(words * 8)
            while out == NULL:
                sched_yield()
                out = writer.claim(words * 8)
            for i in range(words):
                (<uint64_t*>out)[i] = sequence
            writer.commit(TRADE, words * 8, 0, now_ns(), now_ns(), now_ns(), writer.write_time())


def read(RingReader reader, Writer writer, uint64_t last):
    """Read by way of the writer's own mapping up to record `last`: how many were read, and how many were lapped.

    Raises AssertionError for a record that is torn, corrupt, or not the one that follows.
    """
    cdef uint64_t seen = 0, lost = 0, expected = 1, i, words
    cdef RecordHeader* header = <RecordHeader*>reader.buffer
    cdef Step step
    cdef bint bad = False
    reader.meta = writer.meta
    reader.data = writer.data
    with nogil:
        while expected <= last and not bad:
            step = reader.next()
            if step == STEP_NOTHING:
                sched_yield()
            elif step == STEP_LAPPED:
                bad = reader.lapped_from != expected
                lost += reader.lapped_to - expected + 1
                expected = reader.lapped_to + 1
            elif step == STEP_CORRUPT:
                bad = True
            elif step == STEP_RECORD:
                words = (header.length - RECORD_HEADER_BYTES) // 8
                bad = header.sequence != expected or words != expected * 7919 % 80
                for i in range(words):
                    bad = bad or (<uint64_t*>(reader.buffer + RECORD_HEADER_BYTES))[i] != expected
                seen += 1
                expected += 1
    assert not bad, f"record {expected}: not what was written"
    return seen, lost


def flushed(Writer writer):
    """Position that the flusher has made known."""
    return load_acquire(&writer.meta.flushed)
