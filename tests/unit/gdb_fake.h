/*
 * A machine for the GDB session: two vCPUs, 64 KiB of memory at address 0, stops when told to.
 */
#ifndef MULL_TESTS_GDB_FAKE_H
#define MULL_TESTS_GDB_FAKE_H

#include <string.h>

#include "vmm/gdb_session.h"

#define FAKE_MEMORY 65536u
#define FAKE_CPUS 2

struct fake {
    struct mull_cpu_state state[FAKE_CPUS];
    uint8_t memory[FAKE_MEMORY];
    bool held, killed;
    unsigned resumes, points;
    enum mull_debug_action action[FAKE_CPUS];
    struct mull_debug_point point[MULL_DEBUG_POINTS];
    struct gdb_session *session;
    char said[65536]; /* what the session has sent */
    size_t said_len;
};

static unsigned fake_cpus(void *opaque)
{
    return FAKE_CPUS;
}

static bool fake_held(void *opaque)
{
    return ((struct fake *)opaque)->held;
}

static int fake_get(void *opaque, unsigned cpu, struct mull_cpu_state *state)
{
    struct fake *f = opaque;

    if (cpu >= FAKE_CPUS || !f->held)
        return -22;
    *state = f->state[cpu];
    return 0;
}

static int fake_set(void *opaque, unsigned cpu, const struct mull_cpu_state *state)
{
    struct fake *f = opaque;

    if (cpu >= FAKE_CPUS || !f->held)
        return -22;
    f->state[cpu] = *state;
    return 0;
}

static size_t fake_part(uint64_t address, size_t len)
{
    if (address >= FAKE_MEMORY)
        return 0;
    return len < FAKE_MEMORY - address ? len : (size_t)(FAKE_MEMORY - address);
}

static size_t fake_read(void *opaque, unsigned cpu, uint64_t address, bool physical, void *buf,
                        size_t len)
{
    len = fake_part(address, len);
    memcpy(buf, ((struct fake *)opaque)->memory + (len ? address : 0), len);
    return len;
}

static size_t fake_write(void *opaque, unsigned cpu, uint64_t address, bool physical,
                         const void *buf, size_t len)
{
    len = fake_part(address, len);
    memcpy(((struct fake *)opaque)->memory + (len ? address : 0), buf, len);
    return len;
}

static int fake_check(void *opaque, const struct mull_debug_point *points, unsigned count)
{
    return count > 8 ? -28 : 0; /* ENOSPC */
}

static int fake_resume(void *opaque, const enum mull_debug_action *action,
                       const struct mull_debug_point *points, unsigned count)
{
    struct fake *f = opaque;

    if (!f->held)
        return -22;
    f->held = false;
    f->resumes++;
    f->points = count;
    memcpy(f->action, action, sizeof(f->action));
    memcpy(f->point, points, count * sizeof(*points));
    return 0;
}

static void fake_interrupt(void *opaque)
{
    struct fake *f = opaque;

    if (f->held)
        return;
    f->held = true;
    gdb_session_stopped(f->session, 0, NULL);
}

static void fake_kill(void *opaque)
{
    ((struct fake *)opaque)->killed = true;
}

static void fake_send(void *opaque, const char *bytes, size_t len)
{
    struct fake *f = opaque;

    if (len > sizeof(f->said) - 1 - f->said_len)
        f->said_len = 0;
    memcpy(f->said + f->said_len, bytes, len);
    f->said_len += len;
    f->said[f->said_len] = '\0';
}

static const struct gdb_target fake_target = {
    .cpus = fake_cpus,
    .held = fake_held,
    .get = fake_get,
    .set = fake_set,
    .read = fake_read,
    .write = fake_write,
    .check = fake_check,
    .resume = fake_resume,
    .interrupt = fake_interrupt,
    .kill = fake_kill,
    .send = fake_send,
};

#endif
