/* Interrupts, exceptions and far transfers of the soft engine: the frames on the stack, the checks
 * and their error codes, double and triple faults, in real, protected, virtual-8086 and long mode.
 */
#include "soft_fixture.h"

#define GDT 0x90000ull
#define IDT 0x91000ull
#define TSS 0x92000ull
#define TSS2 0x92800ull
#define KSTACK 0x98000ull /* top */
#define IST1 0x9a000ull   /* top */
#define USTACK 0x9c000ull /* top */
#define HANDLER 0x12345ull

#define SEL(index, rpl) ((uint16_t)((index)*8 | (rpl)))
enum {
    D_NULL,
    D_CODE0,
    D_DATA0,
    D_CODE3,
    D_DATA3,
    D_CODE64, /* long mode, level 0 */
    D_CODE64U,
    D_TSS, /* two slots */
    D_TSS_HIGH,
    D_GATE,
    D_GATE_HIGH,
    D_TSS2,
    D_TASK_GATE,
    D_CONF,
};

#define GPR(f, n) ((f)->cpu->s.gpr[MULL_##n])

static enum soft_result run(struct fix *f, const void *bytes, unsigned length)
{
    struct soft_insn in;
    unsigned bits = f->cpu->mode & SOFT_MODE_CODE64   ? 64
                    : f->cpu->mode & SOFT_MODE_CODE32 ? 32
                                                      : 16;
    assert_int_equal(soft_decode(&in, bytes, length, bits), 0);
    uint64_t rip = f->cpu->s.rip;
    enum soft_result r = in.handler(f->cpu, &in);
    if (r == SOFT_FAULT)
        assert_true(f->cpu->s.rip == rip);
    return r;
}
#define RUN(f, bytes) run(f, bytes, sizeof(bytes) - 1)

static uint32_t get32(struct fix *f, uint64_t gpa)
{
    uint32_t v;
    assert_int_equal(mull_mem_read(f->mem, gpa, &v, 4), 0);
    return v;
}
static uint16_t get16(struct fix *f, uint64_t gpa)
{
    uint16_t v;
    assert_int_equal(mull_mem_read(f->mem, gpa, &v, 2), 0);
    return v;
}
static void put(struct fix *f, uint64_t gpa, uint64_t v, unsigned size)
{
    assert_int_equal(mull_mem_write(f->mem, gpa, &v, size), 0);
}

static uint64_t desc(uint32_t base, uint32_t limit, uint32_t attr)
{
    return (limit & 0xffff) | (uint64_t)(base & 0xffffff) << 16 | (uint64_t)(attr & 0xf0ff) << 40 |
           (uint64_t)(limit >> 16 & 0xf) << 48 | (uint64_t)(base >> 24) << 56;
}
static void set_desc(struct fix *f, unsigned index, uint32_t base, uint32_t limit, uint32_t attr)
{
    fix_set(f, GDT + index * 8, desc(base, limit, attr));
}

static void gate32(struct fix *f, uint64_t at, uint16_t selector, uint32_t offset, uint32_t attr)
{
    fix_set(f, at,
            (offset & 0xffff) | (uint64_t)selector << 16 | (uint64_t)attr << 40 |
                (uint64_t)(offset >> 16) << 48);
}
static void gate64(struct fix *f, uint64_t at, uint16_t selector, uint64_t offset, uint32_t attr,
                   unsigned ist)
{
    gate32(f, at, selector, (uint32_t)offset, attr);
    put(f, at + 4, ist, 1);
    fix_set(f, at + 8, offset >> 32);
}

static void make_tables(struct fix *f)
{
    struct mull_cpu_state *s = &f->cpu->s;
    s->gdt = (struct mull_table){.base = GDT, .limit = 16 * 8 - 1};
    s->idt = (struct mull_table){.base = IDT, .limit = 0xfff};
    set_desc(f, D_CODE0, 0, 0xfffff, 0xc09a);
    set_desc(f, D_DATA0, 0, 0xfffff, 0xc092);
    set_desc(f, D_CODE3, 0, 0xfffff, 0xc0fa);
    set_desc(f, D_DATA3, 0, 0xfffff, 0xc0f2);
    set_desc(f, D_CODE64, 0, 0xfffff, 0xa09a);
    set_desc(f, D_CODE64U, 0, 0xfffff, 0xa0fa);
    set_desc(f, D_TSS, TSS, 0x67, 0x008b);
    set_desc(f, D_TSS2, TSS2, 0x67, 0x0089);
    set_desc(f, D_CONF, 0, 0xfffff, 0xc09e);
    fix_segment(f, MULL_TR, SEL(D_TSS, 0), TSS, 0x67, 0x8b);
    fix_segment(f, MULL_LDTR, 0, 0, 0, MULL_SEG_UNUSABLE);
}

static void set_level32(struct fix *f, unsigned cpl)
{
    uint32_t dpl = cpl << MULL_SEG_DPL_SHIFT;
    fix_segment(f, MULL_CS, SEL(cpl ? D_CODE3 : D_CODE0, cpl), 0, 0xffffffff, 0xc09b | dpl);
    for (unsigned i = 0; i < 6; i++)
        if (i != MULL_CS)
            fix_segment(f, i, SEL(cpl ? D_DATA3 : D_DATA0, cpl), 0, 0xffffffff, 0xc093 | dpl);
    f->cpu->s.gpr[MULL_RSP] = cpl ? USTACK : KSTACK;
    soft_mode_changed(f->cpu);
}

static struct fix *protected_mode(unsigned cpl)
{
    struct fix *f = fix_new();
    make_tables(f);
    f->cpu->s.cr0 = SOFT_CR0_PE | SOFT_CR0_ET;
    put(f, TSS + 4, KSTACK, 4);
    put(f, TSS + 8, SEL(D_DATA0, 0), 4);
    f->cpu->s.rip = 0x4000;
    f->cpu->s.rflags = 0x202;
    set_level32(f, cpl);
    return f;
}

static struct fix *long_mode(unsigned cpl)
{
    struct fix *f = fix_new();
    make_tables(f);
    for (uint64_t at = 0x90000; at < USTACK + 0x1000; at += 0x1000)
        fix_map(f, at, at, at >= IST1 ? FIX_W | FIX_U : FIX_W);
    fix_long_mode(f, cpl, 0);
    fix_segment(f, MULL_CS, SEL(cpl ? D_CODE64U : D_CODE64, cpl), 0, 0xffffffff,
                0xa09b | cpl << MULL_SEG_DPL_SHIFT);
    fix_segment(f, MULL_SS, cpl ? SEL(D_DATA3, 3) : SEL(D_DATA0, 0), 0, 0xffffffff,
                0xc093 | cpl << MULL_SEG_DPL_SHIFT);
    fix_segment(f, MULL_TR, SEL(D_TSS, 0), TSS, 0x67, 0x8b);
    put(f, TSS + 4, KSTACK, 8);
    put(f, TSS + 36, IST1, 8);
    f->cpu->s.rip = 0x400000;
    f->cpu->s.rflags = 0x202;
    f->cpu->s.gpr[MULL_RSP] = cpl ? USTACK - 8 : KSTACK - 0x108;
    soft_mode_changed(f->cpu);
    return f;
}

/* ---- Long mode ---- */

static void test_long_interrupt(void **state)
{
    for (unsigned cpl = 0; cpl <= 3; cpl += 3) {
        struct fix *f = long_mode(cpl);
        struct mull_cpu_state *s = &f->cpu->s;
        uint64_t rsp = s->gpr[MULL_RSP];
        uint16_t cs = s->seg[MULL_CS].selector, ss = s->seg[MULL_SS].selector;
        gate64(f, IDT + 0x20 * 16, SEL(D_CODE64, 0), 0xffffffff81000000, 0x8e, 0);
        gate64(f, IDT + 0x21 * 16, SEL(D_CODE64, 0), 0xffffffff82000000, 0x8f, 1);

        assert_int_equal(soft_deliver_interrupt(f->cpu, 0x20), SOFT_JUMP);
        uint64_t top = cpl ? KSTACK : rsp & ~15ull;
        assert_true(s->gpr[MULL_RSP] == top - 40);
        assert_true(s->rip == 0xffffffff81000000);
        assert_int_equal(soft_cpl(f->cpu), 0);
        assert_int_equal(s->seg[MULL_SS].selector, cpl ? 0 : ss);
        assert_false(s->rflags & SOFT_IF);
        assert_true(fix_get(f, top - 8) == ss);
        assert_true(fix_get(f, top - 16) == rsp);
        assert_true(fix_get(f, top - 24) == 0x202);
        assert_true(fix_get(f, top - 32) == cs);
        assert_true(fix_get(f, top - 40) == 0x400000);

        /* And back. */
        assert_int_equal(RUN(f, "\x48\xcf"), SOFT_JUMP);
        assert_true(s->rip == 0x400000 && s->gpr[MULL_RSP] == rsp && s->rflags == 0x202);
        assert_int_equal(soft_cpl(f->cpu), cpl);
        assert_int_equal(s->seg[MULL_SS].selector, ss);
        assert_int_equal(s->seg[MULL_CS].selector, cs);

        /* A trap gate through an IST keeps IF. */
        assert_int_equal(soft_deliver_interrupt(f->cpu, 0x21), SOFT_JUMP);
        assert_true(s->gpr[MULL_RSP] == IST1 - 40);
        assert_true(s->rflags & SOFT_IF);
        fix_free(f);
    }
}

static void test_long_faults(void **state)
{
    struct fix *f = long_mode(3);
    struct mull_cpu_state *s = &f->cpu->s;
    gate64(f, IDT + 14 * 16, SEL(D_CODE64, 0), HANDLER, 0x8e, 0);
    gate64(f, IDT + 13 * 16, SEL(D_CODE64, 0), HANDLER, 0x8e, 0);
    gate64(f, IDT + 11 * 16, SEL(D_CODE64, 0), HANDLER, 0x8e, 0);
    gate64(f, IDT + 3 * 16, SEL(D_CODE64, 0), HANDLER, 0xee, 0);
    /* #PF: CR2, error code, RF in the pushed flags, RIP of the instruction. */
    soft_raise_page(f->cpu, 0xdead000, 6);
    assert_int_equal(soft_deliver_fault(f->cpu), SOFT_JUMP);
    assert_true(s->cr2 == 0xdead000);
    assert_true(s->gpr[MULL_RSP] == KSTACK - 48);
    assert_true(fix_get(f, KSTACK - 48) == 6);
    assert_true(fix_get(f, KSTACK - 40) == 0x400000);
    assert_true(fix_get(f, KSTACK - 24) == (0x202 | SOFT_RF));
    fix_free(f);

    /* INT3 and INT n: trap, the gate's DPL counts. */
    f = long_mode(3);
    s = &f->cpu->s;
    gate64(f, IDT + 3 * 16, SEL(D_CODE64, 0), HANDLER, 0xee, 0);
    gate64(f, IDT + 0x30 * 16, SEL(D_CODE64, 0), HANDLER, 0x8e, 0);
    assert_int_equal(RUN(f, "\xcc"), SOFT_JUMP);
    assert_true(fix_get(f, KSTACK - 40) == 0x400001);
    assert_true(fix_get(f, KSTACK - 24) == 0x202);
    fix_free(f);
    f = long_mode(3);
    gate64(f, IDT + 0x30 * 16, SEL(D_CODE64, 0), HANDLER, 0x8e, 0);
    assert_int_equal(RUN(f, "\xcd\x30"), SOFT_FAULT);
    assert_int_equal(f->cpu->fault.vector, SOFT_GP);
    assert_int_equal(f->cpu->fault.error, 0x30 * 8 + 2);
    /* A gate that is not present; one beyond the limit; of a wrong type. */
    gate64(f, IDT + 0x31 * 16, SEL(D_CODE64, 0), HANDLER, 0x6e, 0);
    assert_int_equal(RUN(f, "\xcd\x31"), SOFT_FAULT);
    assert_int_equal(f->cpu->fault.vector, SOFT_NP);
    gate64(f, IDT + 0x32 * 16, SEL(D_CODE64, 0), HANDLER, 0xe5, 0);
    assert_int_equal(RUN(f, "\xcd\x32"), SOFT_FAULT);
    assert_int_equal(f->cpu->fault.vector, SOFT_GP);
    f->cpu->s.idt.limit = 0x31 * 16;
    assert_int_equal(RUN(f, "\xcd\x31"), SOFT_FAULT);
    assert_int_equal(f->cpu->fault.error, 0x31 * 8 + 2);
    /* An external interrupt through a missing gate: #NP with EXT. */
    f->cpu->s.idt.limit = 0xfff;
    gate64(f, IDT + 11 * 16, SEL(D_CODE64, 0), HANDLER, 0x8e, 0);
    assert_int_equal(soft_deliver_interrupt(f->cpu, 0x31), SOFT_JUMP);
    assert_true(fix_get(f, KSTACK - 48) == 0x31 * 8 + 3);
    fix_free(f);
}

static void test_double_fault(void **state)
{
    struct fix *f = long_mode(0);
    struct mull_cpu_state *s = &f->cpu->s;
    /* #PF whose handler's gate is missing: #NP during #PF makes #DF, error code 0. */
    gate64(f, IDT + 8 * 16, SEL(D_CODE64, 0), HANDLER, 0x8e, 1);
    soft_raise_page(f->cpu, 0x1000, 0);
    assert_int_equal(soft_deliver_fault(f->cpu), SOFT_JUMP);
    assert_true(s->rip == HANDLER);
    assert_true(s->gpr[MULL_RSP] == IST1 - 48);
    assert_true(fix_get(f, IST1 - 48) == 0);
    assert_true(fix_get(f, IST1 - 40) == 0x400000);
    /* A stack that is not mapped: #PF during #GP is delivered as #PF (on the same bad stack), that
     * makes #DF. */
    gate64(f, IDT + 13 * 16, SEL(D_CODE64, 0), 0x111, 0x8e, 0);
    gate64(f, IDT + 14 * 16, SEL(D_CODE64, 0), 0x222, 0x8e, 1);
    s->gpr[MULL_RSP] = 0x5000;
    soft_raise_error(f->cpu, SOFT_GP, 0);
    assert_int_equal(soft_deliver_fault(f->cpu), SOFT_JUMP);
    assert_true(s->rip == 0x222);
    assert_true(s->cr2 == 0x5000 - 8 || s->cr2 == 0x5000 - 48);
    gate64(f, IDT + 14 * 16, SEL(D_CODE64, 0), 0x222, 0x8e, 0);
    s->gpr[MULL_RSP] = 0x5000;
    soft_raise_error(f->cpu, SOFT_GP, 0);
    assert_int_equal(soft_deliver_fault(f->cpu), SOFT_JUMP);
    assert_true(s->rip == HANDLER);
    /* A benign first exception never makes #DF. */
    gate64(f, IDT + 6 * 16, 0, 0x333, 0x8e, 0); /* null selector: #GP */
    s->gpr[MULL_RSP] = KSTACK - 0x100;
    soft_raise(f->cpu, SOFT_UD);
    assert_int_equal(soft_deliver_fault(f->cpu), SOFT_JUMP);
    assert_true(s->rip == 0x111);
    assert_true(fix_get(f, s->gpr[MULL_RSP]) == 1); /* EXT */
    /* No IDT: shutdown. */
    s->idt.limit = 0;
    soft_raise(f->cpu, SOFT_UD);
    assert_int_equal(soft_deliver_fault(f->cpu), SOFT_HALT);
    assert_int_equal(s->mp_state, MULL_CPU_SHUTDOWN);
    fix_free(f);
}

static void test_long_iret_checks(void **state)
{
    struct fix *f = long_mode(0);
    struct mull_cpu_state *s = &f->cpu->s;
    static const struct {
        uint64_t rip, cs, ss;
        uint8_t vector;
        uint32_t error;
    } cases[] = {
        {0x1000, SEL(D_CODE64U, 3), SEL(D_DATA3, 3), 0, 0},
        {0x1000, SEL(D_CODE64, 0), 0, 0, 0},        /* null SS at level 0 */
        {0x1000, SEL(D_CODE64U, 3), 3, SOFT_GP, 0}, /* not at level 3 */
        {0x1000, 0, 0, SOFT_GP, 0},
        {0x1000, SEL(D_DATA0, 0), 0, SOFT_GP, SEL(D_DATA0, 0)},
        {0x1000, SEL(D_CODE64, 3), SEL(D_DATA3, 3), SOFT_GP, SEL(D_CODE64, 0)},
        {0x1000, SEL(D_CODE64U, 3), SEL(D_DATA0, 0), SOFT_GP, SEL(D_DATA0, 0)},
        {0x1000, SEL(D_CODE64U, 3), SEL(D_CODE3, 3), SOFT_GP, SEL(D_CODE3, 0)},
        {1ull << 60, SEL(D_CODE64U, 3), SEL(D_DATA3, 3), SOFT_GP, 0},
        {1ull << 33, SEL(D_CODE3, 3), SEL(D_DATA3, 3), SOFT_GP, 0}, /* beyond a 32-bit limit */
        {0x1000, SEL(D_CODE3, 3), SEL(D_DATA3, 3), 0, 0},
        {0x1000, SEL(200, 3), SEL(D_DATA3, 3), SOFT_GP, SEL(200, 0)},
    };
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        fix_free(f);
        f = long_mode(0);
        s = &f->cpu->s;
        fix_segment(f, MULL_DS, SEL(D_DATA0, 0), 0, 0xffffffff, 0xc093);
        s->seg[MULL_FS].base = 0x1234;
        uint64_t sp = KSTACK - 0x100;
        const uint64_t frame[5] = {cases[i].rip, cases[i].cs, 0x3202, USTACK, cases[i].ss};
        mull_mem_write(f->mem, sp, frame, sizeof(frame));
        s->gpr[MULL_RSP] = sp;
        s->nmi_blocked = 1;
        enum soft_result r = RUN(f, "\x48\xcf");
        assert_int_equal(r, cases[i].vector ? SOFT_FAULT : SOFT_JUMP);
        if (cases[i].vector) {
            assert_int_equal(f->cpu->fault.vector, cases[i].vector);
            assert_int_equal(f->cpu->fault.error, cases[i].error);
            assert_true(s->gpr[MULL_RSP] == sp);
            continue;
        }
        assert_true(s->rip == cases[i].rip && s->gpr[MULL_RSP] == USTACK);
        assert_int_equal(s->rflags, 0x3202); /* IOPL may change: it was level 0 */
        assert_int_equal(s->nmi_blocked, 0);
        assert_int_equal(soft_cpl(f->cpu), cases[i].cs & 3);
        assert_int_equal(!!(f->cpu->mode & SOFT_MODE_CODE64), (cases[i].cs >> 3) != D_CODE3);
        /* Level 0 data is out of sight for level 3; bases of null segments stay. */
        if (cases[i].cs & 3)
            assert_int_equal(s->seg[MULL_DS].selector, 0);
        assert_true(s->seg[MULL_FS].base == 0x1234);
    }
    /* At level 3 neither IOPL nor IF changes. */
    fix_free(f);
    f = long_mode(3);
    s = &f->cpu->s;
    const uint64_t frame[5] = {0x1000, SEL(D_CODE64U, 3), 0x3ed7 & ~0x200u, USTACK,
                               SEL(D_DATA3, 3)};
    mull_mem_write(f->mem, USTACK - 0x40, frame, sizeof(frame));
    s->gpr[MULL_RSP] = USTACK - 0x40;
    assert_int_equal(RUN(f, "\x48\xcf"), SOFT_JUMP);
    assert_int_equal(s->rflags, 0x0ed7);
    fix_free(f);
}

static void test_syscall(void **state)
{
    struct fix *f = long_mode(3);
    struct mull_cpu_state *s = &f->cpu->s;
    s->star = (uint64_t)SEL(D_CODE3, 3) << 48 | (uint64_t)SEL(D_CODE0, 0) << 32;
    s->lstar = 0xffffffff81000000;
    s->sfmask = 0x47700;
    s->rflags = 0x40346;
    assert_int_equal(RUN(f, "\x0f\x05"), SOFT_JUMP);
    assert_true(s->rip == 0xffffffff81000000 && GPR(f, RCX) == 0x400002 && GPR(f, R11) == 0x40346);
    assert_true(s->rflags == 0x46);
    assert_int_equal(soft_cpl(f->cpu), 0);
    assert_int_equal(s->seg[MULL_CS].selector, SEL(D_CODE0, 0));
    assert_int_equal(s->seg[MULL_SS].selector, SEL(D_DATA0, 0));
    assert_true(f->cpu->mode & SOFT_MODE_CODE64);
    assert_int_equal(RUN(f, "\x48\x0f\x07"), SOFT_JUMP);
    assert_true(s->rip == 0x400002 && s->rflags == 0x40346);
    assert_int_equal(soft_cpl(f->cpu), 3);
    assert_int_equal(s->seg[MULL_CS].selector, SEL(D_CODE3 + 2, 3));
    assert_int_equal(s->seg[MULL_SS].selector, SEL(D_CODE3 + 1, 3));
    assert_int_equal(RUN(f, "\x48\x0f\x07"), SOFT_FAULT); /* at level 3 */
    fix_set_cpl(f, 0);
    assert_int_equal(RUN(f, "\x0f\x07"), SOFT_JUMP); /* to compatibility mode */
    assert_true(f->cpu->mode & SOFT_MODE_CODE32);
    assert_false(f->cpu->mode & SOFT_MODE_CODE64);
    fix_free(f);
    f = long_mode(0);
    GPR(f, RCX) = 1ull << 47;
    assert_int_equal(RUN(f, "\x48\x0f\x07"), SOFT_FAULT);
    assert_int_equal(f->cpu->fault.vector, SOFT_GP);
    f->cpu->s.efer &= ~SOFT_EFER_SCE;
    assert_int_equal(RUN(f, "\x0f\x05"), SOFT_FAULT);
    assert_int_equal(f->cpu->fault.vector, SOFT_UD);
    fix_free(f);
}

static void test_long_call_gate(void **state)
{
    struct fix *f = long_mode(3);
    struct mull_cpu_state *s = &f->cpu->s;
    gate64(f, GDT + D_GATE * 8, SEL(D_CODE64, 0), 0xffffffff81000000, 0xec, 0);
    fix_set(f, USTACK - 0x40, 0xdead | (uint64_t)SEL(D_GATE, 3) << 32);
    GPR(f, RBX) = USTACK - 0x40;
    assert_int_equal(RUN(f, "\xff\x1b"), SOFT_JUMP); /* lcall [rbx], m16:32 */
    assert_true(s->rip == 0xffffffff81000000 && soft_cpl(f->cpu) == 0);
    assert_true(s->gpr[MULL_RSP] == KSTACK - 32);
    assert_true(fix_get(f, KSTACK - 32) == 0x400002);
    assert_true(fix_get(f, KSTACK - 24) == SEL(D_CODE64U, 3));
    assert_true(fix_get(f, KSTACK - 16) == USTACK - 8);
    assert_true(fix_get(f, KSTACK - 8) == SEL(D_DATA3, 3));
    assert_int_equal(RUN(f, "\x48\xcb"), SOFT_JUMP); /* retfq */
    assert_true(s->rip == 0x400002 && soft_cpl(f->cpu) == 3 && s->gpr[MULL_RSP] == USTACK - 8);
    fix_free(f);
}

/* ---- Protected mode ---- */

static void test_protected_interrupt(void **state)
{
    struct fix *f = protected_mode(3);
    struct mull_cpu_state *s = &f->cpu->s;
    gate32(f, IDT + 0x20 * 8, SEL(D_CODE0, 0), HANDLER, 0x8e);
    assert_int_equal(soft_deliver_interrupt(f->cpu, 0x20), SOFT_JUMP);
    assert_true(s->rip == HANDLER && s->gpr[MULL_RSP] == KSTACK - 20);
    assert_int_equal(get32(f, KSTACK - 4), SEL(D_DATA3, 3));
    assert_int_equal(get32(f, KSTACK - 8), USTACK);
    assert_int_equal(get32(f, KSTACK - 12), 0x202);
    assert_int_equal(get32(f, KSTACK - 16), SEL(D_CODE3, 3));
    assert_int_equal(get32(f, KSTACK - 20), 0x4000);
    assert_int_equal(s->seg[MULL_SS].selector, SEL(D_DATA0, 0));
    assert_int_equal(RUN(f, "\xcf"), SOFT_JUMP);
    assert_true(s->rip == 0x4000 && s->gpr[MULL_RSP] == USTACK && soft_cpl(f->cpu) == 3);

    /* An error code, a 16-bit gate, a same-level interrupt. */
    gate32(f, IDT + 13 * 8, SEL(D_CODE0, 0), 0x777, 0x86);
    soft_raise_error(f->cpu, SOFT_GP, 0x50);
    assert_int_equal(soft_deliver_fault(f->cpu), SOFT_JUMP);
    assert_true(s->rip == 0x777 && s->gpr[MULL_RSP] == KSTACK - 12);
    assert_int_equal(get16(f, KSTACK - 12), 0x50);
    assert_int_equal(get16(f, KSTACK - 10), 0x4000);
    s->gpr[MULL_RSP] = KSTACK - 0x100;
    assert_int_equal(soft_deliver_interrupt(f->cpu, 0x20), SOFT_JUMP);
    assert_true(s->gpr[MULL_RSP] == KSTACK - 0x100 - 12);
    assert_int_equal(RUN(f, "\xcf"), SOFT_JUMP);
    assert_true(s->rip == 0x777 && soft_cpl(f->cpu) == 0);
    fix_free(f);

    /* A bad stack in the TSS: #TS, which has no handler: #DF, which has none: shutdown. */
    f = protected_mode(3);
    gate32(f, IDT + 0x20 * 8, SEL(D_CODE0, 0), HANDLER, 0x8e);
    gate32(f, IDT + 10 * 8, SEL(D_CONF, 0), HANDLER, 0x8e); /* conforming: the level stays */
    put(f, TSS + 8, SEL(D_DATA3, 3), 4);
    assert_int_equal(soft_deliver_interrupt(f->cpu, 0x20), SOFT_JUMP);
    assert_int_equal(soft_cpl(f->cpu), 3);
    assert_int_equal(get32(f, f->cpu->s.gpr[MULL_RSP]), SEL(D_DATA3, 0) | 1);
    fix_free(f);
}

static void test_vm86(void **state)
{
    struct fix *f = protected_mode(0);
    struct mull_cpu_state *s = &f->cpu->s;
    const uint32_t frame[9] = {0x100,  0x2000, 0x20202 | 0x3000, 0x3fe, 0x3000,
                               0x4000, 0x5000, 0x6000,           0x7000};
    mull_mem_write(f->mem, KSTACK - 0x40, frame, sizeof(frame));
    s->gpr[MULL_RSP] = KSTACK - 0x40;
    assert_int_equal(RUN(f, "\xcf"), SOFT_JUMP);
    assert_true(f->cpu->mode & SOFT_MODE_VM86);
    assert_int_equal(soft_cpl(f->cpu), 3);
    assert_true(s->seg[MULL_CS].base == 0x20000 && s->rip == 0x100);
    assert_true(s->seg[MULL_SS].base == 0x30000 && s->seg[MULL_GS].base == 0x70000);

    gate32(f, IDT + 0x21 * 8, SEL(D_CODE0, 0), HANDLER, 0xee);
    assert_int_equal(RUN(f, "\xcd\x21"), SOFT_JUMP); /* IOPL 3 */
    assert_true(s->rip == HANDLER && soft_cpl(f->cpu) == 0);
    assert_false(s->rflags & SOFT_VM);
    assert_true(s->gpr[MULL_RSP] == KSTACK - 36);
    assert_int_equal(get32(f, KSTACK - 4), 0x7000);
    assert_int_equal(get32(f, KSTACK - 16), 0x4000);
    assert_int_equal(get32(f, KSTACK - 20), 0x3000);
    assert_int_equal(get32(f, KSTACK - 28), 0x23202);
    assert_int_equal(get32(f, KSTACK - 36), 0x102);
    assert_true(s->seg[MULL_DS].attr & MULL_SEG_UNUSABLE);
    assert_int_equal(RUN(f, "\xcf"), SOFT_JUMP);
    assert_true(f->cpu->mode & SOFT_MODE_VM86);
    s->rflags &= ~(uint64_t)SOFT_IOPL;
    assert_int_equal(RUN(f, "\xcd\x21"), SOFT_FAULT);
    assert_int_equal(RUN(f, "\x9c"), SOFT_FAULT);         /* pushf */
    assert_int_equal(RUN(f, "\xfa"), SOFT_FAULT);         /* cli */
    assert_int_equal(RUN(f, "\x0f\x00\xc0"), SOFT_FAULT); /* sldt */
    assert_int_equal(f->cpu->fault.vector, SOFT_UD);
    fix_free(f);
}

static void test_protected_transfers(void **state)
{
    struct fix *f = protected_mode(3);
    struct mull_cpu_state *s = &f->cpu->s;
    /* A direct call, its return with parameters released. */
    assert_int_equal(RUN(f, "\x9a\x00\x50\x00\x00\x1b\x00"), SOFT_JUMP);
    assert_true(s->rip == 0x5000 && s->seg[MULL_CS].selector == SEL(D_CODE3, 3));
    assert_int_equal(get32(f, USTACK - 8), 0x4007);
    assert_int_equal(RUN(f, "\xca\x04\x00"), SOFT_JUMP);
    assert_true(s->rip == 0x4007 && s->gpr[MULL_RSP] == USTACK + 4);
    s->gpr[MULL_RSP] = USTACK;
    /* Not to level 0; to a conforming segment the level stays. */
    assert_int_equal(RUN(f, "\xea\x00\x50\x00\x00\x08\x00"), SOFT_FAULT);
    assert_int_equal(f->cpu->fault.error, SEL(D_CODE0, 0));
    assert_int_equal(RUN(f, "\xea\x00\x50\x00\x00\x68\x00"), SOFT_JUMP);
    assert_int_equal(s->seg[MULL_CS].selector, SEL(D_CONF, 3));
    assert_int_equal(soft_cpl(f->cpu), 3);
    assert_int_equal(RUN(f, "\xea\x00\x50\x00\x00\x00\x00"), SOFT_FAULT);
    assert_int_equal(f->cpu->fault.error, 0);

    /* A call gate with two parameters. */
    gate32(f, GDT + D_GATE * 8, SEL(D_CODE0, 0), HANDLER, 0xec);
    put(f, GDT + D_GATE * 8 + 4, 2, 1);
    set_level32(f, 3);
    s->rip = 0x4000;
    s->gpr[MULL_RSP] = USTACK - 8;
    put(f, USTACK - 8, 0x1111, 4);
    put(f, USTACK - 4, 0x2222, 4);
    assert_int_equal(RUN(f, "\xea\x00\x00\x00\x00\x4b\x00"), SOFT_FAULT); /* JMP to a lower level */
    assert_int_equal(RUN(f, "\x9a\x00\x00\x00\x00\x4b\x00"), SOFT_JUMP);
    assert_true(s->rip == HANDLER && s->gpr[MULL_RSP] == KSTACK - 24 && soft_cpl(f->cpu) == 0);
    assert_int_equal(get32(f, KSTACK - 4), SEL(D_DATA3, 3));
    assert_int_equal(get32(f, KSTACK - 8), USTACK - 8);
    assert_int_equal(get32(f, KSTACK - 12), 0x2222);
    assert_int_equal(get32(f, KSTACK - 16), 0x1111);
    assert_int_equal(get32(f, KSTACK - 20), SEL(D_CODE3, 3));
    assert_int_equal(get32(f, KSTACK - 24), 0x4007);
    assert_int_equal(RUN(f, "\xca\x08\x00"), SOFT_JUMP);
    assert_true(s->rip == 0x4007 && s->gpr[MULL_RSP] == USTACK && soft_cpl(f->cpu) == 3);
    fix_free(f);
}

static void test_task_switch(void **state)
{
    struct fix *f = protected_mode(0);
    struct mull_cpu_state *s = &f->cpu->s;
    put(f, TSS2 + 32, 0x6000, 4);
    put(f, TSS2 + 36, 0x2, 4);
    put(f, TSS2 + 40, 0xaaaa, 4); /* EAX */
    put(f, TSS2 + 56, KSTACK - 0x200, 4);
    put(f, TSS2 + 72, SEL(D_DATA0, 0), 2);
    put(f, TSS2 + 76, SEL(D_CODE0, 0), 2);
    put(f, TSS2 + 80, SEL(D_DATA0, 0), 2);
    put(f, TSS2 + 84, SEL(D_DATA0, 0), 2);
    GPR(f, RCX) = 0xcccc;
    /* CALL to the TSS: nested, the link leads back. */
    assert_int_equal(RUN(f, "\x9a\x00\x00\x00\x00\x58\x00"), SOFT_JUMP);
    assert_true(s->rip == 0x6000 && GPR(f, RAX) == 0xaaaa && GPR(f, RSP) == KSTACK - 0x200);
    assert_true(s->rflags & SOFT_NT);
    assert_true(s->cr0 & SOFT_CR0_TS);
    assert_int_equal(s->seg[MULL_TR].selector, SEL(D_TSS2, 0));
    assert_int_equal(get16(f, TSS2), SEL(D_TSS, 0));
    assert_int_equal(get32(f, TSS + 32), 0x4007);
    assert_int_equal(get32(f, TSS + 44), 0xcccc);
    assert_true(fix_get(f, GDT + D_TSS2 * 8) >> 40 & 2);
    /* IRET goes back. */
    assert_int_equal(RUN(f, "\xcf"), SOFT_JUMP);
    assert_true(s->rip == 0x4007 && GPR(f, RCX) == 0xcccc);
    assert_false(s->rflags & SOFT_NT);
    assert_false(fix_get(f, GDT + D_TSS2 * 8) >> 40 & 2);
    /* Through a task gate in the IDT, with an error code. */
    gate32(f, IDT + 13 * 8, SEL(D_TSS2, 0), 0, 0x85);
    put(f, TSS2 + 32, 0x6000, 4);
    put(f, TSS2 + 56, KSTACK - 0x200, 4);
    soft_raise_error(f->cpu, SOFT_GP, 0x1230);
    assert_int_equal(soft_deliver_fault(f->cpu), SOFT_JUMP);
    assert_true(s->rip == 0x6000 && GPR(f, RSP) == KSTACK - 0x204);
    assert_int_equal(get32(f, KSTACK - 0x204), 0x1230);
    /* A busy task cannot be entered. */
    assert_int_equal(RUN(f, "\xea\x00\x00\x00\x00\x58\x00"), SOFT_FAULT);
    assert_int_equal(f->cpu->fault.error, SEL(D_TSS2, 0));
    fix_free(f);
}

/* ---- Real mode ---- */

static void test_real_mode(void **state)
{
    struct fix *f = fix_new();
    struct mull_cpu_state *s = &f->cpu->s;
    s->idt = (struct mull_table){.base = 0, .limit = 0x3ff};
    soft_load_segment(f->cpu, MULL_SS, 0x3000);
    s->seg[MULL_CS].base = 0x10000;
    s->seg[MULL_CS].selector = 0x1000;
    s->rip = 0x200;
    s->rflags = 0x302;
    s->gpr[MULL_RSP] = 0xabcd0002; /* wraps within 16 bits */
    put(f, 0x21 * 4, 0x50004321, 4);
    assert_int_equal(RUN(f, "\xcd\x21"), SOFT_JUMP);
    assert_true(s->rip == 0x4321 && s->seg[MULL_CS].base == 0x50000);
    assert_true(s->gpr[MULL_RSP] == 0xabcdfffc);
    assert_int_equal(get16(f, 0x30000), 0x302);
    assert_int_equal(get16(f, 0x3fffe), 0x1000);
    assert_int_equal(get16(f, 0x3fffc), 0x202);
    assert_true(s->rflags == 2);
    assert_int_equal(RUN(f, "\xcf"), SOFT_JUMP);
    assert_true(s->rip == 0x202 && s->seg[MULL_CS].base == 0x10000 && s->rflags == 0x302);
    assert_true(s->gpr[MULL_RSP] == 0xabcd0002);
    /* Far jump, call and return. */
    assert_int_equal(RUN(f, "\xea\x34\x12\x00\x20"), SOFT_JUMP);
    assert_true(s->rip == 0x1234 && s->seg[MULL_CS].base == 0x20000);
    assert_int_equal(RUN(f, "\x9a\x00\x00\x00\x40"), SOFT_JUMP);
    assert_int_equal(RUN(f, "\xcb"), SOFT_JUMP);
    assert_true(s->rip == 0x1239 && s->seg[MULL_CS].base == 0x20000);
    /* An exception pushes no error code; beyond the table: shutdown. */
    put(f, 13 * 4, 0x60000100, 4);
    s->gpr[MULL_RSP] = 0x100;
    soft_raise_error(f->cpu, SOFT_GP, 0);
    assert_int_equal(soft_deliver_fault(f->cpu), SOFT_JUMP);
    assert_true(s->rip == 0x100 && s->gpr[MULL_RSP] == 0xfa);
    s->idt.limit = 3;
    soft_raise(f->cpu, SOFT_UD);
    assert_int_equal(soft_deliver_fault(f->cpu), SOFT_HALT);
    assert_int_equal(s->mp_state, MULL_CPU_SHUTDOWN);
    fix_free(f);
}

static void test_flags(void **state)
{
    struct fix *f = long_mode(0);
    struct mull_cpu_state *s = &f->cpu->s;
    s->rflags = 2;
    assert_int_equal(RUN(f, "\xfb"), SOFT_JUMP); /* sti */
    assert_true((s->rflags & SOFT_IF) && s->interrupt_shadow == 1);
    assert_int_equal(RUN(f, "\xfa"), SOFT_NEXT);
    assert_false(s->rflags & SOFT_IF);
    s->rflags = 0x10202 | SOFT_VIP;
    assert_int_equal(RUN(f, "\x9c"), SOFT_NEXT);
    assert_true(fix_get(f, s->gpr[MULL_RSP]) == (0x202 | SOFT_VIP)); /* without RF and VM */
    fix_set(f, s->gpr[MULL_RSP], 0x3f7fd7);
    s->rflags = 2;
    assert_int_equal(RUN(f, "\x9d"), SOFT_JUMP);
    assert_true(s->rflags == 0x247fd7);
    fix_free(f);
    f = long_mode(3);
    s = &f->cpu->s;
    assert_int_equal(RUN(f, "\xfa"), SOFT_FAULT);
    s->rflags = 0x202;
    s->gpr[MULL_RSP] -= 8;
    fix_set(f, s->gpr[MULL_RSP], 0x3002);
    assert_int_equal(RUN(f, "\x9d"), SOFT_NEXT);
    assert_true(s->rflags == 0x202);
    assert_int_equal(RUN(f, "\xf4"), SOFT_FAULT);         /* hlt */
    assert_int_equal(RUN(f, "\x0f\x01\xcb"), SOFT_FAULT); /* stac */
    assert_int_equal(f->cpu->fault.vector, SOFT_UD);
    fix_free(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_long_interrupt),
        cmocka_unit_test(test_long_faults),
        cmocka_unit_test(test_double_fault),
        cmocka_unit_test(test_long_iret_checks),
        cmocka_unit_test(test_syscall),
        cmocka_unit_test(test_long_call_gate),
        cmocka_unit_test(test_protected_interrupt),
        cmocka_unit_test(test_vm86),
        cmocka_unit_test(test_protected_transfers),
        cmocka_unit_test(test_task_switch),
        cmocka_unit_test(test_real_mode),
        cmocka_unit_test(test_flags),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
