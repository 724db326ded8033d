/*
 * KVM paravirtual MSRs (Linux, Documentation/virt/kvm/x86/msr.rst; pvclock-abi.h). All vCPUs get
 * the same reference point and multiplier, the ones the machine's clock itself computes with, so
 * what guests compute is what every timer shows.
 */
#include "platform/kvmpv.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/engine.h"

#define MSR_WALL_CLOCK 0x11u
#define MSR_SYSTEM_TIME 0x12u
#define MSR_WALL_CLOCK_NEW 0x4b564d00u
#define MSR_SYSTEM_TIME_NEW 0x4b564d01u
#define MSR_STEAL_TIME 0x4b564d03u

#define ENABLED 1ull
#define STEAL_RESERVED 0x3eull

#define PVCLOCK_TSC_STABLE 1u
#define PVCLOCK_GUEST_STOPPED 2u

#define STEAL_INTERVAL_NS 10000000u

/* struct pvclock_vcpu_time_info */
struct time_info {
    uint32_t version, pad0;
    uint64_t tsc_timestamp, system_time;
    uint32_t mul;
    int8_t shift;
    uint8_t flags, pad[2];
};

/* The part of struct kvm_steal_time that is written. */
struct steal_info {
    uint64_t steal;
    uint32_t version, flags;
};

struct cpu {
    uint64_t wall_clock, system_time, steal_time; /* the MSRs */
    uint64_t tsc_offset;
    uint32_t time_version, steal_version;
    int schedstat; /* of the vCPU's thread; -1: not open, -2: not to be had */
    uint64_t next_tick;
    uint64_t steal;     /* ns */
    uint64_t run_delay; /* what the host's scheduler said last */
};

struct mull_kvmpv {
    struct mull_memory *memory;
    struct mull_clock *clock;
    unsigned cpus;
    struct cpu cpu[MULL_MAX_CPUS];
};

/* Write a structure with a version as pvclock's readers expect it: odd while it changes. A guest
 * that named an address without RAM gets nothing. */
static void write_versioned(struct mull_kvmpv *pv, uint64_t gpa, unsigned version_offset,
                            uint32_t *version, void *data, uint64_t size)
{
    uint32_t even = (*version | 1) + 1;

    if (mull_mem_write32(pv->memory, gpa + version_offset, even - 1) < 0)
        return;
    *version = even;
    even--; /* the copy below must not end the change */
    memcpy((uint8_t *)data + version_offset, &even, sizeof(even));
    mull_mem_write(pv->memory, gpa, data, size);
    mull_mem_write32(pv->memory, gpa + version_offset, *version);
}

static void write_time(struct mull_kvmpv *pv, struct cpu *c, unsigned flags)
{
    struct time_info info = {.flags = (uint8_t)(PVCLOCK_TSC_STABLE | flags)};

    if (!(c->system_time & ENABLED))
        return;
    mull_clock_anchor(pv->clock, &info.tsc_timestamp, &info.system_time);
    info.tsc_timestamp += c->tsc_offset;
    mull_clock_pvclock(pv->clock, &info.mul, &info.shift);
    write_versioned(pv, c->system_time & ~ENABLED, 0, &c->time_version, &info, sizeof(info));
}

static void write_wall(struct mull_kvmpv *pv, uint64_t gpa)
{
    uint64_t ns = mull_clock_boot_wall_ns(pv->clock);
    uint32_t wall[3] = {0, (uint32_t)(ns / 1000000000u), (uint32_t)(ns % 1000000000u)};
    uint32_t version = 0;

    if (mull_mem_read32(pv->memory, gpa, &version) == 0)
        write_versioned(pv, gpa, 0, &version, wall, sizeof(wall));
}

/* ---- Steal time: what the vCPU's thread waited for a host CPU ---- */

/* "Time spent on the cpu, time spent waiting on a runqueue, timeslices" (Linux,
 * Documentation/scheduler/sched-stats.rst). */
static bool read_run_delay(struct cpu *c, uint64_t *ns)
{
    char text[96];

    if (c->schedstat == -1) {
        c->schedstat = open("/proc/thread-self/schedstat", O_RDONLY | O_CLOEXEC);
        if (c->schedstat < 0)
            c->schedstat = -2;
    }
    if (c->schedstat < 0)
        return false;
    ssize_t n = pread(c->schedstat, text, sizeof(text) - 1, 0);
    if (n <= 0)
        return false;
    text[n] = 0;
    char *second = strchr(text, ' ');
    if (!second)
        return false;
    *ns = strtoull(second, NULL, 10);
    return true;
}

static void write_steal(struct mull_kvmpv *pv, struct cpu *c)
{
    struct steal_info info = {.steal = c->steal};

    if (c->steal_time & ENABLED)
        write_versioned(pv, c->steal_time & ~ENABLED, offsetof(struct steal_info, version),
                        &c->steal_version, &info, sizeof(info));
}

void mull_kvmpv_tick(struct mull_kvmpv *pv, unsigned cpu)
{
    uint64_t delay;

    if (cpu >= pv->cpus || !(pv->cpu[cpu].steal_time & ENABLED))
        return;
    struct cpu *c = &pv->cpu[cpu];
    uint64_t now = mull_clock_now(pv->clock);
    if (now < c->next_tick)
        return;
    c->next_tick = now + STEAL_INTERVAL_NS;
    if (!read_run_delay(c, &delay) || delay == c->run_delay)
        return;
    if (delay > c->run_delay)
        c->steal += delay - c->run_delay;
    c->run_delay = delay;
    write_steal(pv, c);
}

static void enable_steal(struct mull_kvmpv *pv, struct cpu *c)
{
    if (!read_run_delay(c, &c->run_delay))
        c->run_delay = 0;
    c->next_tick = 0;
    write_steal(pv, c);
}

/* ---- MSRs ---- */

int mull_kvmpv_msr_read(struct mull_kvmpv *pv, unsigned cpu, uint32_t msr, uint64_t *value)
{
    if (cpu >= pv->cpus)
        return -1;
    const struct cpu *c = &pv->cpu[cpu];
    switch (msr) {
    case MSR_WALL_CLOCK:
    case MSR_WALL_CLOCK_NEW:
        *value = c->wall_clock;
        return 0;
    case MSR_SYSTEM_TIME:
    case MSR_SYSTEM_TIME_NEW:
        *value = c->system_time;
        return 0;
    case MSR_STEAL_TIME:
        *value = c->steal_time;
        return 0;
    default:
        return -1;
    }
}

int mull_kvmpv_msr_write(struct mull_kvmpv *pv, unsigned cpu, uint32_t msr, uint64_t value)
{
    if (cpu >= pv->cpus)
        return -1;
    struct cpu *c = &pv->cpu[cpu];
    switch (msr) {
    case MSR_WALL_CLOCK:
    case MSR_WALL_CLOCK_NEW:
        c->wall_clock = value;
        write_wall(pv, value & ~3ull);
        return 0;
    case MSR_SYSTEM_TIME:
    case MSR_SYSTEM_TIME_NEW:
        if ((value & ENABLED) && (value & 2)) /* not 4-byte aligned */
            return -1;
        c->system_time = value;
        write_time(pv, c, 0);
        return 0;
    case MSR_STEAL_TIME:
        if (value & STEAL_RESERVED)
            return -1;
        c->steal_time = value;
        if (value & ENABLED)
            enable_steal(pv, c);
        return 0;
    default:
        return -1;
    }
}

/* ---- Life and state ---- */

void mull_kvmpv_tsc_offset(struct mull_kvmpv *pv, unsigned cpu, uint64_t offset)
{
    if (cpu >= pv->cpus || pv->cpu[cpu].tsc_offset == offset)
        return;
    pv->cpu[cpu].tsc_offset = offset;
    write_time(pv, &pv->cpu[cpu], 0);
}

void mull_kvmpv_reset(struct mull_kvmpv *pv, unsigned cpu)
{
    if (cpu >= pv->cpus)
        return;
    struct cpu *c = &pv->cpu[cpu];
    c->wall_clock = c->system_time = c->steal_time = 0;
}

void mull_kvmpv_state_get(struct mull_kvmpv *pv, unsigned cpu, struct mull_cpu_state *s)
{
    if (cpu >= pv->cpus)
        return;
    s->kvm_wall_clock = pv->cpu[cpu].wall_clock;
    s->kvm_system_time = pv->cpu[cpu].system_time;
    s->kvm_steal_time = pv->cpu[cpu].steal_time;
}

void mull_kvmpv_state_set(struct mull_kvmpv *pv, unsigned cpu, const struct mull_cpu_state *s)
{
    struct steal_info info;

    if (cpu >= pv->cpus)
        return;
    struct cpu *c = &pv->cpu[cpu];
    c->wall_clock = s->kvm_wall_clock;
    c->system_time = s->kvm_system_time & 2 ? 0 : s->kvm_system_time;
    c->steal_time = s->kvm_steal_time & STEAL_RESERVED ? 0 : s->kvm_steal_time;
    c->tsc_offset = s->tsc_offset;
    c->steal = 0;
    /* Go on from what the guest has seen. */
    if ((c->steal_time & ENABLED) &&
        mull_mem_read(pv->memory, c->steal_time & ~ENABLED, &info, sizeof(info)) == 0) {
        c->steal = info.steal;
        c->steal_version = info.version;
    }
    if (c->system_time & ENABLED)
        mull_mem_read32(pv->memory, c->system_time & ~ENABLED, &c->time_version);
    write_time(pv, c, 0);
}

void mull_kvmpv_resume(struct mull_kvmpv *pv)
{
    for (unsigned i = 0; i < pv->cpus; i++)
        write_time(pv, &pv->cpu[i], PVCLOCK_GUEST_STOPPED);
}

void mull_kvmpv_destroy(struct mull_kvmpv *pv)
{
    if (!pv)
        return;
    for (unsigned i = 0; i < pv->cpus; i++)
        if (pv->cpu[i].schedstat >= 0)
            close(pv->cpu[i].schedstat);
    free(pv);
}

int mull_kvmpv_create(struct mull_memory *memory, struct mull_clock *clock, unsigned cpus,
                      struct mull_kvmpv **out, struct mull_error *err)
{
    *out = NULL;
    if (cpus < 1 || cpus > MULL_MAX_CPUS)
        return mull_fail(err, EINVAL, "kvm paravirtual interface: %u vCPUs", cpus);
    struct mull_kvmpv *pv = calloc(1, sizeof(*pv));
    if (!pv)
        return mull_fail(err, ENOMEM, "kvm paravirtual interface: no memory");
    pv->memory = memory;
    pv->clock = clock;
    pv->cpus = cpus;
    for (unsigned i = 0; i < MULL_MAX_CPUS; i++)
        pv->cpu[i].schedstat = -1;
    *out = pv;
    return 0;
}
