/*
 * MONITOR and MWAIT (SDM volume 2; volume 3, 9.10.5 "Monitor/Mwait Address Range Determination"):
 * how an idle CPU waits for work without an interrupt. MWAIT polls the line for a short time; so a
 * store that comes soon is seen within nanoseconds. Then the vCPU leaves translated code and
 * sleeps, while the line's page is watched as a page with translations is: whoever writes to it
 * wakes the sleeper.
 *
 * Any event may end MWAIT, and so does a limited time: a store between MONITOR and the watch that
 * left the line as it was, or one whose check in the TLB came before the watch
 * (docs/soft-engine-threads.md), delays a guest, but loses nothing.
 */
#include "engine/soft/monitor.h"

#include "engine/soft/cache.h"
#include "engine/soft/system.h"
#include "engine/soft/wait.h"

#define LINE_MASK (~(uint64_t)(SOFT_MONITOR_LINE - 1))
#define LONGEST_NS 500000000u

#define BREAK_ON_INTERRUPT 1ull /* RCX of MWAIT: also one that is masked */

/* ---- The line ---- */

static const uint64_t *line_at(const struct soft_vm *vm, uint64_t gpa)
{
    const struct mull_ram *ram = soft_find_ram(vm, gpa);

    return ram ? (const uint64_t *)(const void *)(ram->host + (gpa - ram->gpa)) : NULL;
}

/* Is it as it was? RAM that has gone is not. */
static bool unchanged(const struct soft_monitor *m, const uint64_t *line)
{
    for (unsigned i = 0; line && i < SOFT_MONITOR_LINE / 8; i++)
        if (__atomic_load_n(&line[i], __ATOMIC_RELAXED) != m->line[i])
            return false;
    return line;
}

void soft_monitor_reset(struct soft_cpu *cpu)
{
    cpu->monitor.armed = cpu->monitor.waiting = false;
}

/* ---- Who sleeps on what ---- */

static uint64_t watched_line(const struct soft_vm *vm, unsigned i)
{
    const struct soft_cpu *cpu = __atomic_load_n(&vm->cpu[i], __ATOMIC_ACQUIRE);

    return cpu ? atomic_load(&cpu->monitor.watched) : MULL_NOWHERE;
}

bool soft_monitor_watches(const struct soft_vm *vm, uint64_t gpa)
{
    for (unsigned i = 0; i < vm->cpus; i++)
        if (((watched_line(vm, i) ^ gpa) & MULL_PAGE_MASK) == 0)
            return true;
    return false;
}

void soft_monitor_written(struct soft_vm *vm, uint64_t gpa, uint64_t len)
{
    for (unsigned i = 0; i < vm->cpus; i++) {
        uint64_t line = watched_line(vm, i);
        if (line == MULL_NOWHERE || gpa >= line + SOFT_MONITOR_LINE || line >= gpa + len)
            continue;
        atomic_store(&vm->cpu[i]->monitor.written, true);
        soft_wait_wake(vm->cpu[i]);
    }
}

static void watch(struct soft_cpu *cpu, uint64_t gpa)
{
    struct soft_cache *cache = cpu->vm->cache;
    const struct mull_ram *ram = soft_find_ram(cpu->vm, gpa);

    soft_cache_lock(cache);
    atomic_store(&cpu->monitor.watched, gpa);
    soft_watch_page(cpu->vm, ram, gpa);
    soft_cache_unlock(cache);
}

void soft_monitor_sleep(struct soft_cpu *cpu)
{
    struct soft_monitor *m = &cpu->monitor;
    const uint64_t *line = line_at(cpu->vm, m->gpa);
    uint32_t seen = atomic_load(&cpu->wake);
    bool slept = false;

    cpu->stats.halts++;
    if (line) {
        atomic_store(&m->written, false);
        watch(cpu, m->gpa);
        if (unchanged(m, line) && !atomic_load(&m->written)) {
            soft_wait_sleep(cpu, seen, LONGEST_NS);
            slept = true;
        }
        atomic_store(&m->watched, MULL_NOWHERE);
    }
    uint64_t called = atomic_load_explicit(&cpu->called, memory_order_relaxed);
    bool woken = slept && called - m->wait.start < soft_host_tsc() - m->wait.start;
    soft_wait_end(cpu, &m->wait, woken ? called : soft_host_tsc());
    m->waiting = false;
}

/* ---- The instructions ---- */

/* In 64-bit mode all of RCX counts. */
static uint64_t extensions(const struct soft_cpu *cpu)
{
    uint64_t rcx = cpu->s.gpr[MULL_RCX];

    return soft_code64(cpu) ? rcx : (uint32_t)rcx;
}

static enum soft_result check(struct soft_cpu *cpu, uint64_t allowed)
{
    if (!cpu->features.monitor || soft_cpl(cpu))
        return soft_raise(cpu, SOFT_UD);
    return extensions(cpu) & ~allowed ? soft_raise_error(cpu, SOFT_GP, 0) : SOFT_NEXT;
}

/* DS, or what a prefix says; the last one counts. */
static unsigned segment_of(const struct soft_cpu *cpu, const struct soft_insn *in)
{
    unsigned seg = MULL_DS;

    for (unsigned i = 0; i < in->length && in->bytes[i] != 0x0f; i++) {
        switch (in->bytes[i]) {
        case 0x26:
            seg = MULL_ES;
            break;
        case 0x2e:
            seg = MULL_CS;
            break;
        case 0x36:
            seg = MULL_SS;
            break;
        case 0x3e:
            seg = MULL_DS;
            break;
        case 0x64:
            seg = MULL_FS;
            break;
        case 0x65:
            seg = MULL_GS;
            break;
        default:
            break;
        }
    }
    return seg;
}

/* A load of one byte, for segments and paging. */
enum soft_result soft_sys_monitor(struct soft_cpu *cpu, const struct soft_insn *in)
{
    struct soft_monitor *m = &cpu->monitor;
    uint64_t offset = cpu->s.gpr[MULL_RAX] & soft_size_mask(in->address_size), va;
    struct soft_page page;

    enum soft_result r = check(cpu, 0);
    if (r == SOFT_NEXT)
        r = soft_linear(cpu, segment_of(cpu, in), offset, 1, SOFT_READ, &va);
    if (r == SOFT_NEXT)
        r = soft_translate(cpu, va, SOFT_READ, &page);
    if (r != SOFT_NEXT)
        return r;
    /* Only memory that is written back can be monitored: MWAIT then does not wait. */
    m->armed = page.host;
    if (m->armed) {
        m->gpa = page.gpa & LINE_MASK;
        const uint64_t *line = line_at(cpu->vm, m->gpa);
        for (unsigned i = 0; i < SOFT_MONITOR_LINE / 8; i++)
            m->line[i] = __atomic_load_n(&line[i], __ATOMIC_RELAXED);
    }
    return soft_done(cpu, in);
}

/* Is there an interrupt that ends MWAIT at once? */
static bool interrupted(struct soft_cpu *cpu)
{
    const struct mull_engine_bus *bus = cpu->vm->bus;

    if (cpu->irq_clear)
        return false;
    if (cpu->s.rflags & SOFT_IF)
        return true;
    if (!(extensions(cpu) & BREAK_ON_INTERRUPT))
        return false;
    soft_vectors_park(cpu);
    return bus->irq_pending(bus->opaque, cpu->index) >= 0;
}

enum soft_result soft_sys_mwait(struct soft_cpu *cpu, const struct soft_insn *in)
{
    struct soft_monitor *m = &cpu->monitor;

    enum soft_result r = check(cpu, BREAK_ON_INTERRUPT);
    if (r != SOFT_NEXT)
        return r;
    soft_done(cpu, in);
    cpu->s.interrupt_shadow = 0;
    bool armed = m->armed;
    m->armed = false;
    if (!armed || (cpu->s.rflags & SOFT_TF) || cpu->debug_step || interrupted(cpu))
        return SOFT_JUMP;

    const uint64_t *line = line_at(cpu->vm, m->gpa);
    soft_wait_begin(cpu, &m->wait);
    do {
        if (!unchanged(m, line)) {
            soft_wait_end(cpu, &m->wait, soft_host_tsc());
            return SOFT_NEXT;
        }
        if (!__atomic_load_n(&cpu->run_ok, __ATOMIC_RELAXED)) {
            soft_wait_end(cpu, &m->wait, soft_host_tsc());
            return SOFT_JUMP;
        }
    } while (soft_wait_more(cpu, &m->wait));
    m->waiting = true;
    return SOFT_HALT;
}
