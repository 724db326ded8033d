/*
 * The soft engine's inside: the vCPU as translated code and the C around it share it. Translated
 * code reaches `struct soft_cpu` through GS; a "window" is that struct (mapped again) followed by
 * the software TLB of one privilege class, so that changing class is a change of the GS base.
 *
 * Rules for everything in this folder that runs between two translated blocks:
 *  - The guest's vector and x87 state may still be in the host's registers
 *    (cpu->vectors_live). Code that could touch them (libc, Zydis, devices, pthread) must be
 *    preceded by soft_vectors_park(cpu). Files on hot paths are built with -mgeneral-regs-only.
 *  - A fault is recorded with soft_raise*() and travels up as SOFT_FAULT; state is then as before
 *    the instruction (but for what the architecture lets restart, such as REP counts).
 *  - RIP in cpu->s.rip is the instruction being executed until its handler succeeds.
 */
#ifndef MULL_SOFT_SOFT_H
#define MULL_SOFT_SOFT_H

#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "engine/cpu_state.h"
#include "engine/engine.h"
#include "memory/memory.h"

/* ---- Windows and the software TLB ---- */

#define SOFT_COMMON_SIZE 0x4000u /* struct soft_cpu, mapped at the start of every window */
#define SOFT_TLB_BITS 12
#define SOFT_TLB_ENTRIES (1u << SOFT_TLB_BITS)
#define SOFT_JUMP_BITS 16
#define SOFT_JUMP_ENTRIES (1u << SOFT_JUMP_BITS)

/* PEXT masks. The TLB's top index bit is address bit 47: it has a half for lower-half (user)
 * addresses and one for upper-half (kernel) addresses, flushed separately. */
#define SOFT_TLB_INDEX_MASK 0x00008000007ff000ull
/* The jump table has no second way: two places with the same bits, both used again and again, cost
 * a way out into C each time. Functions begin at multiples of 16, so low bits tell less apart than
 * high ones do; but returns lie closer to each other. */
#define SOFT_JUMP_SHIFT 2
#define SOFT_JUMP_INDEX_MASK ((SOFT_JUMP_ENTRIES - 1ull) << SOFT_JUMP_SHIFT)

/* Cells (cell.h): those for writes, then those for reads. What an empty one holds is hit by one
 * page of addresses that are not canonical, and leads it to addresses that are not either. */
#define SOFT_CELLS_WRITE 1024u
#define SOFT_CELLS 3072u
#define SOFT_CELL_INVALID 0xc000000000000000ull
#define SOFT_CELL_POISON 0x8000000000000000ull

/* Windows of a loop that are in use at the same time (coalesce.c). */
#define SOFT_SAVED 4u

#define SOFT_TLB_LOG 512
#define SOFT_JUMP_LOG 4096
#define SOFT_JUMP_FILTER 32768u
#define SOFT_EXEC_ENTRIES 256u

#define SOFT_EXEC_INVALID 1ull /* in exec_tag: no page's address is odd */

enum soft_window_id {
    SOFT_WIN_KERNEL,    /* CPL 0-2, user pages forbidden (CR4.SMAP and not EFLAGS.AC) */
    SOFT_WIN_KERNEL_AC, /* CPL 0-2, user pages allowed */
    SOFT_WIN_USER,      /* CPL 3 */
    SOFT_WIN_COUNT,
};

/* CPL 3 has a window for each of so many address spaces (PCIDs), so that coming back to one finds
 * its TLB and jump table filled; Linux uses six. */
#define SOFT_USER_WINDOWS 6
#define SOFT_WINDOWS (SOFT_WIN_USER + SOFT_USER_WINDOWS)

/** One page's translation. */
struct soft_page {
    uint64_t gpa;  /* of the address asked for */
    uint8_t *host; /* of the address asked for; NULL: not RAM */
    const struct mull_ram *ram;
    const struct mull_device_ram *device; /* NULL: none; else where it is may change */
    bool user, writable, global, dirty; /* of the leaf entry, all levels combined */
    uint8_t log2_size;                  /* 12, 21, 22, 30 */
};

/** A copy of a TLB entry, kept for one access or a few. */
struct soft_cell {
    uint64_t tag;  /* as in the TLB */
    uint64_t page; /* host address of the page */
};

struct soft_window {
    uint8_t common[SOFT_COMMON_SIZE]; /* struct soft_cpu */
    /* Entry i: minus the address of the page that may be read (written), or soft_tlb_invalid(i). An
     * access hits if its address + tag <= 4096 - size, where the index comes from its address. */
    uint64_t read_tag[SOFT_TLB_ENTRIES];
    uint64_t write_tag[SOFT_TLB_ENTRIES];
    uint64_t page[SOFT_TLB_ENTRIES];  /* host address of the page */
    uint64_t jump[SOFT_JUMP_ENTRIES]; /* host entry of the block that may start there */
    /* User windows only. A cell that is not empty is in the log, as twice its number; cell_slot says
     * which slots' pages may have cells. */
    struct soft_cell cell[SOFT_CELLS];
    int32_t cell_left[SOFT_CELLS]; /* misses until soft_cell_roams() is asked */
    bool cell_ready;
    uint32_t cell_count;
    uint16_t cell_log[SOFT_CELLS];
    uint16_t cell_logged[SOFT_CELLS];
    uint8_t cell_slot[SOFT_TLB_ENTRIES];
    /* mmu.c: the TLB slots of the lower half that were filled since its last flush, so that a
     * change of address space costs what was used; more than fit: the count only. */
    uint32_t lower_filled;
    bool upper_filled;
    bool upper_local; /* the upper half holds pages that are not global */
    bool lower_large; /* the lower half holds pieces of large pages */
    bool has_global;  /* global pages were entered */
    uint16_t lower_slot[SOFT_TLB_LOG];
    /* Translations for instruction fetch, by page number; the upper half has the second half. Only
     * soft_translate() knows of these. */
    bool exec_lower; /* the first half has some */
    uint64_t exec_tag[SOFT_EXEC_ENTRIES];
    struct soft_page exec_page[SOFT_EXEC_ENTRIES];
    /* The same for the jump table: whether an entry's page is not global; and by a hash of its
     * number, which pages have an entry, so that unmapping data does not empty it. */
    uint32_t jump_filled;
    uint32_t jump_mode; /* run.c: the mode it was filled for */
    bool jump_local;
    bool jump_ready; /* emptied once */
    uint16_t jump_slot[SOFT_JUMP_LOG];
    uint64_t jump_pages[SOFT_JUMP_FILTER / 64];
} __attribute__((aligned(4096))); /* whole pages */

static inline unsigned soft_tlb_index(uint64_t va)
{
    return (unsigned)((va >> 12) & 0x7ff) | (unsigned)((va >> 47) & 1) << 11;
}

/** The tag that nothing in this slot hits: of a page of another slot, far from this one's so that
 * no access between pages reaches it, whose address is not even canonical. */
static inline uint64_t soft_tlb_invalid(unsigned slot)
{
    uint64_t page = (uint64_t)((slot & 0x7ff) ^ 0x400) << 12 | (uint64_t)(slot >> 11) << 47;
    return 0 - (page | 1ull << 62);
}

static inline unsigned soft_jump_index(uint64_t rip)
{
    return (unsigned)(rip >> SOFT_JUMP_SHIFT) & (SOFT_JUMP_ENTRIES - 1);
}

/* ---- Mode: what a translation depends on besides its bytes ---- */

#define SOFT_MODE_CODE64 0x0001u  /* CS.L and EFER.LMA */
#define SOFT_MODE_CODE32 0x0002u  /* CS.D; neither: 16-bit code */
#define SOFT_MODE_STACK32 0x0004u /* SS.B (legacy and compatibility mode) */
#define SOFT_MODE_CPL3 0x0008u
#define SOFT_MODE_PAGING 0x0010u
#define SOFT_MODE_PROTECTED 0x0020u /* CR0.PE */
#define SOFT_MODE_VM86 0x0040u
#define SOFT_MODE_FLAT 0x0080u   /* not 64-bit code; DS, ES, SS: base 0, limit 4 GiB */
#define SOFT_MODE_NO_X87 0x0100u /* CR0.EM or CR0.TS: x87 faults */
#define SOFT_MODE_NO_SSE 0x0200u /* CR0.EM, CR0.TS or not CR4.OSFXSR */
#define SOFT_MODE_NO_AVX 0x0400u /* not CR4.OSXSAVE, not XCR0.AVX, or CR0.TS */
#define SOFT_MODE_NO_AVX512 0x0800u
#define SOFT_MODE_NO_FSGSBASE 0x1000u
#define SOFT_MODE_CPL12 0x2000u /* CPL 1 or 2 */
#define SOFT_MODE_SMAP 0x4000u  /* CR4.SMAP */
#define SOFT_MODE_TSD 0x8000u   /* CR4.TSD */
/* The limit of CS, where code is not 64-bit; neither: 4 GiB. */
#define SOFT_MODE_CODE_64K 0x10000u
#define SOFT_MODE_CODE_ODD 0x20000u /* something else: there are no translations */
#define SOFT_MODE_DEBUG 0x40000u    /* DR7 has breakpoints on instructions */

/* ---- Results ---- */

enum soft_result {
    SOFT_NEXT,  /* done; RIP moved to the next instruction; nothing a translation depends on changed
                 */
    SOFT_JUMP,  /* done; RIP, mode, mapping, or interrupt state changed: look everything up again */
    SOFT_FAULT, /* an exception was recorded with soft_raise*(); RIP is still the instruction's */
    SOFT_HALT,  /* done; the CPU waits (cpu->s.mp_state) */
    SOFT_STOP,  /* the engine cannot go on: cpu->error says why */
};

#define SOFT_ARITH_FLAGS                                                                           \
    0x8d5ull /* CF PF AF ZF SF OF: in the host's flags during translated code */

enum {
    SOFT_CF = 1 << 0,
    SOFT_PF = 1 << 2,
    SOFT_AF = 1 << 4,
    SOFT_ZF = 1 << 6,
    SOFT_SF = 1 << 7,
    SOFT_TF = 1 << 8,
    SOFT_IF = 1 << 9,
    SOFT_DF = 1 << 10,
    SOFT_OF = 1 << 11,
    SOFT_IOPL = 3 << 12,
    SOFT_NT = 1 << 14,
    SOFT_RF = 1 << 16,
    SOFT_VM = 1 << 17,
    SOFT_AC = 1 << 18,
    SOFT_VIF = 1 << 19,
    SOFT_VIP = 1 << 20,
    SOFT_ID = 1 << 21,
};

/* Exception vectors. */
enum {
    SOFT_DE = 0,
    SOFT_DB = 1,
    SOFT_BP = 3,
    SOFT_OFV = 4,
    SOFT_BR = 5,
    SOFT_UD = 6,
    SOFT_NM = 7,
    SOFT_DFV = 8,
    SOFT_TS = 10,
    SOFT_NP = 11,
    SOFT_SS = 12,
    SOFT_GP = 13,
    SOFT_PFV = 14,
    SOFT_MF = 16,
    SOFT_ACV = 17,
    SOFT_MC = 18,
    SOFT_XM = 19,
};

/* CR0, CR4, EFER bits. */
#define SOFT_CR0_PE 0x1ull
#define SOFT_CR0_MP 0x2ull
#define SOFT_CR0_EM 0x4ull
#define SOFT_CR0_TS 0x8ull
#define SOFT_CR0_ET 0x10ull
#define SOFT_CR0_NE 0x20ull
#define SOFT_CR0_WP 0x10000ull
#define SOFT_CR0_AM 0x40000ull
#define SOFT_CR0_NW 0x20000000ull
#define SOFT_CR0_CD 0x40000000ull
#define SOFT_CR0_PG 0x80000000ull
#define SOFT_CR4_VME 0x1ull
#define SOFT_CR4_PVI 0x2ull
#define SOFT_CR4_TSD 0x4ull
#define SOFT_CR4_DE 0x8ull
#define SOFT_CR4_PSE 0x10ull
#define SOFT_CR4_PAE 0x20ull
#define SOFT_CR4_PGE 0x80ull
#define SOFT_CR4_PCE 0x100ull
#define SOFT_CR4_OSFXSR 0x200ull
#define SOFT_CR4_OSXMMEXCPT 0x400ull
#define SOFT_CR4_UMIP 0x800ull
#define SOFT_CR4_FSGSBASE 0x10000ull
#define SOFT_CR4_PCIDE 0x20000ull
#define SOFT_CR4_OSXSAVE 0x40000ull
#define SOFT_CR4_SMEP 0x100000ull
#define SOFT_CR4_SMAP 0x200000ull
#define SOFT_EFER_SCE 0x1ull
#define SOFT_EFER_LME 0x100ull
#define SOFT_EFER_LMA 0x400ull
#define SOFT_EFER_NXE 0x800ull

struct soft_vm;
struct soft_block;

struct soft_fault {
    uint8_t vector;
    bool has_error;
    uint32_t error;
    uint64_t address; /* #PF: goes to CR2; #DB: bits for DR6 */
};

/* Numbers kept by every vCPU, for `mullion stats` and the benches. */
struct soft_stats {
    uint64_t blocks_translated, guest_insns_translated;
    uint64_t tlb_misses, tlb_flushes, page_walks;
    uint64_t jump_misses, chains, polls;
    uint64_t execs; /* instructions executed by soft_exec() */
    uint64_t interrupts, exceptions;
    uint64_t mmio, pio, halts, code_writes;
};

#define SOFT_LARGE_REGIONS 32

/** What mmu.c keeps for a vCPU. */
struct soft_mmu {
    uint64_t reserved; /* physical address bits (of 51..12) beyond what CPUID offers; 0: not set */
    bool ready;        /* the tables are not as allocated any more */
    /* Which pages of the upper half were entered as pieces of large ones: by GiB, one bit for 2
     * MiB. */
    bool large_overflow; /* there are more */
    uint8_t large_count, large_last;
    uint64_t large_gib[SOFT_LARGE_REGIONS];
    uint64_t large_2m[SOFT_LARGE_REGIONS][8];
    /* The address spaces of the user windows. */
    unsigned user; /* the one in use */
    uint64_t clock;
    struct {
        bool valid;
        uint64_t cr3, used;
    } space[SOFT_USER_WINDOWS];
};

/** What follows from the vCPU's CPUID table (cpuid.c). */
struct soft_features {
    bool known;
    bool amd;               /* AMD's meaning of SYSCALL, SYSENTER... */
    bool arch_capabilities; /* IA32_ARCH_CAPABILITIES is there */
    bool xsaveopt;          /* the host has it */
    bool monitor;           /* MONITOR and MWAIT */
    uint64_t cr4;           /* bits that may be set */
    uint64_t efer;
    uint64_t xcr0;
    uint32_t mxcsr;                          /* the host's MXCSR_MASK */
    uint16_t xsave_offset[8], xsave_size[8]; /* components 2 to 7, standard format */
    uint8_t xsave_align;                     /* bit i: 64-byte aligned in compacted format */
};

/** A wait that polls before it sleeps (wait.c), in the host's TSC. */
struct soft_wait {
    uint64_t start, end;
    uint64_t yield; /* when to let others have the CPU */
    bool crowded;   /* somebody took it */
};

/** What MONITOR has set up and MWAIT waits for (monitor.c). */
struct soft_monitor {
    bool armed;
    bool waiting;             /* MWAIT is to sleep */
    _Atomic bool written;     /* the line was, since it is watched */
    _Atomic uint64_t watched; /* the line that it sleeps on; MULL_NOWHERE: none */
    uint64_t gpa;             /* of the line */
    uint64_t line[8];         /* what was in it */
    struct soft_wait wait;
};

/** The vCPU. Aliased at the start of each window: C uses the one mapping in vm->cpu[i]. */
struct soft_cpu {
    /* Reached from translated code, with offsets baked into it. */
    uint64_t run_ok;       /* 0: leave translated code at the next poll */
    uint64_t leave;        /* not 0: the same, for indirect jumps; see soft_leave_code() */
    struct soft_cpu *self; /* the C mapping */
    uint64_t host_rsp;
    uint64_t resume;  /* host address where translated code goes on */
    uint64_t gs_base; /* the window that translated code runs with */
    uint64_t page_mask, offset_mask, tlb_index_mask, jump_index_mask;
    uint64_t irq_clear; /* 0: an interrupt may be waiting for EFLAGS.IF */
    uint64_t not_if_mask, not_ac_mask, not_df_mask, system_flags_mask;
    uint64_t tsc_offset; /* guest TSC minus host TSC: the clock's and s.tsc_offset */
    uint64_t spill[8];
    uint64_t saved[SOFT_SAVED]; /* host addresses of windows: coalesce.c */
    /* Outside 64-bit mode, by SOFT_WRITE or not, by segment: the number that makes the offset of
     * an access's last byte negative if that may be accessed; 0: C must look. */
    int64_t segment_room[2][6];

    struct mull_cpu_state s; /* canonical state; GPRs and arithmetic flags while not in code */

    /* From here on only C. */
    struct soft_vm *vm;
    unsigned index;
    bool vectors_live; /* vector and x87 state is in the host's registers, not in s.xsave */
    uint32_t mode;     /* SOFT_MODE_*, kept by soft_mode_changed() */
    enum soft_window_id window_id;
    struct soft_window *window[SOFT_WIN_COUNT]; /* those in use */
    struct soft_window *windows[SOFT_WINDOWS];  /* all */
    struct soft_fault fault;
    const uint8_t *fault_again; /* signal.c: the instruction here is for C, without a fault so far */
    bool delivering; /* an exception or interrupt is being delivered */
    uint8_t delivering_vector;
    struct mull_error error;
    const struct mull_cpuid *cpuid;
    uint64_t xsave_mask; /* state components the host saves for the guest */
    struct soft_mmu mmu;
    struct soft_features features;
    uint64_t cell_asked, cell_debt; /* cell.c: in cycles of the host's TSC */

    _Atomic uint32_t signals; /* enum mull_signal bits, SOFT_SIGNAL_FLUSH, not yet looked at */
    _Atomic uint8_t sipi_vector;
    _Atomic uint32_t wake; /* futex: bumped by every signal */
    _Atomic bool sleeping;
    _Atomic uint64_t called;           /* the host's TSC when it was woken the last time */
    uint64_t tsc_us;                   /* what the TSC counts in a microsecond */
    uint32_t poll_ns;                  /* how long it looks for an event before it sleeps */
    uint64_t woken, idle_since, awake; /* host's TSC: for soft_cache_idle() */
    struct soft_monitor monitor;
    struct soft_stats stats;

    /* run.c */
    void *private_run;
    void *signal_stack; /* host faults in translated code are handled on it */
    stack_t signal_stack_before;
    uint64_t jump_miss;         /* what an empty jump table slot holds */
    struct soft_thunks *thunks; /* thunk.c */
    bool irq_waiting;           /* irq_pending() may say yes: look when interrupts are enabled */
    uint32_t pauses;            /* PAUSEs executed, for giving the core away */
    uint16_t debug_hits; /* bits of DR6: watches that the instruction being executed has touched */
    bool code_changed;   /* the instruction just executed wrote to translated code */
    bool step_once;      /* the next instruction has no translation: execute it in C */

    /* For a debugger outside of the guest: debug_host.c. */
    bool debug_step; /* stop after one instruction */
    bool debug_stop; /* stop now: debug_hit says why */
    struct mull_debug_hit debug_hit;
};

/* What an indirect jump adds to the difference of addresses that must be zero: with it, no two
 * canonical addresses are the same. */
#define SOFT_LEAVE (1ull << 62)

/* Beside those of enum mull_signal: what the TLBs hold is no longer so. */
#define SOFT_SIGNAL_FLUSH 0x100u

/** Have a vCPU leave translated code at its next poll. Any thread. */
static inline void soft_leave_code(struct soft_cpu *cpu)
{
    __atomic_store_n(&cpu->leave, SOFT_LEAVE, __ATOMIC_RELAXED);
    __atomic_store_n(&cpu->run_ok, 0, __ATOMIC_SEQ_CST);
}

static inline unsigned soft_cpl(const struct soft_cpu *cpu)
{
    return cpu->mode & SOFT_MODE_CPL3
               ? 3
               : (cpu->s.seg[MULL_SS].attr & MULL_SEG_DPL) >> MULL_SEG_DPL_SHIFT;
}

/** What translations call the instruction at EIP or RIP: outside 64-bit mode the base of CS is part
 *  of it. */
static inline uint64_t soft_code_key(const struct soft_cpu *cpu)
{
    if (cpu->mode & SOFT_MODE_CODE64)
        return cpu->s.rip;
    return cpu->s.seg[MULL_CS].base << 32 | (uint32_t)cpu->s.rip;
}

/** The RIP or EIP of such a name, and its linear address. @mode: SOFT_MODE_* */
static inline uint64_t soft_key_rip(uint32_t mode, uint64_t key)
{
    return mode & SOFT_MODE_CODE64 ? key : (uint32_t)key;
}
static inline uint64_t soft_key_linear(uint32_t mode, uint64_t key)
{
    return mode & SOFT_MODE_CODE64 ? key : (uint32_t)(key + (key >> 32));
}

/* ---- Vectors (vectors.c) ---- */

/** Put the guest's vector and x87 state into s.xsave and give the host a clean state. */
void soft_vectors_park(struct soft_cpu *cpu);
/** Load it into the host's registers. Calls nothing. */
void soft_vectors_load(struct soft_cpu *cpu);
/** After s.xsave came from outside: make it something XRSTOR accepts (header, MXCSR reserved bits,
 *  components beyond cpu->xsave_mask). */
void soft_vectors_sanitize(struct soft_cpu *cpu);

/* ---- Faults (fault.c) ---- */

enum soft_result soft_raise(struct soft_cpu *cpu, uint8_t vector);
enum soft_result soft_raise_error(struct soft_cpu *cpu, uint8_t vector, uint32_t error);
enum soft_result soft_raise_page(struct soft_cpu *cpu, uint64_t address, uint32_t error);

/** Deliver the recorded exception: through the IDT, with double and triple faults. @return
 *  SOFT_JUMP, or SOFT_HALT with mp_state MULL_CPU_SHUTDOWN. */
enum soft_result soft_deliver_fault(struct soft_cpu *cpu);

/** Deliver an external interrupt or NMI (vector 2) now. @return as soft_deliver_fault. */
enum soft_result soft_deliver_interrupt(struct soft_cpu *cpu, uint8_t vector);

/** INT n, INT3, INTO: a software interrupt by the instruction of @length bytes at RIP. */
enum soft_result soft_software_interrupt(struct soft_cpu *cpu, uint8_t vector, unsigned length);

/* ---- Memory (mmu.c) ---- */

#define SOFT_READ 0u
#define SOFT_WRITE 1u
#define SOFT_EXEC 2u
#define SOFT_RMW 3u /* read and write: faults as a write */
#define SOFT_SYSTEM                                                                                \
    4u /* an implicit supervisor access (descriptor tables, TSS), whatever the CPL */

/** Walk the page tables for one access (setting A and D bits), check permissions. @return
 *  SOFT_NEXT and *page, or SOFT_FAULT (#PF; #GP/#SS are soft_linear()'s). */
enum soft_result soft_translate(struct soft_cpu *cpu, uint64_t va, unsigned access,
                                struct soft_page *page);

/** The page behind the one of @va; linear addresses wrap at 4 GiB outside long mode. */
static inline uint64_t soft_next_page(const struct soft_cpu *cpu, uint64_t va)
{
    uint64_t next = (va | ~MULL_PAGE_MASK) + 1;
    return cpu->s.efer & SOFT_EFER_LMA ? next : (uint32_t)next;
}

/** Walk without side effects, as a debugger: no A/D bits, no faults. @return false: not mapped. */
bool soft_translate_quiet(struct soft_cpu *cpu, uint64_t va, uint64_t *gpa);

/** Segment:offset to linear address. Checks limit, type and canonical form for @size bytes;
 *  raises #GP or #SS. In 64-bit mode only FS and GS have a base. */
enum soft_result soft_linear(struct soft_cpu *cpu, unsigned seg, uint64_t offset, unsigned size,
                             unsigned access, uint64_t *va);

/** Read or write guest virtual memory at a linear address: TLB, page crossings, MMIO (a single
 *  access if it does not cross a page and size is 1, 2, 4 or 8), code pages, dirty tracking. A
 *  write that faults has written nothing. @access: SOFT_READ/WRITE, optionally | SOFT_SYSTEM. */
enum soft_result soft_read(struct soft_cpu *cpu, uint64_t va, void *buf, unsigned size,
                           unsigned access);
enum soft_result soft_write(struct soft_cpu *cpu, uint64_t va, const void *buf, unsigned size,
                            unsigned access);

/** Would such an access succeed? Raises the fault that it would raise. */
enum soft_result soft_probe(struct soft_cpu *cpu, uint64_t va, unsigned size, unsigned access);

/** The host address for [va, va + size) if it lies in one page of RAM that may be accessed so
 *  without further ado (no MMIO, no code page for a write), else NULL. Never faults; may fill the
 *  TLB. For atomics and string loops. */
void *soft_direct(struct soft_cpu *cpu, uint64_t va, unsigned size, unsigned access);

/** A miss in translated code: fill the current window's TLB entry for @va. @return true: retry;
 *  false: it cannot be in the TLB (MMIO, fault, page crossing, code page): execute it in C. */
bool soft_tlb_fill(struct soft_cpu *cpu, uint64_t va, unsigned size, bool write);

enum soft_flush {
    SOFT_FLUSH_ALL,        /* also global pages */
    SOFT_FLUSH_NOT_GLOBAL, /* MOV CR3 without PCID */
    SOFT_FLUSH_ALL_LOCAL,  /* what is not global, of all PCIDs */
};
void soft_tlb_flush(struct soft_cpu *cpu, enum soft_flush what);
void soft_tlb_flush_page(struct soft_cpu *cpu, uint64_t va);

/** MOV CR3 with CR4.PCIDE: after s.cr3 has its new value. @keep: what is cached of that PCID stays
 *  valid (bit 63 of the operand). */
void soft_tlb_switch(struct soft_cpu *cpu, bool keep);

/** INVPCID of one PCID that may not be the current one. */
void soft_tlb_flush_pcid(struct soft_cpu *cpu, uint64_t pcid);

/** From now on see every write to the page of RAM at @gpa: MULL_PAGE_CODE. cache->lock held. */
void soft_watch_page(struct soft_vm *vm, const struct mull_ram *ram, uint64_t gpa);

/** Take the write permission for a page of RAM out of every vCPU's TLB (it holds code now, or
 *  became clean). Any thread: a remote store of invalid tags. */
void soft_tlb_protect(struct soft_vm *vm, const struct mull_ram *ram, uint64_t gpa);

/** mull_memory_watch.protect of the soft engine (@vm: struct soft_vm): all write permissions go. */
void soft_tlb_protect_all(void *vm);

/** Memory of a device has moved: drop everything. Any thread. */
void soft_tlb_forget_all(void *vm);

/** Recompute cpu->mode, window_id and gs_base after CPL, CRs, EFER, XCR0, EFLAGS.AC/VM, or a
 *  segment changed. */
void soft_mode_changed(struct soft_cpu *cpu);

/* ---- Instructions in C (decode.c, exec*.c, system*.c) ---- */

enum soft_operand_kind { SOFT_OP_NONE, SOFT_OP_REG, SOFT_OP_MEM, SOFT_OP_IMM, SOFT_OP_PTR };

struct soft_operand {
    uint8_t kind;      /* enum soft_operand_kind */
    uint8_t size;      /* bytes */
    uint8_t access;    /* SOFT_READ, SOFT_WRITE, SOFT_RMW */
    uint8_t seg;       /* MEM: MULL_ES.. */
    uint16_t reg;      /* REG: ZydisRegister. MEM: 0, or the VSIB index register */
    int8_t base;       /* MEM: GPR number, -1: none, 16: RIP */
    int8_t index;      /* MEM: GPR number, -1: none */
    uint8_t scale;     /* MEM: 1, 2, 4, 8 */
    uint16_t selector; /* PTR */
    int64_t value;     /* MEM: displacement; IMM: value, sign-extended where the ISA does;
                          relative branches: the displacement; PTR: offset */
};

#define SOFT_PREFIX_REP 0x01u   /* F3 */
#define SOFT_PREFIX_REPNE 0x02u /* F2 */
#define SOFT_PREFIX_LOCK 0x04u
#define SOFT_PREFIX_FAR 0x08u /* no prefix: JMP, CALL or RET is a far one */

struct soft_insn;
typedef enum soft_result (*soft_handler)(struct soft_cpu *cpu, const struct soft_insn *in);

/** What state an instruction needs, and so how it may be unavailable (#UD, #NM). */
enum soft_unit {
    SOFT_UNIT_INTEGER,
    SOFT_UNIT_VEX_INTEGER, /* general registers, VEX or XOP encoded: not in real mode */
    SOFT_UNIT_X87,
    SOFT_UNIT_MMX,
    SOFT_UNIT_SSE,
    SOFT_UNIT_AVX,
    SOFT_UNIT_AVX512,
};

enum soft_encoding { SOFT_ENC_LEGACY, SOFT_ENC_VEX2, SOFT_ENC_VEX3, SOFT_ENC_EVEX };

/** How to run an instruction natively (thunk.c, exec.c). */
struct soft_native {
    uint8_t unit;      /* enum soft_unit */
    uint8_t encoding;  /* enum soft_encoding */
    uint8_t keep;      /* prefixes the copy needs: SOFT_KEEP_* */
    uint8_t rex;       /* the REX byte, 0: none */
    uint8_t opcode;    /* offset of the opcode, or of the VEX, XOP or EVEX prefix */
    uint8_t modrm;     /* offset of ModRM, 0: none */
    uint8_t tail;      /* offset of what follows the opcode, ModRM, SIB and displacement */
    uint8_t sp;        /* fields that name RSP as an operand: SOFT_SP_* */
    uint8_t flags;     /* SOFT_FLAGS_* */
    uint8_t memory;    /* 1 + index of the memory operand in op[], 0: none */
    uint8_t align;     /* alignment of the memory operand that #GP(0) enforces, 0: none */
    uint8_t mask;      /* opmask register that selects elements of the memory operand, 0: none */
    bool mask_faults;  /* elements that are masked off fault nevertheless */
    uint8_t element;   /* bytes in one element of the memory operand */
    uint8_t vector;    /* vector length in bytes */
    uint8_t broadcast; /* elements that the memory operand is repeated to fill, 0: none */
    bool is4;          /* the immediate's upper half names a register */
    bool wide;         /* VEX.W or EVEX.W is set */
    bool constant;     /* MOV of an immediate to a general register */
    bool narrow;       /* ... but must not be, in a mode without 64-bit operands */
    uint16_t gprs;     /* general registers that are operands, one bit each */
};

/** One decoded instruction, all that is needed to execute it in C; independent of its address. */
struct soft_insn {
    soft_handler handler;
    uint16_t mnemonic; /* ZydisMnemonic */
    uint8_t length;
    uint8_t code_bits;    /* 16, 32, 64: the mode it was decoded in */
    uint8_t operand_size; /* effective, bytes: 1, 2, 4, 8 */
    uint8_t address_size; /* effective, bytes: 2, 4, 8 */
    uint8_t stack_size;   /* of an implicit push or pop: 2, 4, 8 */
    uint8_t prefixes;
    uint8_t operands; /* explicit ones, Intel order */
    uint8_t bytes[15];
    struct soft_operand op[5];
    struct soft_native native;
};

/** Decode. @return 0; -EINVAL: not an instruction (#UD); -EAGAIN:
 *  needs more than @available bytes (with 15: too long, #GP). Parks nothing: the caller has parked
 * the vectors. */
int soft_decode(struct soft_insn *out, const uint8_t *bytes, unsigned available,
                unsigned code_bits);

/** Execute one decoded instruction completely: operands, faults, flags, RIP. Vectors may be live
 *  or parked, before and after. */
static inline enum soft_result soft_exec(struct soft_cpu *cpu, const struct soft_insn *in)
{
    cpu->stats.execs++;
    return in->handler(cpu, in);
}

/** The C handler for a mnemonic that system.c implements (privileged, segment, table, mode, I/O,
 *  CPUID, time stamp, far transfers, IRET, SYSCALL...), or NULL. */
soft_handler soft_system_handler(const struct soft_insn *in);

/** What exec.c keeps for a vCPU (its thunks): made at vcpu_create, freed at vcpu_destroy. */
int soft_exec_init(struct soft_cpu *cpu, struct mull_error *err);
void soft_exec_fini(struct soft_cpu *cpu);

/** Linear address of a memory operand (base, index, segment, address size), checked for
 *  operand->size bytes. */
enum soft_result soft_operand_address(struct soft_cpu *cpu, const struct soft_insn *in,
                                      const struct soft_operand *op, unsigned access, uint64_t *va);

/** General registers by ZydisRegister (8 to 64 bits, AH..BH too; 32-bit writes zero-extend). */
uint64_t soft_reg_read(const struct soft_cpu *cpu, uint16_t reg);
void soft_reg_write(struct soft_cpu *cpu, uint16_t reg, uint64_t value);

/** Finish an instruction: RIP to the next one, wrapped to the code size. */
static inline enum soft_result soft_done(struct soft_cpu *cpu, const struct soft_insn *in)
{
    uint64_t next = cpu->s.rip + in->length;
    if (!(cpu->mode & SOFT_MODE_CODE64))
        next &= cpu->mode & SOFT_MODE_CODE32 ? 0xffffffffu : 0xffffu;
    cpu->s.rip = next;
    return SOFT_NEXT;
}

/* ---- Debug registers (debug.c) ---- */

/** Breakpoints on the instruction at RIP: their bits of DR6. */
uint64_t soft_debug_execute(const struct soft_cpu *cpu);

/** Is there a breakpoint on an instruction in the page of @va? */
bool soft_debug_page_executes(const struct soft_cpu *cpu, uint64_t va);

/** Is there a watch on data in the page of @va? Such a page stays out of the TLB. */
bool soft_debug_page_watched(const struct soft_cpu *cpu, uint64_t va);

/** The debug registers changed. */
void soft_debug_changed(struct soft_cpu *cpu);

/** An I/O port is accessed: as soft_debug_access(). */
void soft_debug_port(struct soft_cpu *cpu, uint16_t port, unsigned size);

/** Data is accessed: note in cpu->debug_hits which watches that touches. */
void soft_debug_access(struct soft_cpu *cpu, uint64_t va, unsigned size, unsigned access);

/* ---- A debugger outside of the guest (debug_host.c) ---- */

/** What it wants to stop at, of the VM; changes only while no vCPU runs. */
struct soft_debug {
    unsigned execs, watches;
    struct mull_debug_point exec[MULL_DEBUG_POINTS];
    struct mull_debug_point watch[MULL_DEBUG_POINTS];
};

/** Is there a breakpoint at this linear address? No translation may contain one. */
bool soft_debug_breaks(const struct soft_debug *debug, uint64_t va);

/** Must the vCPU stop before its next instruction? Then cpu->debug_hit says why. */
bool soft_debug_due(struct soft_cpu *cpu);

/** The instruction being executed accesses data: stop after it if a watch wants that. */
void soft_debug_touch(struct soft_cpu *cpu, uint64_t va, unsigned size, unsigned access);

/** The accesses (SOFT_READ: both, SOFT_WRITE) to the page of @va that must not go through the TLB,
 *  because a watch is in it; SOFT_EXEC: none. */
unsigned soft_debug_watched(const struct soft_debug *debug, uint64_t va);

/* ---- Segments and CPUID (segment.c, cpuid.c) ---- */

/** MOV to / POP / LxS of a data or stack segment register, with all checks. */
enum soft_result soft_load_segment(struct soft_cpu *cpu, unsigned seg, uint16_t selector);

/** mull_engine.cpuid of the soft engine. */
int soft_cpuid_template(struct mull_cpuid *table, struct mull_error *err);

void soft_cpuid(struct soft_cpu *cpu, uint32_t leaf, uint32_t subleaf, uint32_t regs[4]);

/* ---- Translations (cache.c) ---- */

/** Drop the translations that contain the instruction at the linear address @at, wherever that is
 *  mapped. No vCPU runs. */
void soft_code_break(struct soft_vm *vm, uint64_t at);

/** RAM at [gpa, gpa + len), inside one page with MULL_PAGE_CODE, was written: drop translations of
 *  those bytes. Any thread; @cpu: the vCPU that wrote, or NULL. Safe with live vectors. */
void soft_code_written(struct soft_vm *vm, struct soft_cpu *cpu, uint64_t gpa, uint64_t len);

/** Empty a window's jump table: its slots go to cpu->jump_miss, never to 0. */
void soft_jump_clear(struct soft_cpu *cpu, struct soft_window *w);

/** Put the entry of the block named @key into a window's jump table.
 *  @param straddles  its instruction goes on in the next page
 *  @param global     its page stays mapped when the address space changes
 *  @return the slot */
uint64_t *soft_jump_enter(struct soft_cpu *cpu, struct soft_window *w, uint64_t key, uint64_t host,
                          bool straddles, bool global);

/* ---- The VM ---- */

struct soft_cache;

struct soft_vm {
    struct mull_vm_config config;
    struct soft_debug debug;
    struct mull_memory *memory;
    const struct mull_ram *ram;
    unsigned ram_count;
    struct mull_device_ram *const _Atomic *device_ram;
    _Atomic uint64_t a20_holds; /* what the A20 gate takes from a physical address; 0: it is on */
    const struct mull_engine_bus *bus;
    struct soft_cache *cache;
    struct soft_cpu *cpu[MULL_MAX_CPUS];
    unsigned cpus;
    struct mull_memory_watch watch;
    /* Page-crossing or MMIO locked accesses take this; see exec.c. */
    _Atomic uint32_t split_lock;
};

/** mull_memory_find_ram() for code that runs with live vectors. */
static inline const struct mull_ram *soft_find_ram(const struct soft_vm *vm, uint64_t gpa)
{
    for (unsigned i = 0; i < vm->ram_count; i++) {
        if (gpa - vm->ram[i].gpa < vm->ram[i].size)
            return &vm->ram[i];
    }
    return NULL;
}

#endif
