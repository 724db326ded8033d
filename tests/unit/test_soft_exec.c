/* Instructions in C beyond what the differential test sees: decoding of what is not there, MMIO
 * operands, interrupted and single-stepped strings, units that are switched off, locked accesses of
 * several vCPUs, pages with code, real mode, the thunk cache running full. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>
#include <errno.h>
#include <pthread.h>

#include "engine/engine.h"
#include "engine/soft/run.h"

#define RAM (4u << 20)
#define MMIO 0x10000000ull
#define DATA 0x100000ull
#define CODE 0x80000ull
#define CPUS 2u

struct access {
    bool write;
    uint64_t offset, value;
    unsigned size;
};

struct fix {
    struct mull_memory *mem;
    struct mull_clock *clock;
    struct mull_vm *vm;
    struct soft_cpu *cpu[CPUS];
    uint8_t *ram;
    struct access log[64];
    unsigned logged;
};

static int none_pending(void *opaque, unsigned cpu)
{
    return -1;
}
static uint8_t cr8_read(void *opaque, unsigned cpu)
{
    return 0;
}
static void cr8_write(void *opaque, unsigned cpu, uint8_t value) {}
static int msr_read(void *opaque, unsigned cpu, uint32_t msr, uint64_t *value)
{
    return -1;
}
static int msr_write(void *opaque, unsigned cpu, uint32_t msr, uint64_t value)
{
    return -1;
}
static const struct mull_engine_bus bus = {
    .irq_pending = none_pending,
    .irq_accept = none_pending,
    .cr8_read = cr8_read,
    .cr8_write = cr8_write,
    .msr_read = msr_read,
    .msr_write = msr_write,
};

static uint64_t mmio_read(void *opaque, unsigned cpu, uint64_t offset, unsigned size)
{
    struct fix *f = opaque;
    uint64_t value = 0x1122334455667788ull + offset;
    if (f->logged < 64)
        f->log[f->logged++] = (struct access){false, offset, value, size};
    return value;
}
static void mmio_write(void *opaque, unsigned cpu, uint64_t offset, unsigned size, uint64_t value)
{
    struct fix *f = opaque;
    if (f->logged < 64)
        f->log[f->logged++] = (struct access){true, offset, value, size};
}
static const struct mull_region_ops mmio_ops = {.read = mmio_read, .write = mmio_write};

/* Long mode, CPL 0, the first GiB mapped to itself. */
static void long_mode(struct soft_cpu *cpu)
{
    struct mull_cpu_state *s = &cpu->s;
    mull_cpu_state_reset(s, cpu->index, true);
    for (unsigned i = 0; i < 6; i++)
        s->seg[i] =
            (struct mull_segment){.limit = 0xffffffffu,
                                  .attr = 3 | MULL_SEG_S | MULL_SEG_P | MULL_SEG_G | MULL_SEG_DB,
                                  .selector = 0x18};
    s->seg[MULL_CS].attr = 0xb | MULL_SEG_S | MULL_SEG_P | MULL_SEG_G | MULL_SEG_L;
    s->cr0 = SOFT_CR0_PE | SOFT_CR0_MP | SOFT_CR0_ET | SOFT_CR0_NE | SOFT_CR0_WP | SOFT_CR0_PG;
    s->cr3 = 0x1000;
    s->cr4 = SOFT_CR4_PAE | SOFT_CR4_OSFXSR | SOFT_CR4_OSXMMEXCPT | SOFT_CR4_OSXSAVE;
    s->efer = SOFT_EFER_LME | SOFT_EFER_LMA | SOFT_EFER_SCE | SOFT_EFER_NXE;
    s->xcr0 = cpu->xsave_mask;
    s->rip = CODE;
    s->rflags = 2;
    s->gpr[MULL_RSP] = DATA + 0x8000;
    soft_mode_changed(cpu);
    soft_tlb_flush(cpu, SOFT_FLUSH_ALL);
}

static void fix_start(struct fix *f)
{
    static struct mull_cpuid cpuid;
    struct mull_error err = {0};
    memset(f, 0, sizeof(*f));
    assert_int_equal(mull_clock_create(&f->clock, &err), 0);
    assert_int_equal(mull_memory_create(NULL, &f->mem, &err), 0);
    assert_int_equal(mull_memory_add_ram(f->mem, 0, RAM, false, &err), 0);
    assert_int_equal(
        mull_region_add(f->mem, MULL_SPACE_MMIO, MMIO, 0x10000, &mmio_ops, f, "test", NULL, &err),
        0);
    f->ram = mull_memory_find_ram(f->mem, 0)->host;
    const uint64_t pml4 = 0x2003, pdpt = 0x83; /* a page of 1 GiB */
    memcpy(f->ram + 0x1000, &pml4, 8);
    memcpy(f->ram + 0x2000, &pdpt, 8);
    struct mull_vm_config config = {.memory = f->mem, .clock = f->clock, .bus = &bus, .cpus = CPUS};
    assert_int_equal(mull_engine_soft.cpuid(&cpuid, &err), 0);
    assert_int_equal(mull_engine_soft.vm_create(&config, &f->vm, &err), 0);
    for (unsigned i = 0; i < CPUS; i++) {
        struct mull_vcpu *vcpu;
        assert_int_equal(mull_engine_soft.vcpu_create(f->vm, i, &cpuid, &vcpu, &err), 0);
        f->cpu[i] = (struct soft_cpu *)vcpu;
        long_mode(f->cpu[i]);
    }
}

static void fix_end(struct fix *f)
{
    for (unsigned i = 0; i < CPUS; i++)
        mull_engine_soft.vcpu_destroy((struct mull_vcpu *)f->cpu[i]);
    mull_engine_soft.vm_destroy(f->vm);
    mull_memory_destroy(f->mem);
    mull_clock_destroy(f->clock);
}

static enum soft_result run_bits(struct soft_cpu *cpu, const uint8_t *bytes, unsigned size,
                                 unsigned bits)
{
    struct soft_insn in;
    assert_int_equal(soft_decode(&in, bytes, size, bits), 0);
    assert_int_equal(in.length, size);
    enum soft_result r = soft_exec(cpu, &in);
    soft_vectors_park(cpu);
    return r;
}

#define RUN(cpu, ...)                                                                              \
    run_bits(cpu, (const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}), 64)
#define RUN16(cpu, ...)                                                                            \
    run_bits(cpu, (const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}), 16)

static void assert_access(const struct access *a, bool write, uint64_t offset, unsigned size)
{
    assert_int_equal(a->write, write);
    assert_int_equal(a->offset, offset);
    assert_int_equal(a->size, size);
}

/* ---- Decoding ---- */

static void test_decode(void **state)
{
    struct soft_insn in;
    uint8_t b[16];
    assert_int_equal(soft_decode(&in, (const uint8_t[]){0x48}, 1, 64), -EAGAIN);
    assert_int_equal(soft_decode(&in, (const uint8_t[]){0x48, 0x8b, 0x05, 0, 0, 0}, 6, 64),
                     -EAGAIN);
    assert_int_equal(soft_decode(&in, (const uint8_t[]){0x06, 0, 0, 0}, 4, 64), -EINVAL);
    assert_int_equal(soft_decode(&in, (const uint8_t[]){0xf0, 0x8b, 0xc0, 0}, 4, 64), -EINVAL);
    memset(b, 0x66, sizeof(b));
    assert_int_equal(soft_decode(&in, b, 15, 64), -EAGAIN); /* too long: #GP */
    b[14] = 0x90;
    assert_int_equal(soft_decode(&in, b, 15, 64), 0);
    assert_int_equal(in.length, 15);

    /* The record: operands, sizes, far branches. */
    assert_int_equal(soft_decode(&in, (const uint8_t[]){0x65, 0x67, 0x8a, 0x64, 0x8b, 0xf0}, 6, 64),
                     0);
    assert_int_equal(in.operands, 2);
    assert_int_equal(in.op[1].kind, SOFT_OP_MEM);
    assert_int_equal(in.op[1].seg, MULL_GS);
    assert_int_equal(in.op[1].base, MULL_RBX);
    assert_int_equal(in.op[1].index, MULL_RCX);
    assert_int_equal(in.op[1].scale, 4);
    assert_int_equal(in.op[1].value, -16);
    assert_int_equal(in.op[1].size, 1);
    assert_int_equal(in.address_size, 4);
    assert_int_equal(soft_decode(&in, (const uint8_t[]){0xea, 1, 2, 3, 4, 0x34, 0x12}, 7, 32), 0);
    assert_int_equal(in.op[0].kind, SOFT_OP_PTR);
    assert_int_equal(in.op[0].selector, 0x1234);
    assert_int_equal(in.op[0].value, 0x04030201);
    assert_true(in.prefixes & SOFT_PREFIX_FAR);
    assert_int_equal(soft_decode(&in, (const uint8_t[]){0xf3, 0x64, 0xa4}, 3, 64), 0);
    assert_int_equal(in.operands, 2);
    assert_int_equal(in.op[1].seg, MULL_FS);
    assert_true(in.prefixes & SOFT_PREFIX_REP);
    assert_int_equal(soft_decode(&in, (const uint8_t[]){0x66, 0x6a, 0x80}, 3, 32), 0);
    assert_int_equal(in.stack_size, 2);
    assert_int_equal(in.op[0].value, -128);
}

/* ---- MMIO ---- */

static void test_mmio(void **state)
{
    struct fix f;
    fix_start(&f);
    struct soft_cpu *cpu = f.cpu[0];

    cpu->s.gpr[MULL_RBX] = MMIO + 8;
    assert_int_equal(RUN(cpu, 0x8b, 0x03), SOFT_NEXT); /* mov eax, [rbx] */
    assert_int_equal(f.logged, 1);
    assert_access(&f.log[0], false, 8, 4);
    assert_int_equal(cpu->s.gpr[MULL_RAX], 0x55667790);
    assert_int_equal(cpu->s.rip, CODE + 2);

    f.logged = 0;
    cpu->s.gpr[MULL_RCX] = 0x10;
    assert_int_equal(RUN(cpu, 0x66, 0x01, 0x0b), SOFT_NEXT); /* add [rbx], cx */
    assert_int_equal(f.logged, 2);
    assert_access(&f.log[0], false, 8, 2);
    assert_access(&f.log[1], true, 8, 2);
    assert_int_equal(f.log[1].value, 0x77a0);

    f.logged = 0;
    assert_int_equal(RUN(cpu, 0xf0, 0x48, 0x0f, 0xc1, 0x0b), SOFT_NEXT); /* lock xadd */
    assert_int_equal(f.logged, 2);
    assert_access(&f.log[1], true, 8, 8);
    assert_int_equal(cpu->s.gpr[MULL_RCX], 0x1122334455667790ull);
    assert_int_equal(atomic_load(&cpu->vm->split_lock), 0);

    f.logged = 0;
    assert_int_equal(RUN(cpu, 0x88, 0x63, 0x01), SOFT_NEXT); /* mov [rbx + 1], ah */
    assert_access(&f.log[0], true, 9, 1);

    f.logged = 0; /* movsd to RAM, five times */
    cpu->s.gpr[MULL_RSI] = MMIO;
    cpu->s.gpr[MULL_RDI] = DATA;
    cpu->s.gpr[MULL_RCX] = 5;
    assert_int_equal(RUN(cpu, 0xf3, 0xa5), SOFT_NEXT);
    assert_int_equal(f.logged, 5);
    assert_access(&f.log[4], false, 16, 4);
    assert_int_equal(f.ram[DATA + 16], 0x98);
    assert_int_equal(cpu->s.gpr[MULL_RSI], MMIO + 20);

    f.logged = 0; /* sixteen bytes at once become two accesses */
    assert_int_equal(RUN(cpu, 0x0f, 0x10, 0x03), SOFT_NEXT); /* movups xmm0, [rbx] */
    assert_int_equal(f.logged, 2);
    fix_end(&f);
}

/* ---- Strings ---- */

static void test_string_stops(void **state)
{
    struct fix f;
    fix_start(&f);
    struct soft_cpu *cpu = f.cpu[0];

    cpu->s.gpr[MULL_RAX] = 0x5a;
    cpu->s.gpr[MULL_RDI] = DATA + 1;
    cpu->s.gpr[MULL_RCX] = 1u << 20;
    cpu->run_ok = 0;
    unsigned rounds = 0;
    enum soft_result r;
    while ((r = RUN(cpu, 0xf3, 0xaa)) == SOFT_JUMP) {
        assert_int_equal(cpu->s.rip, CODE);
        assert_int_equal(cpu->s.gpr[MULL_RDI] + cpu->s.gpr[MULL_RCX], DATA + 1 + (1u << 20));
        assert_true(++rounds < 100);
    }
    assert_int_equal(r, SOFT_NEXT);
    assert_in_range(rounds, 8, 20);
    assert_int_equal(cpu->s.rip, CODE + 2);
    assert_int_equal(f.ram[DATA], 0);
    assert_int_equal(f.ram[DATA + 1], 0x5a);
    assert_int_equal(f.ram[DATA + (1u << 20)], 0x5a);
    assert_int_equal(f.ram[DATA + (1u << 20) + 1], 0);
    cpu->run_ok = 1;

    /* A trap after every element. */
    cpu->s.rip = CODE;
    cpu->s.rflags |= SOFT_TF;
    cpu->s.gpr[MULL_RSI] = DATA;
    cpu->s.gpr[MULL_RDI] = DATA + 0x2000;
    cpu->s.gpr[MULL_RCX] = 3;
    assert_int_equal(RUN(cpu, 0xf3, 0xa4), SOFT_JUMP);
    assert_int_equal(RUN(cpu, 0xf3, 0xa4), SOFT_JUMP);
    assert_int_equal(cpu->s.rip, CODE);
    assert_int_equal(cpu->s.gpr[MULL_RCX], 1);
    assert_int_equal(RUN(cpu, 0xf3, 0xa4), SOFT_NEXT);
    fix_end(&f);
}

/* ---- Units ---- */

static int vector_of(struct fix *f, const uint8_t *bytes, unsigned size)
{
    struct soft_cpu *cpu = f->cpu[0];
    soft_mode_changed(cpu);
    cpu->s.rip = CODE;
    cpu->s.gpr[MULL_RBX] = DATA;
    enum soft_result r = run_bits(cpu, bytes, size, 64);
    return r == SOFT_FAULT ? cpu->fault.vector : -1;
}

#define VECTOR(f, ...)                                                                             \
    vector_of(f, (const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}))

static void test_units(void **state)
{
    struct fix f;
    fix_start(&f);
    uint64_t *cr0 = &f.cpu[0]->s.cr0, *cr4 = &f.cpu[0]->s.cr4, *xcr0 = &f.cpu[0]->s.xcr0;

    assert_int_equal(VECTOR(&f, 0xd9, 0xe8), -1);             /* fld1 */
    assert_int_equal(VECTOR(&f, 0x0f, 0x58, 0xc1), -1);       /* addps */
    assert_int_equal(VECTOR(&f, 0xc5, 0xf0, 0x58, 0xc1), -1); /* vaddps */
    *cr0 |= SOFT_CR0_TS;
    assert_int_equal(VECTOR(&f, 0xd9, 0xe8), SOFT_NM);
    assert_int_equal(VECTOR(&f, 0xd9, 0x03), SOFT_NM); /* before the memory is looked at */
    assert_int_equal(VECTOR(&f, 0xdd, 0x0b), SOFT_NM); /* fisttp */
    assert_int_equal(VECTOR(&f, 0x0f, 0x6f, 0x03), SOFT_NM);
    assert_int_equal(VECTOR(&f, 0x0f, 0x58, 0xc1), SOFT_NM);
    assert_int_equal(VECTOR(&f, 0xf3, 0x0f, 0x2d, 0x03), SOFT_NM); /* cvtss2si eax, [rbx] */
    assert_int_equal(VECTOR(&f, 0x0f, 0xae, 0x1b), SOFT_NM);       /* stmxcsr */
    assert_int_equal(VECTOR(&f, 0xc5, 0xf0, 0x58, 0xc1), SOFT_NM);
    assert_int_equal(VECTOR(&f, 0xc5, 0xf8, 0x77), SOFT_NM);        /* vzeroupper */
    assert_int_equal(VECTOR(&f, 0x9b), SOFT_NM);                    /* fwait: MP and TS */
    assert_int_equal(VECTOR(&f, 0x0f, 0xc3, 0x0b), -1);             /* movnti */
    assert_int_equal(VECTOR(&f, 0xf2, 0x0f, 0x38, 0xf0, 0xc1), -1); /* crc32 */
    assert_int_equal(VECTOR(&f, 0xc4, 0xe2, 0xf8, 0xf2, 0xc3), -1); /* andn */
    assert_int_equal(VECTOR(&f, 0x0f, 0xae, 0xe8), -1);             /* lfence */
    *cr0 &= ~SOFT_CR0_MP;
    assert_int_equal(VECTOR(&f, 0x9b), -1);
    *cr0 = (*cr0 & ~SOFT_CR0_TS) | SOFT_CR0_EM;
    assert_int_equal(VECTOR(&f, 0xd9, 0xe8), SOFT_NM);
    assert_int_equal(VECTOR(&f, 0x0f, 0x6f, 0x03), SOFT_UD);
    assert_int_equal(VECTOR(&f, 0x0f, 0x58, 0xc1), SOFT_UD);
    *cr0 &= ~SOFT_CR0_EM;
    *cr4 &= ~SOFT_CR4_OSFXSR;
    assert_int_equal(VECTOR(&f, 0x0f, 0x58, 0xc1), SOFT_UD);
    assert_int_equal(VECTOR(&f, 0xd9, 0xe8), -1);
    *cr4 |= SOFT_CR4_OSFXSR;
    *cr4 &= ~SOFT_CR4_OSXSAVE;
    assert_int_equal(VECTOR(&f, 0xc5, 0xf0, 0x58, 0xc1), SOFT_UD);
    *cr4 |= SOFT_CR4_OSXSAVE;
    *xcr0 = 3;
    assert_int_equal(VECTOR(&f, 0xc5, 0xf0, 0x58, 0xc1), SOFT_UD);
    assert_int_equal(VECTOR(&f, 0x62, 0xf1, 0x74, 0x48, 0x58, 0xc1), SOFT_UD);
    *xcr0 = 7;
    assert_int_equal(VECTOR(&f, 0xc5, 0xf0, 0x58, 0xc1), -1);
    assert_int_equal(VECTOR(&f, 0x62, 0xf1, 0x74, 0x48, 0x58, 0xc1), SOFT_UD);
    assert_int_equal(VECTOR(&f, 0xc5, 0xf8, 0x92, 0xc8), SOFT_UD); /* kmovw k1, eax */
    /* Not for the guest, whatever the host has. */
    assert_int_equal(VECTOR(&f, 0x0f, 0x01, 0xef), SOFT_UD);       /* wrpkru */
    assert_int_equal(VECTOR(&f, 0xc7, 0xf8, 0, 0, 0, 0), SOFT_UD); /* xbegin */
    assert_int_equal(VECTOR(&f, 0x0f, 0x01, 0xfa), SOFT_UD);       /* monitorx */
    assert_int_equal(VECTOR(&f, 0xf3, 0x0f, 0xae, 0xf0), SOFT_UD); /* umonitor */
    fix_end(&f);
}

/* ---- The thunk cache ---- */

static void test_many_thunks(void **state)
{
    struct fix f;
    fix_start(&f);
    uint64_t sum = 0;
    for (uint32_t i = 0; i < 40000; i++) {
        uint8_t add[7] = {0x48, 0x81, 0xc0};
        uint32_t value = i * 2654435761u >> 1;
        memcpy(add + 3, &value, 4);
        assert_int_equal(run_bits(f.cpu[0], add, 7, 64), SOFT_NEXT);
        sum += value;
    }
    assert_int_equal(f.cpu[0]->s.gpr[MULL_RAX], sum);
    fix_end(&f);
}

/* ---- Locks ---- */

struct counter {
    struct soft_cpu *cpu;
    uint64_t va;
    unsigned times;
    int failed;
};

static void *count(void *opaque)
{
    const uint8_t xadd[] = {0xf0, 0x48, 0x0f, 0xc1, 0x0b}; /* lock xadd [rbx], rcx */
    struct counter *c = opaque;
    struct soft_insn in;
    c->failed = soft_decode(&in, xadd, sizeof(xadd), 64);
    for (unsigned i = 0; i < c->times && !c->failed; i++) {
        c->cpu->s.gpr[MULL_RBX] = c->va;
        c->cpu->s.gpr[MULL_RCX] = 1;
        c->failed = soft_exec(c->cpu, &in);
    }
    return NULL;
}

static uint64_t count_together(struct fix *f, uint64_t va, unsigned times)
{
    pthread_t thread[CPUS];
    struct counter c[CPUS];
    uint64_t total;
    memset(f->ram + va, 0, 8);
    for (unsigned i = 0; i < CPUS; i++) {
        c[i] = (struct counter){.cpu = f->cpu[i], .va = va, .times = times};
        assert_int_equal(pthread_create(&thread[i], NULL, count, &c[i]), 0);
    }
    for (unsigned i = 0; i < CPUS; i++) {
        pthread_join(thread[i], NULL);
        assert_int_equal(c[i].failed, 0);
    }
    memcpy(&total, f->ram + va, 8);
    return total;
}

static void test_locks(void **state)
{
    struct fix f;
    fix_start(&f);
    assert_int_equal(count_together(&f, DATA, 100000), 200000);
    assert_int_equal(count_together(&f, DATA + 0xffd, 100000), 200000); /* across pages */
    assert_int_equal(count_together(&f, DATA + 61, 100000), 200000);    /* across cache lines */

    /* Pages that are written slowly: with code, and clean ones. */
    const struct mull_ram *ram = mull_memory_find_ram(f.mem, 0);
    atomic_fetch_or(&ram->flags[DATA >> 12], MULL_PAGE_CODE);
    soft_tlb_protect(f.cpu[0]->vm, ram, DATA);
    assert_int_equal(count_together(&f, DATA, 50000), 100000);
    mull_memory_dirty_start(f.mem);
    assert_int_equal(count_together(&f, DATA + 0x1000, 50000), 100000);
    uint8_t bitmap[RAM / 4096 / 8] = {0};
    mull_memory_dirty_fetch(f.mem, ram, bitmap);
    assert_true(bitmap[(DATA + 0x1000) >> 15] >> ((DATA + 0x1000) >> 12 & 7) & 1);
    mull_memory_dirty_stop(f.mem);
    fix_end(&f);
}

/* A fault inside a locked access gives the lock back. */
static void test_lock_fault(void **state)
{
    struct fix f;
    fix_start(&f);
    struct soft_cpu *cpu = f.cpu[0];
    const uint64_t nothing = 0;
    memcpy(f.ram + 0x2000 + 8, &nothing, 8);
    cpu->s.gpr[MULL_RBX] = 0x3ffffffd; /* the next GiB is not mapped */
    assert_int_equal(RUN(cpu, 0xf0, 0x48, 0x0f, 0xc1, 0x0b), SOFT_FAULT);
    assert_int_equal(cpu->fault.vector, SOFT_PFV);
    assert_int_equal(cpu->fault.address, 0x40000000);
    assert_int_equal(atomic_load(&cpu->vm->split_lock), 0);
    fix_end(&f);
}

/* ---- Real mode ---- */

static void test_real_mode(void **state)
{
    struct fix f;
    fix_start(&f);
    struct soft_cpu *cpu = f.cpu[0];
    struct mull_cpu_state *s = &cpu->s;
    mull_cpu_state_reset(s, 0, true);
    s->seg[MULL_CS].selector = 0;
    s->seg[MULL_CS].base = 0;
    s->seg[MULL_SS].selector = 0x9000;
    s->seg[MULL_SS].base = 0x90000;
    s->seg[MULL_DS].base = 0x80000;
    s->rip = 0x7c00;
    soft_mode_changed(cpu);
    soft_tlb_flush(cpu, SOFT_FLUSH_ALL);

    s->gpr[MULL_RSP] = 0xabcd0000; /* only SP counts, and it wraps */
    s->gpr[MULL_RAX] = 0x1234;
    assert_int_equal(RUN16(cpu, 0x50), SOFT_NEXT);
    assert_int_equal(s->gpr[MULL_RSP], 0xabcdfffe);
    assert_memory_equal(f.ram + 0x9fffe, "\x34\x12", 2);
    assert_int_equal(RUN16(cpu, 0x5b), SOFT_NEXT);
    assert_int_equal(s->gpr[MULL_RSP], 0xabcd0000);
    assert_int_equal(s->gpr[MULL_RBX] & 0xffff, 0x1234);

    assert_int_equal(RUN16(cpu, 0xe8, 0xfd, 0x00), SOFT_JUMP); /* call +0xfd */
    assert_int_equal(s->rip, 0x7c02 + 3 + 0xfd);
    assert_int_equal(RUN16(cpu, 0xc3), SOFT_JUMP);
    assert_int_equal(s->rip, 0x7c05);
    s->rip = 0xfff0;
    assert_int_equal(RUN16(cpu, 0xeb, 0x20), SOFT_JUMP); /* wraps in 16 bits */
    assert_int_equal(s->rip, 0x12);

    s->gpr[MULL_RBX] = 0xffff; /* [bx + si] wraps too */
    s->gpr[MULL_RSI] = 0x11;
    f.ram[0x80010] = 0x77;
    assert_int_equal(RUN16(cpu, 0x8a, 0x00), SOFT_NEXT);
    assert_int_equal(s->gpr[MULL_RAX] & 0xff, 0x77);
    s->gpr[MULL_RBX] = 0xffff; /* a word at the limit */
    s->gpr[MULL_RSI] = 0;
    assert_int_equal(RUN16(cpu, 0x8b, 0x00), SOFT_FAULT);
    assert_int_equal(cpu->fault.vector, SOFT_GP);
    assert_int_equal(RUN16(cpu, 0xc5, 0xf0, 0x58, 0xc1), SOFT_FAULT); /* no VEX here */
    assert_int_equal(cpu->fault.vector, SOFT_UD);
    fix_end(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_decode),       cmocka_unit_test(test_mmio),
        cmocka_unit_test(test_string_stops), cmocka_unit_test(test_units),
        cmocka_unit_test(test_many_thunks),  cmocka_unit_test(test_locks),
        cmocka_unit_test(test_lock_fault),   cmocka_unit_test(test_real_mode),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
