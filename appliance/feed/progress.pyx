"""How far connections of one chunk have come, compared by the last id that each brought of each instrument.

Such ids come as bytes: an int64 by instrument, -1 for none, and none for those beyond the end (FeedHandler.last_ids).
"""
from libc.stdint cimport int32_t, int64_t
from libc.string cimport memcpy
from libcpp.vector cimport vector

cdef enum:
    NONE = -1


cdef inline vector[int64_t] ids_of(bytes packed):
    cdef vector[int64_t] ids
    ids.resize(len(packed) // sizeof(int64_t))
    if ids.size():
        memcpy(ids.data(), <const char*>packed, ids.size() * sizeof(int64_t))
    return ids


cdef inline int64_t at(const vector[int64_t]& ids, size_t instrument) noexcept nogil:
    return ids[instrument] if instrument < ids.size() else NONE


cdef class Handover:
    """Whether a successor has taken over from an older connection. Begin it when the successor is subscribed.

    Each of the two brings the ids of an instrument without a hole, from the moment on at which it was subscribed. So nothing is lost
    with the older one when, of every instrument that either brought since, the older one has come as far as the first id that was
    seen of the successor, and the successor as far as the older one then was. One instant at which both held is enough. What did
    not trade since is the successor's by the exchange's own list of subscriptions.
    """
    cdef vector[int64_t] base        # what the older one had brought when this began
    cdef vector[int64_t] begun       # the successor's id when it was first seen to have one
    cdef vector[int64_t] goal        # the older one's id then
    cdef vector[char] proven

    def __init__(self, bytes older not None):
        self.base = ids_of(older)

    def step(self, bytes older not None, bytes successor not None) -> tuple[int, int]:
        """Compare their last ids now: of how many instruments the successor, and of how many the older one, still lacks some."""
        cdef vector[int64_t] old_ids = ids_of(older)
        cdef vector[int64_t] new_ids = ids_of(successor)
        cdef size_t instruments = max(old_ids.size(), new_ids.size())
        cdef size_t instrument
        cdef int64_t old, new
        cdef int32_t ahead = 0
        cdef int32_t behind = 0
        if self.begun.size() < instruments:
            self.begun.resize(instruments, NONE)
            self.goal.resize(instruments, NONE)
            self.proven.resize(instruments, 0)
        for instrument in range(instruments):
            if self.proven[instrument]:
                continue
            old, new = at(old_ids, instrument), at(new_ids, instrument)
            if new == NONE:
                ahead += old != at(self.base, instrument)
                continue
            if self.begun[instrument] == NONE:
                self.begun[instrument] = new
                self.goal[instrument] = old
            if new < self.goal[instrument]:
                ahead += 1
            elif old < self.begun[instrument] - 1 or old == NONE:
                behind += 1
            else:
                self.proven[instrument] = 1
        return ahead, behind


cdef struct Pulse:
    int64_t mine                     # last id as of the last step
    int64_t reference                # what the others had brought when this one last had all of it, or brought some, or was told
    int64_t level_step               # the step of that
    int64_t first_step               # at which it first brought some; NONE: never
    int64_t last_step                # at which it last did
    int64_t ids                      # brought in between
    bint told                        # that it has fallen silent


cdef class Laggards:
    """Which instruments one connection does not bring though others do, or though it did."""
    cdef vector[Pulse] pulses
    cdef int64_t now                 # steps so far

    def step(self, bytes mine not None, list others not None, int64_t ids, int64_t steps) -> list[int]:
        """Instruments of which this one has brought none for `steps` steps, in which the others are ahead and brought `ids` ids.

        `others`: last ids of each of the other connections. A laggard is told again after as many steps and ids.
        """
        cdef vector[int64_t] of_mine = ids_of(mine)
        cdef vector[int64_t] highest
        cdef vector[int64_t] other
        cdef size_t instrument
        cdef int64_t theirs, own
        cdef Pulse* pulse
        cdef Pulse unheard = Pulse(NONE, NONE, self.now + 1, NONE, NONE, 0, False)
        cdef list lagging = []
        for packed in others:
            other = ids_of(packed)
            if other.size() > highest.size():
                highest.resize(other.size(), NONE)
            for instrument in range(other.size()):
                highest[instrument] = max(highest[instrument], other[instrument])
        self.now += 1
        if self.pulses.size() < max(of_mine.size(), highest.size()):
            self.pulses.resize(max(of_mine.size(), highest.size()), unheard)
        for instrument in range(self.pulses.size()):
            pulse = &self.pulses[instrument]
            theirs, own = at(highest, instrument), at(of_mine, instrument)
            if own != pulse.mine:
                self.heard(pulse, own)
            elif theirs > own and pulse.reference != NONE and theirs != pulse.reference:
                # What is still under way to this one is no evidence: it must stay away for as long.
                if self.now - pulse.level_step < steps or theirs - pulse.reference < ids:
                    continue
                lagging.append(instrument)
            pulse.reference = theirs
            pulse.level_step = self.now
        return lagging

    cdef void heard(self, Pulse* pulse, int64_t trade_id) noexcept nogil:
        if pulse.first_step == NONE:
            pulse.first_step = self.now
        else:
            pulse.ids += max(<int64_t>1, trade_id - pulse.mine)
        pulse.mine = trade_id
        pulse.last_step = self.now
        pulse.told = False

    def fallen_silent(self, int64_t ids, int64_t steps, int64_t intervals) -> list[int]:
        """Instruments of which this one brought `ids` ids, and for `steps` steps and `intervals` of their mean intervals none, as of
        the last `step`. Each silence is told once.
        """
        cdef size_t instrument
        cdef Pulse* pulse
        cdef list found = []
        for instrument in range(self.pulses.size()):
            pulse = &self.pulses[instrument]
            if pulse.told or pulse.ids < ids or self.now - pulse.last_step < steps:
                continue
            if (self.now - pulse.last_step) * pulse.ids >= intervals * (pulse.last_step - pulse.first_step + 1):
                pulse.told = True
                found.append(instrument)
        return found
