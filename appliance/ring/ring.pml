/* The ring's protocol, for Spin: claim, commit, read, lap, flush, and a writer that dies at any step.
 *
 * Checked in every order in which a machine may make its stores visible and do its loads, not in interleavings alone:
 *
 * - Stores wait in a buffer (`put`) and leave it in any order (`memory`), but for what C++ forbids: two stores to one word keep
 *   their order, a release store comes after all before it, a release fence keeps what follows behind all before it.
 * - The loads of one step of a reader are done in any order that acquire and the acquire fence leave open; one that stands
 *   behind a branch may be done before it.
 * - There is one memory for all: what one processor sees the others see. That holds for x86-64 and ARMv8.
 *
 * A word of the data is its own name: the position it was written for, the epoch, and what it is. There is no checksum
 * here: the protocol must be right without. Whoever takes a word for good compares it with what was written there.
 *
 * -DSAFE: mode safe with a flusher, else without a journal. -DDEATHS=n: writers that may die. Each of the other names weakens
 * one thing, and Spin must then find an error; tests/proofs/test_protocol.py runs them all. The steps and the lines of
 * code that take them, which the same test compares:
 *
 *   step        file         code
 *   W_TAKE      writer.pyx   self.position = load_acquire(&self.meta.committed)
 *   W_GO_ON     writer.pyx   self.claimed = max(load_acquire(&self.meta.claimed), self.position)
 *   W_ROOM      writer.pyx   self.flushed_seen = load_acquire(&self.meta.flushed) & ~<uint64_t>(BLOCK_BYTES - 1)
 *   W_CLAIM     writer.pyx   store_relaxed(&self.meta.claimed, end)
 *   W_FENCE     writer.pyx   fence_release()
 *   W_PAD       writer.pyx   store_relaxed(shared, size | (<uint64_t>PADDING << 32))
 *   W_DATA      writer.pyx   copy_in(<uint64_t*>(self.data + (position & (self.capacity - 1))), <uint64_t*>self.staging, stride >> 3)
 *   W_COMMIT    writer.pyx   store_release(&self.meta.committed, end)
 *   W_PADDED    writer.pyx   store_release(&self.meta.committed, self.position)
 *   R_CURSOR    reader.pyx   committed = load_acquire(&self.meta.committed)
 *   R_FIRST     reader.pyx   word = load_relaxed(shared)
 *   R_COPY      reader.pyx   copy_out(<uint64_t*>self.buffer, shared, align_up(length) >> 3)
 *   R_FENCE     reader.pyx   fence_acquire()
 *   R_LAPPED    reader.pyx   return load_relaxed(&self.meta.claimed) > position + self.capacity
 *   R_OLDEST    reader.pyx   return (claimed - self.capacity + BLOCK_BYTES - 1) & ~<uint64_t>(BLOCK_BYTES - 1)
 *   F_CURSOR    flusher.pyx  cdef uint64_t target = load_acquire(&self.meta.committed)
 *   F_COPY      flusher.pyx  if not self.write_pages(self.data + (start & (self.capacity - 1)), start, size) or self.lost(start, size):
 *   F_FLUSHED   flusher.pyx  store_release(&self.meta.flushed, self.flushed)
 *   F_SEGMENT   flusher.pyx  cdef uint64_t start = self.flushed & ~<uint64_t>(BLOCK_BYTES - 1)
 */

#define BLOCK    3                  /* words; the code's are 8,192 */
#define CAPACITY 6                  /* two blocks, the least there may be */
#ifndef LAST
#define LAST     10                 /* no record begins behind this position: enough to lap a reader twice */
#endif
#ifndef DEATHS
#define DEATHS   1
#endif
#ifndef ROOM
#define ROOM     6                  /* stores not visible yet, at most 7: those of a record and the next one's claim */
#endif

#define CLAIMED   CAPACITY          /* words behind those of the data */
#define COMMITTED (CAPACITY + 1)
#define FLUSHED   (CAPACITY + 2)
#define FENCE     (CAPACITY + 3)    /* no word: an order to keep */

#define RECORD1 0                   /* what a word is: a record of one word, of two, the second of two, padding */
#define RECORD2 1
#define SECOND  2
#define PADDING 3
#define WORD(position, what) (((position) << 3) | (epoch << 2) | (what))
#define KIND(word) ((word) & 3)

#define BLOCK_END(position) ((position) - (position) % BLOCK + BLOCK)
#define BLOCK_UP(position)  (((position) + BLOCK - 1) / BLOCK * BLOCK)

byte shared[CAPACITY + 3];          /* what everyone sees */
byte written[16];                   /* ghost: the word last written for each position of the stream */
bit epoch = 0;
bit finished = 0;
byte deaths = DEATHS;

/* The writer's stores that are not visible yet, in program order. */
byte word_of[ROOM];
byte value_of[ROOM];
bit release_of[ROOM];
byte waiting = 0;

inline put(where, what, release) {
    waiting < ROOM;
    word_of[waiting] = where;
    value_of[waiting] = what;
    release_of[waiting] = release;
    waiting++
}

#define PASSES(i, j) (word_of[j] != FENCE && word_of[j] != word_of[i])
#define LEAVES_0 (waiting > 0)
#define LEAVES_1 (waiting > 1 && word_of[1] != FENCE && !release_of[1] && PASSES(1, 0))
#define LEAVES_2 (waiting > 2 && word_of[2] != FENCE && !release_of[2] && PASSES(2, 0) && PASSES(2, 1))
#define LEAVES_3 (waiting > 3 && word_of[3] != FENCE && !release_of[3] && PASSES(3, 0) && PASSES(3, 1) && PASSES(3, 2))
#define LEAVES_4 (waiting > 4 && word_of[4] != FENCE && !release_of[4] && PASSES(4, 0) && PASSES(4, 1) && PASSES(4, 2) && PASSES(4, 3))
#define LEAVES_5 (waiting > 5 && word_of[5] != FENCE && !release_of[5] && PASSES(5, 0) && PASSES(5, 1) && PASSES(5, 2) && PASSES(5, 3) \
                  && PASSES(5, 4))
#define LEAVES_6 (waiting > 6 && word_of[6] != FENCE && !release_of[6] && PASSES(6, 0) && PASSES(6, 1) && PASSES(6, 2) && PASSES(6, 3) \
                  && PASSES(6, 4) && PASSES(6, 5))

inline leave(i) {
    if
    :: word_of[i] != FENCE -> shared[word_of[i]] = value_of[i]
    :: else
    fi;
    at = i;
    do
    :: at + 1 < waiting ->
        word_of[at] = word_of[at + 1];
        value_of[at] = value_of[at + 1];
        release_of[at] = release_of[at + 1];
        at++
    :: else -> break
    od;
    waiting--;
    word_of[waiting] = 0;
    value_of[waiting] = 0;
    release_of[waiting] = 0;
    at = 0
}

active proctype memory() {
    byte at = 0;
end:
    do
    :: d_step { LEAVES_0 -> leave(0) }
    :: d_step { LEAVES_1 -> leave(1) }
    :: d_step { LEAVES_2 -> leave(2) }
    :: d_step { LEAVES_3 -> leave(3) }
    :: d_step { LEAVES_4 -> leave(4) }
    :: d_step { LEAVES_5 -> leave(5) }
    :: d_step { LEAVES_6 -> leave(6) }
    od
}

/* kill -9, before any store: what was not visible yet never will be. The lock falls, and the next writer takes over. */
inline may_die() {
    if
    :: deaths > 0 ->
        deaths--;
        do
        :: waiting > 0 -> waiting--; word_of[waiting] = 0; value_of[waiting] = 0; release_of[waiting] = 0
        :: else -> break
        od;
        epoch = 1;
        size = 0; padding = 0; to = 0; at = 0;
        goto take_over
    :: skip
    fi
}

inline store(where, what, release) {
    atomic { may_die(); put(where, what, release) }
}

inline store_word(where, what) {
    atomic { may_die(); written[where] = WORD(where, what); put((where) % CAPACITY, WORD(where, what), 0) }
}

inline announce() {
#ifndef NO_CLAIM
    if
    :: atomic { to > claimed -> claimed = to }; store(CLAIMED, to, 0)           /* W_CLAIM */
    :: else
    fi;
#ifndef NO_RELEASE_FENCE
    store(FENCE, 0, 0);                                                         /* W_FENCE */
#endif
#endif
    skip
}

inline store_padding() {                                                        /* W_PAD */
    at = position;
    do
    :: at < position + padding -> store_word(at, PADDING); at++
    :: else -> break
    od;
    at = 0
}

inline commit() {
#ifdef COMMIT_RELAXED
    store(COMMITTED, to, 0)
#else
    store(COMMITTED, to, 1)                                                     /* W_COMMIT, W_PADDED */
#endif
}

inline await_room() {                                                           /* W_ROOM */
#ifdef SAFE
#ifndef NO_ROOM_CHECK
#ifdef ROOM_TO_THE_BYTE
    to <= shared[FLUSHED] + CAPACITY;
#else
    to <= shared[FLUSHED] - shared[FLUSHED] % BLOCK + CAPACITY;
#endif
#endif
#endif
    skip
}

active proctype writer() {
    byte position, claimed, size, padding, to, at;
take_over:
    atomic {
#ifdef GO_ON_AT_CLAIMED
        position = shared[CLAIMED];
#else
        position = shared[COMMITTED];                                           /* W_TAKE */
#endif
#ifdef CLAIM_FALLS
        claimed = position;
        put(CLAIMED, claimed, 0);
#else
        claimed = (shared[CLAIMED] > position -> shared[CLAIMED] : position);   /* W_GO_ON */
#endif
    }
    if
    :: atomic { position % BLOCK != 0 -> to = BLOCK_END(position); padding = to - position };
        announce();
        store_padding();
        commit();
        position = to
    :: else
    fi;
    do
    :: atomic {
        position < LAST ->
        if
        :: size = 1
        :: size = 2
        fi;
        padding = BLOCK_END(position) - position;
        if
        :: padding >= size -> padding = 0
        :: else
        fi;
        to = position + padding + size
       };
        await_room();
#ifdef PAD_BEFORE_CLAIM
        store_padding();
#endif
#ifndef CLAIM_AFTER_DATA
        announce();
#endif
#ifndef PAD_BEFORE_CLAIM
        store_padding();
#endif
        position = position + padding;
        if                                                                      /* W_DATA */
        :: size == 1 -> store_word(position, RECORD1)
        :: else -> store_word(position, RECORD2); store_word(position + 1, SECOND)
        fi;
#ifdef CLAIM_AFTER_DATA
        announce();
#endif
        commit();
        atomic { position = to; size = 0; padding = 0; to = 0 }
    :: else -> break
    od;
    waiting == 0;
    finished = 1
}

#ifndef SAFE
/* What a load may not overtake: the acquire of the cursor, and with a check that comes too early, nothing else. */
#ifdef CURSOR_RELAXED
#define COPY_MAY_LOAD true
#else
#ifdef CHECK_BEFORE_COPY
#define COPY_MAY_LOAD (has_committed && has_claimed)
#else
#define COPY_MAY_LOAD has_committed
#endif
#endif
/* The acquire fence: the check of `claimed` comes after the copy. */
#ifdef CHECK_BEFORE_COPY
#define CHECK_MAY_LOAD has_committed
#else
#ifdef NO_ACQUIRE_FENCE
#define CHECK_MAY_LOAD true
#else
#define CHECK_MAY_LOAD (has_committed && has_first && has_second)
#endif
#endif

/* Go on at `there`: what lies before it is of no interest any more. */
inline forget_until(there) {
    next = there;
    do
    :: position < next -> written[position] = 0; position++
    :: else -> break
    od;
    next = 0
}

/* Follows from the beginning. It stores nothing, so one stands for any number. */
active proctype reader() {
    byte position = 0, first, second, next;
    bit has_committed, has_first, has_second, has_claimed, ready, lapped, quiet;
    do
    :: atomic { finished && position == shared[COMMITTED] -> break }
    :: atomic { else -> quiet = finished };
        do
        :: atomic {                                                             /* R_CURSOR */
            !has_committed -> ready = shared[COMMITTED] > position; has_committed = 1
           }
        :: atomic {                                                             /* R_FIRST */
            !has_first && COPY_MAY_LOAD -> first = shared[position % CAPACITY]; has_first = 1;
            if
            :: KIND(first) != RECORD2 -> second = 0; has_second = 1             /* there is no second: fewer states */
            :: else
            fi
           }
        :: atomic {                                                             /* R_COPY */
            !has_second && COPY_MAY_LOAD -> second = shared[(position + 1) % CAPACITY]; has_second = 1
           }
        :: atomic {                                                             /* R_FENCE */
            !has_claimed && CHECK_MAY_LOAD ->
#ifdef LAP_CHECK_OFF_BY_ONE
            lapped = shared[CLAIMED] > position + CAPACITY + 1;
#else
#ifndef NO_LAP_CHECK
            lapped = shared[CLAIMED] > position + CAPACITY;                     /* R_LAPPED */
#endif
#endif
            has_claimed = 1
           }
        :: atomic { has_committed && (!ready || has_first && has_second && has_claimed) -> break }
        od;
        atomic {
            if
            :: !ready -> assert(!quiet)                                         /* at rest there must be something */
            :: ready && lapped ->                                               /* R_OLDEST */
                assert(BLOCK_UP(shared[CLAIMED] - CAPACITY) > position);
                forget_until(BLOCK_UP(shared[CLAIMED] - CAPACITY))
            :: else ->
                assert(first == written[position] && KIND(first) != SECOND);
                if
                :: KIND(first) == RECORD1 -> forget_until(position + 1)
                :: KIND(first) == RECORD2 -> assert(second == written[position + 1]); forget_until(position + 2)
                :: KIND(first) == PADDING -> forget_until(BLOCK_END(position))
                fi;
                assert(position <= shared[COMMITTED])
            fi;
            has_committed = 0; has_first = 0; has_second = 0; has_claimed = 0;
            ready = 0; lapped = 0; first = 0; second = 0; quiet = 0
        }
    od
}
#else
/* Copies word after word to disk; at any time a new segment begins, with the whole block that `flushed` lies in. */
active proctype flusher() {
    byte at = 0;
    do
    :: atomic { finished && shared[FLUSHED] == shared[COMMITTED] -> break }
    :: atomic { shared[FLUSHED] % BLOCK != 0 && at == shared[FLUSHED] -> at = at - at % BLOCK }  /* F_SEGMENT */
    :: at < shared[COMMITTED] ->                                                /* F_CURSOR */
#ifdef FLUSHED_RELAXED
        if
        :: atomic { at == shared[FLUSHED] -> shared[FLUSHED] = at + 1 }
        :: else
        fi;
        atomic { assert(shared[at % CAPACITY] == written[at]); at++ }
#else
        assert(shared[at % CAPACITY] == written[at]);                           /* F_COPY */
        atomic {
            if
            :: at == shared[FLUSHED] -> shared[FLUSHED] = at + 1                /* F_FLUSHED */
            :: else
            fi;
            at++
        }
#endif
    od
}
#endif
