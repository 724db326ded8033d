/*
 * Thunks: host code, made once, that runs one guest instruction natively on the guest's registers.
 * Each vCPU has its own cache of them (soft_exec_init), used by its own thread only.
 */
#ifndef MULL_SOFT_THUNK_H
#define MULL_SOFT_THUNK_H

#include "engine/soft/soft.h"

#define SOFT_THUNK_CODE_SIZE (512u << 10)
#define SOFT_THUNK_BITS 12
#define SOFT_THUNK_ENTRIES (1u << SOFT_THUNK_BITS)
#define SOFT_THUNK_BOUNCE 320 /* 64 of misalignment, 108 of FNSAVE, and slack */

struct soft_thunk_entry {
    uint64_t key[2]; /* the instruction's bytes; the last byte is the mode */
    uint32_t offset; /* of its code plus 1; 0: free */
};

struct soft_thunks {
    /* While a thunk runs: where its stack was. A host fault with RIP inside the code area then is
     * the guest instruction's. */
    volatile bool active;
    uint64_t rsp;

    uint8_t *write; /* the code area, mapped for writing */
    uint8_t *code;  /* and for execution */
    uint32_t used;
    struct soft_thunk_entry entry[SOFT_THUNK_ENTRIES];
    uint8_t bounce[SOFT_THUNK_BOUNCE] __attribute__((aligned(64)));
};

/**
 * Run @in natively on the guest's state, with @memory in place of its memory operand. Host faults
 * are raised as the guest's.
 *
 * @return SOFT_NEXT (RIP is not moved), SOFT_FAULT, or SOFT_STOP
 */
enum soft_result soft_thunk_run(struct soft_cpu *cpu, const struct soft_insn *in, void *memory);

/** Store vector register @reg (0 to 31) of @bytes (8: MMX, 16, 32, 64) into @memory, or load it
 *  from there, zeroing what is above. @return as soft_thunk_run */
enum soft_result soft_thunk_vector(struct soft_cpu *cpu, bool load, unsigned reg, unsigned bytes,
                                   void *memory);
/** The same for the @bits (16 or 64) of an opmask register. */
enum soft_result soft_thunk_opmask(struct soft_cpu *cpu, bool load, unsigned reg, unsigned bits,
                                   void *memory);

/**
 * For the signal handler (SIGFPE, SIGILL, SIGSEGV, SIGBUS): if the host's RIP is inside one of this
 * vCPU's thunks, make @ucontext resume where soft_thunk_run() raises the guest's exception.
 *
 * @return false: not a thunk's fault
 */
bool soft_thunk_signal(struct soft_cpu *cpu, int signo, void *ucontext);

#endif
