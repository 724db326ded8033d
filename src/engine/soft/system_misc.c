/*
 * Flags, software interrupts, HLT, CPUID, cache control and hypercalls.
 */
#include "engine/soft/system.h"

#include <Zydis/Zydis.h>

static enum soft_result general_protection(struct soft_cpu *cpu)
{
    return soft_raise_error(cpu, SOFT_GP, 0);
}

static unsigned iopl(const struct soft_cpu *cpu)
{
    return (cpu->s.rflags & SOFT_IOPL) >> 12;
}

/* ---- Software interrupts ---- */

enum soft_result soft_sys_interrupt(struct soft_cpu *cpu, const struct soft_insn *in)
{
    switch (in->mnemonic) {
    case ZYDIS_MNEMONIC_INT3:
        return soft_software_interrupt(cpu, SOFT_BP, in->length);
    case ZYDIS_MNEMONIC_INT1:
        return soft_icebp(cpu, in->length);
    case ZYDIS_MNEMONIC_INTO:
        if (!(cpu->s.rflags & SOFT_OF))
            return soft_done(cpu, in);
        return soft_software_interrupt(cpu, SOFT_OFV, in->length);
    default:
        if (cpu->mode & SOFT_MODE_VM86)
            return soft_vm86_interrupt(cpu, (uint8_t)in->op[0].value, in->length);
        return soft_software_interrupt(cpu, (uint8_t)in->op[0].value, in->length);
    }
}

/* ---- Flags ---- */

enum soft_result soft_sys_cli(struct soft_cpu *cpu, const struct soft_insn *in)
{
    if ((cpu->mode & SOFT_MODE_PROTECTED) && soft_cpl(cpu) > iopl(cpu))
        return soft_virtual_cli(cpu, in);
    cpu->s.rflags &= ~(uint64_t)SOFT_IF;
    return soft_done(cpu, in);
}

enum soft_result soft_sys_sti(struct soft_cpu *cpu, const struct soft_insn *in)
{
    if ((cpu->mode & SOFT_MODE_PROTECTED) && soft_cpl(cpu) > iopl(cpu))
        return soft_virtual_sti(cpu, in);
    if (cpu->s.rflags & SOFT_IF)
        return soft_done(cpu, in);
    cpu->s.rflags |= SOFT_IF;
    cpu->s.interrupt_shadow = 1;
    return soft_done_jump(cpu, in);
}

enum soft_result soft_sys_pushf(struct soft_cpu *cpu, const struct soft_insn *in)
{
    uint64_t sp = cpu->s.gpr[MULL_RSP];

    uint64_t image = (cpu->s.rflags | 2) & ~(uint64_t)(SOFT_RF | SOFT_VM);
    enum soft_result r = SOFT_NEXT;
    if ((cpu->mode & SOFT_MODE_VM86) && iopl(cpu) < 3)
        r = soft_virtual_flags(cpu, in->operand_size, &image);
    if (r == SOFT_NEXT)
        r = soft_stack_store(cpu, &sp, image, in->operand_size);
    if (r != SOFT_NEXT)
        return r;
    soft_stack_set(cpu, sp);
    return soft_done(cpu, in);
}

enum soft_result soft_sys_popf(struct soft_cpu *cpu, const struct soft_insn *in)
{
    uint64_t sp = cpu->s.gpr[MULL_RSP], before = cpu->s.rflags, image;

    const bool limited = (cpu->mode & SOFT_MODE_VM86) && iopl(cpu) < 3;
    if (limited && in->operand_size != 2)
        return general_protection(cpu);
    enum soft_result r = soft_stack_load(cpu, &sp, &image, in->operand_size);
    if (r == SOFT_NEXT && limited)
        r = soft_set_virtual_flags(cpu, in->operand_size, image);
    if (r != SOFT_NEXT)
        return r;
    soft_stack_set(cpu, sp);
    if (!limited)
        soft_set_flags(cpu, image, in->operand_size);
    soft_done(cpu, in);
    uint64_t changed = before ^ cpu->s.rflags;
    if (changed & SOFT_AC)
        soft_level_changed(cpu);
    bool enabled = changed & cpu->s.rflags & SOFT_IF;
    return (changed & (SOFT_TF | SOFT_AC)) || enabled ? SOFT_JUMP : SOFT_NEXT;
}

enum soft_result soft_sys_stac(struct soft_cpu *cpu, const struct soft_insn *in)
{
    if (soft_cpl(cpu) || !(cpu->features.cr4 & SOFT_CR4_SMAP))
        return soft_raise(cpu, SOFT_UD);
    if (in->mnemonic == ZYDIS_MNEMONIC_STAC)
        cpu->s.rflags |= SOFT_AC;
    else
        cpu->s.rflags &= ~(uint64_t)SOFT_AC;
    soft_level_changed(cpu);
    return soft_done_jump(cpu, in);
}

/* ---- The rest ---- */

enum soft_result soft_sys_hlt(struct soft_cpu *cpu, const struct soft_insn *in)
{
    enum soft_result r = soft_need_cpl0(cpu);

    if (r != SOFT_NEXT)
        return r;
    soft_done(cpu, in);
    cpu->s.interrupt_shadow = 0;
    cpu->s.mp_state = MULL_CPU_HALTED;
    return SOFT_HALT;
}

enum soft_result soft_sys_cpuid(struct soft_cpu *cpu, const struct soft_insn *in)
{
    uint64_t *gpr = cpu->s.gpr;
    uint32_t regs[4];

    soft_cpuid(cpu, (uint32_t)gpr[MULL_RAX], (uint32_t)gpr[MULL_RCX], regs);
    gpr[MULL_RAX] = regs[0];
    gpr[MULL_RBX] = regs[1];
    gpr[MULL_RCX] = regs[2];
    gpr[MULL_RDX] = regs[3];
    return soft_done(cpu, in);
}

/* The host keeps its caches coherent: nothing to do but to check. */
enum soft_result soft_sys_wbinvd(struct soft_cpu *cpu, const struct soft_insn *in)
{
    enum soft_result r = soft_need_cpl0(cpu);

    return r == SOFT_NEXT ? soft_done(cpu, in) : r;
}

#define KVM_HC_VAPIC_POLL_IRQ 1u
#define KVM_ENOSYS 1000
#define KVM_EPERM 1

/* Documentation/virt/kvm/x86/hypercalls.rst */
enum soft_result soft_sys_vmcall(struct soft_cpu *cpu, const struct soft_insn *in)
{
    int64_t result = -KVM_ENOSYS;

    if (!(cpu->mode & SOFT_MODE_PROTECTED))
        return soft_raise(cpu, SOFT_UD);
    if (soft_cpl(cpu))
        result = -KVM_EPERM;
    else if (cpu->s.gpr[MULL_RAX] == KVM_HC_VAPIC_POLL_IRQ)
        result = 0;
    cpu->s.gpr[MULL_RAX] = soft_code64(cpu) ? (uint64_t)result : (uint32_t)result;
    return soft_done(cpu, in);
}
