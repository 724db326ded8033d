/*
 * Fuzz target: arbitrary guest code on the soft engine, from the decoder over the translator to the
 * instructions in C. The first byte chooses real mode, 32-bit protected mode (with flat or small
 * segments, 16-bit code, or in virtual-8086 mode), or 64-bit mode at CPL 0 or 3; the next eight
 * fill registers; the rest is code. It runs for about a millisecond and may do to its machine what
 * it likes, page tables included: the host must not notice, and translated code must not leave
 * guest memory, which the engine would report as its own failure.
 */
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "engine/engine.h"
#include "engine/soft/soft.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define RAM (2u << 20)
#define CODE 0x10000u
#define CODE_MAX 0x1000u
#define TABLES 0x1000u
#define TICK_NS 500000

static struct mull_memory *memory;
static struct mull_clock *guest_clock;
static struct mull_vm *vm;
static struct mull_vcpu *vcpu;
static struct mull_cpuid cpuid;

/* What a vCPU owns hangs off shared mappings, where LeakSanitizer does not look. */
const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
    return "detect_leaks=0";
}

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

static void *ticker(void *opaque)
{
    const struct timespec tick = {.tv_nsec = TICK_NS};
    for (;;) {
        nanosleep(&tick, NULL);
        mull_engine_soft.vcpu_signal(vcpu, MULL_SIGNAL_STOP, 0);
    }
    return opaque;
}

static void start(void)
{
    struct mull_error err = {0};
    struct mull_vm_config config = {.bus = &bus, .cpus = 1, .code_cache = 1u << 20};
    pthread_t thread;
    if (mull_clock_create(&guest_clock, &err) || mull_memory_create(NULL, &memory, &err) ||
        mull_memory_add_ram(memory, 0, RAM, false, &err))
        abort();
    config.memory = memory;
    config.clock = guest_clock;
    if (mull_engine_soft.cpuid(&cpuid, &err) || mull_engine_soft.vm_create(&config, &vm, &err) ||
        mull_engine_soft.vcpu_create(vm, 0, &cpuid, &vcpu, &err) ||
        pthread_create(&thread, NULL, ticker, NULL))
        abort();
}

static void put64(uint64_t gpa, uint64_t value)
{
    mull_mem_write(memory, gpa, &value, 8);
}

static void protected_mode(struct mull_cpu_state *s, unsigned mode)
{
    uint32_t dpl = mode == 3 ? MULL_SEG_DPL : 0;
    uint32_t code = mode == 1 ? MULL_SEG_DB : MULL_SEG_L;
    for (unsigned i = 0; i < 6; i++)
        s->seg[i] = (struct mull_segment){.limit = 0xffffffffu,
                                          .attr = 3 | MULL_SEG_S | MULL_SEG_P | MULL_SEG_G |
                                                  MULL_SEG_DB | dpl,
                                          .selector = mode == 3 ? 0x2b : 0x18};
    s->seg[MULL_CS].attr = 0xb | MULL_SEG_S | MULL_SEG_P | MULL_SEG_G | dpl | code;
    s->seg[MULL_CS].selector = mode == 3 ? 0x33 : 0x10;
    s->cr0 = SOFT_CR0_PE | SOFT_CR0_MP | SOFT_CR0_ET | SOFT_CR0_NE;
    s->cr4 = SOFT_CR4_OSFXSR | SOFT_CR4_OSXMMEXCPT | SOFT_CR4_OSXSAVE | SOFT_CR4_FSGSBASE;
    s->xcr0 = 3;
    for (unsigned i = 0; i < cpuid.count; i++)
        if (cpuid.entry[i].leaf == 0xd && cpuid.entry[i].subleaf == 0)
            s->xcr0 = cpuid.entry[i].eax;
    if (mode == 1)
        return;
    s->cr0 |= SOFT_CR0_PG | SOFT_CR0_WP;
    s->cr3 = TABLES;
    s->cr4 |= SOFT_CR4_PAE | SOFT_CR4_PGE | SOFT_CR4_PCIDE;
    s->efer = SOFT_EFER_LME | SOFT_EFER_LMA | SOFT_EFER_SCE | SOFT_EFER_NXE;
    put64(TABLES, (TABLES + 0x1000) | 7);
    put64(TABLES + 511 * 8, (TABLES + 0x1000) | 7);
    for (unsigned i = 0; i < 512; i++) /* 2 MiB of it are RAM */
        put64(TABLES + 0x1000 + i * 8, (uint64_t)i << 30 | 0x87);
}

/* Protected mode with segments that have a base and a limit; 16-bit code; virtual-8086 mode. */
static void small_segments(struct mull_cpu_state *s, uint8_t how)
{
    if (how & 0x10) {
        for (unsigned i = 0; i < 6; i++) {
            s->seg[i].base = i == MULL_CS ? CODE : 0x8000u * i;
            s->seg[i].limit = i == MULL_CS ? 0xffff : 0x1ffff;
        }
        s->seg[MULL_DS].attr |= how & 0x40 ? 4 : 0; /* expand-down */
        s->rip = 0;
    }
    if (how & 0x08) {
        s->seg[MULL_CS].attr &= ~MULL_SEG_DB;
        s->seg[MULL_SS].attr &= ~MULL_SEG_DB;
    }
    if (how & 0x04) {
        for (unsigned i = 0; i < 6; i++)
            s->seg[i] = (struct mull_segment){.base = CODE,
                                              .limit = 0xffff,
                                              .attr = 3 | MULL_SEG_S | MULL_SEG_P | MULL_SEG_DPL,
                                              .selector = CODE >> 4};
        s->rflags |= 0x20000;
        s->cr4 |= how & 0x40 ? SOFT_CR4_VME : 0;
        s->rip = 0;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct mull_cpu_state s;
    struct mull_exit exit;
    struct mull_error err = {0};
    uint64_t seed;

    if (size < 10)
        return 0;
    if (!vcpu)
        start();
    unsigned mode = data[0] & 3;
    memcpy(&seed, data + 1, 8);
    mull_mem_set(memory, 0, 0, RAM);
    mull_mem_write(memory, CODE, data + 9, size - 9 < CODE_MAX ? size - 9 : CODE_MAX);
    mull_cpu_state_reset(&s, 0, true);
    s.seg[MULL_CS].selector = CODE >> 4;
    s.seg[MULL_CS].base = CODE;
    s.rip = 0;
    if (mode) {
        protected_mode(&s, mode);
        s.rip = CODE;
    }
    for (unsigned i = 0; i < 16; i++)
        s.gpr[i] = seed >> (i * 4) & (i & 1 ? 0x1fffff : ~0ull);
    s.gpr[MULL_RSP] = 0x18000;
    s.rflags = 2 | (data[0] & 0x80 ? 0x100 : 0) | (data[0] & 0x40 ? 0x200 : 0);
    if (mode == 1)
        small_segments(&s, data[0]);
    s.idt.base = 0;
    s.idt.limit = data[0] & 0x20 ? 0xfff : 0;
    mull_engine_soft.vcpu_set(vcpu, &s, &err);
    mull_engine_soft.vcpu_run(vcpu, &exit);
    if (exit.reason == MULL_EXIT_FAILED) {
        fprintf(stderr, "%s\n", exit.error.message);
        abort();
    }
    mull_engine_soft.vcpu_get(vcpu, &s, &err);
    return 0;
}
