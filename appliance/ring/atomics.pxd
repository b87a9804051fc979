"""Loads, stores and fences on words of shared memory, the order written out in each name."""
from libc.stdint cimport int64_t, uint64_t
from libcpp.atomic cimport (
    atomic,
    memory_order,
    memory_order_acquire,
    memory_order_relaxed,
    memory_order_release,
)

cdef extern from "<atomic>" namespace "std" nogil:
    void atomic_thread_fence(memory_order)


cdef inline uint64_t load_relaxed(const uint64_t* word) noexcept nogil:
    return (<atomic[uint64_t]*>word).load(memory_order_relaxed)


cdef inline uint64_t load_acquire(const uint64_t* word) noexcept nogil:
    return (<atomic[uint64_t]*>word).load(memory_order_acquire)


cdef inline void store_relaxed(uint64_t* word, uint64_t value) noexcept nogil:
    (<atomic[uint64_t]*>word).store(value, memory_order_relaxed)


cdef inline void store_release(uint64_t* word, uint64_t value) noexcept nogil:
    (<atomic[uint64_t]*>word).store(value, memory_order_release)


cdef inline void fence_release() noexcept nogil:
    atomic_thread_fence(memory_order_release)


cdef inline void fence_acquire() noexcept nogil:
    atomic_thread_fence(memory_order_acquire)


cdef inline void copy_in(uint64_t* shared, const uint64_t* words, uint64_t count) noexcept nogil:
    """Private words into shared memory; order them by a fence before and a release after."""
    cdef uint64_t i
    for i in range(count):
        (<atomic[uint64_t]*>(shared + i)).store(words[i], memory_order_relaxed)


cdef inline void copy_out(uint64_t* words, const uint64_t* shared, uint64_t count) noexcept nogil:
    """Shared words into private memory; order them by an acquire before and a fence after."""
    cdef uint64_t i
    for i in range(count):
        words[i] = (<atomic[uint64_t]*>(shared + i)).load(memory_order_relaxed)


cdef inline void add(uint64_t* counter, uint64_t amount) noexcept nogil:
    """Raise a counter that one thread alone stores: no locked instruction needed."""
    store_relaxed(counter, load_relaxed(counter) + amount)
