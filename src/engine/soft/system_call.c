/*
 * The fast system calls: SYSCALL, SYSRET, SYSENTER, SYSEXIT (SDM volume 2; APM volume 3 for what
 * AMD does in compatibility mode).
 */
#include "engine/soft/system.h"

#define CODE_ATTR (0xbu | MULL_SEG_S | MULL_SEG_P | MULL_SEG_G)
#define DATA_ATTR (0x3u | MULL_SEG_S | MULL_SEG_P | MULL_SEG_G | MULL_SEG_DB)

static void flat_segment(struct mull_segment *seg, uint16_t selector, uint32_t attr, unsigned dpl)
{
    seg->base = 0;
    seg->limit = 0xffffffffu;
    seg->attr = attr | dpl << MULL_SEG_DPL_SHIFT;
    seg->selector = selector;
}

static void flat_code_and_stack(struct soft_cpu *cpu, uint16_t cs, uint16_t ss, bool code64,
                                unsigned dpl)
{
    flat_segment(&cpu->s.seg[MULL_CS], cs, CODE_ATTR | (code64 ? MULL_SEG_L : MULL_SEG_DB), dpl);
    flat_segment(&cpu->s.seg[MULL_SS], ss, DATA_ATTR, dpl);
}

enum soft_result soft_sys_syscall(struct soft_cpu *cpu, const struct soft_insn *in)
{
    struct mull_cpu_state *s = &cpu->s;
    bool code64 = soft_code64(cpu);

    /* Intel has it in 64-bit mode only; AMD's legacy form is offered to nobody. */
    if (!(s->efer & SOFT_EFER_SCE) || (!code64 && (!cpu->features.amd || !soft_long_mode(cpu))))
        return soft_raise(cpu, SOFT_UD);
    soft_done(cpu, in);
    s->gpr[MULL_RCX] = s->rip;
    s->gpr[MULL_R11] = s->rflags & ~(uint64_t)SOFT_RF;
    s->rip = code64 ? s->lstar : s->cstar;
    s->rflags = (s->rflags & ~s->sfmask & ~(uint64_t)SOFT_RF) | 2;
    uint16_t selector = (uint16_t)(s->star >> 32);
    flat_code_and_stack(cpu, selector & 0xfffc, (uint16_t)(selector + 8), true, 0);
    soft_level_changed(cpu);
    return SOFT_JUMP;
}

enum soft_result soft_sys_sysret(struct soft_cpu *cpu, const struct soft_insn *in)
{
    struct mull_cpu_state *s = &cpu->s;
    bool to64 = in->operand_size == 8;

    if (!(s->efer & SOFT_EFER_SCE) || !soft_code64(cpu))
        return soft_raise(cpu, SOFT_UD);
    if (soft_cpl(cpu) || (to64 && !soft_canonical(s->gpr[MULL_RCX])))
        return soft_raise_error(cpu, SOFT_GP, 0);
    s->rip = to64 ? s->gpr[MULL_RCX] : (uint32_t)s->gpr[MULL_RCX];
    s->rflags = (s->gpr[MULL_R11] & 0x3c7fd7) | 2;
    uint16_t selector = (uint16_t)(s->star >> 48);
    flat_code_and_stack(cpu, (uint16_t)(selector + (to64 ? 16 : 0)) | 3,
                        (uint16_t)(selector + 8) | 3, to64, 3);
    soft_level_changed(cpu);
    return SOFT_JUMP;
}

enum soft_result soft_sys_sysenter(struct soft_cpu *cpu, const struct soft_insn *in)
{
    struct mull_cpu_state *s = &cpu->s;
    bool long64 = soft_long_mode(cpu);
    uint16_t selector = (uint16_t)(s->sysenter_cs & 0xfffc);

    if (cpu->features.amd && long64)
        return soft_raise(cpu, SOFT_UD);
    if (!(cpu->mode & SOFT_MODE_PROTECTED) || !selector)
        return soft_raise_error(cpu, SOFT_GP, 0);
    s->rflags &= ~(uint64_t)(SOFT_VM | SOFT_IF | SOFT_RF);
    s->gpr[MULL_RSP] = long64 ? s->sysenter_esp : (uint32_t)s->sysenter_esp;
    s->rip = long64 ? s->sysenter_eip : (uint32_t)s->sysenter_eip;
    flat_code_and_stack(cpu, selector, (uint16_t)(selector + 8), long64, 0);
    soft_level_changed(cpu);
    return SOFT_JUMP;
}

enum soft_result soft_sys_sysexit(struct soft_cpu *cpu, const struct soft_insn *in)
{
    struct mull_cpu_state *s = &cpu->s;
    bool to64 = in->operand_size == 8;
    uint16_t selector = (uint16_t)(s->sysenter_cs & 0xfffc);

    if (cpu->features.amd && soft_long_mode(cpu))
        return soft_raise(cpu, SOFT_UD);
    if (!(cpu->mode & SOFT_MODE_PROTECTED) || !selector || soft_cpl(cpu))
        return soft_raise_error(cpu, SOFT_GP, 0);
    if (to64 && (!soft_canonical(s->gpr[MULL_RCX]) || !soft_canonical(s->gpr[MULL_RDX])))
        return soft_raise_error(cpu, SOFT_GP, 0);
    s->gpr[MULL_RSP] = to64 ? s->gpr[MULL_RCX] : (uint32_t)s->gpr[MULL_RCX];
    s->rip = to64 ? s->gpr[MULL_RDX] : (uint32_t)s->gpr[MULL_RDX];
    unsigned cs = to64 ? 32 : 16;
    flat_code_and_stack(cpu, (uint16_t)(selector + cs) | 3, (uint16_t)(selector + cs + 8) | 3, to64,
                        3);
    soft_level_changed(cpu);
    return SOFT_JUMP;
}
