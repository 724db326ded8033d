/*
 * The machine's side of a debugger: holds vCPUs, hands breakpoints to the engine for as long as the
 * machine runs, and reports what a vCPU has met. Knows no protocol.
 */
#include "machine/debug.h"

#include <errno.h>
#include <string.h>

#include "machine/internal.h"

/* ---- Stopping ---- */

/* No vCPU runs. Breakpoints are the engine's only while one does, so that nobody sees them. */
static void take_points_away(struct mull_machine *m)
{
    for (unsigned i = 0; i < m->cpus && m->engine->vcpu_debug; i++)
        m->engine->vcpu_debug(m->vcpu[i].vcpu, NULL, NULL);
}

static void hold(struct mull_machine *m)
{
    struct machine_debug *d = &m->debug;

    if (d->held)
        return;
    pthread_mutex_lock(&m->lock);
    d->was_paused = m->state == MULL_MACHINE_PAUSED;
    pthread_mutex_unlock(&m->lock);
    machine_pause_now(m, NULL);
    d->held = true;
    take_points_away(m);
}

/* Take one vCPU's hit. A breakpoint of another one will be met again, its steps are the debugger's
 * to look at; a watch would be lost, so it stays for the next time. */
static bool take_hit(struct mull_machine *m, unsigned *cpu, struct mull_debug_hit *hit)
{
    bool found = false;

    pthread_mutex_lock(&m->lock);
    for (unsigned i = 0; i < m->cpus; i++) {
        struct machine_vcpu *v = &m->vcpu[i];

        if (!v->debug_met)
            continue;
        if (!found) {
            found = true;
            *cpu = i;
            *hit = v->debug_hit;
            v->debug_met = false;
        } else if (v->debug_hit.step || v->debug_hit.point.kind == MULL_DEBUG_EXEC) {
            v->debug_met = false;
        }
    }
    pthread_mutex_unlock(&m->lock);
    return found;
}

static bool is_met(struct mull_machine *m)
{
    bool met = false;

    pthread_mutex_lock(&m->lock);
    for (unsigned i = 0; i < m->cpus; i++)
        met |= m->vcpu[i].debug_met;
    pthread_mutex_unlock(&m->lock);
    return met;
}

static void met_posted(void *opaque)
{
    struct mull_machine *m = opaque;
    struct machine_debug *d = &m->debug;
    struct mull_debug_hit hit;
    unsigned cpu;

    if (!d->attached || d->held || !is_met(m))
        return;
    hold(m);
    if (take_hit(m, &cpu, &hit))
        d->debugger.stopped(d->debugger.opaque, cpu, &hit);
}

void machine_debug_met(struct machine_vcpu *v, const struct mull_debug_hit *hit)
{
    struct mull_machine *m = v->machine;

    pthread_mutex_lock(&m->lock);
    v->debug_hit = *hit;
    v->debug_met = true;
    v->debug_hold = true;
    pthread_mutex_unlock(&m->lock);
    if (mull_loop_post(m->loop, met_posted, m))
        mull_log(m->log, MULL_LOG_ERROR, "debugger: no memory to tell it of a stop");
}

void machine_debug_ended(struct mull_machine *m)
{
    struct machine_debug *d = &m->debug;

    pthread_mutex_lock(&m->lock);
    enum mull_machine_end end = m->end;
    pthread_mutex_unlock(&m->lock);
    if (d->attached && d->debugger.ended)
        d->debugger.ended(d->debugger.opaque, end);
}

void mull_machine_debug_interrupt(struct mull_machine *m)
{
    struct machine_debug *d = &m->debug;
    struct mull_debug_hit hit;
    unsigned cpu = 0;

    if (!d->attached || d->held || m->state == MULL_MACHINE_ENDED)
        return;
    hold(m);
    bool met = take_hit(m, &cpu, &hit);
    d->debugger.stopped(d->debugger.opaque, cpu, met ? &hit : NULL);
}

/* ---- Going on ---- */

static void set_actions(struct mull_machine *m, const enum mull_debug_action *action)
{
    pthread_mutex_lock(&m->lock);
    for (unsigned i = 0; i < m->cpus; i++)
        m->vcpu[i].debug_hold = action && action[i] == MULL_DEBUG_HOLD;
    pthread_mutex_unlock(&m->lock);
}

int mull_machine_debug_resume(struct mull_machine *m, const enum mull_debug_action *action,
                              const struct mull_debug_point *points, unsigned count,
                              struct mull_error *err)
{
    struct machine_debug *d = &m->debug;
    struct mull_debug want = {.count = count};
    struct mull_debug_hit hit;
    unsigned cpu;

    if (!d->attached || !d->held)
        return mull_fail(err, EINVAL, "debugger: the machine runs");
    if (count > MULL_DEBUG_POINTS)
        return mull_fail(err, ENOSPC, "debugger: more than %u breakpoints", MULL_DEBUG_POINTS);
    memcpy(want.point, points, count * sizeof(*points));
    for (unsigned i = 0; i < m->cpus; i++) {
        want.step = action[i] == MULL_DEBUG_STEP;
        int ret = m->engine->vcpu_debug(m->vcpu[i].vcpu, &want, err);
        if (ret) {
            take_points_away(m);
            return ret;
        }
    }
    if (take_hit(m, &cpu, &hit)) { /* of another vCPU, at the same time as the last one */
        take_points_away(m);
        d->debugger.stopped(d->debugger.opaque, cpu, &hit);
        return 0;
    }
    set_actions(m, action);
    d->held = false;
    return machine_resume_now(m, err);
}

int mull_machine_debug_check(struct mull_machine *m, const struct mull_debug_point *points,
                             unsigned count, struct mull_error *err)
{
    struct mull_debug want = {.count = count};

    if (!m->debug.held || count > MULL_DEBUG_POINTS)
        return mull_fail(err, ENOSPC, "debugger: more than %u breakpoints", MULL_DEBUG_POINTS);
    memcpy(want.point, points, count * sizeof(*points));
    int ret = m->engine->vcpu_debug(m->vcpu[0].vcpu, &want, err);
    m->engine->vcpu_debug(m->vcpu[0].vcpu, NULL, NULL);
    return ret;
}

/* ---- Attaching ---- */

void mull_machine_debug_wait(struct mull_machine *m)
{
    m->debug.wait = true;
}

int mull_machine_debug_attach(struct mull_machine *m, const struct mull_debugger *debugger,
                              struct mull_error *err)
{
    struct machine_debug *d = &m->debug;

    if (d->attached)
        return mull_fail(err, EBUSY, "machine %s: a debugger is attached already", m->name);
    if (m->state == MULL_MACHINE_ENDED)
        return mull_fail(err, EINVAL, "machine %s: has ended", m->name);
    if (!m->engine->vcpu_debug)
        return mull_fail(err, ENOTSUP, "engine %s: no debugging", m->engine->name);
    d->attached = true;
    d->debugger = *debugger;
    if (m->state != MULL_MACHINE_CREATED)
        hold(m);
    return 0;
}

void mull_machine_debug_detach(struct mull_machine *m)
{
    struct machine_debug *d = &m->debug;

    if (!d->attached)
        return;
    if (m->state == MULL_MACHINE_CREATED || m->state == MULL_MACHINE_ENDED) {
        d->attached = false;
        return;
    }
    hold(m);
    d->attached = d->held = false;
    pthread_mutex_lock(&m->lock);
    for (unsigned i = 0; i < m->cpus; i++)
        m->vcpu[i].debug_met = false;
    pthread_mutex_unlock(&m->lock);
    set_actions(m, NULL);
    if (!d->was_paused)
        machine_resume_now(m, NULL);
}

bool mull_machine_debug_held(const struct mull_machine *m)
{
    return m->debug.held;
}

/* ---- Looking ---- */

unsigned mull_machine_debug_cpus(const struct mull_machine *m)
{
    return m->cpus;
}

int mull_machine_debug_get(struct mull_machine *m, unsigned cpu, struct mull_cpu_state *state,
                           struct mull_error *err)
{
    if (cpu >= m->cpus || !m->debug.held)
        return mull_fail(err, EINVAL, "debugger: no vCPU %u that stands still", cpu);
    return m->engine->vcpu_get(m->vcpu[cpu].vcpu, state, err);
}

int mull_machine_debug_set(struct mull_machine *m, unsigned cpu, const struct mull_cpu_state *state,
                           struct mull_error *err)
{
    if (cpu >= m->cpus || !m->debug.held)
        return mull_fail(err, EINVAL, "debugger: no vCPU %u that stands still", cpu);
    return m->engine->vcpu_set(m->vcpu[cpu].vcpu, state, err);
}

/* @write: from @from to the guest, else from the guest to @to. */
static size_t copy(struct mull_machine *m, unsigned cpu, uint64_t address, bool physical, void *to,
                   const void *from, size_t len)
{
    size_t done = 0;

    if (cpu >= m->cpus || !m->debug.held)
        return 0;
    while (done < len) {
        uint64_t gpa = address + done;
        size_t part = (size_t)(MULL_PAGE_SIZE - (gpa & ~MULL_PAGE_MASK));

        if (part > len - done)
            part = len - done;
        if (!physical && !m->engine->vcpu_translate(m->vcpu[cpu].vcpu, address + done, &gpa))
            break;
        if (from ? mull_mem_write(m->memory, gpa, (const uint8_t *)from + done, part)
                 : mull_mem_read(m->memory, gpa, (uint8_t *)to + done, part))
            break;
        done += part;
    }
    return done;
}

size_t mull_machine_debug_read(struct mull_machine *m, unsigned cpu, uint64_t address,
                               bool physical, void *buf, size_t len)
{
    return copy(m, cpu, address, physical, buf, NULL, len);
}

size_t mull_machine_debug_write(struct mull_machine *m, unsigned cpu, uint64_t address,
                                bool physical, const void *buf, size_t len)
{
    return copy(m, cpu, address, physical, NULL, buf, len);
}
