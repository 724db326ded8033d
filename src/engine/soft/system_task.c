/*
 * Task switches through a TSS of 32-bit or 16-bit protected mode (SDM volume 3, 7.3). Long mode has
 * none.
 */
#include "engine/soft/system.h"

#define TYPE_BUSY 2u

struct tss32 {
    uint32_t link, stacks[6], cr3, eip, eflags, gpr[8], seg[6], ldt;
    uint16_t trap, iomap;
};

struct tss16 {
    uint16_t link, stacks[6], ip, flags, gpr[8], seg[4], ldt;
};

_Static_assert(sizeof(struct tss32) == 104, "SDM volume 3, figure 7-2");
_Static_assert(sizeof(struct tss16) == 44, "SDM volume 3, figure 7-10");

/* The parts of both kinds. */
struct task {
    uint32_t cr3, eip, eflags, gpr[8];
    uint16_t seg[6], ldt, trap;
};

static enum soft_result selector_fault(struct soft_cpu *cpu, uint8_t vector, uint16_t selector)
{
    return soft_raise_error(cpu, vector, selector & 0xfffcu);
}

static bool is_wide(const struct mull_segment *tr)
{
    return tr->attr & 8;
}

/* ---- The state in a TSS ---- */

static enum soft_result load_task(struct soft_cpu *cpu, const struct mull_segment *tr,
                                  struct task *t)
{
    enum soft_result r;

    soft_zero(t, sizeof(*t));
    if (is_wide(tr)) {
        struct tss32 m;
        r = soft_read(cpu, tr->base, &m, sizeof(m), SOFT_READ | SOFT_SYSTEM);
        if (r != SOFT_NEXT)
            return r;
        t->cr3 = m.cr3;
        t->eip = m.eip;
        t->eflags = m.eflags;
        t->ldt = (uint16_t)m.ldt;
        t->trap = m.trap;
        for (unsigned i = 0; i < 8; i++)
            t->gpr[i] = m.gpr[i];
        for (unsigned i = 0; i < 6; i++)
            t->seg[i] = (uint16_t)m.seg[i];
        return SOFT_NEXT;
    }
    struct tss16 m;
    r = soft_read(cpu, tr->base, &m, sizeof(m), SOFT_READ | SOFT_SYSTEM);
    if (r != SOFT_NEXT)
        return r;
    t->eip = m.ip;
    t->eflags = m.flags;
    t->ldt = m.ldt;
    for (unsigned i = 0; i < 8; i++)
        t->gpr[i] = m.gpr[i] | 0xffff0000u;
    for (unsigned i = 0; i < 4; i++)
        t->seg[i] = m.seg[i];
    return SOFT_NEXT;
}

static enum soft_result save_task(struct soft_cpu *cpu, uint64_t rip, uint64_t rflags)
{
    const struct mull_cpu_state *s = &cpu->s;
    const struct mull_segment *tr = &s->seg[MULL_TR];

    if (is_wide(tr)) { /* EIP to GS, without CR3 in front */
        struct tss32 m;
        m.eip = (uint32_t)rip;
        m.eflags = (uint32_t)rflags;
        for (unsigned i = 0; i < 8; i++)
            m.gpr[i] = (uint32_t)s->gpr[i];
        for (unsigned i = 0; i < 6; i++)
            m.seg[i] = s->seg[i].selector;
        return soft_write(cpu, tr->base + offsetof(struct tss32, eip), &m.eip,
                          offsetof(struct tss32, ldt) - offsetof(struct tss32, eip),
                          SOFT_WRITE | SOFT_SYSTEM);
    }
    struct tss16 m;
    m.ip = (uint16_t)rip;
    m.flags = (uint16_t)rflags;
    for (unsigned i = 0; i < 8; i++)
        m.gpr[i] = (uint16_t)s->gpr[i];
    for (unsigned i = 0; i < 4; i++)
        m.seg[i] = s->seg[i].selector;
    return soft_write(cpu, tr->base + offsetof(struct tss16, ip), &m.ip,
                      offsetof(struct tss16, ldt) - offsetof(struct tss16, ip),
                      SOFT_WRITE | SOFT_SYSTEM);
}

static enum soft_result mark_busy(struct soft_cpu *cpu, struct soft_desc *desc, bool busy)
{
    desc->hi = busy ? desc->hi | TYPE_BUSY << 8 : desc->hi & ~(TYPE_BUSY << 8);
    uint8_t access = (uint8_t)(desc->hi >> 8);
    return soft_write(cpu, desc->va + 5, &access, 1, SOFT_WRITE | SOFT_SYSTEM);
}

/* ---- The segments of the new task: faults belong to it ---- */

static enum soft_result load_ldt(struct soft_cpu *cpu, uint16_t selector)
{
    struct mull_segment *ldt = &cpu->s.seg[MULL_LDTR];
    struct soft_desc desc;

    soft_null_segment(ldt, selector);
    if (!(selector & 0xfffc))
        return SOFT_NEXT;
    if (selector & 4)
        return selector_fault(cpu, SOFT_TS, selector);
    enum soft_result r = soft_read_desc(cpu, selector, SOFT_TS, 0, &desc);
    if (r != SOFT_NEXT)
        return r;
    if ((desc.hi & SOFT_DESC_S) || SOFT_DESC_TYPE(desc.hi) != 2 || !(desc.hi & SOFT_DESC_P))
        return selector_fault(cpu, SOFT_TS, selector);
    soft_desc_to_segment(&desc, selector, ldt);
    return SOFT_NEXT;
}

static enum soft_result load_code(struct soft_cpu *cpu, uint16_t selector)
{
    unsigned rpl = selector & 3u;
    struct soft_desc desc;

    if (!(selector & 0xfffc))
        return selector_fault(cpu, SOFT_TS, selector);
    enum soft_result r = soft_read_desc(cpu, selector, SOFT_TS, 0, &desc);
    if (r != SOFT_NEXT)
        return r;
    unsigned type = SOFT_DESC_TYPE(desc.hi), dpl = SOFT_DESC_DPL(desc.hi);
    if (!(desc.hi & SOFT_DESC_S) || !(type & SOFT_TYPE_CODE) ||
        (type & SOFT_TYPE_CONFORMING ? dpl > rpl : dpl != rpl))
        return selector_fault(cpu, SOFT_TS, selector);
    if (!(desc.hi & SOFT_DESC_P))
        return selector_fault(cpu, SOFT_NP, selector);
    soft_desc_to_segment(&desc, selector, &cpu->s.seg[MULL_CS]);
    return soft_set_accessed(cpu, &desc);
}

static enum soft_result load_data(struct soft_cpu *cpu, unsigned seg, uint16_t selector)
{
    enum soft_result r = soft_load_segment(cpu, seg, selector);

    if (r == SOFT_FAULT && cpu->fault.vector == SOFT_GP)
        cpu->fault.vector = SOFT_TS;
    return r;
}

static enum soft_result load_segments(struct soft_cpu *cpu, const struct task *t)
{
    struct mull_cpu_state *s = &cpu->s;
    static const uint8_t data[] = {MULL_ES, MULL_DS, MULL_FS, MULL_GS};
    enum soft_result r = load_ldt(cpu, t->ldt);

    if (r != SOFT_NEXT)
        return r;
    if (s->rflags & SOFT_VM) {
        soft_mode_changed(cpu);
        for (unsigned i = 0; i < 6; i++)
            soft_real_segment(cpu, i, t->seg[i]);
        return SOFT_NEXT;
    }
    /* The new CPL is CS.RPL; SS is checked against it. */
    soft_null_stack(&s->seg[MULL_SS], t->seg[MULL_CS] & 3u);
    s->seg[MULL_SS].selector = t->seg[MULL_SS];
    soft_mode_changed(cpu);
    r = load_code(cpu, t->seg[MULL_CS]);
    if (r == SOFT_NEXT)
        r = soft_check_new_stack(cpu, t->seg[MULL_SS], t->seg[MULL_CS] & 3u, 0, &s->seg[MULL_SS]);
    for (unsigned i = 0; r == SOFT_NEXT && i < sizeof(data); i++)
        r = load_data(cpu, data[i], t->seg[data[i]]);
    return r;
}

/* ---- The switch ---- */

static enum soft_result find_task(struct soft_cpu *cpu, uint16_t selector,
                                  enum soft_task_reason reason, struct soft_desc *desc,
                                  struct mull_segment *tr)
{
    uint8_t vector = reason == SOFT_TASK_IRET ? SOFT_TS : SOFT_GP;

    if (!(selector & 0xfffc) || (selector & 4))
        return selector_fault(cpu, vector, selector);
    enum soft_result r = soft_read_desc(cpu, selector, vector, 0, desc);
    if (r != SOFT_NEXT)
        return r;
    unsigned type = SOFT_DESC_TYPE(desc->hi);
    unsigned busy = reason == SOFT_TASK_IRET ? TYPE_BUSY : 0;
    if ((desc->hi & SOFT_DESC_S) || (type != (1 | busy) && type != (9 | busy)))
        return selector_fault(cpu, vector, selector);
    if (!(desc->hi & SOFT_DESC_P))
        return selector_fault(cpu, SOFT_NP, selector);
    soft_desc_to_segment(desc, selector, tr);
    if (tr->limit < (type & 8 ? sizeof(struct tss32) : sizeof(struct tss16)) - 1)
        return selector_fault(cpu, SOFT_TS, selector);
    return SOFT_NEXT;
}

/* Leave the old task: its state saved, busy bits and the link set. Everything that can fault in the
 * old task's name comes here. */
static enum soft_result leave_task(struct soft_cpu *cpu, enum soft_task_reason reason, uint64_t rip,
                                   struct soft_desc *desc, const struct mull_segment *tr)
{
    struct mull_cpu_state *s = &cpu->s;
    bool nested = reason == SOFT_TASK_CALL || reason == SOFT_TASK_GATE;
    uint16_t old = s->seg[MULL_TR].selector;
    struct soft_desc old_desc;
    uint64_t rflags = s->rflags;

    if (reason == SOFT_TASK_IRET)
        rflags &= ~(uint64_t)SOFT_NT;
    enum soft_result r = soft_probe(cpu, tr->base, 2, SOFT_WRITE | SOFT_SYSTEM);
    if (r == SOFT_NEXT)
        r = save_task(cpu, rip, rflags);
    if (r == SOFT_NEXT && !nested) {
        r = soft_read_desc(cpu, old, SOFT_TS, 0, &old_desc);
        if (r == SOFT_NEXT)
            r = mark_busy(cpu, &old_desc, false);
    }
    if (r == SOFT_NEXT && nested)
        r = soft_write(cpu, tr->base, &old, 2, SOFT_WRITE | SOFT_SYSTEM);
    if (r == SOFT_NEXT && reason != SOFT_TASK_IRET)
        r = mark_busy(cpu, desc, true);
    return r;
}

static enum soft_result enter_task(struct soft_cpu *cpu, enum soft_task_reason reason,
                                   const struct mull_segment *tr, const struct task *t)
{
    struct mull_cpu_state *s = &cpu->s;
    bool nested = reason == SOFT_TASK_CALL || reason == SOFT_TASK_GATE;

    s->seg[MULL_TR] = *tr;
    s->seg[MULL_TR].attr |= TYPE_BUSY;
    s->cr0 |= SOFT_CR0_TS;
    if (is_wide(tr) && (s->cr0 & SOFT_CR0_PG) && t->cr3 != s->cr3) {
        s->cr3 = t->cr3;
        soft_tlb_flush(cpu, SOFT_FLUSH_NOT_GLOBAL);
    }
    s->rip = t->eip;
    s->rflags = (t->eflags & 0x37fd5u) | 2 | (nested ? SOFT_NT : 0);
    for (unsigned i = 0; i < 8; i++)
        s->gpr[i] = t->gpr[i];
    s->dr[7] &= ~0x155ull; /* local breakpoints */
    enum soft_result r = load_segments(cpu, t);
    if (r != SOFT_NEXT)
        return r;
    if (s->rip > s->seg[MULL_CS].limit)
        return soft_raise_error(cpu, SOFT_GP, 0);
    return SOFT_NEXT;
}

enum soft_result soft_task_switch(struct soft_cpu *cpu, uint16_t selector,
                                  enum soft_task_reason reason, uint64_t rip,
                                  const struct soft_event *event)
{
    struct mull_cpu_state *s = &cpu->s;
    struct mull_segment tr;
    struct soft_desc desc;
    struct task t;

    enum soft_result r = find_task(cpu, selector, reason, &desc, &tr);
    if (r == SOFT_NEXT)
        r = load_task(cpu, &tr, &t);
    if (r == SOFT_NEXT)
        r = leave_task(cpu, reason, rip, &desc, &tr);
    if (r != SOFT_NEXT)
        return r;
    r = enter_task(cpu, reason, &tr, &t);
    soft_mode_changed(cpu);
    if (r != SOFT_NEXT)
        return r;
    if (event && event->has_error) {
        struct soft_frame f;
        f.value[0] = event->error;
        f.count = 1;
        r = soft_push_frame(cpu, &f, &s->seg[MULL_SS], is_wide(&tr) ? 4 : 2, soft_cpl(cpu), 0,
                            &s->gpr[MULL_RSP]);
        if (r != SOFT_NEXT)
            return r;
    }
    if (t.trap & 1)
        cpu->debug_hits |= 1u << 15; /* DR6.BT: before the task's first instruction */
    return SOFT_JUMP;
}
