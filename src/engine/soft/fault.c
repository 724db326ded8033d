/*
 * Exceptions and interrupts: recording a fault, and delivering it or an interrupt through the IDT
 * or the real-mode vector table, with double and triple faults (SDM volume 3, chapter 6).
 */
#include "engine/soft/system.h"

/* Error code bits of selector-related faults. */
#define ERROR_EXT 1u
#define ERROR_IDT 2u

/* Types of gates. */
enum { GATE_TASK = 5, GATE_INT16 = 6, GATE_TRAP16 = 7, GATE_INT32 = 14, GATE_TRAP32 = 15 };

enum soft_result soft_raise(struct soft_cpu *cpu, uint8_t vector)
{
    cpu->fault.vector = vector;
    cpu->fault.has_error = false;
    cpu->fault.error = 0;
    cpu->fault.address = 0;
    return SOFT_FAULT;
}

enum soft_result soft_raise_error(struct soft_cpu *cpu, uint8_t vector, uint32_t error)
{
    cpu->fault.vector = vector;
    cpu->fault.has_error = true;
    cpu->fault.error = error;
    cpu->fault.address = 0;
    return SOFT_FAULT;
}

enum soft_result soft_raise_page(struct soft_cpu *cpu, uint64_t address, uint32_t error)
{
    cpu->fault.vector = SOFT_PFV;
    cpu->fault.has_error = true;
    cpu->fault.error = error;
    cpu->fault.address = address;
    return SOFT_FAULT;
}

/* ---- What all kinds of delivery share ---- */

static uint32_t ext_bit(const struct soft_event *event)
{
    return event->software ? 0 : ERROR_EXT;
}

static enum soft_result gate_fault(struct soft_cpu *cpu, uint8_t vector,
                                   const struct soft_event *event)
{
    return soft_raise_error(cpu, vector, event->vector * 8u | ERROR_IDT | ext_bit(event));
}

static uint64_t flags_image(const struct soft_cpu *cpu, const struct soft_event *event)
{
    return cpu->s.rflags | 2 | (event->resume ? SOFT_RF : 0);
}

/* Flags that a handler starts with. */
static void enter_flags(struct soft_cpu *cpu, bool interrupt_gate)
{
    uint64_t clear = SOFT_TF | SOFT_NT | SOFT_RF | SOFT_VM;
    if (interrupt_gate)
        clear |= SOFT_IF;
    cpu->s.rflags &= ~clear;
}

/* ---- Real mode ---- */

static enum soft_result deliver_real(struct soft_cpu *cpu, const struct soft_event *event)
{
    struct mull_cpu_state *s = &cpu->s;
    uint32_t entry;

    if (event->vector * 4u + 3 > s->idt.limit)
        return gate_fault(cpu, SOFT_GP, event);
    enum soft_result r =
        soft_read(cpu, s->idt.base + event->vector * 4u, &entry, 4, SOFT_READ | SOFT_SYSTEM);
    if (r != SOFT_NEXT)
        return r;

    uint64_t rsp = s->gpr[MULL_RSP];
    const uint16_t push[3] = {(uint16_t)flags_image(cpu, event), s->seg[MULL_CS].selector,
                              (uint16_t)event->rip};
    for (unsigned i = 0; i < 3; i++) {
        r = soft_stack_store(cpu, &rsp, push[i], 2);
        if (r != SOFT_NEXT)
            return r;
    }
    soft_stack_set(cpu, rsp);
    s->rflags &= ~(uint64_t)(SOFT_IF | SOFT_TF | SOFT_RF | SOFT_AC);
    soft_real_segment(cpu, MULL_CS, (uint16_t)(entry >> 16));
    s->rip = entry & 0xffff;
    return SOFT_JUMP;
}

/* ---- Long mode (SDM volume 3, 6.14) ---- */

/* The new code segment of a gate. @return its privilege level in *cpl. */
static enum soft_result gate_code_segment(struct soft_cpu *cpu, const struct soft_event *event,
                                          uint16_t selector, struct soft_desc *desc, unsigned *cpl)
{
    uint32_t ext = ext_bit(event);
    uint32_t error = (selector & 0xfffcu) | ext;

    if (!(selector & 0xfffc))
        return soft_raise_error(cpu, SOFT_GP, ext);
    enum soft_result r = soft_read_desc(cpu, selector, SOFT_GP, ext, desc);
    if (r != SOFT_NEXT)
        return r;
    if (!(desc->hi & SOFT_DESC_S) || !(SOFT_DESC_TYPE(desc->hi) & SOFT_TYPE_CODE) ||
        SOFT_DESC_DPL(desc->hi) > soft_cpl(cpu))
        return soft_raise_error(cpu, SOFT_GP, error);
    if (soft_long_mode(cpu) && (!(desc->hi & SOFT_DESC_L) || (desc->hi & SOFT_DESC_DB)))
        return soft_raise_error(cpu, SOFT_GP, error);
    if (!(desc->hi & SOFT_DESC_P))
        return soft_raise_error(cpu, SOFT_NP, error);
    *cpl =
        SOFT_DESC_TYPE(desc->hi) & SOFT_TYPE_CONFORMING ? soft_cpl(cpu) : SOFT_DESC_DPL(desc->hi);
    return SOFT_NEXT;
}

static enum soft_result deliver_long(struct soft_cpu *cpu, const struct soft_event *event)
{
    struct mull_cpu_state *s = &cpu->s;
    uint32_t ext = ext_bit(event);
    uint32_t gate[4];
    struct soft_desc code;
    unsigned cpl;
    uint16_t ss;

    if (event->vector * 16u + 15 > s->idt.limit)
        return gate_fault(cpu, SOFT_GP, event);
    enum soft_result r =
        soft_read(cpu, s->idt.base + event->vector * 16u, gate, 16, SOFT_READ | SOFT_SYSTEM);
    if (r != SOFT_NEXT)
        return r;
    unsigned type = SOFT_DESC_TYPE(gate[1]);
    if ((gate[1] & SOFT_DESC_S) || (type != GATE_INT32 && type != GATE_TRAP32))
        return gate_fault(cpu, SOFT_GP, event);
    if (event->software && SOFT_DESC_DPL(gate[1]) < soft_cpl(cpu))
        return gate_fault(cpu, SOFT_GP, event);
    if (!(gate[1] & SOFT_DESC_P))
        return gate_fault(cpu, SOFT_NP, event);
    uint64_t rip = (gate[0] & 0xffff) | (gate[1] & 0xffff0000u) | (uint64_t)gate[2] << 32;
    r = gate_code_segment(cpu, event, (uint16_t)(gate[0] >> 16), &code, &cpl);
    if (r != SOFT_NEXT)
        return r;

    unsigned ist = gate[1] & 7;
    bool inner = cpl < soft_cpl(cpu);
    uint64_t rsp = s->gpr[MULL_RSP];
    if (ist || inner) {
        r = soft_tss_stack(cpu, ist ? 3 + ist : cpl, ext, &ss, &rsp);
        if (r != SOFT_NEXT)
            return r;
    }
    if (!soft_canonical(rip))
        return soft_raise_error(cpu, SOFT_GP, ext);
    rsp &= ~0xfull;
    const uint64_t frame[6] = {event->error,
                               event->rip,
                               s->seg[MULL_CS].selector,
                               flags_image(cpu, event),
                               s->gpr[MULL_RSP],
                               s->seg[MULL_SS].selector};
    unsigned skip = event->has_error ? 0 : 1;
    unsigned size = (6 - skip) * 8;
    rsp -= size;
    if (!soft_canonical(rsp) || !soft_canonical(rsp + size - 1))
        return soft_raise_error(cpu, SOFT_SS, ext);
    r = soft_write(cpu, rsp, frame + skip, size, soft_access_at(cpl, SOFT_WRITE));
    if (r != SOFT_NEXT)
        return r;
    r = soft_set_accessed(cpu, &code);
    if (r != SOFT_NEXT)
        return r;

    s->gpr[MULL_RSP] = rsp;
    if (inner)
        soft_null_stack(&s->seg[MULL_SS], cpl);
    soft_desc_to_segment(&code, (uint16_t)((gate[0] >> 16 & 0xfffc) | cpl), &s->seg[MULL_CS]);
    s->rip = rip;
    enter_flags(cpu, type == GATE_INT32);
    return SOFT_JUMP;
}

/* ---- Protected mode (SDM volume 3, 6.12) ---- */

static void push(struct soft_frame *f, uint64_t value)
{
    f->value[f->count++] = value;
}

enum soft_result soft_push_frame(struct soft_cpu *cpu, const struct soft_frame *f,
                                 const struct mull_segment *ss, unsigned size, unsigned cpl,
                                 uint32_t error, uint64_t *rsp)
{
    uint64_t mask = !ss ? UINT64_MAX : ss->attr & MULL_SEG_DB ? 0xffffffffu : 0xffffu;
    bool down = ss && (ss->attr & SOFT_TYPE_DOWN);
    uint64_t at = *rsp & mask;

    for (unsigned i = 0; i < f->count; i++) {
        at = (at - size) & mask;
        uint64_t last = at + size - 1, va = at;
        if (ss) {
            if (last < at || last > (down ? mask : ss->limit) || (down && at <= ss->limit))
                return soft_raise_error(cpu, SOFT_SS, error);
            va = (ss->base + at) & 0xffffffffu;
        } else if (!soft_canonical(at) || !soft_canonical(last)) {
            return soft_raise_error(cpu, SOFT_SS, error);
        }
        enum soft_result r =
            soft_write(cpu, va, &f->value[i], size, soft_access_at(cpl, SOFT_WRITE));
        if (r != SOFT_NEXT)
            return r;
    }
    *rsp = (*rsp & ~mask) | at;
    return SOFT_NEXT;
}

/* The stack that the handler runs on. */
static enum soft_result handler_stack(struct soft_cpu *cpu, const struct soft_event *event,
                                      unsigned cpl, struct mull_segment *ss, uint64_t *esp)
{
    struct mull_cpu_state *s = &cpu->s;
    uint16_t selector;

    if (cpl == soft_cpl(cpu)) {
        *ss = s->seg[MULL_SS];
        *esp = (uint32_t)s->gpr[MULL_RSP];
        return SOFT_NEXT;
    }
    enum soft_result r = soft_tss_stack(cpu, cpl, ext_bit(event), &selector, esp);
    if (r != SOFT_NEXT)
        return r;
    return soft_check_new_stack(cpu, selector, cpl, ext_bit(event), ss);
}

static enum soft_result deliver_protected(struct soft_cpu *cpu, const struct soft_event *event)
{
    struct mull_cpu_state *s = &cpu->s;
    const bool vm86 = cpu->mode & SOFT_MODE_VM86;
    const uint32_t ext = ext_bit(event);
    uint32_t gate[2];
    uint64_t esp;
    struct soft_desc code;
    struct mull_segment ss, cs;
    unsigned cpl;

    if (event->vector * 8u + 7 > s->idt.limit)
        return gate_fault(cpu, SOFT_GP, event);
    enum soft_result r =
        soft_read(cpu, s->idt.base + event->vector * 8u, gate, 8, SOFT_READ | SOFT_SYSTEM);
    if (r != SOFT_NEXT)
        return r;
    unsigned type = SOFT_DESC_TYPE(gate[1]);
    if ((gate[1] & SOFT_DESC_S) ||
        (type != GATE_TASK && type != GATE_INT16 && type != GATE_TRAP16 && type != GATE_INT32 &&
         type != GATE_TRAP32))
        return gate_fault(cpu, SOFT_GP, event);
    if (event->software && SOFT_DESC_DPL(gate[1]) < soft_cpl(cpu))
        return gate_fault(cpu, SOFT_GP, event);
    if (!(gate[1] & SOFT_DESC_P))
        return gate_fault(cpu, SOFT_NP, event);
    uint16_t selector = (uint16_t)(gate[0] >> 16);
    if (type == GATE_TASK)
        return soft_task_switch(cpu, selector, SOFT_TASK_GATE, event->rip, event);
    r = gate_code_segment(cpu, event, selector, &code, &cpl);
    if (r != SOFT_NEXT)
        return r;
    if (vm86 && cpl != 0)
        return soft_raise_error(cpu, SOFT_GP, (selector & 0xfffcu) | ext);

    bool inner = cpl < soft_cpl(cpu);
    unsigned size = type >= GATE_INT32 ? 4 : 2;
    uint32_t eip = (gate[0] & 0xffff) | (size == 4 ? gate[1] & 0xffff0000u : 0);
    r = handler_stack(cpu, event, cpl, &ss, &esp);
    if (r != SOFT_NEXT)
        return r;

    struct soft_frame f;
    f.count = 0;
    if (vm86) {
        push(&f, s->seg[MULL_GS].selector);
        push(&f, s->seg[MULL_FS].selector);
        push(&f, s->seg[MULL_DS].selector);
        push(&f, s->seg[MULL_ES].selector);
    }
    if (inner) {
        push(&f, s->seg[MULL_SS].selector);
        push(&f, s->gpr[MULL_RSP]);
    }
    push(&f, flags_image(cpu, event));
    push(&f, s->seg[MULL_CS].selector);
    push(&f, event->rip);
    if (event->has_error)
        push(&f, event->error);
    r = soft_push_frame(cpu, &f, &ss, size, cpl, inner ? (ss.selector & 0xfffcu) | ext : ext, &esp);
    if (r != SOFT_NEXT)
        return r;

    soft_desc_to_segment(&code, (uint16_t)((selector & 0xfffc) | cpl), &cs);
    if (eip > cs.limit)
        return soft_raise_error(cpu, SOFT_GP, ext);
    r = soft_set_accessed(cpu, &code);
    if (r != SOFT_NEXT)
        return r;
    s->gpr[MULL_RSP] =
        inner || (ss.attr & MULL_SEG_DB) ? esp : (s->gpr[MULL_RSP] & ~0xffffull) | (esp & 0xffff);
    if (inner)
        s->seg[MULL_SS] = ss;
    s->seg[MULL_CS] = cs;
    s->rip = eip;
    enter_flags(cpu, type == GATE_INT16 || type == GATE_INT32);
    if (vm86) {
        soft_null_segment(&s->seg[MULL_DS], 0);
        soft_null_segment(&s->seg[MULL_ES], 0);
        soft_null_segment(&s->seg[MULL_FS], 0);
        soft_null_segment(&s->seg[MULL_GS], 0);
    }
    return SOFT_JUMP;
}

/* ---- The ways in ---- */

static enum soft_result deliver(struct soft_cpu *cpu, const struct soft_event *event)
{
    enum soft_result r;

    if (!(cpu->s.cr0 & SOFT_CR0_PE))
        r = deliver_real(cpu, event);
    else if (soft_long_mode(cpu))
        r = deliver_long(cpu, event);
    else
        r = deliver_protected(cpu, event);
    if (r == SOFT_JUMP) {
        cpu->s.interrupt_shadow = 0;
        soft_level_changed(cpu);
    }
    return r;
}

static bool is_contributory(uint8_t vector)
{
    return vector == SOFT_DE || (vector >= SOFT_TS && vector <= SOFT_GP);
}

/* SDM volume 3, table 6-5. */
static bool makes_double_fault(uint8_t first, uint8_t second)
{
    if (is_contributory(first))
        return is_contributory(second);
    if (first == SOFT_PFV)
        return second == SOFT_PFV || is_contributory(second);
    return false;
}

static enum soft_result shut_down(struct soft_cpu *cpu)
{
    cpu->s.mp_state = MULL_CPU_SHUTDOWN;
    return SOFT_HALT;
}

/* Deliver exceptions until one reaches its handler. @first: what was being delivered when
 * cpu->fault happened (an exception), or -1. */
static enum soft_result deliver_exceptions(struct soft_cpu *cpu, int first)
{
    struct mull_cpu_state *s = &cpu->s;

    cpu->delivering = true;
    for (;;) {
        struct soft_fault fault = cpu->fault;
        if (first == SOFT_DFV) {
            cpu->delivering = false;
            return shut_down(cpu);
        }
        if (first >= 0 && makes_double_fault((uint8_t)first, fault.vector)) {
            fault.vector = SOFT_DFV;
            fault.has_error = true;
            fault.error = 0;
        }
        if (fault.vector == SOFT_PFV) {
            s->cr2 = fault.address;
        } else if (fault.vector == SOFT_DB) {
            s->dr[6] = (s->dr[6] & ~0xfull) | fault.address;
            s->dr[7] &= ~0x2000ull; /* GD */
        }
        cpu->delivering_vector = fault.vector;
        cpu->stats.exceptions++;

        bool trap = fault.vector == SOFT_DB || fault.vector == SOFT_BP || fault.vector == SOFT_OFV;
        struct soft_event event = {
            .vector = fault.vector,
            /* Real mode pushes no error codes; deliver_real() does not look. */
            .has_error = fault.has_error,
            .error = fault.error,
            .resume = !trap && fault.vector != SOFT_DFV,
            .rip = s->rip,
        };
        enum soft_result r = deliver(cpu, &event);
        if (r != SOFT_FAULT) {
            cpu->delivering = false;
            return r;
        }
        first = fault.vector;
    }
}

enum soft_result soft_deliver_fault(struct soft_cpu *cpu)
{
    return deliver_exceptions(cpu, -1);
}

enum soft_result soft_deliver_interrupt(struct soft_cpu *cpu, uint8_t vector)
{
    struct soft_event event = {.vector = vector, .rip = cpu->s.rip};

    cpu->delivering = true;
    cpu->delivering_vector = vector;
    enum soft_result r = deliver(cpu, &event);
    cpu->delivering = false;
    return r == SOFT_FAULT ? deliver_exceptions(cpu, -1) : r;
}

static uint64_t after_instruction(const struct soft_cpu *cpu, unsigned length)
{
    uint64_t next = cpu->s.rip + length;
    if (!soft_code64(cpu))
        next &= cpu->mode & SOFT_MODE_CODE32 ? 0xffffffffu : 0xffffu;
    return next;
}

enum soft_result soft_software_interrupt(struct soft_cpu *cpu, uint8_t vector, unsigned length)
{
    struct soft_event event = {
        .vector = vector,
        .software = true,
        .rip = after_instruction(cpu, length),
    };
    return deliver(cpu, &event);
}

enum soft_result soft_icebp(struct soft_cpu *cpu, unsigned length)
{
    struct soft_event event = {.vector = SOFT_DB, .rip = after_instruction(cpu, length)};

    /* A fault on the way is an exception during an exception. */
    enum soft_result r = deliver(cpu, &event);
    return r == SOFT_FAULT ? deliver_exceptions(cpu, SOFT_DB) : r;
}
