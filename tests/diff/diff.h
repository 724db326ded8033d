/*
 * The differential test: the same few instructions, from the same state, on the host's CPU (the
 * oracle) and on the soft engine; registers, flags, vector registers, memory and faults are then
 * compared. The host's CPU and the guest have the same windows of memory at the same addresses.
 */
#ifndef MULL_TESTS_DIFF_H
#define MULL_TESTS_DIFF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define DIFF_PAGE 4096u
#define DIFF_XSAVE 4096u
#define DIFF_CODE_MAX 768u
#define DIFF_INSNS_MAX 96u

/* The windows. What is around them is not mapped. */
#define DIFF_CODE 0x10000000ull  /* two pages, executable and writable */
#define DIFF_DATA 0x20000000ull  /* two pages read-write, a hole, one read-only, one read-write */
#define DIFF_STACK 0x30000000ull /* one page read-write */
#define DIFF_DATA_PAGES 5u
#define DIFF_HOLE 2u     /* number of the data page that is not mapped */
#define DIFF_READONLY 3u /* number of the data page that cannot be written */
#define DIFF_CODE_PAGES 2u
/* What is compared: data, the stack, the code. */
#define DIFF_MEMORY_PAGES (DIFF_DATA_PAGES + 1 + DIFF_CODE_PAGES)

/* 16-bit code and some of the 32-bit code run with bases: CS, and DS and ES, whose limit is the
 * data's end. SS is flat. */
#define DIFF_CS_LIMIT 0xffffu
#define DIFF_DS_LIMIT (DIFF_DATA_PAGES * DIFF_PAGE - 1)
#define DIFF_CS16 0x0fu /* selectors: entries of the local descriptor table */
#define DIFF_DS16 0x17u
#define DIFF_CS32 0x1fu

/* Segment bases while the code runs. */
#define DIFF_FS_BASE (DIFF_DATA + 0x180)
#define DIFF_GS_BASE (DIFF_DATA + 0x4480)

/** What the code starts from. */
struct diff_case {
    uint64_t seed; /* which random case, encoding, or table entry */
    const char *name;
    unsigned bits;   /* 64, 32 or 16 */
    bool based;      /* segments have bases and limits */
    unsigned offset; /* of the code in its window */
    unsigned size;   /* bytes of code; an INT3 follows */
    unsigned insns;
    uint16_t start[DIFF_INSNS_MAX]; /* offsets of the instructions in code[] */
    uint8_t code[DIFF_CODE_MAX];
    uint64_t gpr[16];
    uint64_t rflags;
    unsigned fill; /* which of the patterns the memory windows begin with */
    uint8_t xsave[DIFF_XSAVE] __attribute__((aligned(64)));
};

/** The base of its code segment. */
static inline uint64_t diff_code_base(const struct diff_case *c)
{
    return c->based ? DIFF_CODE : 0;
}

/** Where page @p of struct diff_result.memory lies. */
static inline uint64_t diff_page_address(unsigned p)
{
    if (p < DIFF_DATA_PAGES)
        return DIFF_DATA + (uint64_t)p * DIFF_PAGE;
    return p == DIFF_DATA_PAGES ? DIFF_STACK : DIFF_CODE + (p - DIFF_DATA_PAGES - 1) * DIFF_PAGE;
}

/** May it change? */
static inline bool diff_page_writable(unsigned p)
{
    return p != DIFF_HOLE && p != DIFF_READONLY;
}

/** Where it ended. */
struct diff_result {
    uint64_t gpr[16];
    uint64_t rip;
    uint64_t rflags;
    int vector; /* of the exception that ended it: 3 is the INT3, -1: it never came to an end */
    uint32_t error;
    uint64_t cr2;
    uint8_t xsave[DIFF_XSAVE] __attribute__((aligned(64)));
    uint8_t memory[DIFF_MEMORY_PAGES * DIFF_PAGE];
};

/** Which machine runs a case. */
enum diff_tier { DIFF_EXEC, DIFF_TRANSLATE };

/* native.c */
int diff_native_init(void);
/** @return false: this kernel does not let programs have segments. */
bool diff_native_init_segments(void);
void diff_native_run(const struct diff_case *c, struct diff_result *out);
/** Does the host's CPU know this instruction (no #UD)? */
bool diff_native_knows(const uint8_t *code, unsigned size, unsigned bits);

/* guest.c */
int diff_guest_init(void);
void diff_guest_run(const struct diff_case *c, enum diff_tier tier, bool kernel,
                    struct diff_result *out);
void diff_guest_fini(void);
/** The vCPU that runs them. */
struct soft_cpu *diff_guest_cpu(void);
/** Run a case on the translate tier with a TLB that takes @host for the first page of data. */
void diff_guest_run_wild(const struct diff_case *c, uint8_t *host, struct diff_result *out);

/* contain.c */
bool diff_contain_init(void);
/** Can what is looked at show an access that is not contained? */
bool diff_contain_check(void);
/** A program with addresses of this process in its registers. */
void diff_generate_hostile(struct diff_case *c, uint64_t seed);
/** Is the host as it was, and knows the guest nothing of it? Prints what is wrong. */
bool diff_contained(const struct diff_case *c, const struct diff_result *result);

/* fill.c */
/** The bytes that the memory windows begin with (all of struct diff_result.memory). */
const uint8_t *diff_fill(unsigned which);
/** Offsets of the XSAVE components of the host: 2 (AVX), 5, 6, 7 (AVX-512); 0: not there. */
unsigned diff_xsave_offset(unsigned component);
unsigned diff_xsave_size(void);
/** A vector state with random, but telling contents. */
void diff_fill_xsave(uint8_t *xsave, uint64_t seed);

struct diff_random {
    uint64_t state;
};
uint64_t diff_random(struct diff_random *r);
static inline unsigned diff_below(struct diff_random *r, unsigned n)
{
    return (unsigned)((diff_random(r) >> 32) * n >> 32);
}

/* generate.c */
void diff_generate_init(void);
void diff_generate(struct diff_case *c, uint64_t seed, unsigned bits, bool based);
/** Longer: loops in loops' company, code that rewrites itself, jumps through registers. */
void diff_generate_program(struct diff_case *c, uint64_t seed, unsigned bits, bool based);

/** A program of functions with stack frames (frames.c). */
void diff_generate_frames(struct diff_case *c, uint64_t seed, unsigned bits, bool based);

/** What all of these begin with: no code yet, its place, registers and memory. */
void diff_generate_start(struct diff_case *c, struct diff_random *r, uint64_t seed, unsigned bits,
                         bool based);
/** The @index-th single instruction of the exhaustive list. @return false: no such instruction. */
bool diff_enumerate(struct diff_case *c, uint64_t index, unsigned bits);
extern const uint64_t diff_enumerate_count;

/* table.c */
unsigned diff_table_count(void);
/** @return false: the case makes no sense in that mode. */
bool diff_table_case(struct diff_case *c, unsigned index, bool kernel);

/* compare.c */
/** Compare, and print the differences if @verbose. @return true: equal. */
bool diff_compare(const struct diff_case *c, enum diff_tier tier, const struct diff_result *native,
                  const struct diff_result *soft, bool verbose);
void diff_print_case(const struct diff_case *c);

#endif
