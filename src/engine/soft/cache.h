/*
 * Translations: the code cache, its blocks, and how they find one another. The cache belongs to the
 * VM and is shared by its vCPUs. Blocks are found without a lock; they are made, chained and
 * dropped under one; their memory is reused only when every vCPU has left translated code (a
 * flush).
 */
#ifndef MULL_SOFT_CACHE_H
#define MULL_SOFT_CACHE_H

#include "engine/soft/soft.h"

#define SOFT_BLOCK_MAX_INSNS 48

#define SOFT_ROAMING 65536u

#define SOFT_NOT_KEPT 0xffu

/** A block that has jumped back to itself so often is translated again, several rounds in one. */
#define SOFT_LOOP_HOT 64u
#define SOFT_LOOPS 65536u

/** What of the mode a translation depends on. */
#define SOFT_BLOCK_MODE                                                                            \
    (SOFT_MODE_CODE64 | SOFT_MODE_CODE32 | SOFT_MODE_STACK32 | SOFT_MODE_FLAT |                    \
     SOFT_MODE_CODE_64K | SOFT_MODE_PROTECTED | SOFT_MODE_VM86 | SOFT_MODE_CPL3 |                  \
     SOFT_MODE_CPL12 | SOFT_MODE_NO_X87 | SOFT_MODE_NO_SSE | SOFT_MODE_NO_AVX |                    \
     SOFT_MODE_NO_AVX512 | SOFT_MODE_NO_FSGSBASE | SOFT_MODE_SMAP | SOFT_MODE_TSD |                \
     SOFT_MODE_DEBUG)

/** Writes to a page without translations until it is not watched any more: code that is written
 * again and again should not cost a sweep of all TLBs each time. */
#define SOFT_PAGE_PATIENCE 32

/** Code that was rewritten so often right after it was translated is executed in C first: */
#define SOFT_REWRITES 4
/** until a place in it was come to so often with the same bytes, */
#define SOFT_REWRITTEN_SAME 16
/** or any places of its page so often. */
#define SOFT_REWRITTEN_WAIT 4096

/** An idle guest keeps so much code. */
#define SOFT_IDLE_CODE (4u << 20)

/** A translation without coalesced checks: see coalesce.c. Not a bit of soft_cpu.mode. */
#define SOFT_BLOCK_PLAIN 0x80000000u

/* What translated code says of a missed access: its size in the low byte, and */
#define SOFT_MISS_WRITE 0x100u
#define SOFT_MISS_WINDOW 0x200u  /* a window of several accesses */
#define SOFT_MISS_CELL 16        /* shift: the number of its cell */
#define SOFT_MISS_ROAMS 0x800u   /* in the TLB, but its cell missed too often */
#define SOFT_MISS_SEGMENT 0x400u /* not in the TLB's sense: the segment does not have it */

struct soft_block;

/** A direct jump inside a page: from a block to the block at `rip`, patched once that exists. */
struct soft_edge {
    uint64_t rip;
    uint8_t *site;  /* the rel32 in the executable mapping, in one aligned quadword */
    uint8_t *stub;  /* where it leads while unchained */
    bool polled;    /* enters its target through the poll (backward) */
    bool plain;     /* leads to a plain copy, see SOFT_BLOCK_PLAIN */
    uint32_t taken; /* of a loop's: how often before it was chained */
    struct soft_block *from;
    struct soft_block *to;  /* NULL: not chained */
    struct soft_edge *next; /* in to->incoming */
};

/** A block in the list of a page that it has bytes in. */
struct soft_page_link {
    struct soft_block *block;
    struct soft_page_link *next;
};

/** A page of RAM as code. */
struct soft_code_page {
    struct soft_page_link *blocks;
    uint16_t idle;     /* writes since it had any */
    bool translated;   /* since the last write to a block */
    uint8_t rewritten; /* how often such a write followed a translation; 0 to SOFT_REWRITES */
    uint32_t waited;   /* times that C executed instead, since then */
};

/** An instruction executed in C from translated code. */
struct soft_site {
    struct soft_insn insn;
    const struct soft_block *block; /* whose instruction it is */
    uint64_t rip;
    uint8_t *next_host; /* translated code of the instruction behind it */
};

struct soft_block {
    uint64_t gpa;      /* of the first byte */
    uint64_t gpa_next; /* an instruction across two pages: the second one's address, else 0 */
    uint64_t rip;      /* see soft_code_key() */
    uint32_t mode;
    uint16_t low, high; /* what it was made of: offsets in its page; of one across two pages, high
                           is beyond the page's end */
    uint16_t insns;
    _Atomic bool valid;
    bool loops;     /* jumps back to itself, and several rounds in one would pay */
    uint8_t *start; /* executable mapping: begin and end of its code */
    uint8_t *end;
    uint8_t *indirect; /* entry that verifies r10 == rip, then polls */
    uint8_t *polled;   /* entry that polls for events */
    uint8_t *body;     /* entry that does neither */
    struct soft_block *_Atomic hash_next;
    struct soft_edge *incoming;
    /* For each instruction: offset from rip, offset of its host code from start, and the parked
     * guest register that this code expects in R11, or SOFT_NOT_KEPT. */
    struct {
        int16_t guest;
        uint16_t host;
        uint8_t kept;
    } map[];
};

/** RIP or EIP of the block's instruction @i. */
static inline uint64_t soft_block_rip(const struct soft_block *b, unsigned i)
{
    return soft_key_rip(b->mode, b->rip + b->map[i].guest);
}

struct soft_glue {
    void (*enter)(struct soft_cpu *cpu); /* run translated code from cpu->resume */
    uint8_t *leave;
    uint8_t *miss;    /* r10: guest address, rcx: size | SOFT_MISS_*, r11: where to retry */
    uint8_t *cell[2]; /* the same of a cell, for reads and writes; flags are dead */
    uint8_t *exec;    /* r10: struct soft_site */
    uint8_t *jump;    /* r10: guest address to go to */
    uint8_t *chain;   /* r10: struct soft_edge */
    uint8_t *poll;    /* r10: guest address of the block that polled */
    uint8_t *fault;   /* state is saved, cpu->fault is set */
};

struct soft_cache {
    struct soft_vm *vm;
    uint8_t *rw, *rx; /* the same memory, writable and executable */
    size_t size;
    size_t code_start; /* behind the glue */
    size_t used;
    struct soft_glue glue;
    int jump_fd; /* memfd: an empty jump table, of which windows have private copies */

    _Atomic uint32_t lock;

    struct soft_block *_Atomic *hash; /* by gpa, rip, mode */
    uint32_t hash_mask;
    struct soft_block **by_address; /* in order of start, for host address -> block */
    uint32_t blocks, blocks_max;
    struct soft_code_page **pages; /* [ram index][page] */

    /* Accesses that roam, by a hash of their instruction's address; cells given out. */
    uint64_t roaming[SOFT_ROAMING / 64];
    uint32_t next_cell[2];

    uint64_t loops[SOFT_LOOPS / 64]; /* hot ones, by a hash of their address */

    uint8_t *arena; /* blocks, edges, sites */
    size_t arena_size, arena_used;

    /* A flush waits until no vCPU is inside enter(). */
    _Atomic uint32_t inside;
    _Atomic uint32_t flush_wanted;
    uint64_t flushes;
    bool give_back; /* with the next flush its memory */
};

static inline uint8_t *soft_cache_rw(const struct soft_cache *c, uint8_t *rx)
{
    return rx - c->rx + c->rw;
}

int soft_cache_create(struct soft_vm *vm, uint64_t size, struct mull_error *err);
void soft_cache_destroy(struct soft_vm *vm);

/** The guest has been idle for a while: if it has many translations, most of them of its past, drop
 *  them all and give the memory back. The caller has parked the vectors and is not inside. */
void soft_cache_idle(struct soft_cpu *cpu);

/** Make the glue at the start of the code memory (glue.c). @return bytes used. */
size_t soft_glue_make(struct soft_cache *cache);

/** Find a block. No lock; general registers only. */
struct soft_block *soft_block_find(struct soft_cache *cache, uint64_t gpa, uint64_t key,
                                   uint32_t mode);

/** Find the block whose code holds a host address; @index: the instruction in it. */
struct soft_block *soft_block_at(struct soft_cache *cache, const uint8_t *host, unsigned *index);

/**
 * Translate the code at @page (of @key: see soft_code_key()). The caller has parked the vectors:
 * this function is built with vector registers, and may use them from its first instruction.
 *
 * @param next       NULL; or, after a call that set *straddles, the page behind: then the block is
 *                   the one instruction that lies across both
 * @param straddles  set if the first instruction goes on in the next page
 * @return NULL: there is no translation (*straddles; not an instruction; the cache is full, and
 *         flush_wanted is set)
 */
struct soft_block *soft_block_translate(struct soft_cpu *cpu, const struct soft_page *page,
                                        const struct soft_page *next, uint64_t key, uint32_t mode,
                                        bool *straddles);

/** Is the code at @gpa one that is rewritten again and again, so that a translation of it would not
 *  pay? Counts how often that was asked. @same: this place did not change for a while. General
 *  registers only. */
bool soft_code_restless(struct soft_cache *cache, uint64_t gpa, bool same);

/** Take a block out of everything that leads to it. */
void soft_block_drop(struct soft_cache *cache, struct soft_block *block);

/** Chain an edge to a block. */
void soft_edge_chain(struct soft_cache *cache, struct soft_edge *edge, struct soft_block *to);

/** Drop every translation once all vCPUs have left translated code (flush_wanted is set); whoever
 *  comes first does it, the others wait. The caller is outside and has parked its vectors. */
void soft_cache_flush_wait(struct soft_cpu *cpu);

/** The accesses of the block's instruction @insn need no cells: translate it again. */
void soft_block_roams(struct soft_cache *cache, struct soft_block *block, unsigned insn);

/** A loop's jump back to itself is taken. @return true: it is hot, and dropped: translate it again
 */
bool soft_loop_taken(struct soft_cache *cache, struct soft_edge *edge);

/** Is there a hot loop at @gpa? Lock held. */
bool soft_loop_is_hot(const struct soft_cache *cache, uint64_t gpa);

/** Did soft_block_roams() name the instruction at @gpa? Lock held. */
bool soft_insn_roams(const struct soft_cache *cache, uint64_t gpa);

void soft_cache_lock(struct soft_cache *cache);
void soft_cache_unlock(struct soft_cache *cache);

/** Allocate from the arena (lock held). @return NULL: full. */
void *soft_cache_alloc(struct soft_cache *cache, size_t size);

/** Register a finished block (lock held). @return false: the arena is full, nothing was done. */
bool soft_block_publish(struct soft_cache *cache, struct soft_block *block);

/** System calls for code with live vectors. */
void soft_yield(void);
void soft_futex_wait(_Atomic uint32_t *word, uint32_t value, const struct timespec *timeout);
void soft_futex_wake(_Atomic uint32_t *word, int count);

#endif
