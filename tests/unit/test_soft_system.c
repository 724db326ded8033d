/* The soft engine's system instructions, each decoded from its bytes and executed by its handler:
 * control registers, MSRs, descriptor tables, segment loads, XSAVE, ports. */
#include "soft_fixture.h"

#define DATA 0x100000ull /* identity-mapped user page */
#define GDT 0x90000ull
#define TSS 0x91000ull

/* Decode and execute one instruction. RIP is checked to have moved, or to have stayed. */
static enum soft_result run(struct fix *f, const void *bytes, unsigned length)
{
    struct soft_insn in;
    unsigned bits = f->cpu->mode & SOFT_MODE_CODE64   ? 64
                    : f->cpu->mode & SOFT_MODE_CODE32 ? 32
                                                      : 16;
    assert_int_equal(soft_decode(&in, bytes, length, bits), 0);
    assert_int_equal(in.length, length);
    uint64_t rip = f->cpu->s.rip;
    enum soft_result r = in.handler(f->cpu, &in);
    if (r == SOFT_FAULT)
        assert_true(f->cpu->s.rip == rip);
    return r;
}
#define RUN(f, bytes) run(f, bytes, sizeof(bytes) - 1)

#define assert_faults(f, bytes, what, code)                                                        \
    do {                                                                                           \
        assert_int_equal(RUN(f, bytes), SOFT_FAULT);                                               \
        assert_int_equal((f)->cpu->fault.vector, what);                                            \
        assert_int_equal((f)->cpu->fault.error, code);                                             \
    } while (0)
#define assert_runs(f, bytes)                                                                      \
    do {                                                                                           \
        enum soft_result result_ = RUN(f, bytes);                                                  \
        assert_true(result_ == SOFT_NEXT || result_ == SOFT_JUMP);                                 \
    } while (0)

#define RAX(f) ((f)->cpu->s.gpr[MULL_RAX])
#define RCX(f) ((f)->cpu->s.gpr[MULL_RCX])
#define RDX(f) ((f)->cpu->s.gpr[MULL_RDX])
#define RBX(f) ((f)->cpu->s.gpr[MULL_RBX])

static struct fix *fix_with_host_cpuid(void)
{
    struct fix *f = fix_new();
    struct mull_error err;
    assert_int_equal(soft_cpuid_template(&f->cpuid, &err), 0);
    f->cpu->features.known = false;
    uint32_t lo, hi;
    __asm__ volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
    f->cpu->xsave_mask = lo & 0xe7;
    soft_mode_changed(f->cpu);
    return f;
}

/* ---- Control registers ---- */

static void test_cr(void **state)
{
    struct fix *f = fix_with_host_cpuid();
    struct mull_cpu_state *s = &f->cpu->s;
    static const char to_cr0[] = "\x0f\x22\xc0";
    static const char to_cr3[] = "\x0f\x22\xd8", to_cr4[] = "\x0f\x22\xe0",
                      to_cr8[] = "\x44\x0f\x22\xc0";

    fix_long_mode(f, 3, 0);
    assert_faults(f, "\x0f\x22\xc0", SOFT_GP, 0);
    assert_faults(f, "\x0f\x20\xc0", SOFT_GP, 0);
    fix_long_mode(f, 0, 0);
    RAX(f) = 1ull << 32 | s->cr0;
    assert_faults(f, "\x0f\x22\xc0", SOFT_GP, 0);
    RAX(f) = s->cr0 & ~SOFT_CR0_PE;
    assert_faults(f, "\x0f\x22\xc0", SOFT_GP, 0);
    RAX(f) = s->cr0 | SOFT_CR0_NW;
    assert_faults(f, "\x0f\x22\xc0", SOFT_GP, 0);
    RAX(f) = s->cr0 & ~SOFT_CR0_PG; /* out of 64-bit code */
    assert_int_equal(run(f, to_cr0, 3), SOFT_FAULT);
    RAX(f) = s->cr0 | SOFT_CR0_TS;
    assert_int_equal(run(f, to_cr0, 3), SOFT_JUMP);
    assert_true(f->cpu->mode & SOFT_MODE_NO_SSE);
    assert_runs(f, "\x0f\x06"); /* clts */
    assert_false(f->cpu->mode & SOFT_MODE_NO_SSE);

    /* CR3: address bits beyond CPUID's; the TLB is flushed. */
    RAX(f) = 1ull << 47;
    assert_int_equal(run(f, to_cr3, 3), SOFT_FAULT);
    fix_map(f, DATA, DATA, FIX_U | FIX_W);
    assert_true(soft_tlb_fill(f->cpu, DATA, 8, false));
    RAX(f) = FIX_PML4;
    assert_int_equal(run(f, to_cr3, 3), SOFT_JUMP);
    assert_true(f->cpu->window[f->cpu->window_id]->read_tag[soft_tlb_index(DATA)] ==
                soft_tlb_invalid(soft_tlb_index(DATA)));

    /* CR4: what CPUID does not offer, PAE in long mode, PCIDE. */
    RAX(f) = s->cr4 | 1u << 22; /* PKE */
    assert_int_equal(run(f, to_cr4, 3), SOFT_FAULT);
    RAX(f) = s->cr4 | 1u << 13; /* VMXE */
    assert_int_equal(run(f, to_cr4, 3), SOFT_FAULT);
    RAX(f) = s->cr4 & ~SOFT_CR4_PAE;
    assert_int_equal(run(f, to_cr4, 3), SOFT_FAULT);
    s->cr3 |= 5;
    RAX(f) = s->cr4 | SOFT_CR4_PCIDE;
    assert_int_equal(run(f, to_cr4, 3), SOFT_FAULT);
    s->cr3 &= ~0xfffull;
    assert_int_equal(run(f, to_cr4, 3), SOFT_JUMP);
    RAX(f) = 1ull << 63 | FIX_PML4 | 7;
    assert_int_equal(run(f, to_cr3, 3), SOFT_JUMP);
    assert_true(s->cr3 == (FIX_PML4 | 7));
    RAX(f) = s->cr4 | SOFT_CR4_SMAP | SOFT_CR4_SMEP | SOFT_CR4_UMIP | SOFT_CR4_FSGSBASE |
             SOFT_CR4_OSXSAVE;
    assert_int_equal(run(f, to_cr4, 3), SOFT_JUMP);
    assert_int_equal(f->cpu->window_id, SOFT_WIN_KERNEL);
    assert_runs(f, "\x0f\x01\xcb"); /* stac */
    assert_int_equal(f->cpu->window_id, SOFT_WIN_KERNEL_AC);
    assert_runs(f, "\x0f\x01\xca"); /* clac */
    assert_int_equal(f->cpu->window_id, SOFT_WIN_KERNEL);

    /* CR8 without a platform is CPU state. */
    RAX(f) = 16;
    assert_int_equal(run(f, to_cr8, 4), SOFT_FAULT);
    RAX(f) = 9;
    assert_int_equal(run(f, to_cr8, 4), SOFT_JUMP);
    assert_true(s->cr8 == 9);
    /* INVPCID: types and operands. */
    fix_map(f, DATA, DATA, FIX_W);
    fix_set(f, DATA, 0);
    fix_set(f, DATA + 8, 0);
    RBX(f) = DATA;
    RAX(f) = 2;
    assert_runs(f, "\x66\x0f\x38\x82\x03");
    RAX(f) = 4;
    assert_faults(f, "\x66\x0f\x38\x82\x03", SOFT_GP, 0);
    RAX(f) = 0;
    fix_set(f, DATA + 8, 1ull << 63);
    assert_faults(f, "\x66\x0f\x38\x82\x03", SOFT_GP, 0);
    fix_free(f);
}

/* Real mode to protected mode to long mode and back, by MOV CR0 only. */
static void test_mode_changes(void **state)
{
    struct fix *f = fix_with_host_cpuid();
    struct mull_cpu_state *s = &f->cpu->s;
    static const char to_cr0[] = "\x0f\x22\xc0", to_cr4[] = "\x0f\x22\xe0", wrmsr[] = "\x0f\x30";

    assert_int_equal(f->cpu->mode & (SOFT_MODE_PROTECTED | SOFT_MODE_CODE32 | SOFT_MODE_CODE64), 0);
    RAX(f) = 0x11;
    assert_int_equal(run(f, to_cr0, 3), SOFT_JUMP);
    assert_true(f->cpu->mode & SOFT_MODE_PROTECTED);
    fix_segment(f, MULL_CS, 8, 0, 0xffffffff, 0xc09b);
    fix_segment(f, MULL_SS, 0x10, 0, 0xffffffff, 0xc093);
    fix_segment(f, MULL_DS, 0x10, 0, 0xffffffff, 0xc093);
    fix_segment(f, MULL_ES, 0x10, 0, 0xffffffff, 0xc093);
    soft_mode_changed(f->cpu);
    assert_true(f->cpu->mode & SOFT_MODE_CODE32);
    assert_true(f->cpu->mode & SOFT_MODE_FLAT);
    RAX(f) = SOFT_CR4_PAE;
    assert_int_equal(run(f, to_cr4, 3), SOFT_JUMP);
    RCX(f) = 0xc0000080;
    RDX(f) = 0;
    RAX(f) = SOFT_EFER_LME | SOFT_EFER_NXE | SOFT_EFER_SCE;
    assert_runs(f, "\x0f\x30");
    assert_false(s->efer & SOFT_EFER_LMA);
    s->cr3 = FIX_PML4;
    RAX(f) = 0x80000011;
    assert_int_equal(run(f, to_cr0, 3), SOFT_JUMP);
    assert_true(s->efer & SOFT_EFER_LMA);
    assert_false(f->cpu->mode & SOFT_MODE_CODE64); /* CS.L is not set: compatibility mode */
    RAX(f) = SOFT_EFER_NXE;                        /* LME cannot change with paging on */
    assert_int_equal(run(f, wrmsr, 2), SOFT_FAULT);
    fix_segment(f, MULL_CS, 8, 0, 0xffffffff, 0xa09b);
    soft_mode_changed(f->cpu);
    assert_true(f->cpu->mode & SOFT_MODE_CODE64);
    fix_segment(f, MULL_CS, 8, 0, 0xffffffff, 0xc09b);
    soft_mode_changed(f->cpu);
    RAX(f) = 0x11;
    assert_int_equal(run(f, to_cr0, 3), SOFT_JUMP);
    assert_false(s->efer & SOFT_EFER_LMA);
    fix_free(f);
}

static void test_dr(void **state)
{
    struct fix *f = fix_with_host_cpuid();
    fix_long_mode(f, 0, 0);
    RAX(f) = 0xffffffff;
    assert_runs(f, "\x0f\x23\xf0");
    assert_true(f->cpu->s.dr[6] == 0xffffefff);
    RAX(f) = 0x100000000ull;
    assert_faults(f, "\x0f\x23\xf8", SOFT_GP, 0);
    RAX(f) = 0x2000; /* GD */
    assert_runs(f, "\x0f\x23\xf8");
    assert_int_equal(RUN(f, "\x0f\x21\xc0"), SOFT_FAULT);
    assert_int_equal(f->cpu->fault.vector, SOFT_DB);
    assert_true(f->cpu->fault.address == 0x2000);
    f->cpu->s.dr[7] = 0x400;
    f->cpu->s.cr4 |= SOFT_CR4_DE;
    assert_faults(f, "\x0f\x21\xe0", SOFT_UD, 0); /* DR4 */
    f->cpu->s.cr4 &= ~SOFT_CR4_DE;
    assert_runs(f, "\x0f\x21\xe0");
    assert_true(RAX(f) == 0xffffefff);
    fix_free(f);
}

/* ---- MSRs ---- */

static int bus_read(void *opaque, unsigned cpu, uint32_t msr, uint64_t *value)
{
    *value = 0x1122334455667788ull;
    return msr == 0x1b ? 0 : -1;
}
static int bus_write(void *opaque, unsigned cpu, uint32_t msr, uint64_t value)
{
    *(uint64_t *)opaque = value;
    return msr == 0x1b ? 0 : -1;
}

static bool write_msr(struct fix *f, uint32_t msr, uint64_t value)
{
    RCX(f) = msr;
    RAX(f) = (uint32_t)value;
    RDX(f) = value >> 32;
    return RUN(f, "\x0f\x30") != SOFT_FAULT;
}
static bool read_msr(struct fix *f, uint32_t msr, uint64_t *value)
{
    RCX(f) = msr;
    bool ok = RUN(f, "\x0f\x32") != SOFT_FAULT;
    *value = (uint32_t)RAX(f) | RDX(f) << 32;
    return ok;
}

static void test_msr(void **state)
{
    struct fix *f = fix_with_host_cpuid();
    uint64_t v, written = 0;
    f->bus =
        (struct mull_engine_bus){.opaque = &written, .msr_read = bus_read, .msr_write = bus_write};
    fix_long_mode(f, 3, 0);
    assert_faults(f, "\x0f\x32", SOFT_GP, 0);
    assert_faults(f, "\x0f\x30", SOFT_GP, 0);
    fix_long_mode(f, 0, 0);

    static const struct {
        uint32_t msr;
        uint64_t good, bad; /* bad 0: none */
    } cases[] = {
        {0xc0000081, 0x23001000000000, 0},                    /* STAR */
        {0xc0000082, 0xffffffff81000000, 0x8000000000000000}, /* LSTAR */
        {0xc0000083, 0xffffffff81000000, 0x0000800000000000}, /* CSTAR */
        {0xc0000100, 0x7f0000000000, 0x8000000000000000},     /* FS base */
        {0xc0000101, 0xffff888000000000, 0x8000000000000000}, /* GS base */
        {0xc0000102, 0xffff888000000000, 0x8000000000000000}, /* kernel GS base */
        {0xc0000103, 0x1001, 0x100000000},                    /* TSC_AUX */
        {0x174, 0x10, 0},
        {0x175, 0xffff888000000000, 0x8000000000000000},
        {0x277, 0x0407050600070106, 0x0407050600070102}, /* PAT */
        {0x2ff, 0xc06, 0x406 | 1 << 9},
        {0x200, 0x80000006, 0x80000002},
        {0x201, 0x3fffc0000800, 0x400},
        {0x250, 0x0606060606060606, 0x0606060606060602},
        {0x26f, 0x0505050505050505, 0x0707070707070707},
        {0xda0, 0, 0x100}, /* XSS */
        {0x17a, 0, 1},
    };
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        assert_true(write_msr(f, cases[i].msr, cases[i].good));
        assert_true(read_msr(f, cases[i].msr, &v));
        assert_true(v == cases[i].good);
        if (cases[i].bad) {
            assert_false(write_msr(f, cases[i].msr, cases[i].bad));
            assert_int_equal(f->cpu->fault.vector, SOFT_GP);
            assert_true(read_msr(f, cases[i].msr, &v));
            assert_true(v == cases[i].good);
        }
    }
    assert_true(f->cpu->s.seg[MULL_FS].base == 0x7f0000000000);
    assert_false(write_msr(f, 0xfe, 0)); /* MTRRcap is read-only */
    assert_true(read_msr(f, 0xfe, &v) && (v & 0xff) == 8);
    assert_true(read_msr(f, 0x179, &v) && v == 0);
    assert_false(read_msr(f, 0x12345, &v));
    assert_true(read_msr(f, 0x1b, &v) && v == 0x1122334455667788ull);
    assert_true(write_msr(f, 0x1b, 0xfee00900) && written == 0xfee00900);
    assert_false(write_msr(f, 0xc0000080, 1u << 12)); /* SVME */

    /* The TSC moves with what is written to it. */
    assert_true(write_msr(f, 0x10, 1000));
    assert_true(read_msr(f, 0x10, &v) && v >= 1000 && v < 1000 + (1ull << 32));
    uint64_t adjust;
    assert_true(read_msr(f, 0x3b, &adjust) && adjust == f->cpu->s.tsc_offset);
    assert_true(write_msr(f, 0x3b, adjust + (1ull << 40)));
    assert_true(read_msr(f, 0x10, &v) && v > 1ull << 40);
    f->cpu->s.cr4 |= SOFT_CR4_TSD;
    fix_set_cpl(f, 3);
    assert_faults(f, "\x0f\x31", SOFT_GP, 0);
    f->cpu->s.cr4 &= ~SOFT_CR4_TSD;
    f->cpu->s.tsc_aux = 0x55;
    assert_runs(f, "\x0f\x01\xf9");
    assert_true(RCX(f) == 0x55);
    assert_faults(f, "\x0f\x33", SOFT_GP, 0); /* rdpmc */
    fix_free(f);
}

/* What kernels read at boot without asking, and write against errata. */
static void test_msr_of_models(void **state)
{
    static const uint32_t both[] = {0x17, 0x2a, 0x79, 0x8b, 0x1d9, 0x1db, 0x1de, 0x1a0};
    static const uint32_t amd[] = {
        0xc0010010, 0xc0010015, 0xc001001a, 0xc001001d, 0xc001001f, 0xc0010055, 0xc0010058,
        0xc0010061, 0xc0010063, 0xc0010064, 0xc001006b, 0xc0010112, 0xc0010113, 0xc0010114,
        0xc0010117, 0xc0011020, 0xc0011021, 0xc0011022, 0xc0011023, 0xc0011029, 0xc001102a};
    struct fix *f = fix_with_host_cpuid();
    uint64_t v, written = 0;
    f->bus =
        (struct mull_engine_bus){.opaque = &written, .msr_read = bus_read, .msr_write = bus_write};
    fix_long_mode(f, 0, 0);
    assert_true(read_msr(f, 0x10, &v));
    for (unsigned is_amd = 0; is_amd < 2; is_amd++) {
        f->cpu->features.amd = is_amd;
        for (unsigned i = 0; i < sizeof(both) / sizeof(both[0]); i++) {
            assert_true(read_msr(f, both[i], &v));
            assert_true(write_msr(f, both[i], v));
        }
        for (unsigned i = 0; i < sizeof(amd) / sizeof(amd[0]); i++) {
            assert_true(read_msr(f, amd[i], &v) == is_amd);
            assert_true(write_msr(f, amd[i], v) == is_amd);
        }
    }
    assert_true(read_msr(f, 0xc0010015, &v) && v == 1 << 24); /* HWCR.TscFreqSel */
    assert_true(read_msr(f, 0xc0010064, &v) && !(v >> 63));   /* PstateEn */
    assert_false(read_msr(f, 0xc001006c, &v));
    fix_free(f);
}

static void test_cpuid(void **state)
{
    struct fix *f = fix_with_host_cpuid();
    uint32_t r[4];
    fix_long_mode(f, 0, 0);
    soft_cpuid(f->cpu, 1, 0, r);
    assert_false(r[2] & 1u << 27);
    assert_true(r[2] & 1u << 3);  /* MONITOR */
    assert_false(r[2] & 1u << 5); /* VMX */
    f->cpu->s.cr4 |= SOFT_CR4_OSXSAVE;
    soft_cpuid(f->cpu, 1, 0, r);
    assert_true(r[2] & 1u << 27);
    soft_cpuid(f->cpu, 5, 0, r);
    assert_true(r[0] == 64 && r[1] == 64 && r[2] == 3 && r[3] == 0x10);
    f->cpu->s.xcr0 = 1;
    soft_cpuid(f->cpu, 0xd, 0, r);
    assert_int_equal(r[1], 576);
    uint32_t offered = r[0], largest = r[2];
    f->cpu->s.xcr0 = offered;
    soft_cpuid(f->cpu, 0xd, 0, r);
    assert_int_equal(r[1], largest);
    soft_cpuid(f->cpu, 7, 0, r);
    assert_false(r[1] & (1u << 4 | 1u << 11 | 1u << 14)); /* HLE, RTM, MPX */
    assert_false(r[2] & (1u << 3 | 1u << 7 | 1u << 16));  /* PKU, CET, LA57 */
    soft_cpuid(f->cpu, 0x80000001, 0, r);
    assert_false(r[2] & 1u << 2); /* SVM */
    soft_cpuid(f->cpu, 0x80000008, 0, r);
    assert_true((r[0] & 0xff) <= 46);
    soft_cpuid(f->cpu, 0xa, 0, r);
    assert_true(!(r[0] | r[1] | r[2] | r[3]));
    soft_cpuid(f->cpu, 0x12345678, 0, r);
    assert_true(!(r[0] | r[1] | r[2] | r[3]));
    fix_free(f);
}

/* ---- Descriptors and segments ---- */

static void set_desc(struct fix *f, unsigned index, uint32_t base, uint32_t limit, uint32_t attr)
{
    fix_set(f, GDT + index * 8,
            (limit & 0xffff) | (uint64_t)(base & 0xffffff) << 16 | (uint64_t)(attr & 0xf0ff) << 40 |
                (uint64_t)(limit >> 16 & 0xf) << 48 | (uint64_t)(base >> 24) << 56);
}

enum {
    D_CODE0 = 1,
    D_DATA0,
    D_CODE3,
    D_DATA3,
    D_RO3,
    D_NP3,
    D_CONF0,
    D_XONLY3,
    D_LDT,
    D_TSS,
    D_DOWN3
};
#define SEL(index, rpl) ((uint16_t)((index)*8 | (rpl)))

static void make_gdt(struct fix *f)
{
    f->cpu->s.gdt.base = GDT;
    f->cpu->s.gdt.limit = 16 * 8 - 1;
    set_desc(f, D_CODE0, 0, 0xfffff, 0xc09a);
    set_desc(f, D_DATA0, 0, 0xfffff, 0xc092);
    set_desc(f, D_CODE3, 0, 0xfffff, 0xc0fa);
    set_desc(f, D_DATA3, 0x1000, 0xffff, 0x40f2);
    set_desc(f, D_RO3, 0, 0xfffff, 0xc0f0);
    set_desc(f, D_NP3, 0, 0xfffff, 0xc072);
    set_desc(f, D_CONF0, 0, 0xfffff, 0xc09e);
    set_desc(f, D_XONLY3, 0, 0xfffff, 0xc0f8);
    set_desc(f, D_LDT, 0x92000, 0xff, 0x0082);
    set_desc(f, D_TSS, TSS, 0x67, 0x0089);
    set_desc(f, D_DOWN3, 0, 0x1000, 0xc0f6);
}

/* 32-bit protected mode without paging. */
static struct fix *protected_mode(unsigned cpl)
{
    struct fix *f = fix_with_host_cpuid();
    struct mull_cpu_state *s = &f->cpu->s;
    uint32_t dpl = cpl << MULL_SEG_DPL_SHIFT;
    make_gdt(f);
    s->cr0 = SOFT_CR0_PE | SOFT_CR0_ET;
    fix_segment(f, MULL_CS, SEL(cpl ? D_CODE3 : D_CODE0, cpl), 0, 0xffffffff, 0xc09b | dpl);
    for (unsigned i = 0; i < 6; i++)
        if (i != MULL_CS)
            fix_segment(f, i, SEL(cpl ? D_DATA3 : D_DATA0, cpl), 0, 0xffffffff, 0xc093 | dpl);
    s->gpr[MULL_RSP] = 0x80000;
    soft_mode_changed(f->cpu);
    return f;
}

static void test_load_segment(void **state)
{
    /* CPL, segment, selector, expected vector (0: loads) and error code. */
    static const struct {
        unsigned cpl, seg;
        uint16_t selector;
        uint8_t vector;
        uint16_t error;
    } cases[] = {
        {0, MULL_DS, SEL(D_DATA0, 0), 0, 0},
        {0, MULL_DS, SEL(D_DATA0, 3), SOFT_GP, SEL(D_DATA0, 0)},
        {3, MULL_DS, SEL(D_DATA0, 3), SOFT_GP, SEL(D_DATA0, 0)},
        {3, MULL_DS, SEL(D_DATA3, 3), 0, 0},
        {3, MULL_DS, SEL(D_DATA3, 0), 0, 0},
        {3, MULL_ES, SEL(D_CODE3, 3), 0, 0},
        {3, MULL_ES, SEL(D_XONLY3, 3), SOFT_GP, SEL(D_XONLY3, 0)},
        {3, MULL_ES, SEL(D_CONF0, 3), 0, 0},
        {0, MULL_FS, SEL(D_NP3, 0), SOFT_NP, SEL(D_NP3, 0)},
        {0, MULL_FS, SEL(D_TSS, 0), SOFT_GP, SEL(D_TSS, 0)},
        {0, MULL_GS, SEL(20, 0), SOFT_GP, SEL(20, 0)},
        {0, MULL_GS, 0x4c, SOFT_GP, 0x4c}, /* no LDT */
        {0, MULL_GS, 3, 0, 0},
        {0, MULL_SS, 0, SOFT_GP, 0},
        {0, MULL_SS, SEL(D_DATA0, 0), 0, 0},
        {0, MULL_SS, SEL(D_DATA3, 0), SOFT_GP, SEL(D_DATA3, 0)},
        {3, MULL_SS, SEL(D_DATA3, 3), 0, 0},
        {3, MULL_SS, SEL(D_DATA3, 0), SOFT_GP, SEL(D_DATA3, 0)},
        {3, MULL_SS, SEL(D_RO3, 3), SOFT_GP, SEL(D_RO3, 0)},
        {3, MULL_SS, SEL(D_NP3, 3), SOFT_SS, SEL(D_NP3, 0)},
    };
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct fix *f = protected_mode(cases[i].cpl);
        fix_segment(f, MULL_LDTR, 0, 0, 0, MULL_SEG_UNUSABLE);
        enum soft_result r = soft_load_segment(f->cpu, cases[i].seg, cases[i].selector);
        assert_int_equal(r, cases[i].vector ? SOFT_FAULT : SOFT_NEXT);
        if (cases[i].vector) {
            assert_int_equal(f->cpu->fault.vector, cases[i].vector);
            assert_int_equal(f->cpu->fault.error, cases[i].error);
        } else {
            assert_int_equal(f->cpu->s.seg[cases[i].seg].selector, cases[i].selector);
        }
        fix_free(f);
    }
    struct fix *f = protected_mode(3);
    assert_int_equal(soft_load_segment(f->cpu, MULL_DS, SEL(D_DATA3, 3)), SOFT_NEXT);
    assert_true(f->cpu->s.seg[MULL_DS].base == 0x1000);
    assert_int_equal(f->cpu->s.seg[MULL_DS].limit, 0xffff);
    assert_true(fix_get(f, GDT + D_DATA3 * 8) >> 40 & 1); /* accessed */
    assert_false(f->cpu->mode & SOFT_MODE_FLAT);
    /* Null SS in 64-bit mode. */
    fix_long_mode(f, 0, 0);
    assert_int_equal(soft_load_segment(f->cpu, MULL_SS, 0), SOFT_NEXT);
    assert_int_equal(soft_cpl(f->cpu), 0);
    assert_int_equal(soft_load_segment(f->cpu, MULL_SS, 3), SOFT_FAULT);
    fix_long_mode(f, 3, 0);
    assert_int_equal(soft_load_segment(f->cpu, MULL_SS, 3), SOFT_FAULT);
    fix_free(f);
}

static void test_linear(void **state)
{
    struct fix *f = protected_mode(3);
    uint64_t va;
    soft_load_segment(f->cpu, MULL_DS, SEL(D_DATA3, 3));
    assert_int_equal(soft_linear(f->cpu, MULL_DS, 0xfffc, 4, SOFT_WRITE, &va), SOFT_NEXT);
    assert_true(va == 0x10ffc);
    assert_int_equal(soft_linear(f->cpu, MULL_DS, 0xfffd, 4, SOFT_READ, &va), SOFT_FAULT);
    assert_int_equal(f->cpu->fault.vector, SOFT_GP);
    soft_load_segment(f->cpu, MULL_ES, SEL(D_RO3, 3));
    assert_int_equal(soft_linear(f->cpu, MULL_ES, 0, 4, SOFT_WRITE, &va), SOFT_FAULT);
    soft_load_segment(f->cpu, MULL_ES, SEL(D_CODE3, 3));
    assert_int_equal(soft_linear(f->cpu, MULL_ES, 0, 4, SOFT_READ, &va), SOFT_NEXT);
    assert_int_equal(soft_linear(f->cpu, MULL_ES, 0, 4, SOFT_RMW, &va), SOFT_FAULT);
    soft_load_segment(f->cpu, MULL_ES, SEL(D_DOWN3, 3)); /* valid above 0x1000fff */
    assert_int_equal(soft_linear(f->cpu, MULL_ES, 0x1000fff, 1, SOFT_READ, &va), SOFT_FAULT);
    assert_int_equal(soft_linear(f->cpu, MULL_ES, 0x1001000, 4, SOFT_READ, &va), SOFT_NEXT);
    assert_int_equal(soft_linear(f->cpu, MULL_ES, 0xfffffffe, 4, SOFT_READ, &va), SOFT_FAULT);
    soft_load_segment(f->cpu, MULL_ES, 0);
    assert_int_equal(soft_linear(f->cpu, MULL_ES, 0, 1, SOFT_READ, &va), SOFT_FAULT);
    f->cpu->s.seg[MULL_SS].limit = 0xfff;
    assert_int_equal(soft_linear(f->cpu, MULL_SS, 0x1000, 1, SOFT_READ, &va), SOFT_FAULT);
    assert_int_equal(f->cpu->fault.vector, SOFT_SS);
    fix_long_mode(f, 3, 0);
    f->cpu->s.seg[MULL_GS].base = 0x1000;
    f->cpu->s.seg[MULL_DS].base = 0x5000;
    assert_int_equal(soft_linear(f->cpu, MULL_GS, 0x10, 8, SOFT_WRITE, &va), SOFT_NEXT);
    assert_true(va == 0x1010);
    assert_int_equal(soft_linear(f->cpu, MULL_DS, 0x10, 8, SOFT_WRITE, &va), SOFT_NEXT);
    assert_true(va == 0x10);
    assert_int_equal(soft_linear(f->cpu, MULL_DS, 0x7ffffffffffc, 8, SOFT_READ, &va), SOFT_FAULT);
    assert_int_equal(soft_linear(f->cpu, MULL_SS, 1ull << 60, 1, SOFT_READ, &va), SOFT_FAULT);
    assert_int_equal(f->cpu->fault.vector, SOFT_SS);
    fix_free(f);
}

static void test_tables(void **state)
{
    struct fix *f = protected_mode(0);
    struct mull_cpu_state *s = &f->cpu->s;
    /* LGDT [ebx], with 32-bit and with 16-bit operand: 24 bits of base. */
    fix_set(f, DATA, 0x12345678abcdull);
    RBX(f) = DATA;
    assert_runs(f, "\x0f\x01\x1b"); /* lidt */
    assert_true(s->idt.limit == 0xabcd && s->idt.base == 0x12345678);
    assert_runs(f, "\x66\x0f\x01\x1b");
    assert_true(s->idt.base == 0x345678);
    RBX(f) = DATA + 0x20;
    assert_runs(f, "\x0f\x01\x03"); /* sgdt */
    assert_true((fix_get(f, DATA + 0x20) & 0xffffffffffff) == (127 | GDT << 16));

    RAX(f) = SEL(D_LDT, 0);
    assert_runs(f, "\x0f\x00\xd0"); /* lldt */
    assert_true(s->seg[MULL_LDTR].base == 0x92000);
    assert_runs(f, "\x0f\x00\xc1"); /* sldt ecx */
    assert_true(RCX(f) == SEL(D_LDT, 0));
    RAX(f) = SEL(D_TSS, 0);
    assert_faults(f, "\x0f\x00\xd0", SOFT_GP, SEL(D_TSS, 0));
    assert_runs(f, "\x0f\x00\xd8"); /* ltr */
    assert_true(fix_get(f, GDT + D_TSS * 8) >> 40 & 2);
    assert_faults(f, "\x0f\x00\xd8", SOFT_GP, SEL(D_TSS, 0)); /* busy */
    RAX(f) = 0;
    assert_faults(f, "\x0f\x00\xd8", SOFT_GP, 0);
    assert_runs(f, "\x0f\x00\xd0");
    assert_true(s->seg[MULL_LDTR].attr & MULL_SEG_UNUSABLE);

    /* LAR, LSL, VERR, VERW at CPL 3. */
    fix_free(f);
    f = protected_mode(3);
    RAX(f) = SEL(D_DATA3, 3);
    RCX(f) = 0;
    assert_runs(f, "\x0f\x02\xc8"); /* lar ecx, eax */
    assert_true((f->cpu->s.rflags & SOFT_ZF) && RCX(f) == 0x40f200);
    assert_runs(f, "\x0f\x03\xc8"); /* lsl */
    assert_true((f->cpu->s.rflags & SOFT_ZF) && RCX(f) == 0xffff);
    RAX(f) = SEL(D_DATA0, 3);
    assert_runs(f, "\x0f\x02\xc8");
    assert_true(!(f->cpu->s.rflags & SOFT_ZF) && RCX(f) == 0xffff);
    RAX(f) = SEL(D_RO3, 3);
    assert_runs(f, "\x0f\x00\xe0"); /* verr */
    assert_true(f->cpu->s.rflags & SOFT_ZF);
    assert_runs(f, "\x0f\x00\xe8"); /* verw */
    assert_false(f->cpu->s.rflags & SOFT_ZF);
    RAX(f) = SEL(100, 3);
    assert_runs(f, "\x0f\x00\xe0");
    assert_false(f->cpu->s.rflags & SOFT_ZF);
    RAX(f) = 0x10;
    RCX(f) = 3;
    assert_runs(f, "\x63\xc8"); /* arpl ax, cx */
    assert_true((f->cpu->s.rflags & SOFT_ZF) && (RAX(f) & 0xffff) == 0x13);
    /* UMIP hides tables from user programs. */
    f->cpu->s.cr4 |= SOFT_CR4_UMIP;
    RBX(f) = DATA;
    assert_faults(f, "\x0f\x01\x03", SOFT_GP, 0);
    assert_faults(f, "\x0f\x00\xc1", SOFT_GP, 0);
    assert_faults(f, "\x0f\x01\xe0", SOFT_GP, 0); /* smsw */
    assert_faults(f, "\x0f\x01\x1b", SOFT_GP, 0); /* lidt, always */
    /* LSS esp, [ebx] holds interrupts back. */
    fix_set(f, DATA, 0x12345678ull | (uint64_t)SEL(D_DATA3, 3) << 32);
    f->cpu->s.seg[MULL_DS].base = 0;
    assert_runs(f, "\x0f\xb2\x23");
    assert_true(f->cpu->s.gpr[MULL_RSP] == 0x12345678);
    RAX(f) = SEL(D_DATA3, 3);
    f->cpu->s.interrupt_shadow = 0;
    assert_int_equal(RUN(f, "\x8e\xd0"), SOFT_JUMP); /* mov ss, ax */
    assert_int_equal(f->cpu->s.interrupt_shadow, 2);
    fix_free(f);
}

/* ---- XSAVE ---- */

static void set_xmm3(struct fix *f, uint64_t v)
{
    soft_vectors_park(f->cpu);
    memcpy(f->cpu->s.xsave + 160 + 48, &v, 8);
    f->cpu->s.xsave[512] |= 2;
}
static uint64_t get_xmm3(struct fix *f)
{
    uint64_t v;
    soft_vectors_park(f->cpu);
    memcpy(&v, f->cpu->s.xsave + 160 + 48, 8);
    return f->cpu->s.xsave[512] & 2 ? v : 0;
}

static void test_xsave(void **state)
{
    struct fix *f = fix_with_host_cpuid();
    struct mull_cpu_state *s = &f->cpu->s;
    fix_long_mode(f, 0, SOFT_CR4_OSXSAVE);
    s->xcr0 = 7;
    soft_mode_changed(f->cpu);
    for (uint64_t p = 0; p < 4; p++)
        fix_map(f, DATA + p * 0x1000, DATA + p * 0x1000, FIX_W);
    RDX(f) = 0;
    /* In one page and across two, standard and compacted, saved and restored. */
    static const uint64_t places[] = {DATA, DATA + 0x1000 - 576 - 64};
    for (unsigned k = 0; k < 4; k++) {
        uint64_t at = places[k & 1];
        bool compacted = k & 2;
        RBX(f) = at;
        RAX(f) = 7;
        set_xmm3(f, 0x1234567800000000ull + k);
        if (compacted)
            assert_runs(f, "\x48\x0f\xc7\x23"); /* xsavec64 [rbx] */
        else
            assert_runs(f, "\x48\x0f\xae\x23"); /* xsave64 [rbx] */
        soft_vectors_park(f->cpu);
        assert_true(fix_get(f, at + 512) & 2);
        assert_true(fix_get(f, at + 520) == (compacted ? 1ull << 63 | 7 : 0));
        assert_true(fix_get(f, at + 160 + 48) == 0x1234567800000000ull + k);
        set_xmm3(f, 5);
        assert_runs(f, "\x48\x0f\xae\x2b"); /* xrstor64 */
        assert_true(get_xmm3(f) == 0x1234567800000000ull + k);
        if (compacted) {
            set_xmm3(f, 6);
            assert_runs(f, "\x48\x0f\xc7\x1b"); /* xrstors64 */
            assert_true(get_xmm3(f) == 0x1234567800000000ull + k);
        } else {
            assert_faults(f, "\x48\x0f\xc7\x1b", SOFT_GP, 0);
        }
    }
    /* A component whose bit is clear is initialized; one not asked for stays. */
    RBX(f) = DATA;
    set_xmm3(f, 77);
    assert_runs(f, "\x48\x0f\xae\x23");
    soft_vectors_park(f->cpu);
    fix_set(f, DATA + 512, 1);
    assert_runs(f, "\x48\x0f\xae\x2b");
    assert_true(get_xmm3(f) == 0);
    set_xmm3(f, 78);
    RAX(f) = 1;
    assert_runs(f, "\x48\x0f\xae\x2b");
    assert_true(get_xmm3(f) == 78);
    RAX(f) = 7;
    /* What is not saved stays in memory. */
    fix_set(f, DATA + 160 + 48, 0xaaaa);
    RAX(f) = 1;
    assert_runs(f, "\x48\x0f\xae\x23");
    soft_vectors_park(f->cpu);
    assert_true(fix_get(f, DATA + 160 + 48) == 0xaaaa);
    RAX(f) = 7;

    /* Malformed images. */
    static const struct {
        unsigned offset;
        uint64_t value;
    } bad[] = {
        {512, 1ull << 63},          {512, 8}, {520, 1}, {528, 1},
        {520, 1ull << 63 | 3}, /* XSTATE_BV has AVX, XCOMP_BV does not */
        {520, 1ull << 63 | 1 << 8},
    };
    for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        for (unsigned k = 0; k < 64; k += 8)
            fix_set(f, DATA + 512 + k, 0);
        fix_set(f, DATA + 512, 7);
        fix_set(f, DATA + bad[i].offset, bad[i].value);
        assert_faults(f, "\x48\x0f\xae\x2b", SOFT_GP, 0);
    }
    for (unsigned k = 0; k < 64; k += 8)
        fix_set(f, DATA + 512 + k, 0);
    fix_set(f, DATA + 24, 0xffffffff1f80ull | 1ull << 31); /* MXCSR */
    assert_faults(f, "\x48\x0f\xae\x2b", SOFT_GP, 0);
    fix_set(f, DATA + 24, 0x1f80);
    assert_runs(f, "\x48\x0f\xae\x2b");
    /* Alignment, presence, availability. */
    RBX(f) = DATA + 16;
    assert_faults(f, "\x48\x0f\xae\x23", SOFT_GP, 0);
    assert_runs(f, "\x48\x0f\xae\x03"); /* fxsave64 needs 16 */
    RBX(f) = DATA + 8;
    assert_faults(f, "\x48\x0f\xae\x03", SOFT_GP, 0);
    assert_faults(f, "\x48\x0f\xae\x0b", SOFT_GP, 0);
    RBX(f) = DATA + 0x4000 - 512;
    assert_int_equal(RUN(f, "\x48\x0f\xae\x23"), SOFT_FAULT);
    fix_assert_pf(f, DATA + 0x4000, 2);
    s->cr0 |= SOFT_CR0_TS;
    soft_mode_changed(f->cpu);
    assert_faults(f, "\x48\x0f\xae\x23", SOFT_NM, 0);
    assert_faults(f, "\x48\x0f\xae\x03", SOFT_NM, 0);
    s->cr0 &= ~SOFT_CR0_TS;
    s->cr4 &= ~SOFT_CR4_OSXSAVE;
    soft_mode_changed(f->cpu);
    assert_faults(f, "\x48\x0f\xae\x23", SOFT_UD, 0);
    s->cr4 |= SOFT_CR4_OSXSAVE;
    fix_set_cpl(f, 3);
    RBX(f) = DATA;
    assert_faults(f, "\x48\x0f\xc7\x2b", SOFT_GP, 0); /* xsaves64 */
    fix_set_cpl(f, 0);

    /* FXSAVE and FXRSTOR. */
    for (unsigned k = 0; k < 2; k++) {
        RBX(f) = k ? DATA + 0x1000 - 256 : DATA;
        set_xmm3(f, 0xfeed + k);
        assert_runs(f, "\x0f\xae\x03");
        set_xmm3(f, 0);
        assert_runs(f, "\x0f\xae\x0b");
        assert_true(get_xmm3(f) == 0xfeed + k);
    }
    fix_set(f, DATA + 24, 0x1f80 | 1ull << 30);
    RBX(f) = DATA;
    assert_faults(f, "\x0f\xae\x0b", SOFT_GP, 0);
    fix_free(f);
}

static void test_xcr0(void **state)
{
    struct fix *f = fix_with_host_cpuid();
    fix_long_mode(f, 0, 0);
    RCX(f) = RDX(f) = 0;
    assert_faults(f, "\x0f\x01\xd1", SOFT_UD, 0);
    assert_faults(f, "\x0f\x01\xd0", SOFT_UD, 0);
    f->cpu->s.cr4 |= SOFT_CR4_OSXSAVE;
    static const uint32_t bad[] = {0, 2, 5, 0x27, 0x1f, 0x400007};
    for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        RAX(f) = bad[i];
        assert_faults(f, "\x0f\x01\xd1", SOFT_GP, 0);
    }
    RAX(f) = 7;
    assert_runs(f, "\x0f\x01\xd1");
    assert_true(f->cpu->s.xcr0 == 7);
    assert_false(f->cpu->mode & SOFT_MODE_NO_AVX);
    RAX(f) = 0;
    assert_runs(f, "\x0f\x01\xd0");
    assert_true(RAX(f) == 7);
    RCX(f) = 2;
    assert_faults(f, "\x0f\x01\xd0", SOFT_GP, 0);
    RCX(f) = 1;
    assert_faults(f, "\x0f\x01\xd1", SOFT_GP, 0);
    fix_free(f);
}

/* ---- Ports ---- */

struct port {
    uint64_t log[16];
    unsigned count;
};
static uint64_t port_read(void *opaque, unsigned cpu, uint64_t offset, unsigned size)
{
    struct port *p = opaque;
    return 0x11223300u + p->count++;
}
static void port_write(void *opaque, unsigned cpu, uint64_t offset, unsigned size, uint64_t value)
{
    struct port *p = opaque;
    if (p->count < 16)
        p->log[p->count++] = value;
}

static void test_ports(void **state)
{
    static const struct mull_region_ops ops = {port_read, port_write, 0, 0};
    struct fix *f = fix_with_host_cpuid();
    struct port port = {0};
    struct mull_error err;
    mull_region_add(f->mem, MULL_SPACE_PORT, 0x3f0, 16, &ops, &port, "p", NULL, &err);
    fix_long_mode(f, 3, 0);
    fix_map(f, DATA, DATA, FIX_U | FIX_W);
    fix_map(f, TSS, TSS, 0);
    fix_map(f, TSS + 0x1000, TSS + 0x1000, 0);
    RDX(f) = 0x3f8;
    fix_segment(f, MULL_TR, 0x40, TSS, 0x67, 0x8b);
    assert_faults(f, "\xee", SOFT_GP, 0); /* no bitmap */
    f->cpu->s.rflags |= SOFT_IOPL;
    RAX(f) = 0x41;
    assert_runs(f, "\xee");
    assert_true(port.log[0] == 0x41);
    f->cpu->s.rflags &= ~(uint64_t)SOFT_IOPL;
    /* The bitmap: 0x3f8 allowed, 0x3f9 not. */
    fix_segment(f, MULL_TR, 0x40, TSS, 0x68 + 0x100, 0x8b);
    for (unsigned i = 0; i < 0x120; i += 8)
        fix_set(f, TSS + 0x68 + i, ~0ull);
    fix_set(f, TSS + 0x60, 0x68ull << 48);
    uint16_t bits = 0xfffe;
    mull_mem_write(f->mem, TSS + 0x68 + 0x3f8 / 8, &bits, 2);
    assert_runs(f, "\xee");
    assert_faults(f, "\xef", SOFT_GP, 0); /* four bytes */
    RDX(f) = 0x3f9;
    assert_faults(f, "\xec", SOFT_GP, 0);
    RDX(f) = 0x3f8;
    RAX(f) = ~0ull;
    f->cpu->s.rflags |= SOFT_IOPL;
    port.count = 5;
    assert_runs(f, "\xed");
    assert_true(RAX(f) == 0x11223305);
    assert_runs(f, "\x66\xed");
    assert_true(RAX(f) == 0x11223306);

    /* REP INSB that runs into a missing page stops there, restartable. */
    RCX(f) = 8;
    f->cpu->s.gpr[MULL_RDI] = DATA + 0xffd;
    port.count = 0;
    assert_int_equal(RUN(f, "\xf3\x6c"), SOFT_FAULT);
    fix_assert_pf(f, DATA + 0x1000, 6);
    assert_true(RCX(f) == 5 && f->cpu->s.gpr[MULL_RDI] == DATA + 0x1000);
    assert_int_equal(port.count, 3); /* nothing was taken for the byte that faulted */
    fix_map(f, DATA + 0x1000, DATA + 0x1000, FIX_U | FIX_W);
    assert_runs(f, "\xf3\x6c");
    assert_true(RCX(f) == 0);
    assert_int_equal(port.count, 8);
    /* OUTSW downwards. */
    f->cpu->s.rflags |= SOFT_DF;
    f->cpu->s.gpr[MULL_RSI] = DATA + 2;
    fix_set(f, DATA, 0x22221111);
    RCX(f) = 2;
    port.count = 0;
    assert_runs(f, "\xf3\x66\x6f");
    assert_true(port.log[0] == 0x2222 && port.log[1] == 0x1111);
    assert_true(f->cpu->s.gpr[MULL_RSI] == DATA - 2);
    fix_free(f);
}

/* A page with a watch stays out of the TLB, one with a breakpoint out of translations. */
static void test_debug_pages(void **state)
{
    static const uint8_t to_dr7[] = {0x0f, 0x23, 0xf8}, to_dr0[] = {0x0f, 0x23, 0xc0};
    struct fix *f = fix_with_host_cpuid();

    fix_set_cpl(f, 0);
    fix_map(f, DATA, DATA, FIX_W);
    fix_map(f, DATA + 0x1000, DATA + 0x1000, FIX_W);
    assert_true(soft_tlb_fill(f->cpu, DATA, 8, false));
    RAX(f) = DATA + 0x124;
    assert_int_equal(run(f, to_dr0, 3), SOFT_JUMP);
    RAX(f) = 0xd0402; /* G0, RW0 = 1, LEN0 = 4 */
    assert_int_equal(run(f, to_dr7, 3), SOFT_JUMP);
    assert_false(soft_tlb_fill(f->cpu, DATA, 8, false));
    assert_true(soft_tlb_fill(f->cpu, DATA + 0x1000, 8, true));
    assert_false(f->cpu->mode & SOFT_MODE_DEBUG);
    soft_debug_access(f->cpu, DATA + 0x120, 4, SOFT_WRITE);
    soft_debug_access(f->cpu, DATA + 0x126, 1, SOFT_READ);
    assert_int_equal(f->cpu->debug_hits, 0);
    soft_debug_access(f->cpu, DATA + 0x120, 5, SOFT_WRITE);
    assert_int_equal(f->cpu->debug_hits, 1);

    RAX(f) = 0x402; /* G0, on execution */
    assert_int_equal(run(f, to_dr7, 3), SOFT_JUMP);
    assert_true(f->cpu->mode & SOFT_MODE_DEBUG);
    assert_true(soft_tlb_fill(f->cpu, DATA, 8, false));
    assert_true(soft_debug_page_executes(f->cpu, DATA + 0xfff));
    assert_false(soft_debug_page_executes(f->cpu, DATA + 0x1000));
    RAX(f) = 0x400;
    assert_int_equal(run(f, to_dr7, 3), SOFT_JUMP);
    assert_false(f->cpu->mode & SOFT_MODE_DEBUG);
    fix_free(f);
}

/* ---- What translations of 16- and 32-bit code look at ---- */

#define DATA32 (3 | MULL_SEG_S | MULL_SEG_P | MULL_SEG_G | MULL_SEG_DB)
#define CODE32 (0xb | MULL_SEG_S | MULL_SEG_P | MULL_SEG_G | MULL_SEG_DB)

static void flat_32(struct fix *f)
{
    f->cpu->s.efer = 0;
    f->cpu->s.cr0 = SOFT_CR0_PE | SOFT_CR0_ET;
    for (unsigned i = 0; i < 6; i++)
        fix_segment(f, i, 0x18, 0, 0xffffffff, i == MULL_CS ? CODE32 : DATA32);
    soft_mode_changed(f->cpu);
}

static uint32_t mode_of(struct fix *f, unsigned seg, uint64_t base, uint32_t limit, uint32_t attr)
{
    flat_32(f);
    fix_segment(f, seg, 0x18, base, limit, attr);
    soft_mode_changed(f->cpu);
    return f->cpu->mode;
}

static void test_segment_modes(void **state)
{
    struct fix *f = fix_with_host_cpuid();
    const uint32_t limits = SOFT_MODE_CODE_64K | SOFT_MODE_CODE_ODD;

    flat_32(f);
    assert_int_equal(f->cpu->mode & (SOFT_MODE_CODE64 | SOFT_MODE_CODE32 | SOFT_MODE_STACK32 |
                                     SOFT_MODE_FLAT | SOFT_MODE_PROTECTED | limits),
                     SOFT_MODE_CODE32 | SOFT_MODE_STACK32 | SOFT_MODE_FLAT | SOFT_MODE_PROTECTED);
    assert_false(mode_of(f, MULL_DS, 1, 0xffffffff, DATA32) & SOFT_MODE_FLAT);
    assert_false(mode_of(f, MULL_ES, 0, 0xfffff, DATA32) & SOFT_MODE_FLAT);
    assert_false(mode_of(f, MULL_SS, 0, 0xffffffff, DATA32 | 4) & SOFT_MODE_FLAT);
    assert_false(mode_of(f, MULL_DS, 0, 0xffffffff, DATA32 & ~2u) & SOFT_MODE_FLAT);
    assert_false(mode_of(f, MULL_DS, 0, 0xffffffff, MULL_SEG_UNUSABLE) & SOFT_MODE_FLAT);
    assert_true(mode_of(f, MULL_GS, 0, 0, MULL_SEG_UNUSABLE) & SOFT_MODE_FLAT);
    assert_int_equal(mode_of(f, MULL_CS, 0x10000, 0xffff, CODE32) & limits, SOFT_MODE_CODE_64K);
    assert_int_equal(mode_of(f, MULL_CS, 0, 0x7fffffff, CODE32) & limits, SOFT_MODE_CODE_ODD);

    /* One code segment's EIP is another's: the base is in the name. */
    f->cpu->s.rip = 0x1234;
    fix_segment(f, MULL_CS, 8, 0xffff0000, 0xffff, CODE32);
    assert_true(soft_code_key(f->cpu) == 0xffff000000001234);
    assert_true(soft_key_rip(f->cpu->mode, soft_code_key(f->cpu)) == 0x1234);
    assert_true(soft_key_linear(f->cpu->mode, soft_code_key(f->cpu)) == 0xffff1234);
    f->cpu->s.rip = 0x11234; /* linear addresses wrap */
    assert_true(soft_key_linear(f->cpu->mode, soft_code_key(f->cpu)) == 0x1234);
    fix_free(f);
}

/* Negative where the byte at that offset may be accessed: soft_linear() is the judge. */
static void check_room(struct fix *f, uint32_t limit, uint32_t attr, bool always_asks)
{
    static const uint64_t offsets[] = {0,       1,       0xfff,      0x1000,     0xffff,
                                       0x10000, 0x7ffff, 0xfffffffe, 0xffffffff, 0x100000002};
    uint64_t va;

    mode_of(f, MULL_DS, 0x5000, limit, attr);
    for (unsigned write = 0; write < 2; write++) {
        for (unsigned i = 0; i < sizeof(offsets) / sizeof(offsets[0]); i++) {
            bool room = (int64_t)offsets[i] + f->cpu->segment_room[write][MULL_DS] < 0;
            bool may = soft_linear(f->cpu, MULL_DS, offsets[i], 1, write ? SOFT_WRITE : SOFT_READ,
                                   &va) == SOFT_NEXT;
            assert_true(always_asks ? !room : room == may);
        }
    }
}

static void test_segment_room(void **state)
{
    struct fix *f = fix_with_host_cpuid();

    check_room(f, 0xffffffff, DATA32, false);
    check_room(f, 0xfff, DATA32, false);
    check_room(f, 0, DATA32, false);
    check_room(f, 0xffff, DATA32 & ~2u, false);          /* read-only */
    check_room(f, 0xffff, CODE32, false);                /* code that can be read */
    check_room(f, 0xffff, CODE32 & ~2u, false);          /* code that cannot */
    check_room(f, 0xffff, CODE32 | 4, false);            /* conforming, not expand-down */
    check_room(f, 0xffff, MULL_SEG_UNUSABLE | 3, false); /* null */
    check_room(f, 0xfff, DATA32 | 4, true);              /* expand-down: for C */
    fix_free(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cr),
        cmocka_unit_test(test_mode_changes),
        cmocka_unit_test(test_dr),
        cmocka_unit_test(test_msr),
        cmocka_unit_test(test_msr_of_models),
        cmocka_unit_test(test_cpuid),
        cmocka_unit_test(test_load_segment),
        cmocka_unit_test(test_linear),
        cmocka_unit_test(test_tables),
        cmocka_unit_test(test_xsave),
        cmocka_unit_test(test_xcr0),
        cmocka_unit_test(test_ports),
        cmocka_unit_test(test_segment_modes),
        cmocka_unit_test(test_segment_room),
        cmocka_unit_test(test_debug_pages),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
