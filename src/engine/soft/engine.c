/*
 * The soft engine behind the engine interface: making and freeing a VM, its code cache and its
 * vCPUs with their windows; state in and out. What runs is in run.c, what is translated in
 * translate.c.
 */
#include <cpuid.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <unistd.h>

#include "engine/soft/cache.h"
#include "engine/soft/monitor.h"
#include "engine/soft/probe.h"
#include "engine/soft/run.h"

#define DEFAULT_CODE_CACHE (64ull << 20)
#define MIN_CODE_CACHE (1ull << 20)
#define MAX_CODE_CACHE (1ull << 30)

#ifndef HWCAP2_FSGSBASE
#define HWCAP2_FSGSBASE 2
#endif

_Static_assert(sizeof(struct soft_cpu) <= SOFT_COMMON_SIZE, "struct soft_cpu outgrew its mapping");
_Static_assert(sizeof(struct soft_window) % 4096 == 0, "a window is whole pages");

/* ---- What the host must have ---- */

static const char *missing_on_host(void)
{
    unsigned a, b, c, d;

    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(b & (1u << 8)))
        return "the host CPU has no BMI2 (needs Intel Haswell, AMD Zen or newer)";
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & (1u << 27)))
        return "the host kernel does not enable XSAVE";
    if (!(getauxval(AT_HWCAP2) & HWCAP2_FSGSBASE))
        return "the host kernel does not enable FSGSBASE (needs Linux 5.9 or newer)";
    return NULL;
}

static void soft_probe_engine(bool measure, struct mull_engine_report *report)
{
    const char *why = missing_on_host();

    memset(report, 0, sizeof(*report));
    report->available = !why;
    strncpy(report->why, why ? why : "binary translation, no privilege needed",
            sizeof(report->why) - 1);
    if (measure && !why)
        soft_probe_measure(report);
}

/* ---- The code cache's memory ---- */

/* Profilers look a mapping's code up in their maps only where it is no file's, so without memfd.
 * mremap() of nothing of a shared mapping maps the same memory once more (mremap(2), "old_size").
 */
static bool map_twice_anonymously(struct soft_cache *cache)
{
    cache->rw = mmap(NULL, cache->size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (cache->rw == MAP_FAILED)
        return false;
    cache->rx = mremap(cache->rw, 0, cache->size, MREMAP_MAYMOVE);
    return cache->rx != MAP_FAILED && !mprotect(cache->rx, cache->size, PROT_READ | PROT_EXEC);
}

static int map_twice(struct soft_cache *cache, struct mull_error *err)
{
    if (cache->vm->config.trace) {
        if (map_twice_anonymously(cache))
            return 0;
        return mull_fail(err, errno, "soft engine: memory for translations: %s", strerror(errno));
    }
    int fd = memfd_create("mullion-code", MFD_CLOEXEC);
    if (fd < 0 || ftruncate(fd, (off_t)cache->size) < 0) {
        int e = errno;
        if (fd >= 0)
            close(fd);
        return mull_fail(err, e, "soft engine: memory for translations: %s", strerror(e));
    }
    cache->rw = mmap(NULL, cache->size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    cache->rx = mmap(NULL, cache->size, PROT_READ | PROT_EXEC, MAP_SHARED, fd, 0);
    close(fd);
    if (cache->rw == MAP_FAILED || cache->rx == MAP_FAILED)
        return mull_fail(err, errno,
                         "soft engine: mapping %zu bytes of executable memory: %s; does the "
                         "system's policy forbid it?",
                         cache->size, strerror(errno));
    return 0;
}

/* An empty jump table sends every jump to the glue: windows share the pages of one until they write
 * to their own. */
static int make_empty_jumps(struct soft_cache *cache, struct mull_error *err)
{
    enum { SLOTS = MULL_PAGE_SIZE / sizeof(uint64_t) };
    uint64_t page[SLOTS];

    for (unsigned i = 0; i < SLOTS; i++)
        page[i] = (uint64_t)(uintptr_t)cache->glue.jump;
    cache->jump_fd = memfd_create("mullion-jumps", MFD_CLOEXEC);
    bool done = cache->jump_fd >= 0;
    for (unsigned i = 0; done && i < SOFT_JUMP_ENTRIES / SLOTS; i++)
        done = write(cache->jump_fd, page, sizeof(page)) == (ssize_t)sizeof(page);
    return done ? 0
                : mull_fail(err, errno ? errno : ENOMEM, "soft engine: memory for its tables: %s",
                            strerror(errno));
}

static void *map_zero(size_t size)
{
    void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                   -1, 0);
    return p == MAP_FAILED ? NULL : p;
}

static size_t page_table_size(const struct soft_vm *vm, unsigned ram)
{
    return (vm->ram[ram].size >> MULL_PAGE_SHIFT) * sizeof(**vm->cache->pages);
}

/* RAM is there, from the start or by hot plug: a table for the translations of its pages. */
static int on_plugged(void *opaque, unsigned ram, struct mull_error *err)
{
    struct soft_vm *vm = opaque;

    if (!vm->ram[ram].size)
        return 0;
    vm->cache->pages[ram] = map_zero(page_table_size(vm, ram));
    return vm->cache->pages[ram]
               ? 0
               : mull_fail(err, ENOMEM, "soft engine: out of memory for its tables");
}

int soft_cache_create(struct soft_vm *vm, uint64_t size, struct mull_error *err)
{
    struct soft_cache *cache = calloc(1, sizeof(*cache));
    if (!cache)
        return mull_fail(err, ENOMEM, "soft engine: out of memory");
    vm->cache = cache;
    cache->vm = vm;
    cache->jump_fd = -1;
    cache->rw = cache->rx = MAP_FAILED;

    size = size ? size : DEFAULT_CODE_CACHE;
    size = size < MIN_CODE_CACHE ? MIN_CODE_CACHE : size > MAX_CODE_CACHE ? MAX_CODE_CACHE : size;
    cache->size = size & MULL_PAGE_MASK;
    int r = map_twice(cache, err);
    if (r < 0)
        return r;

    cache->blocks_max = (uint32_t)(cache->size / 64);
    cache->arena_size = cache->size * 2;
    cache->arena = map_zero(cache->arena_size);
    cache->by_address = map_zero(cache->blocks_max * sizeof(*cache->by_address));
    cache->hash_mask = 1023;
    while (cache->hash_mask < cache->blocks_max / 4)
        cache->hash_mask = cache->hash_mask * 2 + 1;
    cache->hash = map_zero(((size_t)cache->hash_mask + 1) * sizeof(*cache->hash));
    cache->pages = calloc(vm->ram_count, sizeof(*cache->pages));
    if (!cache->arena || !cache->by_address || !cache->hash || !cache->pages)
        return mull_fail(err, ENOMEM, "soft engine: out of memory for its tables");
    for (unsigned i = 0; i < vm->ram_count; i++) {
        r = on_plugged(vm, i, err);
        if (r < 0)
            return r;
    }

    cache->code_start = (soft_glue_make(cache) + 63) & ~(size_t)63;
    cache->used = cache->code_start;
    const struct mull_code_trace *trace = vm->config.trace;
    if (trace)
        trace->translated(trace->opaque, cache->rx, cache->code_start, UINT64_MAX, "mullion_glue");
    return make_empty_jumps(cache, err);
}

static void unmap(void *p, size_t size)
{
    if (p && p != MAP_FAILED)
        munmap(p, size);
}

void soft_cache_destroy(struct soft_vm *vm)
{
    struct soft_cache *cache = vm->cache;
    if (!cache)
        return;
    unmap(cache->rw, cache->size);
    unmap(cache->rx, cache->size);
    unmap(cache->arena, cache->arena_size);
    unmap(cache->by_address, cache->blocks_max * sizeof(*cache->by_address));
    unmap((void *)cache->hash, ((size_t)cache->hash_mask + 1) * sizeof(*cache->hash));
    for (unsigned i = 0; cache->pages && i < vm->ram_count; i++)
        unmap(cache->pages[i], page_table_size(vm, i));
    free(cache->pages);
    if (cache->jump_fd >= 0)
        close(cache->jump_fd);
    free(cache);
    vm->cache = NULL;
}

/* ---- The VM ---- */

static void on_code_written(void *opaque, uint64_t gpa, uint64_t len)
{
    soft_code_written(opaque, NULL, gpa, len);
}

/* RAM goes: its translations, and every entry of a TLB that may lead there. */
static void on_unplugged(void *opaque, unsigned index)
{
    struct soft_vm *vm = opaque;
    const struct mull_ram *ram = &vm->ram[index];

    for (uint64_t at = 0; at < ram->size; at += MULL_PAGE_SIZE)
        if (vm->cache->pages[index][at >> MULL_PAGE_SHIFT].blocks)
            soft_code_written(vm, NULL, ram->gpa + at, MULL_PAGE_SIZE);
    for (unsigned i = 0; i < vm->cpus; i++)
        if (vm->cpu[i])
            soft_tlb_flush(vm->cpu[i], SOFT_FLUSH_ALL);
    unmap(vm->cache->pages[index], page_table_size(vm, index));
    vm->cache->pages[index] = NULL;
}

static void look_at_a20(struct soft_vm *vm)
{
    atomic_store(&vm->a20_holds, mull_memory_a20(vm->memory) ? 0 : 1ull << 20);
}

/* A vCPU's own OUT ends the block: run_ok is 0 when it is done (system_io.c, io_done). */
static void on_a20(void *opaque)
{
    struct soft_vm *vm = opaque;

    look_at_a20(vm);
    for (unsigned i = 0; i < vm->cpus; i++) {
        struct soft_cpu *cpu = __atomic_load_n(&vm->cpu[i], __ATOMIC_ACQUIRE);
        if (cpu)
            soft_signal(cpu, (enum mull_signal)SOFT_SIGNAL_FLUSH, 0);
    }
}

static void soft_vm_destroy(struct mull_vm *handle)
{
    struct soft_vm *vm = (struct soft_vm *)handle;
    if (!vm)
        return;
    mull_memory_set_watch(vm->memory, NULL);
    soft_cache_destroy(vm);
    free(vm);
}

static int soft_vm_create(const struct mull_vm_config *config, struct mull_vm **out,
                          struct mull_error *err)
{
    const char *why = missing_on_host();
    if (why)
        return mull_fail(err, ENOTSUP, "soft engine: %s; use --engine kvm", why);
    if (config->cpus < 1 || config->cpus > MULL_MAX_CPUS)
        return mull_fail(err, EINVAL, "soft engine: %u CPUs: give 1 to %u", config->cpus,
                         MULL_MAX_CPUS);

    struct soft_vm *vm = calloc(1, sizeof(*vm));
    if (!vm)
        return mull_fail(err, ENOMEM, "soft engine: out of memory");
    vm->config = *config;
    vm->memory = config->memory;
    vm->bus = config->bus;
    vm->cpus = config->cpus;
    vm->ram = mull_memory_ram(vm->memory, &vm->ram_count);
    vm->device_ram = mull_memory_device_ram(vm->memory);

    int r = soft_cache_create(vm, config->code_cache, err);
    if (r < 0) {
        soft_vm_destroy((struct mull_vm *)vm);
        return r;
    }
    vm->watch = (struct mull_memory_watch){.opaque = vm,
                                           .code_written = on_code_written,
                                           .protect = soft_tlb_protect_all,
                                           .plugged = on_plugged,
                                           .unplugged = on_unplugged,
                                           .moved = soft_tlb_forget_all,
                                           .a20 = on_a20};
    look_at_a20(vm);
    mull_memory_set_watch(vm->memory, &vm->watch);
    *out = (struct mull_vm *)vm;
    return 0;
}

/* ---- vCPUs ---- */

_Static_assert(offsetof(struct soft_window, jump) % 4096 == 0 && SOFT_JUMP_ENTRIES % 512 == 0,
               "jump tables are whole pages");

/* Map the windows: private pages for the TLBs and the jump tables (of @jump_fd), the same pages of
 * a memfd in front of each. */
static int map_windows(struct soft_window *window[SOFT_WINDOWS], int jump_fd,
                       struct mull_error *err)
{
    int fd = memfd_create("mullion-vcpu", MFD_CLOEXEC);
    if (fd < 0 || ftruncate(fd, SOFT_COMMON_SIZE) < 0)
        goto fail;
    for (unsigned i = 0; i < SOFT_WINDOWS; i++) {
        window[i] = map_zero(sizeof(struct soft_window));
        if (!window[i] ||
            mmap(window[i], SOFT_COMMON_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd,
                 0) == MAP_FAILED ||
            mmap(window[i]->jump, sizeof(window[i]->jump), PROT_READ | PROT_WRITE,
                 MAP_PRIVATE | MAP_FIXED, jump_fd, 0) == MAP_FAILED)
            goto fail;
        window[i]->jump_ready = true;
    }
    close(fd);
    return 0;

fail:;
    int e = errno;
    for (unsigned i = 0; i < SOFT_WINDOWS; i++)
        unmap(window[i], sizeof(struct soft_window));
    if (fd >= 0)
        close(fd);
    return mull_fail(err, e ? e : ENOMEM, "soft engine: memory for a vCPU: %s", strerror(e));
}

static uint64_t host_xcr0(void)
{
    uint32_t lo, hi;
    __asm__ volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
    return (uint64_t)hi << 32 | lo;
}

static void soft_vcpu_destroy(struct mull_vcpu *handle)
{
    struct soft_cpu *cpu = (struct soft_cpu *)handle;
    if (!cpu)
        return;
    struct soft_window *window[SOFT_WINDOWS];

    __atomic_store_n(&cpu->vm->cpu[cpu->index], NULL, __ATOMIC_RELEASE);
    soft_exec_fini(cpu);
    free(cpu->private_run);
    unmap(cpu->signal_stack, SOFT_SIGNAL_STACK);
    free((void *)cpu->cpuid);
    memcpy(window, cpu->windows, sizeof(window));
    for (unsigned i = 0; i < SOFT_WINDOWS; i++)
        unmap(window[i], sizeof(struct soft_window));
}

static int soft_vcpu_create(struct mull_vm *handle, unsigned index, const struct mull_cpuid *cpuid,
                            struct mull_vcpu **out, struct mull_error *err)
{
    struct soft_vm *vm = (struct soft_vm *)handle;
    struct soft_window *window[SOFT_WINDOWS] = {NULL};

    if (index >= vm->cpus || vm->cpu[index])
        return mull_fail(err, EINVAL, "soft engine: vCPU %u of %u", index, vm->cpus);
    int r = map_windows(window, vm->cache->jump_fd, err);
    if (r < 0)
        return r;

    struct soft_cpu *cpu = (struct soft_cpu *)window[0];
    memcpy(cpu->windows, window, sizeof(window));
    memcpy(cpu->window, window, sizeof(cpu->window));
    cpu->self = cpu;
    cpu->vm = vm;
    cpu->index = index;
    cpu->run_ok = 1;
    cpu->page_mask = MULL_PAGE_MASK;
    cpu->offset_mask = ~MULL_PAGE_MASK;
    cpu->tlb_index_mask = SOFT_TLB_INDEX_MASK;
    cpu->jump_index_mask = SOFT_JUMP_INDEX_MASK;
    cpu->not_if_mask = ~(uint64_t)SOFT_IF;
    cpu->not_ac_mask = ~(uint64_t)SOFT_AC;
    cpu->not_df_mask = ~(uint64_t)SOFT_DF;
    /* What PUSHF shows of the flags kept in memory; bit 1 comes with LAHF. */
    cpu->system_flags_mask = 0xfcffff & ~(uint64_t)(SOFT_ARITH_FLAGS | 2);
    cpu->jump_miss = (uint64_t)(uintptr_t)vm->cache->glue.jump;
    cpu->xsave_mask = host_xcr0() & 0xe7; /* x87, SSE, AVX, AVX-512; never PKRU or AMX */

    struct mull_cpuid *copy = malloc(sizeof(*copy));
    cpu->private_run = calloc(1, soft_run_state_size());
    cpu->cpuid = copy;
    cpu->signal_stack = map_zero(SOFT_SIGNAL_STACK);
    r = copy && cpu->private_run && cpu->signal_stack
            ? soft_exec_init(cpu, err)
            : mull_fail(err, ENOMEM, "soft engine: out of memory");
    if (r < 0) {
        soft_vcpu_destroy((struct mull_vcpu *)cpu);
        return r;
    }
    *copy = *cpuid;

    mull_cpu_state_reset(&cpu->s, index, index == 0);
    atomic_store(&cpu->monitor.watched, MULL_NOWHERE);
    soft_mode_changed(cpu);
    soft_tlb_flush(cpu, SOFT_FLUSH_ALL);
    __atomic_store_n(&vm->cpu[index], cpu, __ATOMIC_RELEASE);
    *out = (struct mull_vcpu *)cpu;
    return 0;
}

static void soft_vcpu_run(struct mull_vcpu *vcpu, struct mull_exit *exit)
{
    soft_run((struct soft_cpu *)vcpu, exit);
}

static void soft_vcpu_signal(struct mull_vcpu *vcpu, enum mull_signal signal, unsigned arg)
{
    soft_signal((struct soft_cpu *)vcpu, signal, arg);
}

static int soft_vcpu_get(struct mull_vcpu *vcpu, struct mull_cpu_state *state,
                         struct mull_error *err)
{
    struct soft_cpu *cpu = (struct soft_cpu *)vcpu;
    const struct mull_engine_bus *bus = cpu->vm->bus;

    soft_vectors_park(cpu);
    soft_settle(cpu);
    *state = cpu->s;
    if (bus->state_get)
        bus->state_get(bus->opaque, cpu->index, state);
    return 0;
}

static int soft_vcpu_set(struct mull_vcpu *vcpu, const struct mull_cpu_state *state,
                         struct mull_error *err)
{
    struct soft_cpu *cpu = (struct soft_cpu *)vcpu;
    const struct mull_engine_bus *bus = cpu->vm->bus;

    soft_vectors_park(cpu);
    cpu->s = *state;
    soft_vectors_sanitize(cpu);
    atomic_store(&cpu->signals, 0);
    if (state->sipi_pending)
        soft_signal(cpu, MULL_SIGNAL_SIPI, state->sipi_vector);
    cpu->s.sipi_pending = 0;
    soft_monitor_reset(cpu);
    cpu->error.code = 0;
    if (bus->state_set)
        bus->state_set(bus->opaque, cpu->index, state);
    soft_mode_changed(cpu);
    soft_tlb_flush(cpu, SOFT_FLUSH_ALL);
    cpu->irq_clear = 0;
    return 0;
}

/* ---- What a debugger outside of the guest wants ---- */

static bool same_point(const struct mull_debug_point *a, const struct mull_debug_point *b)
{
    return a->kind == b->kind && a->hardware == b->hardware && a->address == b->address &&
           a->length == b->length;
}

/* Does the VM have exactly these points, in this order? */
static bool is_set(const struct soft_debug *have, const struct mull_debug *want)
{
    unsigned execs = 0, watches = 0;

    if (have->execs + have->watches != want->count)
        return false;
    for (unsigned i = 0; i < want->count; i++) {
        const struct mull_debug_point *p = &want->point[i];
        bool exec = p->kind == MULL_DEBUG_EXEC;

        if (exec ? execs == have->execs : watches == have->watches)
            return false;
        if (!same_point(p, exec ? &have->exec[execs++] : &have->watch[watches++]))
            return false;
    }
    return true;
}

static void set_points(struct soft_vm *vm, const struct mull_debug *want)
{
    struct soft_debug *debug = &vm->debug;

    debug->execs = debug->watches = 0;
    for (unsigned i = 0; i < want->count; i++) {
        const struct mull_debug_point *p = &want->point[i];

        if (p->kind == MULL_DEBUG_EXEC) {
            debug->exec[debug->execs++] = *p;
            soft_code_break(vm, p->address);
        } else {
            debug->watch[debug->watches++] = *p;
        }
    }
    if (!debug->watches)
        return;
    for (unsigned i = 0; i < vm->cpus; i++)
        if (vm->cpu[i]) /* no entry of a page that is watched now may stay */
            soft_tlb_flush(vm->cpu[i], SOFT_FLUSH_ALL);
}

static int soft_vcpu_debug(struct mull_vcpu *vcpu, const struct mull_debug *debug,
                           struct mull_error *err)
{
    struct soft_cpu *cpu = (struct soft_cpu *)vcpu;
    static const struct mull_debug none;
    const struct mull_debug *want = debug ? debug : &none;

    if (want->count > MULL_DEBUG_POINTS)
        return mull_fail(err, ENOSPC, "soft engine: more than %u breakpoints and watches",
                         MULL_DEBUG_POINTS);
    if (!is_set(&cpu->vm->debug, want))
        set_points(cpu->vm, want);
    cpu->debug_step = want->step;
    cpu->debug_stop = false;
    return 0;
}

static bool soft_vcpu_translate(struct mull_vcpu *vcpu, uint64_t va, uint64_t *gpa)
{
    return soft_translate_quiet((struct soft_cpu *)vcpu, va, gpa);
}

static unsigned soft_vcpu_stats(struct mull_vcpu *vcpu, const char **names, uint64_t *values,
                                unsigned max)
{
    const struct soft_cpu *cpu = (const struct soft_cpu *)vcpu;
    const struct soft_stats *s = &cpu->stats;
    const struct {
        const char *name;
        uint64_t value;
    } all[] = {
        {"blocks-translated", s->blocks_translated},
        {"instructions-translated", s->guest_insns_translated},
        {"tlb-misses", s->tlb_misses},
        {"tlb-flushes", s->tlb_flushes},
        {"page-walks", s->page_walks},
        {"jump-misses", s->jump_misses},
        {"chains", s->chains},
        {"polls", s->polls},
        {"instructions-in-c", s->execs},
        {"interrupts", s->interrupts},
        {"exceptions", s->exceptions},
        {"mmio", s->mmio},
        {"port-io", s->pio},
        {"halts", s->halts},
        {"code-writes", s->code_writes},
        {"cache-bytes", cpu->vm->cache->used},
        {"cache-size", cpu->vm->cache->size},
        {"cache-flushes", cpu->vm->cache->flushes},
    };
    unsigned n = sizeof(all) / sizeof(all[0]);
    n = n < max ? n : max;
    for (unsigned i = 0; i < n; i++) {
        names[i] = all[i].name;
        values[i] = all[i].value;
    }
    return n;
}

const struct mull_engine mull_engine_soft = {
    .name = "soft",
    .has_lapic = false,
    .probe = soft_probe_engine,
    .cpuid = soft_cpuid_template,
    .vm_create = soft_vm_create,
    .vm_destroy = soft_vm_destroy,
    .vcpu_create = soft_vcpu_create,
    .vcpu_destroy = soft_vcpu_destroy,
    .vcpu_run = soft_vcpu_run,
    .vcpu_signal = soft_vcpu_signal,
    .vcpu_get = soft_vcpu_get,
    .vcpu_set = soft_vcpu_set,
    .vcpu_debug = soft_vcpu_debug,
    .vcpu_translate = soft_vcpu_translate,
    .vcpu_stats = soft_vcpu_stats,
};
