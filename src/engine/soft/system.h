/*
 * What the files behind "Faults", "Memory", "Segments" and the system instructions share among
 * themselves: copies without libc, guest stacks, descriptors, the two ways into a handler. Not for
 * the translator or the dispatcher.
 */
#ifndef MULL_SOFT_SYSTEM_H
#define MULL_SOFT_SYSTEM_H

#include "engine/soft/exec.h"

/* ---- Copies without libc: the compiler must not be trusted with a loop ---- */

static inline void soft_zero(void *to, uint64_t size)
{
    __asm__ volatile("rep stosb" : "+D"(to), "+c"(size) : "a"(0) : "memory");
}

/* The guest need not align. */
typedef uint16_t __attribute__((aligned(1), may_alias)) soft_any16;
typedef uint32_t __attribute__((aligned(1), may_alias)) soft_any32;
typedef uint64_t __attribute__((aligned(1), may_alias)) soft_any64;

/** Copy from or to guest memory: values of 1, 2, 4 or 8 bytes in one access. */
static inline void soft_copy_guest(void *to, const void *from, unsigned size)
{
    switch (size) {
    case 1:
        *(volatile uint8_t *)to = *(const volatile uint8_t *)from;
        break;
    case 2:
        *(volatile soft_any16 *)to = *(const volatile soft_any16 *)from;
        break;
    case 4:
        *(volatile soft_any32 *)to = *(const volatile soft_any32 *)from;
        break;
    case 8:
        *(volatile soft_any64 *)to = *(const volatile soft_any64 *)from;
        break;
    default:
        if (size <= 64) { /* frames and descriptors: before a string move has started */
            while (size >= 8) {
                *(volatile soft_any64 *)to = *(const volatile soft_any64 *)from;
                to = (uint8_t *)to + 8;
                from = (const uint8_t *)from + 8;
                size -= 8;
            }
        }
        soft_copy(to, from, size);
    }
}

static inline bool soft_canonical(uint64_t va)
{
    return (uint64_t)((int64_t)(va << 16) >> 16) == va;
}

static inline bool soft_long_mode(const struct soft_cpu *cpu)
{
    return cpu->s.efer & SOFT_EFER_LMA;
}

static inline bool soft_code64(const struct soft_cpu *cpu)
{
    return cpu->mode & SOFT_MODE_CODE64;
}

/** Real mode or virtual-8086 mode: segments are selector * 16. */
static inline bool soft_real_segments(const struct soft_cpu *cpu)
{
    return !(cpu->mode & SOFT_MODE_PROTECTED) || (cpu->mode & SOFT_MODE_VM86);
}

/* ---- Descriptors (segment.c) ---- */

#define SOFT_DESC_TYPE(hi) (((hi) >> 8) & 0xfu)
#define SOFT_DESC_S 0x1000u
#define SOFT_DESC_DPL(hi) (((hi) >> 13) & 3u)
#define SOFT_DESC_P 0x8000u
#define SOFT_DESC_L 0x200000u
#define SOFT_DESC_DB 0x400000u
/* Bits of the type field of code and data segments. */
#define SOFT_TYPE_ACCESSED 1u
#define SOFT_TYPE_WRITE 2u      /* data */
#define SOFT_TYPE_READ 2u       /* code */
#define SOFT_TYPE_DOWN 4u       /* data: expand-down */
#define SOFT_TYPE_CONFORMING 4u /* code */
#define SOFT_TYPE_CODE 8u

/** A descriptor in memory: its two words, of system descriptors in long mode also the upper half
 *  of the base. */
struct soft_desc {
    uint64_t va; /* where it is */
    uint32_t lo, hi;
    uint32_t base_high, reserved; /* only of 16-byte descriptors */
};

/** Read the descriptor of a selector that is not null. Beyond the table: @vector with the selector
 *  (and @ext in bit 0) as error code. */
enum soft_result soft_read_desc(struct soft_cpu *cpu, uint16_t selector, uint8_t vector,
                                uint32_t ext, struct soft_desc *desc);

/** The same for a system descriptor: 16 bytes in long mode. */
enum soft_result soft_read_system_desc(struct soft_cpu *cpu, uint16_t selector, uint8_t vector,
                                       uint32_t ext, struct soft_desc *desc);

/** Set the accessed bit in memory if it is not set. */
enum soft_result soft_set_accessed(struct soft_cpu *cpu, struct soft_desc *desc);

/** The hidden part of a segment register from its descriptor. */
void soft_desc_to_segment(const struct soft_desc *desc, uint16_t selector,
                          struct mull_segment *seg);

/** What a segment register holds after a null selector was loaded. */
void soft_null_segment(struct mull_segment *seg, uint16_t selector);

/** What it holds after a load in real or virtual-8086 mode. */
void soft_real_segment(struct soft_cpu *cpu, unsigned seg, uint16_t selector);

/** SS in long mode at a new privilege level: null, with that DPL. */
static inline void soft_null_stack(struct mull_segment *ss, unsigned cpl)
{
    ss->base = 0;
    ss->limit = 0xffffffff;
    ss->attr = MULL_SEG_UNUSABLE | cpl << MULL_SEG_DPL_SHIFT;
    ss->selector = (uint16_t)cpl;
}

/* ---- Faults ---- */

/** What comes through the IDT. */
struct soft_event {
    uint8_t vector;
    bool has_error;
    bool software; /* INT n, INT3, INTO: the gate's DPL counts, no EXT bit */
    bool icebp;    /* INT1: like an exception */
    bool resume;   /* RF in the pushed flags */
    uint32_t error;
    uint64_t rip; /* to come back to */
};

/** Values to push, the first one first, together. */
struct soft_frame {
    uint64_t value[40];
    unsigned count;
};

/** Push a frame of @size-byte values to the stack *@rsp in @ss (NULL: 64-bit) with the rights of
 *  @cpl. A fault is #SS(@error) or #PF; *@rsp has moved only if there was none. */
enum soft_result soft_push_frame(struct soft_cpu *cpu, const struct soft_frame *f,
                                 const struct mull_segment *ss, unsigned size, unsigned cpl,
                                 uint32_t error, uint64_t *rsp);

/** INT1. */
enum soft_result soft_icebp(struct soft_cpu *cpu, unsigned length);

/** Read a privileged stack from the current TSS. @level: 0 to 2, or 3 + IST number in long mode. */
enum soft_result soft_tss_stack(struct soft_cpu *cpu, unsigned level, uint32_t ext, uint16_t *ss,
                                uint64_t *rsp);

/** Check and fetch a new stack segment for privilege level @cpl (not in long mode). */
enum soft_result soft_check_new_stack(struct soft_cpu *cpu, uint16_t selector, unsigned cpl,
                                      uint32_t ext, struct mull_segment *ss);

enum soft_task_reason { SOFT_TASK_JUMP, SOFT_TASK_CALL, SOFT_TASK_IRET, SOFT_TASK_GATE };

/** Switch to the task of a TSS selector (32-bit and 16-bit TSS; never in long mode). */
enum soft_result soft_task_switch(struct soft_cpu *cpu, uint16_t selector,
                                  enum soft_task_reason reason, uint64_t rip,
                                  const struct soft_event *event);

/* ---- Privilege and what CPUID offers ---- */

/** #GP(0) unless CPL is 0. */
static inline enum soft_result soft_need_cpl0(struct soft_cpu *cpu)
{
    return soft_cpl(cpu) ? soft_raise_error(cpu, SOFT_GP, 0) : SOFT_NEXT;
}

/** soft_mode_changed() where no control register changed: segments, CPL, EFLAGS.AC and VM. */
void soft_level_changed(struct soft_cpu *cpu);

/** Fill in cpu->features from cpu->cpuid (cpuid.c). */
void soft_features_update(struct soft_cpu *cpu);

/** Done, and something that translations or the dispatcher depend on changed. */
static inline enum soft_result soft_done_jump(struct soft_cpu *cpu, const struct soft_insn *in)
{
    soft_done(cpu, in);
    return SOFT_JUMP;
}

/* ---- Handlers, by file ---- */

/* system_control.c */
enum soft_result soft_sys_mov_cr(struct soft_cpu *cpu, const struct soft_insn *in);
enum soft_result soft_sys_mov_dr(struct soft_cpu *cpu, const struct soft_insn *in);
enum soft_result soft_sys_lmsw(struct soft_cpu *cpu, const struct soft_insn *in);
enum soft_result soft_sys_smsw(struct soft_cpu *cpu, const struct soft_insn *in);
enum soft_result soft_sys_clts(struct soft_cpu *cpu, const struct soft_insn *in);
enum soft_result soft_sys_invlpg(struct soft_cpu *cpu, const struct soft_insn *in);
enum soft_result soft_sys_invpcid(struct soft_cpu *cpu, const struct soft_insn *in);
enum soft_result soft_sys_xgetbv(struct soft_cpu *cpu, const struct soft_insn *in);
enum soft_result soft_sys_xsetbv(struct soft_cpu *cpu, const struct soft_insn *in);
/* system_msr.c */
enum soft_result soft_sys_rdmsr(struct soft_cpu *cpu, const struct soft_insn *in);
enum soft_result soft_sys_wrmsr(struct soft_cpu *cpu, const struct soft_insn *in);
enum soft_result soft_sys_rdtsc(struct soft_cpu *cpu, const struct soft_insn *in);
enum soft_result soft_sys_rdpmc(struct soft_cpu *cpu, const struct soft_insn *in);
enum soft_result soft_sys_rdpid(struct soft_cpu *cpu, const struct soft_insn *in);
/* system_xsave.c */
enum soft_result soft_sys_xsave(struct soft_cpu *cpu, const struct soft_insn *in);
enum soft_result soft_sys_xrstor(struct soft_cpu *cpu, const struct soft_insn *in);
enum soft_result soft_sys_fxsave(struct soft_cpu *cpu, const struct soft_insn *in);
enum soft_result soft_sys_fxrstor(struct soft_cpu *cpu, const struct soft_insn *in);
/* system_table.c */
enum soft_result soft_sys_lgdt(struct soft_cpu *cpu, const struct soft_insn *in);
enum soft_result soft_sys_sgdt(struct soft_cpu *cpu, const struct soft_insn *in);
enum soft_result soft_sys_lldt(struct soft_cpu *cpu, const struct soft_insn *in);
enum soft_result soft_sys_ltr(struct soft_cpu *cpu, const struct soft_insn *in);
enum soft_result soft_sys_sldt(struct soft_cpu *cpu, const struct soft_insn *in);
enum soft_result soft_sys_lar(struct soft_cpu *cpu, const struct soft_insn *in);
enum soft_result soft_sys_verr(struct soft_cpu *cpu, const struct soft_insn *in);
enum soft_result soft_sys_arpl(struct soft_cpu *cpu, const struct soft_insn *in);
enum soft_result soft_sys_mov_seg(struct soft_cpu *cpu, const struct soft_insn *in);
enum soft_result soft_sys_load_far(struct soft_cpu *cpu, const struct soft_insn *in);
enum soft_result soft_sys_swapgs(struct soft_cpu *cpu, const struct soft_insn *in);
enum soft_result soft_sys_fsgsbase(struct soft_cpu *cpu, const struct soft_insn *in);
/* system_transfer.c */
enum soft_result soft_sys_far_jump(struct soft_cpu *cpu, const struct soft_insn *in);
enum soft_result soft_sys_far_call(struct soft_cpu *cpu, const struct soft_insn *in);
/* system_return.c */
enum soft_result soft_sys_far_return(struct soft_cpu *cpu, const struct soft_insn *in);
enum soft_result soft_sys_iret(struct soft_cpu *cpu, const struct soft_insn *in);
/* system_call.c */
enum soft_result soft_sys_syscall(struct soft_cpu *cpu, const struct soft_insn *in);
enum soft_result soft_sys_sysret(struct soft_cpu *cpu, const struct soft_insn *in);
enum soft_result soft_sys_sysenter(struct soft_cpu *cpu, const struct soft_insn *in);
enum soft_result soft_sys_sysexit(struct soft_cpu *cpu, const struct soft_insn *in);
/* system_misc.c */
enum soft_result soft_sys_interrupt(struct soft_cpu *cpu, const struct soft_insn *in);
enum soft_result soft_sys_cli(struct soft_cpu *cpu, const struct soft_insn *in);
enum soft_result soft_sys_sti(struct soft_cpu *cpu, const struct soft_insn *in);
enum soft_result soft_sys_pushf(struct soft_cpu *cpu, const struct soft_insn *in);
enum soft_result soft_sys_popf(struct soft_cpu *cpu, const struct soft_insn *in);
enum soft_result soft_sys_stac(struct soft_cpu *cpu, const struct soft_insn *in);
enum soft_result soft_sys_hlt(struct soft_cpu *cpu, const struct soft_insn *in);
enum soft_result soft_sys_cpuid(struct soft_cpu *cpu, const struct soft_insn *in);
enum soft_result soft_sys_wbinvd(struct soft_cpu *cpu, const struct soft_insn *in);
enum soft_result soft_sys_vmcall(struct soft_cpu *cpu, const struct soft_insn *in);
/* system_io.c */
enum soft_result soft_sys_in(struct soft_cpu *cpu, const struct soft_insn *in);
enum soft_result soft_sys_out(struct soft_cpu *cpu, const struct soft_insn *in);
enum soft_result soft_sys_ins(struct soft_cpu *cpu, const struct soft_insn *in);
enum soft_result soft_sys_outs(struct soft_cpu *cpu, const struct soft_insn *in);

/* ---- Flags ---- */

/** Replace the flags that POPF or IRET of @size bytes may change at this CPL and IOPL. VM, VIF and
 *  VIP stay, RF is cleared. */
void soft_set_flags(struct soft_cpu *cpu, uint64_t flags, unsigned size);

/* ---- Where IF is not to be had (system_vme.c): #GP(0), or VIF moves ---- */

enum soft_result soft_virtual_cli(struct soft_cpu *cpu, const struct soft_insn *in);
enum soft_result soft_virtual_sti(struct soft_cpu *cpu, const struct soft_insn *in);

/** What PUSHF of @size bytes pushes in virtual-8086 mode below IOPL 3. */
enum soft_result soft_virtual_flags(struct soft_cpu *cpu, unsigned size, uint64_t *image);

/** The flags part of POPF and IRET there. */
enum soft_result soft_set_virtual_flags(struct soft_cpu *cpu, unsigned size, uint64_t image);

/** INT n of virtual-8086 mode at any IOPL, @length bytes long. */
enum soft_result soft_vm86_interrupt(struct soft_cpu *cpu, uint8_t vector, unsigned length);

/* ---- Code segments (system_transfer.c) ---- */

/** Does @offset lie in the code segment (legacy), or is it canonical (64-bit)? Else #GP(0). */
enum soft_result soft_check_rip(struct soft_cpu *cpu, const struct mull_segment *cs, uint64_t rip);

/** After a return to an outer level: data segments that it may not see become null. */
void soft_drop_segments(struct soft_cpu *cpu);

/* ---- Memory ---- */

/** Write at the privilege level that an event is being delivered to. */
static inline unsigned soft_access_at(unsigned cpl, unsigned access)
{
    return cpl == 3 ? access : access | SOFT_SYSTEM;
}

#endif
