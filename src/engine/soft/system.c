/*
 * Which C handler executes which system instruction. The handlers are in system_*.c.
 */
#include "engine/soft/system.h"
#include "engine/soft/monitor.h"

#include <Zydis/Zydis.h>

static bool is_reg(const struct soft_operand *op, unsigned first, unsigned last)
{
    return op->kind == SOFT_OP_REG && op->reg >= first && op->reg <= last;
}

static bool has_reg(const struct soft_insn *in, unsigned first, unsigned last)
{
    return is_reg(&in->op[0], first, last) || is_reg(&in->op[1], first, last);
}

static soft_handler mov_handler(const struct soft_insn *in)
{
    if (has_reg(in, ZYDIS_REGISTER_CR0, ZYDIS_REGISTER_CR15))
        return soft_sys_mov_cr;
    if (has_reg(in, ZYDIS_REGISTER_DR0, ZYDIS_REGISTER_DR15))
        return soft_sys_mov_dr;
    if (has_reg(in, ZYDIS_REGISTER_ES, ZYDIS_REGISTER_GS))
        return soft_sys_mov_seg;
    return NULL;
}

static soft_handler far_handler(const struct soft_insn *in)
{
    switch (in->mnemonic) {
    case ZYDIS_MNEMONIC_JMP:
        return soft_sys_far_jump;
    case ZYDIS_MNEMONIC_CALL:
        return soft_sys_far_call;
    case ZYDIS_MNEMONIC_RET:
        return soft_sys_far_return;
    default:
        return NULL;
    }
}

static soft_handler xsave_handler(const struct soft_insn *in)
{
    switch (in->mnemonic) {
    case ZYDIS_MNEMONIC_XSAVE:
    case ZYDIS_MNEMONIC_XSAVE64:
    case ZYDIS_MNEMONIC_XSAVEOPT:
    case ZYDIS_MNEMONIC_XSAVEOPT64:
    case ZYDIS_MNEMONIC_XSAVEC:
    case ZYDIS_MNEMONIC_XSAVEC64:
    case ZYDIS_MNEMONIC_XSAVES:
    case ZYDIS_MNEMONIC_XSAVES64:
        return soft_sys_xsave;
    case ZYDIS_MNEMONIC_XRSTOR:
    case ZYDIS_MNEMONIC_XRSTOR64:
    case ZYDIS_MNEMONIC_XRSTORS:
    case ZYDIS_MNEMONIC_XRSTORS64:
        return soft_sys_xrstor;
    case ZYDIS_MNEMONIC_FXSAVE:
    case ZYDIS_MNEMONIC_FXSAVE64:
        return soft_sys_fxsave;
    case ZYDIS_MNEMONIC_FXRSTOR:
    case ZYDIS_MNEMONIC_FXRSTOR64:
        return soft_sys_fxrstor;
    default:
        return NULL;
    }
}

static soft_handler segment_handler(const struct soft_insn *in)
{
    switch (in->mnemonic) {
    case ZYDIS_MNEMONIC_LGDT:
    case ZYDIS_MNEMONIC_LIDT:
        return soft_sys_lgdt;
    case ZYDIS_MNEMONIC_SGDT:
    case ZYDIS_MNEMONIC_SIDT:
        return soft_sys_sgdt;
    case ZYDIS_MNEMONIC_LLDT:
        return soft_sys_lldt;
    case ZYDIS_MNEMONIC_LTR:
        return soft_sys_ltr;
    case ZYDIS_MNEMONIC_SLDT:
    case ZYDIS_MNEMONIC_STR:
        return soft_sys_sldt;
    case ZYDIS_MNEMONIC_LAR:
    case ZYDIS_MNEMONIC_LSL:
        return soft_sys_lar;
    case ZYDIS_MNEMONIC_VERR:
    case ZYDIS_MNEMONIC_VERW:
        return soft_sys_verr;
    case ZYDIS_MNEMONIC_ARPL:
        return soft_sys_arpl;
    case ZYDIS_MNEMONIC_LDS:
    case ZYDIS_MNEMONIC_LES:
    case ZYDIS_MNEMONIC_LSS:
    case ZYDIS_MNEMONIC_LFS:
    case ZYDIS_MNEMONIC_LGS:
        return soft_sys_load_far;
    case ZYDIS_MNEMONIC_SWAPGS:
        return soft_sys_swapgs;
    case ZYDIS_MNEMONIC_RDFSBASE:
    case ZYDIS_MNEMONIC_RDGSBASE:
    case ZYDIS_MNEMONIC_WRFSBASE:
    case ZYDIS_MNEMONIC_WRGSBASE:
        return soft_sys_fsgsbase;
    default:
        return NULL;
    }
}

static soft_handler control_handler(const struct soft_insn *in)
{
    switch (in->mnemonic) {
    case ZYDIS_MNEMONIC_LMSW:
        return soft_sys_lmsw;
    case ZYDIS_MNEMONIC_SMSW:
        return soft_sys_smsw;
    case ZYDIS_MNEMONIC_CLTS:
        return soft_sys_clts;
    case ZYDIS_MNEMONIC_INVLPG:
        return soft_sys_invlpg;
    case ZYDIS_MNEMONIC_INVPCID:
        return soft_sys_invpcid;
    case ZYDIS_MNEMONIC_XGETBV:
        return soft_sys_xgetbv;
    case ZYDIS_MNEMONIC_XSETBV:
        return soft_sys_xsetbv;
    case ZYDIS_MNEMONIC_RDMSR:
        return soft_sys_rdmsr;
    case ZYDIS_MNEMONIC_WRMSR:
        return soft_sys_wrmsr;
    case ZYDIS_MNEMONIC_RDTSC:
    case ZYDIS_MNEMONIC_RDTSCP:
        return soft_sys_rdtsc;
    case ZYDIS_MNEMONIC_RDPMC:
        return soft_sys_rdpmc;
    case ZYDIS_MNEMONIC_RDPID:
        return soft_sys_rdpid;
    case ZYDIS_MNEMONIC_HLT:
        return soft_sys_hlt;
    case ZYDIS_MNEMONIC_MONITOR:
        return soft_sys_monitor;
    case ZYDIS_MNEMONIC_MWAIT:
        return soft_sys_mwait;
    case ZYDIS_MNEMONIC_CPUID:
        return soft_sys_cpuid;
    case ZYDIS_MNEMONIC_WBINVD:
    case ZYDIS_MNEMONIC_INVD:
        return soft_sys_wbinvd;
    case ZYDIS_MNEMONIC_VMCALL:
    case ZYDIS_MNEMONIC_VMMCALL:
        return soft_sys_vmcall;
    default:
        return NULL;
    }
}

static soft_handler transfer_handler(const struct soft_insn *in)
{
    switch (in->mnemonic) {
    case ZYDIS_MNEMONIC_INT:
    case ZYDIS_MNEMONIC_INT1:
    case ZYDIS_MNEMONIC_INT3:
    case ZYDIS_MNEMONIC_INTO:
        return soft_sys_interrupt;
    case ZYDIS_MNEMONIC_IRET:
    case ZYDIS_MNEMONIC_IRETD:
    case ZYDIS_MNEMONIC_IRETQ:
        return soft_sys_iret;
    case ZYDIS_MNEMONIC_SYSCALL:
        return soft_sys_syscall;
    case ZYDIS_MNEMONIC_SYSRET:
        return soft_sys_sysret;
    case ZYDIS_MNEMONIC_SYSENTER:
        return soft_sys_sysenter;
    case ZYDIS_MNEMONIC_SYSEXIT:
        return soft_sys_sysexit;
    default:
        return NULL;
    }
}

static soft_handler flags_handler(const struct soft_insn *in)
{
    switch (in->mnemonic) {
    case ZYDIS_MNEMONIC_CLI:
        return soft_sys_cli;
    case ZYDIS_MNEMONIC_STI:
        return soft_sys_sti;
    case ZYDIS_MNEMONIC_PUSHF:
    case ZYDIS_MNEMONIC_PUSHFD:
    case ZYDIS_MNEMONIC_PUSHFQ:
        return soft_sys_pushf;
    case ZYDIS_MNEMONIC_POPF:
    case ZYDIS_MNEMONIC_POPFD:
    case ZYDIS_MNEMONIC_POPFQ:
        return soft_sys_popf;
    case ZYDIS_MNEMONIC_CLAC:
    case ZYDIS_MNEMONIC_STAC:
        return soft_sys_stac;
    default:
        return NULL;
    }
}

static soft_handler io_handler(const struct soft_insn *in)
{
    switch (in->mnemonic) {
    case ZYDIS_MNEMONIC_IN:
        return soft_sys_in;
    case ZYDIS_MNEMONIC_OUT:
        return soft_sys_out;
    case ZYDIS_MNEMONIC_INSB:
    case ZYDIS_MNEMONIC_INSW:
    case ZYDIS_MNEMONIC_INSD:
        return soft_sys_ins;
    case ZYDIS_MNEMONIC_OUTSB:
    case ZYDIS_MNEMONIC_OUTSW:
    case ZYDIS_MNEMONIC_OUTSD:
        return soft_sys_outs;
    default:
        return NULL;
    }
}

soft_handler soft_system_handler(const struct soft_insn *in)
{
    if (in->mnemonic == ZYDIS_MNEMONIC_MOV)
        return mov_handler(in);
    if (in->prefixes & SOFT_PREFIX_FAR)
        return far_handler(in);

    static soft_handler (*const group[])(const struct soft_insn *) = {
        control_handler, transfer_handler, flags_handler,
        segment_handler, xsave_handler,    io_handler,
    };
    for (unsigned i = 0; i < sizeof(group) / sizeof(group[0]); i++) {
        soft_handler h = group[i](in);
        if (h)
            return h;
    }
    return NULL;
}
