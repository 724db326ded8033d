/*
 * How fast is the soft engine here? A micro-guest, run through the engine interface like any other:
 * a counted loop of loads, stores and privileged instructions, at CPL 0 and at CPL 3, and a loop of
 * port accesses. Takes a few milliseconds.
 */
#include <string.h>

#include "base/loop.h"
#include "engine/soft/cache.h"
#include "engine/soft/probe.h"

#define RAM_SIZE (4ull << 20)
#define TABLES 0x10000ull
#define CODE 0x100000ull
#define DATA 0x200000ull
#define STOP_PORT 0x80

/* Instructions in one round of each loop. */
#define KERNEL_ROUND 8
#define USER_ROUND 6

struct probe {
    struct mull_memory *memory;
    struct mull_clock *clock;
    struct mull_vm *vm;
    struct mull_vcpu *vcpu;
    struct mull_engine_bus bus;
    uint64_t left; /* port accesses until the guest is stopped */
};

/* mov rbx, DATA in RBX; RCX rounds. */
static const uint8_t kernel_loop[] = {
    0x48, 0x8b,      0x03,       /* 1: mov rax, [rbx] */
    0x48, 0x01,      0xc8,       /*    add rax, rcx */
    0x48, 0x89,      0x43, 0x40, /*    mov [rbx + 64], rax */
    0xfa,                        /*    cli */
    0x0f, 0x01,      0xf8,       /*    swapgs */
    0x0f, 0x01,      0xf8,       /*    swapgs */
    0xff, 0xc9,                  /*    dec ecx */
    0x75, 0xec,                  /*    jnz 1b */
    0xe6, STOP_PORT,             /*    out STOP_PORT, al */
    0xeb, 0xfc,                  /*    jmp .-2 */
};
static const uint8_t user_loop[] = {
    0x48, 0x8b,      0x03,       /* 1: mov rax, [rbx] */
    0x48, 0x01,      0xc8,       /*    add rax, rcx */
    0x48, 0x89,      0x43, 0x40, /*    mov [rbx + 64], rax */
    0x48, 0x31,      0xc2,       /*    xor rdx, rax */
    0xff, 0xc9,                  /*    dec ecx */
    0x75, 0xef,                  /*    jnz 1b */
    0xe6, STOP_PORT,             /*    out STOP_PORT, al (IOPL 3) */
    0xeb, 0xfc,                  /*    jmp .-2 */
};
static const uint8_t port_loop[] = {
    0xe6, STOP_PORT, /* 1: out STOP_PORT, al */
    0xeb, 0xfc,      /*    jmp 1b */
};

static void on_port(void *opaque, unsigned cpu, uint64_t offset, unsigned size, uint64_t value)
{
    struct probe *p = opaque;

    (void)cpu, (void)offset, (void)size, (void)value;
    if (p->left-- == 1)
        mull_engine_soft.vcpu_signal(p->vcpu, MULL_SIGNAL_STOP, 0);
}

static uint64_t no_port(void *opaque, unsigned cpu, uint64_t offset, unsigned size)
{
    (void)opaque, (void)cpu, (void)offset, (void)size;
    return 0xff;
}

static const struct mull_region_ops port_ops = {.read = no_port, .write = on_port};

static int nothing_pending(void *opaque, unsigned cpu)
{
    (void)opaque, (void)cpu;
    return -1;
}

/* Identity-mapped, user accessible, in two large pages. */
static bool write_tables(struct mull_memory *memory)
{
    uint64_t pml4 = (TABLES + 0x1000) | 7, pdpt = (TABLES + 0x2000) | 7;
    uint64_t pages[2] = {0x0000e7, 0x2000e7};

    return mull_mem_load(memory, TABLES, &pml4, 8) == 0 &&
           mull_mem_load(memory, TABLES + 0x1000, &pdpt, 8) == 0 &&
           mull_mem_load(memory, TABLES + 0x2000, pages, sizeof(pages)) == 0;
}

static void start_state(struct mull_cpu_state *s, bool user, uint64_t rounds)
{
    mull_cpu_state_reset(s, 0, true);
    s->cr0 = SOFT_CR0_PE | SOFT_CR0_PG | SOFT_CR0_WP | SOFT_CR0_ET | SOFT_CR0_NE;
    s->cr4 = SOFT_CR4_PAE;
    s->cr3 = TABLES;
    s->efer = SOFT_EFER_LME | SOFT_EFER_LMA;
    s->rip = CODE;
    s->rflags = 2 | SOFT_IOPL;
    s->gpr[MULL_RBX] = DATA;
    s->gpr[MULL_RCX] = rounds;
    for (unsigned i = 0; i < 6; i++) {
        uint32_t dpl = user ? MULL_SEG_DPL : 0;
        s->seg[i] = (struct mull_segment){.selector = user ? 0x1b : 0x10, .limit = 0xffffffffu};
        s->seg[i].attr = MULL_SEG_P | MULL_SEG_S | MULL_SEG_G | dpl;
        s->seg[i].attr |= i == MULL_CS ? 0xb | MULL_SEG_L : 0x3 | MULL_SEG_DB;
    }
}

/* Run one loop. @return nanoseconds, 0: it did not end as it should. */
static double time_loop(struct probe *p, const uint8_t *code, size_t size, bool user,
                        uint64_t rounds, uint64_t ports)
{
    struct mull_cpu_state s;
    struct mull_exit exit;

    start_state(&s, user, rounds);
    p->left = ports;
    if (mull_mem_write(p->memory, CODE, code, size) < 0 ||
        mull_engine_soft.vcpu_set(p->vcpu, &s, NULL) < 0)
        return 0;
    uint64_t before = mull_now_ns();
    mull_engine_soft.vcpu_run(p->vcpu, &exit);
    uint64_t after = mull_now_ns();
    return exit.reason == MULL_EXIT_STOPPED ? (double)(after - before) : 0;
}

static bool make(struct probe *p)
{
    static const struct mull_cpuid no_cpuid;

    if (mull_memory_create(NULL, &p->memory, NULL) < 0 ||
        mull_memory_add_ram(p->memory, 0, RAM_SIZE, false, NULL) < 0 || !write_tables(p->memory) ||
        mull_region_add(p->memory, MULL_SPACE_PORT, STOP_PORT, 1, &port_ops, p, "probe", NULL,
                        NULL) < 0 ||
        mull_clock_create(&p->clock, NULL) < 0)
        return false;
    p->bus =
        (struct mull_engine_bus){.irq_pending = nothing_pending, .irq_accept = nothing_pending};
    struct mull_vm_config config = {
        .memory = p->memory, .clock = p->clock, .bus = &p->bus, .cpus = 1, .code_cache = 1u << 20};
    return mull_engine_soft.vm_create(&config, &p->vm, NULL) == 0 &&
           mull_engine_soft.vcpu_create(p->vm, 0, &no_cpuid, &p->vcpu, NULL) == 0;
}

void soft_probe_measure(struct mull_engine_report *report)
{
    const uint64_t rounds = 200000, ports = 5000;
    struct probe p;

    memset(&p, 0, sizeof(p));
    if (make(&p)) {
        double kernel = time_loop(&p, kernel_loop, sizeof(kernel_loop), false, rounds, 1);
        double user = time_loop(&p, user_loop, sizeof(user_loop), true, rounds, 1);
        double exits = time_loop(&p, port_loop, sizeof(port_loop), false, 0, ports);
        if (kernel > 0)
            report->kernel_mips = (double)(rounds * KERNEL_ROUND) * 1e3 / kernel;
        if (user > 0)
            report->user_mips = (double)(rounds * USER_ROUND) * 1e3 / user;
        report->exit_us = exits / (double)ports / 1e3;
    }
    mull_engine_soft.vcpu_destroy(p.vcpu);
    mull_engine_soft.vm_destroy(p.vm);
    mull_clock_destroy(p.clock);
    mull_memory_destroy(p.memory);
}
