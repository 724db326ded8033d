/*
 * Model-specific registers that belong to the CPU, and the time-stamp counter. What belongs to the
 * platform (local APIC, KVM's paravirtual ones) is asked of the bus (SDM volume 4, APM volume 2
 * appendix A).
 */
#include "engine/soft/system.h"

#include "engine/clock.h"

enum {
    MSR_TSC = 0x10,
    MSR_PLATFORM_ID = 0x17,
    MSR_APIC_BASE = 0x1b,
    MSR_EBL_CR_POWERON = 0x2a,
    MSR_TSC_ADJUST = 0x3b,
    MSR_SPEC_CTRL = 0x48,
    MSR_PRED_CMD = 0x49,
    MSR_UCODE_WRITE = 0x79,
    MSR_UCODE_REV = 0x8b,
    MSR_MTRRCAP = 0xfe,
    MSR_ARCH_CAPABILITIES = 0x10a,
    MSR_SYSENTER_CS = 0x174,
    MSR_SYSENTER_ESP = 0x175,
    MSR_SYSENTER_EIP = 0x176,
    MSR_MCG_CAP = 0x179,
    MSR_MCG_STATUS = 0x17a,
    MSR_MISC_ENABLE = 0x1a0,
    MSR_DEBUGCTL = 0x1d9,
    MSR_LBR_FIRST = 0x1db,
    MSR_LBR_LAST = 0x1de,
    MSR_MTRR_VARIABLE = 0x200,
    MSR_MTRR_VARIABLE_LAST = 0x20f,
    MSR_MTRR_FIX64K = 0x250,
    MSR_MTRR_FIX16K = 0x258,
    MSR_MTRR_FIX4K = 0x268,
    MSR_PAT = 0x277,
    MSR_MTRR_DEF_TYPE = 0x2ff,
    MSR_XSS = 0xda0,
};

#define MSR_EFER 0xc0000080u
#define MSR_STAR 0xc0000081u
#define MSR_LSTAR 0xc0000082u
#define MSR_CSTAR 0xc0000083u
#define MSR_SFMASK 0xc0000084u
#define MSR_FS_BASE 0xc0000100u
#define MSR_GS_BASE 0xc0000101u
#define MSR_KERNEL_GS_BASE 0xc0000102u
#define MSR_TSC_AUX 0xc0000103u
#define MSR_SYSCFG 0xc0010010u
#define MSR_HWCR 0xc0010015u
#define MSR_TOP_MEM 0xc001001au
#define MSR_TOP_MEM2 0xc001001du
#define MSR_NB_CFG 0xc001001fu
#define MSR_PATCH_LOADER 0xc0010020u
#define MSR_INT_PENDING 0xc0010055u
#define MSR_MMIO_CONF_BASE 0xc0010058u
#define MSR_PSTATE_FIRST 0xc0010061u /* limit, control, status, then what each state is */
#define MSR_PSTATE_LAST 0xc001006bu
#define MSR_TSEG_BASE 0xc0010112u
#define MSR_TSEG_MASK 0xc0010113u
#define MSR_VM_CR 0xc0010114u
#define MSR_VM_HSAVE 0xc0010117u
#define MSR_LS_CFG 0xc0011020u
#define MSR_IC_CFG 0xc0011021u
#define MSR_DC_CFG 0xc0011022u
#define MSR_TW_CFG 0xc0011023u
#define MSR_DE_CFG 0xc0011029u
#define MSR_BU_CFG2 0xc001102au

#define HWCR_TSC_FREQ_SEL (1ull << 24) /* the TSC counts at the P0 frequency */
#define VM_CR_SVMDIS 0x10ull
#define DE_CFG_LFENCE 2ull
#define MTRR_VARIABLE_COUNT 8u
#define MTRRCAP_VALUE (MTRR_VARIABLE_COUNT | 0x500) /* fixed ranges, write combining */
/* ARCH_CAPABILITIES: RDCL_NO, IBRS_ALL, SKIP_L1DFL_VMENTRY, SSB_NO, MDS_NO, PSCHANGE_MC_NO, TAA_NO,
 * SBDR_SSDP_NO, FBSDP_NO, PSDP_NO, BHI_NO, PBRSB_NO, GDS_NO, RFDS_NO: see cpuid_template.c on
 * speculation. */
#define ARCH_CAPABILITIES_VALUE 0x0d10e17bull

/* ---- Time ---- */

static uint64_t guest_tsc(const struct soft_cpu *cpu)
{
    uint32_t lo, hi;

    __asm__ volatile("rdtsc" : "=a"(lo), "=d"(hi));
    return ((uint64_t)hi << 32 | lo) + cpu->tsc_offset;
}

static void move_tsc(struct soft_cpu *cpu, uint64_t change)
{
    cpu->s.tsc_offset += change;
    cpu->tsc_offset += change;
    if (cpu->vm->bus->tsc_offset) {
        soft_vectors_park(cpu);
        cpu->vm->bus->tsc_offset(cpu->vm->bus->opaque, cpu->index, cpu->s.tsc_offset);
    }
}

static bool tsc_forbidden(const struct soft_cpu *cpu)
{
    return (cpu->s.cr4 & SOFT_CR4_TSD) && soft_cpl(cpu);
}

enum soft_result soft_sys_rdtsc(struct soft_cpu *cpu, const struct soft_insn *in)
{
    if (tsc_forbidden(cpu))
        return soft_raise_error(cpu, SOFT_GP, 0);
    uint64_t tsc = guest_tsc(cpu);
    cpu->s.gpr[MULL_RAX] = (uint32_t)tsc;
    cpu->s.gpr[MULL_RDX] = tsc >> 32;
    if (in->length > 2) /* RDTSCP: 0F 01 F9 */
        cpu->s.gpr[MULL_RCX] = (uint32_t)cpu->s.tsc_aux;
    return soft_done(cpu, in);
}

enum soft_result soft_sys_rdpmc(struct soft_cpu *cpu, const struct soft_insn *in)
{
    return soft_raise_error(cpu, SOFT_GP, 0); /* there are no counters */
}

enum soft_result soft_sys_rdpid(struct soft_cpu *cpu, const struct soft_insn *in)
{
    soft_reg_write(cpu, in->op[0].reg, cpu->s.tsc_aux);
    return soft_done(cpu, in);
}

/* ---- MTRRs (SDM volume 3, 12.11): stored, memory is always write-back ---- */

static uint64_t *mtrr(struct soft_cpu *cpu, uint32_t msr)
{
    struct mull_cpu_state *s = &cpu->s;

    if (msr >= MSR_MTRR_VARIABLE && msr <= MSR_MTRR_VARIABLE_LAST) {
        unsigned i = (msr - MSR_MTRR_VARIABLE) / 2;
        return msr & 1 ? &s->mtrr_mask[i] : &s->mtrr_base[i];
    }
    if (msr == MSR_MTRR_FIX64K)
        return &s->mtrr_fixed[0];
    if (msr == MSR_MTRR_FIX16K || msr == MSR_MTRR_FIX16K + 1)
        return &s->mtrr_fixed[1 + msr - MSR_MTRR_FIX16K];
    if (msr >= MSR_MTRR_FIX4K && msr < MSR_MTRR_FIX4K + 8)
        return &s->mtrr_fixed[3 + msr - MSR_MTRR_FIX4K];
    return msr == MSR_MTRR_DEF_TYPE ? &s->mtrr_def_type : NULL;
}

static bool valid_memory_type(uint64_t type, bool pat)
{
    return type == 0 || type == 1 || type == 4 || type == 5 || type == 6 || (pat && type == 7);
}

static bool valid_types(uint64_t value, bool pat)
{
    for (unsigned i = 0; i < 8; i++)
        if (!valid_memory_type(value >> (8 * i) & 0xff, pat))
            return false;
    return true;
}

static bool valid_mtrr(const struct soft_cpu *cpu, uint32_t msr, uint64_t value)
{
    uint64_t beyond = cpu->mmu.reserved | 0xfff0000000000000ull;

    if (msr == MSR_MTRR_DEF_TYPE)
        return !(value & ~0xcffull) && valid_memory_type(value & 0xff, false);
    if (msr > MSR_MTRR_VARIABLE_LAST)
        return valid_types(value, false);
    if (msr & 1)
        return !(value & (beyond | 0x7ff));
    return !(value & (beyond | 0xf00)) && valid_memory_type(value & 0xff, false);
}

/* ---- Reading ---- */

/* CPU state that reads as it was written. */
static uint64_t *stored(struct soft_cpu *cpu, uint32_t msr)
{
    struct mull_cpu_state *s = &cpu->s;

    switch (msr) {
    case MSR_TSC_ADJUST:
        return &s->tsc_adjust;
    case MSR_SYSENTER_CS:
        return &s->sysenter_cs;
    case MSR_SYSENTER_ESP:
        return &s->sysenter_esp;
    case MSR_SYSENTER_EIP:
        return &s->sysenter_eip;
    case MSR_MCG_STATUS:
        return &s->mcg_status;
    case MSR_MISC_ENABLE:
        return &s->misc_enable;
    case MSR_PAT:
        return &s->pat;
    case MSR_XSS:
        return &s->xss;
    case MSR_EFER:
        return &s->efer;
    case MSR_STAR:
        return &s->star;
    case MSR_LSTAR:
        return &s->lstar;
    case MSR_CSTAR:
        return &s->cstar;
    case MSR_SFMASK:
        return &s->sfmask;
    case MSR_FS_BASE:
        return &s->seg[MULL_FS].base;
    case MSR_GS_BASE:
        return &s->seg[MULL_GS].base;
    case MSR_KERNEL_GS_BASE:
        return &s->kernel_gs_base;
    case MSR_TSC_AUX:
        return &s->tsc_aux;
    case MSR_SPEC_CTRL:
        return cpu->features.arch_capabilities ? &s->spec_ctrl : NULL;
    default:
        return mtrr(cpu, msr);
    }
}

/* Registers that have one value and take any write without effect. */
static bool constant(const struct soft_cpu *cpu, uint32_t msr, uint64_t *value)
{
    *value = 0;
    switch (msr) {
    case MSR_UCODE_REV:
        *value = cpu->features.amd ? 0x01000065 : 1ull << 32;
        return true;
    case MSR_UCODE_WRITE:
    case MSR_DEBUGCTL:
    case MSR_PLATFORM_ID:
    case MSR_EBL_CR_POWERON:
        return true;
    default:
        break;
    }
    if (msr >= MSR_LBR_FIRST && msr <= MSR_LBR_LAST)
        return true;
    if (!cpu->features.amd)
        return false;
    /* HWCR says that the TSC runs at P0's frequency: who then asks for that finds no P-state
     * enabled. */
    if (msr >= MSR_PSTATE_FIRST && msr <= MSR_PSTATE_LAST)
        return true;
    switch (msr) {
    case MSR_HWCR:
        *value = HWCR_TSC_FREQ_SEL;
        return true;
    case MSR_DE_CFG:
        *value = DE_CFG_LFENCE;
        return true;
    case MSR_VM_CR:
        *value = VM_CR_SVMDIS;
        return true;
    case MSR_SYSCFG:
    case MSR_TOP_MEM:
    case MSR_TOP_MEM2:
    case MSR_NB_CFG:
    case MSR_PATCH_LOADER:
    case MSR_INT_PENDING:
    case MSR_MMIO_CONF_BASE:
    case MSR_TSEG_BASE:
    case MSR_TSEG_MASK:
    case MSR_VM_HSAVE:
    case MSR_LS_CFG:
    case MSR_IC_CFG:
    case MSR_DC_CFG:
    case MSR_TW_CFG:
    case MSR_BU_CFG2:
        return true;
    default:
        return false;
    }
}

static bool read_only(const struct soft_cpu *cpu, uint32_t msr, uint64_t *value)
{
    switch (msr) {
    case MSR_MTRRCAP:
        *value = MTRRCAP_VALUE;
        return true;
    case MSR_MCG_CAP:
        *value = 0; /* no banks */
        return true;
    case MSR_ARCH_CAPABILITIES:
        *value = ARCH_CAPABILITIES_VALUE;
        return cpu->features.arch_capabilities;
    default:
        return false;
    }
}

enum soft_result soft_sys_rdmsr(struct soft_cpu *cpu, const struct soft_insn *in)
{
    uint32_t msr = (uint32_t)cpu->s.gpr[MULL_RCX];
    enum soft_result r = soft_need_cpl0(cpu);
    const uint64_t *place;
    uint64_t value;

    if (r != SOFT_NEXT)
        return r;
    if (msr == MSR_TSC) {
        value = guest_tsc(cpu);
    } else if ((place = stored(cpu, msr))) {
        value = *place;
    } else if (!constant(cpu, msr, &value) && !read_only(cpu, msr, &value)) {
        const struct mull_engine_bus *bus = cpu->vm->bus;
        soft_vectors_park(cpu);
        if (!bus->msr_read || bus->msr_read(bus->opaque, cpu->index, msr, &value) < 0)
            return soft_raise_error(cpu, SOFT_GP, 0);
    }
    cpu->s.gpr[MULL_RAX] = (uint32_t)value;
    cpu->s.gpr[MULL_RDX] = value >> 32;
    return soft_done(cpu, in);
}

/* ---- Writing ---- */

static bool write_efer(struct soft_cpu *cpu, uint64_t value)
{
    struct mull_cpu_state *s = &cpu->s;
    uint64_t changed = s->efer ^ value;

    if (value & ~cpu->features.efer)
        return false;
    if ((changed & SOFT_EFER_LME) && (s->cr0 & SOFT_CR0_PG))
        return false;
    s->efer = (value & ~SOFT_EFER_LMA) | (s->efer & SOFT_EFER_LMA);
    if (changed & SOFT_EFER_NXE)
        soft_tlb_flush(cpu, SOFT_FLUSH_ALL);
    soft_mode_changed(cpu);
    return true;
}

/* @return false: #GP. */
static bool valid_value(const struct soft_cpu *cpu, uint32_t msr, uint64_t value)
{
    switch (msr) {
    case MSR_LSTAR:
    case MSR_CSTAR:
    case MSR_FS_BASE:
    case MSR_GS_BASE:
    case MSR_KERNEL_GS_BASE:
    case MSR_SYSENTER_ESP:
    case MSR_SYSENTER_EIP:
        return soft_canonical(value);
    case MSR_SFMASK:
        return cpu->features.amd || !(value >> 32);
    case MSR_TSC_AUX:
        return !(value >> 32);
    case MSR_PAT:
        return valid_types(value, true);
    case MSR_XSS:
        return value == 0;
    case MSR_MCG_STATUS:
        return value == 0;
    case MSR_SPEC_CTRL:
        return value <= 7; /* IBRS, STIBP, SSBD */
    default:
        break;
    }
    if ((msr >= MSR_MTRR_VARIABLE && msr <= MSR_MTRR_VARIABLE_LAST) ||
        (msr >= MSR_MTRR_FIX64K && msr < MSR_MTRR_FIX4K + 8) || msr == MSR_MTRR_DEF_TYPE)
        return valid_mtrr(cpu, msr, value);
    return true;
}

enum soft_result soft_sys_wrmsr(struct soft_cpu *cpu, const struct soft_insn *in)
{
    struct mull_cpu_state *s = &cpu->s;
    uint32_t msr = (uint32_t)s->gpr[MULL_RCX];
    uint64_t value = (uint32_t)s->gpr[MULL_RAX] | s->gpr[MULL_RDX] << 32, ignored;
    enum soft_result r = soft_need_cpl0(cpu);
    uint64_t *place = stored(cpu, msr);
    bool ok = true;

    if (r != SOFT_NEXT)
        return r;
    if (msr == MSR_TSC) {
        uint64_t change = value - guest_tsc(cpu);
        move_tsc(cpu, change);
        s->tsc_adjust += change;
    } else if (msr == MSR_TSC_ADJUST) {
        move_tsc(cpu, value - s->tsc_adjust);
        s->tsc_adjust = value;
    } else if (msr == MSR_EFER) {
        ok = write_efer(cpu, value);
    } else if (place) {
        ok = valid_value(cpu, msr, value);
        if (ok)
            *place = value;
    } else if (msr == MSR_PRED_CMD && cpu->features.arch_capabilities) {
        ok = value <= 1; /* IBPB */
    } else if (read_only(cpu, msr, &ignored)) {
        ok = false;
    } else if (!constant(cpu, msr, &ignored)) {
        const struct mull_engine_bus *bus = cpu->vm->bus;
        soft_vectors_park(cpu);
        ok = bus->msr_write && bus->msr_write(bus->opaque, cpu->index, msr, value) >= 0;
        if (ok && msr == MSR_APIC_BASE)
            s->apic_base = value; /* CPUID shows whether it is on */
    }
    if (!ok)
        return soft_raise_error(cpu, SOFT_GP, 0);
    return msr == MSR_EFER ? soft_done_jump(cpu, in) : soft_done(cpu, in);
}
