"""Where the tokens of a JSON text begin, by simdjson with the best instructions of this machine; its one module, to compile it once."""

cdef extern from "simdjson.cpp":
    """
    // The library itself, as a part of this module: pysimdjson installs its source.
    """


cdef class JsonIndex:

    def __cinit__(self):
        if not self.stage1.usable():
            raise RuntimeError("simdjson cannot be used: no memory, or no code for this processor")

    cdef bint build(self, const char* text, Py_ssize_t size) noexcept nogil:
        """False: not JSON as far as this stage sees: UTF-8, control characters, open strings. Reads nothing behind `size`."""
        if not self.stage1.build(text, <size_t>size):
            return False
        self.begins = self.stage1.begins()
        self.count = self.stage1.count()
        return True
