/*
 * A machine's life: start, pause, resume, reset, stop, end. Everything that changes it runs in the
 * loop's thread, one thing after the other; other threads post and wait. A vCPU thread is either in
 * the engine ("active") or held at a gate, so that nobody touches a running vCPU.
 */
#include "machine/machine.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/threads.h"
#include "machine/internal.h"

#define VCPU_STACK (2u << 20)
#define IO_STACK (1u << 20)

/* ---- Requests to the loop's thread ---- */

struct request {
    struct mull_machine *machine;
    int (*fn)(struct mull_machine *m, struct mull_error *err);
    struct mull_error *err;
    int result;
    bool done;
};

static void run_request(void *opaque)
{
    struct request *r = opaque;
    struct mull_machine *m = r->machine;
    int result = r->fn(m, r->err);
    pthread_mutex_lock(&m->lock);
    r->result = result;
    r->done = true;
    pthread_cond_broadcast(&m->changed);
    pthread_mutex_unlock(&m->lock);
}

/* Run @fn in the loop's thread and wait for it; before the loop runs there is only the creator. */
static int call(struct mull_machine *m, int (*fn)(struct mull_machine *m, struct mull_error *err),
                struct mull_error *err)
{
    struct request r = {.machine = m, .fn = fn, .err = err};
    if (!m->loop_running || pthread_equal(pthread_self(), m->loop_thread))
        return fn(m, err);
    if (mull_loop_post(m->loop, run_request, &r))
        return mull_fail(err, ENOMEM, "machine %s: no memory", m->name);
    pthread_mutex_lock(&m->lock);
    while (!r.done)
        pthread_cond_wait(&m->changed, &m->lock);
    pthread_mutex_unlock(&m->lock);
    return r.result;
}

/* ---- vCPU threads ---- */

/* Get every vCPU thread out of the engine and keep it out. Loop's thread only. */
void machine_hold_vcpus(struct mull_machine *m)
{
    pthread_mutex_lock(&m->lock);
    m->hold = true;
    while (m->active) {
        pthread_mutex_unlock(&m->lock);
        for (unsigned i = 0; i < m->cpus; i++)
            if (m->vcpu[i].started)
                m->engine->vcpu_signal(m->vcpu[i].vcpu, MULL_SIGNAL_STOP, 0);
        pthread_mutex_lock(&m->lock);
        if (m->active)
            pthread_cond_wait(&m->changed, &m->lock);
    }
    pthread_mutex_unlock(&m->lock);
}

void machine_release_vcpus(struct mull_machine *m)
{
    pthread_mutex_lock(&m->lock);
    m->hold = false;
    pthread_cond_broadcast(&m->changed);
    pthread_mutex_unlock(&m->lock);
}

static int end_now(struct mull_machine *m, struct mull_error *err)
{
    machine_hold_vcpus(m);
    pthread_mutex_lock(&m->lock);
    if (m->state != MULL_MACHINE_ENDED) {
        mull_clock_pause(m->clock);
        m->state = MULL_MACHINE_ENDED;
        m->quit = true;
    }
    pthread_cond_broadcast(&m->changed);
    pthread_mutex_unlock(&m->lock);
    machine_debug_ended(m);
    return 0;
}

static void end_posted(void *opaque)
{
    end_now(opaque, NULL);
}

/* The first reason counts. Any thread; takes no other lock. */
static void note_end(struct mull_machine *m, enum mull_machine_end end,
                     const struct mull_error *error)
{
    pthread_mutex_lock(&m->lock);
    bool first = m->end == MULL_END_NONE;
    if (first) {
        m->end = end;
        if (error)
            m->end_error = *error;
    }
    pthread_mutex_unlock(&m->lock);
    if (first && mull_loop_post(m->loop, end_posted, m))
        mull_log(m->log, MULL_LOG_ERROR, "machine %s: no memory to end it", m->name);
}

/* Where it was: often all that is left to learn of a guest that had not come far. */
static void log_triple_fault(struct machine_vcpu *v, const struct mull_exit *exit)
{
    struct mull_machine *m = v->machine;
    struct mull_cpu_state *s = aligned_alloc(64, (sizeof(*s) + 63) & ~63ul);
    char where[80] = "";

    if (s && !m->engine->vcpu_get(v->vcpu, s, NULL))
        snprintf(where, sizeof(where), " at %04x:%llx, CR0 %llx, CR2 %llx",
                 s->seg[MULL_CS].selector, (unsigned long long)s->rip, (unsigned long long)s->cr0,
                 (unsigned long long)s->cr2);
    free(s);
    mull_log(m->log, MULL_LOG_ERROR, "guest: triple fault on vCPU %u%s%s%s; the machine stops",
             v->index, where, *exit->error.message ? ": " : "", exit->error.message);
}

static void handle_exit(struct machine_vcpu *v, const struct mull_exit *exit)
{
    struct mull_machine *m = v->machine;
    switch (exit->reason) {
    case MULL_EXIT_STOPPED:
        return;
    case MULL_EXIT_DEBUG:
        machine_debug_met(v, &exit->debug);
        return;
    case MULL_EXIT_SHUTDOWN:
        /* Guests that have asked for a reset try other ways until it comes. */
        if (atomic_load(&m->reset_wanted))
            break;
        log_triple_fault(v, exit);
        note_end(m, MULL_END_SHUTDOWN, NULL);
        break;
    case MULL_EXIT_FAILED:
        note_end(m, MULL_END_FAILED, &exit->error);
        break;
    }
    /* The others are stopped from the loop; this one must not run again. */
    pthread_mutex_lock(&m->lock);
    while (!m->hold && !m->quit) {
        m->active--;
        pthread_cond_broadcast(&m->changed);
        pthread_cond_wait(&m->changed, &m->lock);
        m->active++;
    }
    pthread_mutex_unlock(&m->lock);
}

static void *vcpu_main(void *opaque)
{
    struct machine_vcpu *v = opaque;
    struct mull_machine *m = v->machine;
    struct mull_exit exit;
    pthread_mutex_lock(&m->lock);
    while (!m->quit) {
        if (m->hold || m->cpu_hold || v->debug_hold || !v->there) {
            pthread_cond_wait(&m->changed, &m->lock);
            continue;
        }
        m->active++;
        pthread_mutex_unlock(&m->lock);
        memset(&exit, 0, sizeof(exit));
        m->engine->vcpu_run(v->vcpu, &exit);
        handle_exit(v, &exit);
        pthread_mutex_lock(&m->lock);
        m->active--;
        pthread_cond_broadcast(&m->changed);
    }
    pthread_mutex_unlock(&m->lock);
    return NULL;
}

/* What a new thread is told. It names itself, because naming another one opens a file. */
struct thread_start {
    void *(*fn)(void *opaque);
    void *opaque;
    char name[16];
};

static void *thread_main(void *opaque)
{
    struct thread_start start = *(struct thread_start *)opaque;
    free(opaque);
    pthread_setname_np(pthread_self(), start.name);
    return start.fn(start.opaque);
}

/* Signals belong to the process's own threads; an engine unblocks in its threads what it needs. */
static int make_thread(pthread_t *thread, void *(*fn)(void *opaque), void *opaque, size_t stack,
                       const char *name, struct mull_error *err)
{
    struct thread_start *start = malloc(sizeof(*start));
    if (!start)
        return mull_fail(err, ENOMEM, "thread %s: no memory", name);
    *start = (struct thread_start){.fn = fn, .opaque = opaque};
    snprintf(start->name, sizeof(start->name), "%s", name);

    pthread_attr_t attr;
    sigset_t all, old;
    sigfillset(&all);
    /* Faults must reach whoever makes them. */
    static const int faults[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP};
    for (unsigned i = 0; i < sizeof(faults) / sizeof(faults[0]); i++)
        sigdelset(&all, faults[i]);
    sigdelset(&all, MULL_EVERY_THREAD);
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, stack);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int ret = pthread_create(thread, &attr, thread_main, start);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    pthread_attr_destroy(&attr);
    if (ret) {
        free(start);
        return mull_fail(err, ret, "thread %s: %s", name, strerror(ret));
    }
    return 0;
}

/* ---- Reset ---- */

static int reset_now(struct mull_machine *m, struct mull_error *err)
{
    atomic_store(&m->reset_wanted, false);
    pthread_mutex_lock(&m->lock);
    enum mull_machine_state state = m->state;
    pthread_mutex_unlock(&m->lock);
    if (state == MULL_MACHINE_ENDED || state == MULL_MACHINE_CREATED)
        return mull_fail(err, EINVAL, "machine %s: not running", m->name);
    machine_hold_vcpus(m);
    machine_hotplug_reset(m);
    machine_devices(m, MACHINE_RESET);
    struct mull_error local = {0};
    int ret = machine_load(m, &local);
    if (ret) {
        note_end(m, MULL_END_FAILED, &local);
        return mull_fail(err, -ret, "%s", local.message);
    }
    pthread_mutex_lock(&m->lock);
    m->resets++;
    pthread_mutex_unlock(&m->lock);
    if (state == MULL_MACHINE_RUNNING)
        machine_release_vcpus(m);
    return 0;
}

static void reset_posted(void *opaque)
{
    struct mull_machine *m = opaque;
    struct mull_error err = {0};
    if (reset_now(m, &err))
        mull_log(m->log, MULL_LOG_ERROR, "reset: %s", err.message);
}

/* ---- What the guest does to the machine ---- */

void machine_event_poweroff(void *opaque)
{
    note_end(opaque, MULL_END_POWEROFF, NULL);
}

void machine_event_reset(void *opaque)
{
    struct mull_machine *m = opaque;
    if (m->no_reboot)
        note_end(m, MULL_END_RESET, NULL);
    else if (!atomic_exchange(&m->reset_wanted, true) && mull_loop_post(m->loop, reset_posted, m))
        mull_log(m->log, MULL_LOG_ERROR, "machine %s: no memory to reset it", m->name);
}

void machine_event_panic(void *opaque, bool crash_kernel)
{
    struct mull_machine *m = opaque;
    mull_log(m->log, MULL_LOG_ERROR, "guest: its kernel has panicked%s",
             crash_kernel ? "; its crash kernel goes on" : "; the machine stops");
    if (!crash_kernel)
        note_end(m, MULL_END_PANIC, NULL);
}

/* Before the end is noted: whoever hears of it reads the value. */
void machine_event_exit(void *opaque, uint32_t value)
{
    struct mull_machine *m = opaque;
    pthread_mutex_lock(&m->lock);
    if (m->end == MULL_END_NONE)
        m->exit_value = value;
    pthread_mutex_unlock(&m->lock);
    note_end(m, MULL_END_EXIT, NULL);
}

/* ---- The interface ---- */

static void *loop_main(void *opaque)
{
    mull_loop_run(((struct mull_machine *)opaque)->loop);
    return NULL;
}

int mull_machine_create(const struct mull_machine_config *config, const struct mull_log *log,
                        struct mull_machine **out, struct mull_error *err)
{
    int ret = mull_machine_config_check(config, err);
    if (ret)
        return ret;
    struct mull_machine *m = calloc(1, sizeof(*m));
    if (!m)
        return mull_fail(err, ENOMEM, "machine: no memory");
    m->log = log;
    m->hold = true;
    pthread_mutex_init(&m->lock, NULL);
    mull_input_init(&m->input);
    pthread_cond_init(&m->changed, NULL);
    struct mull_error local = {0};
    ret = machine_assemble(m, config, &local);
    if (ret) {
        if (err)
            *err = local;
        mull_machine_destroy(m);
        return ret;
    }
    *out = m;
    return 0;
}

static int start_now(struct mull_machine *m, struct mull_error *err)
{
    if (m->state != MULL_MACHINE_CREATED)
        return mull_fail(err, EINVAL, "machine %s: already started", m->name);
    for (unsigned i = 0; i < m->cpus; i++) {
        char name[16];
        snprintf(name, sizeof(name), "vcpu%u", i);
        int ret = make_thread(&m->vcpu[i].thread, vcpu_main, &m->vcpu[i], VCPU_STACK, name, err);
        if (ret)
            return ret;
        m->vcpu[i].started = true;
    }
    m->debug.held = m->debug.wait || m->debug.attached;
    pthread_mutex_lock(&m->lock);
    m->state = m->debug.held ? MULL_MACHINE_PAUSED : MULL_MACHINE_RUNNING;
    pthread_mutex_unlock(&m->lock);
    if (m->debug.held)
        return 0;
    mull_clock_resume(m->clock);
    machine_release_vcpus(m);
    return 0;
}

int machine_pause_now(struct mull_machine *m, struct mull_error *err)
{
    if (m->state == MULL_MACHINE_PAUSED)
        return 0;
    if (m->state != MULL_MACHINE_RUNNING)
        return mull_fail(err, EINVAL, "machine %s: not running", m->name);
    machine_hold_vcpus(m);
    mull_clock_pause(m->clock);
    machine_devices(m, MACHINE_QUIESCE);
    pthread_mutex_lock(&m->lock);
    m->state = MULL_MACHINE_PAUSED;
    pthread_mutex_unlock(&m->lock);
    return 0;
}

static void pause_posted(void *opaque)
{
    struct mull_machine *m = opaque;
    atomic_store(&m->pause_wanted, false);
    if (m->state == MULL_MACHINE_RUNNING)
        machine_pause_now(m, NULL);
}

void machine_event_pause(void *opaque)
{
    struct mull_machine *m = opaque;
    if (!atomic_exchange(&m->pause_wanted, true) && mull_loop_post(m->loop, pause_posted, m))
        mull_log(m->log, MULL_LOG_ERROR, "machine %s: no memory to pause it", m->name);
}

void machine_event_disk_pause(void *opaque, const struct mull_block_request *request, int error)
{
    struct mull_machine *m = opaque;
    if (atomic_exchange(&m->pause_wanted, true))
        return;
    pthread_mutex_lock(&m->lock);
    snprintf(m->paused_by, sizeof(m->paused_by),
             "a disk failed at byte %llu: %s: make room or repair it, then resume",
             (unsigned long long)request->offset, strerror(-error));
    mull_log(m->log, MULL_LOG_ERROR, "machine %s is paused: %s", m->name, m->paused_by);
    pthread_mutex_unlock(&m->lock);
    if (mull_loop_post(m->loop, pause_posted, m))
        mull_log(m->log, MULL_LOG_ERROR, "machine %s: no memory to pause it", m->name);
}

void machine_event_disk_stop(void *opaque, const struct mull_block_request *request, int error)
{
    struct mull_error err = {0};
    mull_fail(&err, -error, "a disk failed at byte %llu: %s; the machine stops, as configured",
              (unsigned long long)request->offset, strerror(-error));
    note_end(opaque, MULL_END_FAILED, &err);
}

int machine_resume_now(struct mull_machine *m, struct mull_error *err)
{
    if (m->state == MULL_MACHINE_RUNNING)
        return 0;
    if (m->state != MULL_MACHINE_PAUSED)
        return mull_fail(err, EINVAL, "machine %s: not paused", m->name);
    if (m->debug.held && m->debug.attached)
        return mull_fail(err, EBUSY, "machine %s: a debugger holds it", m->name);
    m->debug.held = false;
    pthread_mutex_lock(&m->lock);
    *m->paused_by = '\0';
    pthread_mutex_unlock(&m->lock);
    mull_clock_resume(m->clock);
    machine_devices(m, MACHINE_RESUME);
    for (unsigned i = 0; i < MULL_CONFIG_DISKS; i++)
        if (m->block[i])
            mull_block_retry(m->block[i]);
    pthread_mutex_lock(&m->lock);
    m->state = MULL_MACHINE_RUNNING;
    pthread_mutex_unlock(&m->lock);
    machine_release_vcpus(m);
    return 0;
}

static int power_button_now(struct mull_machine *m, struct mull_error *err)
{
    if (m->state != MULL_MACHINE_RUNNING)
        return mull_fail(err, EINVAL, "machine %s: not running", m->name);
    mull_platform_power_button(m->platform);
    return 0;
}

int mull_machine_start(struct mull_machine *m, struct mull_error *err)
{
    if (!m->loop_running) {
        int ret = make_thread(&m->loop_thread, loop_main, m, IO_STACK, "io", err);
        if (ret)
            return ret;
        m->loop_running = true;
    }
    return call(m, start_now, err);
}

int mull_machine_pause(struct mull_machine *m, struct mull_error *err)
{
    return call(m, machine_pause_now, err);
}

int mull_machine_resume(struct mull_machine *m, struct mull_error *err)
{
    return call(m, machine_resume_now, err);
}

int mull_machine_reset(struct mull_machine *m, struct mull_error *err)
{
    return call(m, reset_now, err);
}

int mull_machine_power_button(struct mull_machine *m, struct mull_error *err)
{
    return call(m, power_button_now, err);
}

void mull_machine_stop(struct mull_machine *m)
{
    note_end(m, MULL_END_STOPPED, NULL);
    call(m, end_now, NULL);
}

enum mull_machine_end mull_machine_wait(struct mull_machine *m, struct mull_error *err)
{
    pthread_mutex_lock(&m->lock);
    while (m->state != MULL_MACHINE_ENDED)
        pthread_cond_wait(&m->changed, &m->lock);
    enum mull_machine_end end = m->end;
    if (err)
        *err = m->end_error;
    pthread_mutex_unlock(&m->lock);
    return end;
}

void mull_machine_info(struct mull_machine *m, struct mull_machine_info *info)
{
    unsigned cpus = 0;
    pthread_mutex_lock(&m->lock);
    for (unsigned i = 0; i < m->cpus; i++)
        cpus += m->vcpu[i].there;
    *info = (struct mull_machine_info){
        .state = m->state,
        .end = m->end,
        .name = m->name,
        .engine = m->engine->name,
        .engine_why = m->engine_why,
        .kernel = m->boot ? mull_boot_version(m->boot) : "",
        .cpus = cpus,
        .memory = m->memory_size + mull_machine_dimms(m),
        .guest_ns = mull_clock_now(m->clock),
        .resets = m->resets,
        .exit_value = m->exit_value,
    };
    memcpy(info->paused_by, m->paused_by, sizeof(info->paused_by));
    pthread_mutex_unlock(&m->lock);
}

void mull_machine_stats(struct mull_machine *m,
                        void (*fn)(void *opaque, unsigned cpu, const char *name, uint64_t value),
                        void *opaque)
{
    enum { MAX = 64 };
    const char *names[MAX];
    uint64_t values[MAX];
    for (unsigned i = 0; i < m->cpus && m->engine->vcpu_stats; i++) {
        unsigned n = m->engine->vcpu_stats(m->vcpu[i].vcpu, names, values, MAX);
        for (unsigned j = 0; j < n && j < MAX && names[j]; j++)
            fn(opaque, i, names[j], values[j]);
    }
}

const struct mull_screen *mull_machine_screen(struct mull_machine *m)
{
    return m->screen;
}

struct mull_input *mull_machine_input(struct mull_machine *m)
{
    return m->input.ps2 || m->input.sinks ? &m->input : NULL;
}

struct mull_device *mull_machine_tools(struct mull_machine *m)
{
    return m->tools;
}

struct mull_device *mull_machine_balloon(struct mull_machine *m)
{
    return m->balloon;
}

struct mull_loop *mull_machine_loop(struct mull_machine *m)
{
    return m->loop;
}

void mull_machine_halt(struct mull_machine *m)
{
    if (!m || !m->loop_running)
        return;
    mull_machine_stop(m);
    for (unsigned i = 0; i < m->cpus; i++)
        if (m->vcpu[i].started)
            pthread_join(m->vcpu[i].thread, NULL);
    mull_loop_stop(m->loop);
    pthread_join(m->loop_thread, NULL);
    m->loop_running = false;
}

void mull_machine_destroy(struct mull_machine *m)
{
    if (!m)
        return;
    mull_machine_halt(m);
    machine_disassemble(m);
    pthread_cond_destroy(&m->changed);
    pthread_mutex_destroy(&m->lock);
    mull_input_fini(&m->input);
    free(m);
}
