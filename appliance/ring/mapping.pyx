"""A file mapped into memory: whole, shared, with its pages present before they are needed."""
import os

from cpython.exc cimport PyErr_SetFromErrno
from posix.mman cimport (
    MAP_FAILED,
    MAP_SHARED,
    PROT_READ,
    PROT_WRITE,
    mlock,
    mmap,
    munmap,
)

cdef extern from "<sys/mman.h>" nogil:
    int MAP_POPULATE


cdef class Mapping:
    """Map all of the file open as `fd`; `writable` also faults every page in. Raises OSError."""

    def __init__(self, int fd, bint writable, bint lock=False):
        self.size = os.fstat(fd).st_size
        cdef int protection = PROT_READ | PROT_WRITE if writable else PROT_READ
        cdef void* address = mmap(NULL, self.size, protection, MAP_SHARED | (MAP_POPULATE if writable else 0), fd, 0)
        if address == MAP_FAILED:
            PyErr_SetFromErrno(OSError)
        self.address = <char*>address
        self.mapped = True
        # Refused (RLIMIT_MEMLOCK) is no error: the pages are present, they may only be swapped; the caller reports it.
        if lock and mlock(address, self.size) == 0:
            self.locked_bytes = self.size

    def close(self):
        """Unmap; every pointer into the mapping is dead from here on."""
        if self.mapped:
            munmap(self.address, self.size)
            self.mapped = False
            self.address = NULL

    def __dealloc__(self):
        if self.mapped:
            munmap(self.address, self.size)
