/*
 * The canonical state of one x86-64 vCPU: what every engine loads from and stores to, so that a
 * machine saved on one engine resumes on another. Nothing here belongs to one engine.
 * Field meanings follow the Intel SDM volume 3 and the AMD APM volume 2.
 */
#ifndef MULL_ENGINE_CPU_STATE_H
#define MULL_ENGINE_CPU_STATE_H

#include <stdint.h>

#include "base/fields.h"

enum { /* gpr[] index: the hardware's register number */
    MULL_RAX, MULL_RCX, MULL_RDX, MULL_RBX, MULL_RSP, MULL_RBP, MULL_RSI, MULL_RDI,
    MULL_R8, MULL_R9, MULL_R10, MULL_R11, MULL_R12, MULL_R13, MULL_R14, MULL_R15,
};

enum { /* seg[] index: the hardware's segment number, then the two system segments */
    MULL_ES, MULL_CS, MULL_SS, MULL_DS, MULL_FS, MULL_GS, MULL_LDTR, MULL_TR, MULL_SEG_COUNT,
};

/* struct mull_segment.attr: bits 8..23 of a descriptor's second word, shifted down by 8. */
#define MULL_SEG_TYPE 0x000fu
#define MULL_SEG_S 0x0010u /* code or data, not system */
#define MULL_SEG_DPL_SHIFT 5
#define MULL_SEG_DPL 0x0060u
#define MULL_SEG_P 0x0080u
#define MULL_SEG_AVL 0x1000u
#define MULL_SEG_L 0x2000u
#define MULL_SEG_DB 0x4000u
#define MULL_SEG_G 0x8000u
#define MULL_SEG_UNUSABLE 0x10000u /* null selector */

struct mull_segment {
    uint64_t base;
    uint32_t limit; /* in bytes, granularity applied: offset > limit faults */
    uint32_t attr;
    uint16_t selector;
    uint16_t pad[3];
};

struct mull_table { /* GDTR, IDTR */
    uint64_t base;
    uint16_t limit;
    uint16_t pad[3];
};

enum { /* mp_state */
    MULL_CPU_RUNNABLE,
    MULL_CPU_HALTED,    /* HLT: waits for an interrupt, NMI, SMI or INIT */
    MULL_CPU_WAIT_SIPI, /* after INIT: waits for a start-up IPI */
    MULL_CPU_SHUTDOWN,  /* triple fault */
};

#define MULL_XSAVE_SIZE 4096
#define MULL_LAPIC_SIZE 1024

struct mull_cpu_state {
    uint64_t gpr[16];
    uint64_t rip;
    uint64_t rflags;

    struct mull_segment seg[MULL_SEG_COUNT];
    struct mull_table gdt, idt;

    uint64_t cr0, cr2, cr3, cr4, cr8;
    uint64_t dr[8]; /* DR0-3, DR6, DR7; 4 and 5 unused */
    uint64_t efer;
    uint64_t xcr0;

    /* MSRs. */
    uint64_t star, lstar, cstar, sfmask;
    uint64_t kernel_gs_base;
    uint64_t sysenter_cs, sysenter_esp, sysenter_eip;
    uint64_t pat;
    uint64_t tsc_offset; /* guest TSC = clock's TSC + this: what WRMSR to TSC changed */
    uint64_t tsc_aux;
    uint64_t tsc_adjust;
    uint64_t tsc_deadline;
    uint64_t apic_base;
    uint64_t misc_enable;
    uint64_t spec_ctrl;
    uint64_t xss;
    uint64_t mtrr_def_type;
    uint64_t mtrr_fixed[11];
    uint64_t mtrr_base[8], mtrr_mask[8];
    uint64_t mcg_status, mcg_ctl;
    uint64_t mc_banks[32 * 4];
    /* KVM paravirtual MSRs (Documentation/virt/kvm/x86/msr.rst). */
    uint64_t kvm_wall_clock, kvm_system_time, kvm_async_pf, kvm_steal_time, kvm_pv_eoi,
        kvm_poll_control;

    /* Events between two instructions. */
    uint8_t mp_state;
    uint8_t interrupt_shadow; /* 1: after STI, 2: after MOV SS / POP SS */
    uint8_t nmi_blocked;      /* an NMI handler runs: until IRET */
    uint8_t nmi_pending;
    uint8_t sipi_vector;      /* where a start-up IPI that came in will start */
    uint8_t sipi_pending;
    uint8_t exception_pending; /* to be delivered before the next instruction */
    uint8_t exception_vector;
    uint8_t exception_has_error;
    uint8_t interrupt_injected; /* a vector taken from the LAPIC/PIC but not yet delivered */
    uint8_t interrupt_vector;
    uint8_t interrupt_soft;
    uint32_t exception_error;

    /* The local APIC's registers as its memory page shows them: register at offset N is the
     * little-endian word at lapic[N]. x2APIC's ICR high half is at 0x310. */
    uint8_t lapic[MULL_LAPIC_SIZE];

    /* FXSAVE/XSAVE area, standard (not compacted) format, offsets as CPUID 0Dh of the guest. */
    uint8_t xsave[MULL_XSAVE_SIZE] __attribute__((aligned(64)));
};

/** The description that saves and restores it. */
extern const struct mull_state_desc mull_cpu_state_desc;

/** The state after power-on or INIT (SDM volume 3, table 10-1): real mode at F000:FFF0.
 *  @param bsp  this is the boot processor: runnable; others wait for a start-up IPI */
void mull_cpu_state_reset(struct mull_cpu_state *s, unsigned index, bool bsp);

#endif
