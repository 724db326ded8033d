/*
 * The decoder path of the soft engine: arbitrary bytes as 16-, 32- and 64-bit code through
 * soft_decode(), and in each of these modes through the translator, across the end of a page too.
 * Nothing is executed; what is emitted must stay within the cache and every record within its
 * bounds.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "engine/soft/cache.h"

#define RAM_SIZE (64u << 10)
#define CODE 0x8000u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct soft_cpu *cpu;
static struct mull_memory *memory;
static struct mull_clock *the_clock; /* the leak checker does not look into the vCPU's mapping */
static struct mull_vm *vm;
static const void *table, *run_state, *thunks;

static int nothing_pending(void *opaque, unsigned index)
{
    (void)opaque, (void)index;
    return -1;
}

static void start(void)
{
    static const struct mull_engine_bus bus = {.irq_pending = nothing_pending,
                                               .irq_accept = nothing_pending};
    static const struct mull_cpuid cpuid;
    struct mull_vcpu *vcpu;

    if (mull_memory_create(NULL, &memory, NULL) < 0 ||
        mull_memory_add_ram(memory, 0, RAM_SIZE, false, NULL) < 0 ||
        mull_clock_create(&the_clock, NULL) < 0)
        abort();
    struct mull_vm_config config = {
        .memory = memory, .clock = the_clock, .bus = &bus, .cpus = 1, .code_cache = 1u << 20};
    if (mull_engine_soft.vm_create(&config, &vm, NULL) < 0 ||
        mull_engine_soft.vcpu_create(vm, 0, &cpuid, &vcpu, NULL) < 0)
        abort();
    cpu = (struct soft_cpu *)vcpu;
    table = cpu->cpuid;
    run_state = cpu->private_run;
    thunks = cpu->thunks;
}

static void decode(const uint8_t *data, size_t size, unsigned bits)
{
    struct soft_insn in;

    for (size_t at = 0; at < size;) {
        unsigned n = size - at < 15 ? (unsigned)(size - at) : 15;
        if (soft_decode(&in, data + at, n, bits) < 0) {
            at++;
            continue;
        }
        if (in.length == 0 || in.length > n || in.operands > 5 || !in.handler)
            abort();
        at += in.length;
    }
}

static void translate(uint64_t gpa, uint64_t key, uint32_t mode)
{
    const struct mull_ram *ram = soft_find_ram(cpu->vm, gpa);
    struct soft_page page = {.gpa = gpa, .host = ram->host + gpa, .ram = ram};
    struct soft_page next = {.gpa = (gpa | 0xfff) + 1, .ram = ram};
    struct soft_cache *cache = cpu->vm->cache;
    bool straddles;

    next.host = ram->host + next.gpa;
    struct soft_block *b = soft_block_translate(cpu, &page, NULL, key, mode, &straddles);
    if (straddles)
        b = soft_block_translate(cpu, &page, &next, key, mode, &straddles);
    if (b && (b->end <= b->start || b->end > cache->rx + cache->size || b->insns == 0 ||
              b->insns > SOFT_BLOCK_MAX_INSNS))
        abort();
    if (atomic_load(&cache->flush_wanted))
        soft_cache_flush_wait(cpu);
    soft_code_written(cpu->vm, NULL, gpa & MULL_PAGE_MASK, MULL_PAGE_SIZE);
}

/* 32-bit code, flat and not; with a 16-bit stack; 16-bit protected, real and virtual-8086 mode. */
static const uint32_t narrow[] = {
    SOFT_MODE_PROTECTED | SOFT_MODE_CODE32 | SOFT_MODE_STACK32 | SOFT_MODE_FLAT,
    SOFT_MODE_PROTECTED | SOFT_MODE_CODE32 | SOFT_MODE_STACK32 | SOFT_MODE_CPL3,
    SOFT_MODE_PROTECTED | SOFT_MODE_CODE32 | SOFT_MODE_FLAT | SOFT_BLOCK_PLAIN,
    SOFT_MODE_PROTECTED | SOFT_MODE_CODE_64K | SOFT_MODE_STACK32,
    SOFT_MODE_CODE_64K,
    SOFT_MODE_PROTECTED | SOFT_MODE_VM86 | SOFT_MODE_CPL3 | SOFT_MODE_CODE_64K,
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!cpu)
        start();
    if (size < 2 || size > 512)
        return 0;

    decode(data, size, 16);
    decode(data, size, 32);
    decode(data, size, 64);

    /* The first byte chooses how near the end of the page the code begins, and the mode. */
    uint64_t gpa = CODE + MULL_PAGE_SIZE - 1 - (data[0] & 0x3f) * (data[0] & 0x40 ? 16 : 1);
    uint32_t mode = SOFT_MODE_CODE64 | (data[0] & 0x80 ? SOFT_MODE_CPL3 : SOFT_MODE_SMAP);
    if (mull_mem_write(memory, gpa, data + 1, size - 1) < 0)
        abort();
    translate(gpa, gpa, mode);
    translate(gpa, gpa, mode | SOFT_BLOCK_PLAIN);
    for (unsigned i = 0; i < sizeof(narrow) / sizeof(narrow[0]); i++) {
        /* EIP counts from the base of CS; a code segment of 64 KiB ends soon. */
        uint64_t base = narrow[i] & SOFT_MODE_CODE_64K ? gpa - 0xfff0 : CODE;
        uint64_t key = (uint64_t)(uint32_t)base << 32 | (uint32_t)(gpa - base);
        translate(gpa, narrow[i] & SOFT_MODE_FLAT ? gpa : key, narrow[i]);
    }
    return 0;
}
