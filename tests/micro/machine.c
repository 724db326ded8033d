/*
 * The machine of machine.h: makes it, runs each vCPU in a thread of its own with a time limit, and
 * takes it apart and together again where the guest asks to be moved.
 */
#include "frame.h"
#include "pc.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define TIME_LIMIT_S 60
#define LATER_NS 3000000
#define RESTLESS_MOVES 100

/* ---- The log ---- */

static void log_value(struct micro_machine *m, uint64_t value)
{
    if (m->log_count < MICRO_LOG_MAX)
        m->log[m->log_count++] = value;
}

static void log_access(struct micro_machine *m, unsigned kind, unsigned size, uint64_t offset,
                       uint64_t value)
{
    pthread_mutex_lock(&m->lock);
    log_value(m, MICRO_LOG_ACCESS(kind, size, offset));
    log_value(m, value);
    pthread_mutex_unlock(&m->lock);
}

/* ---- Interrupts and signals ---- */

static void stop_all(struct micro_machine *m)
{
    for (unsigned i = 0; i < m->cpus; i++)
        m->engine->vcpu_signal(m->vcpu[i], MULL_SIGNAL_STOP, 0);
}

static void raise_irq(struct micro_machine *m, unsigned vector)
{
    atomic_store(&m->irq, (int)vector);
    if (m->lapics)
        mull_lapics_lint0(m->lapics, true);
    m->engine->vcpu_signal(m->vcpu[0], MULL_SIGNAL_IRQ, 0);
}

static void send_msi(struct micro_machine *m, uint32_t data)
{
    if (data >> 15 & 1) { /* level-triggered: the I/O APIC wants to hear of its end */
        m->eoi_vectors[(data & 0xff) / 64] |= 1ull << (data % 64);
        if (m->engine->eoi_vectors)
            m->engine->eoi_vectors(m->vm, m->eoi_vectors);
    }
    if (m->lapics)
        mull_lapics_msi(m->lapics, 0xfee00000, data);
    else
        m->engine->msi(m->vm, 0xfee00000, data);
}

struct later {
    struct micro_machine *m;
    unsigned port, value;
};

static void *later_thread(void *opaque)
{
    struct later *l = opaque;
    const struct timespec wait = {.tv_nsec = LATER_NS};

    nanosleep(&wait, NULL);
    switch (l->port) {
    case MICRO_PORT_IRQ_LATER:
        raise_irq(l->m, l->value);
        break;
    case MICRO_PORT_NMI_LATER:
        l->m->engine->vcpu_signal(l->m->vcpu[l->value % l->m->cpus], MULL_SIGNAL_NMI, 0);
        break;
    case MICRO_PORT_MOVE_LATER:
        l->m->move = true;
        stop_all(l->m);
        break;
    }
    free(l);
    return NULL;
}

static void do_later(struct micro_machine *m, unsigned port, unsigned value)
{
    struct later *l = malloc(sizeof(*l));

    if (!l || m->laters == sizeof(m->later) / sizeof(m->later[0])) {
        free(l);
        return;
    }
    *l = (struct later){.m = m, .port = port, .value = value};
    if (pthread_create(&m->later[m->laters], NULL, later_thread, l))
        free(l);
    else
        m->laters++;
}

static void join_laters(struct micro_machine *m)
{
    while (m->laters)
        pthread_join(m->later[--m->laters], NULL);
}

/* ---- Ports and MMIO ---- */

static uint64_t control_read(void *opaque, unsigned cpu, uint64_t offset, unsigned size)
{
    struct micro_machine *m = opaque;

    if (offset + 0xe0 == MICRO_PORT_FRAME && m->frame)
        return micro_frame_found(m);
    return offset + 0xe0 == MICRO_PORT_CPU ? cpu : 0xff;
}

/* A device's access: the engine hears of it only through the memory. */
static void add_one(struct micro_machine *m, uint64_t gpa)
{
    uint32_t number;

    if (!mull_mem_read(m->memory, gpa, &number, sizeof(number))) {
        number++;
        mull_mem_write(m->memory, gpa, &number, sizeof(number));
    }
}

static void control_write(void *opaque, unsigned cpu, uint64_t offset, unsigned size,
                          uint64_t value)
{
    struct micro_machine *m = opaque;
    unsigned port = 0xe0 + (unsigned)offset;

    switch (port) {
    case MICRO_PORT_LOG_LOW:
        m->log_low[cpu] = (uint32_t)value;
        break;
    case MICRO_PORT_LOG_HIGH:
        value = value << 32 | m->log_low[cpu];
        /* fall through */
    case MICRO_PORT_LOG:
        pthread_mutex_lock(&m->lock);
        log_value(m, value);
        pthread_mutex_unlock(&m->lock);
        if (m->restless && m->moves < RESTLESS_MOVES && m->log_count % 3 == 0) {
            m->move = true;
            stop_all(m);
        }
        break;
    case MICRO_PORT_DMA:
        add_one(m, value);
        break;
    case MICRO_PORT_DONE:
        m->done = true;
        stop_all(m);
        break;
    case MICRO_PORT_IRQ:
        raise_irq(m, (unsigned)value);
        break;
    case MICRO_PORT_NMI:
        m->engine->vcpu_signal(m->vcpu[value % m->cpus], MULL_SIGNAL_NMI, 0);
        break;
    case MICRO_PORT_INIT:
        m->engine->vcpu_signal(m->vcpu[value % m->cpus], MULL_SIGNAL_INIT, 0);
        break;
    case MICRO_PORT_SIPI:
        m->engine->vcpu_signal(m->vcpu[(value & 0xff) % m->cpus], MULL_SIGNAL_SIPI,
                               (unsigned)value >> 8);
        break;
    case MICRO_PORT_FRAME:
        if (m->frame)
            micro_frame_do(m, (unsigned)value);
        break;
    case MICRO_PORT_LINE:
        if (m->pc)
            micro_pc_line(m, (unsigned)value);
        break;
    case MICRO_PORT_MSI:
        send_msi(m, (uint32_t)value);
        break;
    case MICRO_PORT_MOVE:
        if (m->other) {
            m->move = true;
            stop_all(m);
        }
        break;
    case MICRO_PORT_MOVE_LATER:
        if (!m->other)
            break;
        /* fall through */
    case MICRO_PORT_IRQ_LATER:
    case MICRO_PORT_NMI_LATER:
        do_later(m, port, (unsigned)value);
        break;
    }
}

static uint64_t device_value(const uint8_t *at, unsigned size)
{
    uint64_t value = 0;

    memcpy(&value, at, size);
    return value;
}

static uint64_t port_read(void *opaque, unsigned cpu, uint64_t offset, unsigned size)
{
    struct micro_machine *m = opaque;
    uint64_t value = device_value(m->device[0] + offset, size);

    log_access(m, MICRO_PORT_READ, size, offset, value);
    return value;
}

static void port_write(void *opaque, unsigned cpu, uint64_t offset, unsigned size, uint64_t value)
{
    struct micro_machine *m = opaque;

    memcpy(m->device[0] + offset, &value, size);
    log_access(m, MICRO_PORT_WRITE, size, offset, value);
}

static uint64_t mmio_read(void *opaque, unsigned cpu, uint64_t offset, unsigned size)
{
    struct micro_machine *m = opaque;
    uint64_t value = device_value(m->device[1] + offset, size);

    log_access(m, MICRO_MMIO_READ, size, offset, value);
    return value;
}

static void mmio_write(void *opaque, unsigned cpu, uint64_t offset, unsigned size, uint64_t value)
{
    struct micro_machine *m = opaque;

    memcpy(m->device[1] + offset, &value, size);
    log_access(m, MICRO_MMIO_WRITE, size, offset, value);
}

static const struct mull_region_ops control_ops = {control_read, control_write, 1, 4};
static const struct mull_region_ops port_ops = {port_read, port_write, 1, 4};
static const struct mull_region_ops mmio_ops = {mmio_read, mmio_write, 1, 8};

/* ---- The bus ---- */

static int extint_pending(void *opaque)
{
    struct micro_machine *m = opaque;

    if (m->pc)
        return micro_pc_pending(m);
    return atomic_load_explicit(&m->irq, memory_order_relaxed);
}

static int extint_accept(void *opaque)
{
    struct micro_machine *m = opaque;

    if (m->pc)
        return micro_pc_accept(m);
    int vector = atomic_exchange(&m->irq, -1);

    if (m->lapics)
        mull_lapics_lint0(m->lapics, false);
    return vector;
}

static int bus_irq_pending(void *opaque, unsigned cpu)
{
    struct micro_machine *m = opaque;

    if (m->lapics)
        return mull_lapic_pending(m->lapics, cpu);
    return cpu ? -1 : extint_pending(m);
}

static int bus_irq_accept(void *opaque, unsigned cpu)
{
    struct micro_machine *m = opaque;

    if (m->lapics)
        return mull_lapic_accept(m->lapics, cpu);
    return cpu ? -1 : extint_accept(m);
}

static uint8_t bus_cr8_read(void *opaque, unsigned cpu)
{
    return mull_lapic_cr8(((struct micro_machine *)opaque)->lapics, cpu);
}

static void bus_cr8_write(void *opaque, unsigned cpu, uint8_t value)
{
    mull_lapic_set_cr8(((struct micro_machine *)opaque)->lapics, cpu, value);
}

static int bus_msr_read(void *opaque, unsigned cpu, uint32_t msr, uint64_t *value)
{
    struct micro_machine *m = opaque;

    if (msr == MICRO_MSR) {
        *value = m->bus_msr;
        return 0;
    }
    return m->lapics ? mull_lapic_msr_read(m->lapics, cpu, msr, value) : -1;
}

static int bus_msr_write(void *opaque, unsigned cpu, uint32_t msr, uint64_t value)
{
    struct micro_machine *m = opaque;

    if (msr == MICRO_MSR) {
        m->bus_msr = value;
        return 0;
    }
    return m->lapics ? mull_lapic_msr_write(m->lapics, cpu, msr, value) : -1;
}

static void bus_eoi(void *opaque, uint8_t vector)
{
    struct micro_machine *m = opaque;

    if (m->pc) {
        micro_pc_eoi(m, vector);
        return;
    }
    if (!(m->eoi_vectors[vector / 64] >> (vector % 64) & 1))
        return;
    pthread_mutex_lock(&m->lock);
    log_value(m, MICRO_LOG_EOI(vector));
    pthread_mutex_unlock(&m->lock);
}

static void bus_state_get(void *opaque, unsigned cpu, struct mull_cpu_state *s)
{
    struct micro_machine *m = opaque;

    if (m->lapics)
        mull_lapic_state_get(m->lapics, cpu, s);
}

static void bus_state_set(void *opaque, unsigned cpu, const struct mull_cpu_state *s)
{
    struct micro_machine *m = opaque;

    if (m->lapics)
        mull_lapic_state_set(m->lapics, cpu, s);
}

static void bus_cpu_init(void *opaque, unsigned cpu)
{
    struct micro_machine *m = opaque;

    if (m->lapics)
        mull_lapic_init(m->lapics, cpu);
}

static void bus_tsc_offset(void *opaque, unsigned cpu, uint64_t offset)
{
    struct micro_machine *m = opaque;

    if (m->lapics)
        mull_lapic_tsc_offset(m->lapics, cpu, offset);
}

static void lapics_signal(void *opaque, unsigned cpu, enum mull_signal signal, unsigned arg)
{
    struct micro_machine *m = opaque;

    if (m->vcpu[cpu])
        m->engine->vcpu_signal(m->vcpu[cpu], signal, arg);
}

static int make_lapics(struct micro_machine *m, struct mull_error *err)
{
    const struct mull_lapics_config config = {
        .memory = m->memory,
        .loop = m->loop,
        .clock = m->clock,
        .cpus = m->cpus,
        .opaque = m,
        .signal = lapics_signal,
        .eoi = bus_eoi,
        .extint_pending = extint_pending,
        .extint_accept = extint_accept,
    };

    return mull_lapics_create(&config, &m->lapics, err);
}

static void *loop_thread(void *opaque)
{
    mull_loop_run(opaque);
    return NULL;
}

static void start_loop(struct micro_machine *m)
{
    if (pthread_create(&m->loop_thread, NULL, loop_thread, m->loop))
        abort();
}

static void stop_loop(struct micro_machine *m)
{
    mull_loop_stop(m->loop);
    pthread_join(m->loop_thread, NULL);
}

/* ---- Start states ---- */

static struct mull_segment flat(uint16_t selector, uint32_t attr)
{
    return (struct mull_segment){.limit = 0xffffffff, .attr = attr, .selector = selector};
}

static void lapic_word(struct mull_cpu_state *s, unsigned offset, uint32_t value)
{
    memcpy(s->lapic + offset, &value, sizeof(value));
}

static void start_state(struct mull_cpu_state *s, enum micro_start start)
{
    /* As firmware leaves the boot processor: LINT0 is the 8259's line, LINT1 the NMI. */
    lapic_word(s, 0xf0, 0x1ff);
    lapic_word(s, 0x350, 0x700);
    lapic_word(s, 0x360, 0x400);
    if (start == MICRO_REAL) {
        s->seg[MULL_CS].selector = MICRO_LOAD >> 4;
        s->seg[MULL_CS].base = MICRO_LOAD;
        s->rip = 0;
        s->cr0 = 0x10;
        s->gpr[MULL_RSP] = 0x8000;
        return;
    }
    for (unsigned i = 0; i < 6; i++)
        s->seg[i] = flat(0x18, 0xc093);
    s->rip = MICRO_LOAD;
    s->gpr[MULL_RDX] = 0;
    if (start == MICRO_PVH) { /* Xen's "PVH direct boot": docs/misc/pvh.pandoc */
        s->seg[MULL_CS] = flat(0x08, 0xc09b);
        s->seg[MULL_TR] = (struct mull_segment){.limit = 0x67, .attr = 0x8b};
        s->cr0 = 0x11;
        s->gpr[MULL_RBX] = 0x9000;
        return;
    }
    s->seg[MULL_CS] = flat(0x10, 0xa09b);
    s->cr0 = 0x80010033; /* PG WP NE ET MP PE */
    s->cr3 = MICRO_TABLES;
    s->cr4 = 0x620;  /* OSXMMEXCPT OSFXSR PAE */
    s->efer = 0xd01; /* NXE LMA LME SCE */
}

static void put_entry(struct micro_machine *m, uint64_t table, unsigned index, uint64_t entry)
{
    mull_mem_load(m->memory, table + 8 * index, &entry, sizeof(entry));
}

/* 4 GiB identity-mapped, supervisor only: the first 2 MiB in small pages. */
static void make_tables(struct micro_machine *m)
{
    const uint64_t pml4 = MICRO_TABLES, pdpt = pml4 + 0x1000, pt = pdpt + 0x1000, pd = pt + 0x1000;

    put_entry(m, pml4, 0, pdpt | 7);
    for (unsigned i = 0; i < 4; i++)
        put_entry(m, pdpt, i, (pd + 0x1000 * i) | 7);
    for (unsigned i = 0; i < 2048; i++)
        put_entry(m, pd, i, i << 21 | 0xe3); /* large, D, A, writable, present */
    put_entry(m, pd, 0, pt | 7);
    for (unsigned i = 0; i < 512; i++)
        put_entry(m, pt, i, i << 12 | 0x63);
}

/* For cpuid.S: which leaves to ask for. */
static void put_cpuid(struct micro_machine *m)
{
    uint64_t at = MICRO_CPUID_LIST + 8;

    mull_mem_write32(m->memory, MICRO_CPUID_LIST, m->cpuid->count);
    for (unsigned i = 0; i < m->cpuid->count; i++, at += 8) {
        mull_mem_write32(m->memory, at, m->cpuid->entry[i].leaf);
        mull_mem_write32(m->memory, at + 4, m->cpuid->entry[i].subleaf);
    }
}

/* ---- Making and running it ---- */

static int make_engine_side(struct micro_machine *m, const struct mull_cpu_state *states,
                            struct mull_error *err)
{
    const struct mull_vm_config config = {
        .memory = m->memory,
        .clock = m->clock,
        .bus = &m->bus,
        .log = &m->log_handle,
        .cpus = m->cpus,
    };
    int r = m->engine->vm_create(&config, &m->vm, err);

    if (!r && !m->engine->has_lapic)
        r = make_lapics(m, err);
    for (unsigned i = 0; !r && i < m->cpus; i++)
        r = m->engine->vcpu_create(m->vm, i, m->cpuid, &m->vcpu[i], err);
    for (unsigned i = 0; !r && i < m->cpus; i++)
        r = m->engine->vcpu_set(m->vcpu[i], &states[i], err);
    if (!r && m->engine->eoi_vectors)
        m->engine->eoi_vectors(m->vm, m->eoi_vectors);
    if (!r && m->lapics && !m->pc)
        mull_lapics_lint0(m->lapics, atomic_load(&m->irq) >= 0);
    if (!r && m->pc)
        micro_pc_resume(m);
    return r;
}

/* The loop does not run: its timers call into local APICs and chips, and those signal vCPUs. */
static void drop_engine_side(struct micro_machine *m)
{
    if (m->lapics)
        mull_lapics_destroy(m->lapics);
    m->lapics = NULL;
    for (unsigned i = 0; i < MICRO_CPUS; i++) {
        if (m->vcpu[i])
            m->engine->vcpu_destroy(m->vcpu[i]);
        m->vcpu[i] = NULL;
    }
    if (m->vm)
        m->engine->vm_destroy(m->vm);
    m->vm = NULL;
}

struct runner {
    struct micro_machine *m;
    unsigned cpu;
};

static void *run_thread(void *opaque)
{
    struct runner *r = opaque;
    struct micro_machine *m = r->m;

    m->engine->vcpu_run(m->vcpu[r->cpu], &m->exit[r->cpu]);
    if (m->exit[r->cpu].reason != MULL_EXIT_STOPPED)
        stop_all(m);
    return NULL;
}

/* Stops the machine for a move after a moment, each time another. */
struct disturber {
    struct micro_machine *m;
    pthread_mutex_t lock;
    pthread_cond_t end;
    bool ended;
};

static void *disturb(void *opaque)
{
    struct disturber *d = opaque;
    struct timespec when;

    clock_gettime(CLOCK_REALTIME, &when);
    when.tv_nsec += 10000 + (d->m->moves * 7919ll % 37) * 30000;
    if (when.tv_nsec >= 1000000000) {
        when.tv_nsec -= 1000000000;
        when.tv_sec++;
    }
    pthread_mutex_lock(&d->lock);
    while (!d->ended && !pthread_cond_timedwait(&d->end, &d->lock, &when))
        ;
    if (!d->ended) {
        d->m->move = true;
        stop_all(d->m);
    }
    pthread_mutex_unlock(&d->lock);
    return NULL;
}

static void start_disturber(struct disturber *d, pthread_t *thread)
{
    pthread_mutex_init(&d->lock, NULL);
    pthread_cond_init(&d->end, NULL);
    if (pthread_create(thread, NULL, disturb, d))
        abort();
}

static void end_disturber(struct disturber *d, pthread_t thread)
{
    pthread_mutex_lock(&d->lock);
    d->ended = true;
    pthread_cond_signal(&d->end);
    pthread_mutex_unlock(&d->lock);
    pthread_join(thread, NULL);
    pthread_cond_destroy(&d->end);
    pthread_mutex_destroy(&d->lock);
}

/* Run all vCPUs until each has come back. @return false: one did not in time. */
static bool run_all(struct micro_machine *m)
{
    struct runner runner[MICRO_CPUS];
    struct timespec limit;
    bool in_time = true;

    for (unsigned i = 0; i < m->cpus; i++) {
        runner[i] = (struct runner){m, i};
        if (pthread_create(&m->thread[i], NULL, run_thread, &runner[i]))
            abort();
    }
    clock_gettime(CLOCK_REALTIME, &limit);
    limit.tv_sec += TIME_LIMIT_S;
    for (unsigned i = 0; i < m->cpus; i++) {
        if (!pthread_timedjoin_np(m->thread[i], NULL, &limit))
            continue;
        in_time = false;
        stop_all(m);
        limit.tv_sec += 5;
        if (pthread_timedjoin_np(m->thread[i], NULL, &limit)) {
            fprintf(stderr, "%s on %s: vCPU %u does not even stop\n", m->guest->name,
                    m->engine->name, i);
            _exit(99);
        }
    }
    return in_time;
}

static int make_memory(struct micro_machine *m, struct mull_error *err)
{
    int r = mull_memory_create(&m->log_handle, &m->memory, err);

    if (!r)
        r = mull_memory_add_ram(m->memory, 0, MICRO_RAM_SIZE, false, err);
    if (!r)
        r = mull_region_add(m->memory, MULL_SPACE_PORT, 0xe0, 0x20, &control_ops, m, "control",
                            NULL, err);
    if (!r)
        r = mull_region_add(m->memory, MULL_SPACE_PORT, MICRO_PORT_DEVICE, 16, &port_ops, m,
                            "device ports", NULL, err);
    if (!r)
        r = mull_region_add(m->memory, MULL_SPACE_MMIO, MICRO_MMIO, 4096, &mmio_ops, m,
                            "device MMIO", NULL, err);
    if (!r && m->guest->frame)
        r = micro_frame_create(m, err);
    if (!r && m->guest->pc)
        r = micro_pc_create(m, err);
    return r;
}

/* ---- Moving: through a save stream into new memory and a new VM ---- */

static int save(struct micro_machine *m, struct mull_cpu_state *states, struct mull_state_writer *w,
                struct mull_error *err)
{
    int r = 0;

    for (unsigned i = 0; !r && i < m->cpus; i++)
        r = mull_state_write(w, "cpu", i, &mull_cpu_state_desc, &states[i], err);
    if (!r && m->pc)
        r = micro_pc_save(m, w, err);
    if (!r)
        r = mull_state_write_ram(w, m->memory, err);
    if (!r)
        r = mull_state_write_end(w, err);
    return r;
}

static int load(struct micro_machine *m, struct mull_cpu_state *states,
                struct mull_state_reader *reader, struct mull_error *err)
{
    struct mull_state_section section;
    int r;

    while ((r = mull_state_next(reader, &section, err)) > 0) {
        if (section.kind == MULL_STATE_RAM)
            r = mull_state_read_ram(reader, m->memory, err);
        else if (strcmp(section.name, "cpu") && m->pc)
            r = micro_pc_load(m, reader, &section, err);
        else if (section.id < m->cpus)
            r = mull_state_read(reader, &mull_cpu_state_desc, &states[section.id], err);
        if (r)
            break;
    }
    return r;
}

static int move_at_rest(struct micro_machine *m, struct mull_cpu_state *states, struct mull_error *err)
{
    struct mull_state_writer *w = NULL;
    struct mull_state_reader *reader = NULL;
    const uint8_t *data;
    size_t size;
    int r = mull_state_writer_buffer(&w, err);

    drop_engine_side(m);
    if (!r)
        r = save(m, states, w, err);
    micro_pc_destroy(m);
    micro_frame_remove(m);
    mull_memory_destroy(m->memory);
    m->memory = NULL;
    memset(states, 0xa5, m->cpus * sizeof(*states));
    mull_clock_pause(m->clock); /* the TSC must go on from here, not with the host's */
    if (!r)
        r = make_memory(m, err);
    mull_clock_resume(m->clock);
    if (!r) {
        data = mull_state_writer_data(w, &size);
        r = mull_state_reader_buffer(data, size, &reader, err);
    }
    if (!r)
        r = load(m, states, reader, err);
    mull_state_reader_destroy(reader);
    mull_state_writer_destroy(w);
    if (!r && m->other)
        m->engine = m->engine == m->other ? m->first : m->other;
    return r ? r : make_engine_side(m, states, err);
}

static int move(struct micro_machine *m, struct mull_cpu_state *states, struct mull_error *err)
{
    stop_loop(m);
    int r = move_at_rest(m, states, err);
    start_loop(m);
    return r;
}

static void run_to_the_end(struct micro_machine *m, struct mull_cpu_state *states)
{
    struct mull_error err = {0};

    while (!m->failure[0]) {
        struct disturber disturber = {.m = m};
        pthread_t thread;
        bool in_time;

        if (m->restless && m->moves < RESTLESS_MOVES)
            start_disturber(&disturber, &thread);
        in_time = run_all(m);
        if (m->restless && m->moves < RESTLESS_MOVES)
            end_disturber(&disturber, thread);

        join_laters(m);
        for (unsigned i = 0; i < m->cpus; i++) {
            if (m->engine->vcpu_get(m->vcpu[i], &states[i], &err))
                snprintf(m->failure, sizeof(m->failure), "%s", err.message);
            if (m->exit[i].reason == MULL_EXIT_FAILED)
                snprintf(m->failure, sizeof(m->failure), "%s", m->exit[i].error.message);
        }
        if (!in_time && !m->failure[0])
            snprintf(m->failure, sizeof(m->failure),
                     "no end in %d s: vCPU 0 at RIP %#llx RFLAGS %#llx, state %u, shadow %u, "
                     "interrupt %d injected %d, irq line %d",
                     TIME_LIMIT_S, (unsigned long long)states[0].rip,
                     (unsigned long long)states[0].rflags, states[0].mp_state,
                     states[0].interrupt_shadow, states[0].interrupt_vector,
                     states[0].interrupt_injected, m->irq);
        if (m->done || !m->move || m->failure[0])
            return;
        m->move = false;
        m->moves++;
        if (move(m, states, &err))
            snprintf(m->failure, sizeof(m->failure), "moving: %s", err.message);
    }
}

static void collect(struct micro_machine *m, struct micro_result *result)
{
    result->reason = m->exit[0].reason;
    for (unsigned i = 0; i < m->cpus; i++)
        if (m->exit[i].reason == MULL_EXIT_SHUTDOWN)
            result->reason = MULL_EXIT_SHUTDOWN;
    memcpy(result->failure, m->failure, sizeof(result->failure));
    result->moves = m->moves;
    result->log_count = m->log_count;
    memcpy(result->log, m->log, sizeof(result->log));
    result->ram = malloc(MICRO_RAM_SIZE);
    if (result->ram && m->memory)
        mull_mem_read(m->memory, 0, result->ram, MICRO_RAM_SIZE);
}

static int make_machine(struct micro_machine *m, struct mull_cpu_state *states,
                        struct mull_error *err)
{
    int r = mull_clock_create(&m->clock, err);

    atomic_store(&m->irq, -1);
    if (!r)
        r = mull_loop_create(&m->loop, err);
    if (r)
        return r;
    start_loop(m);
    r = make_memory(m, err);
    if (r)
        return r;
    make_tables(m);
    if (m->guest->cpuid)
        put_cpuid(m);
    mull_mem_load(m->memory, MICRO_LOAD, m->guest->code, *m->guest->code_size);
    for (unsigned i = 0; i < m->cpus; i++) {
        mull_cpu_state_reset(&states[i], i, i == 0);
    }
    start_state(&states[0], m->guest->start);
    return make_engine_side(m, states, err);
}

void micro_run(const struct micro_guest *guest, const struct mull_engine *engine,
               const struct mull_engine *other, bool restless, const struct mull_cpuid *cpuid,
               struct micro_result *result)
{
    struct micro_machine *m = calloc(1, sizeof(*m));
    struct mull_error err = {0};

    if (!m)
        abort();
    m->guest = guest;
    m->engine = engine;
    m->cpuid = cpuid;
    m->cpus = guest->cpus ? guest->cpus : 1;
    m->first = engine;
    m->other = other;
    m->restless = restless;
    m->log_handle.level = getenv("MICRO_DEBUG") ? MULL_LOG_DEBUG : MULL_LOG_WARN;
    pthread_mutex_init(&m->lock, NULL);
    m->bus = (struct mull_engine_bus){
        .opaque = m,
        .irq_pending = bus_irq_pending,
        .irq_accept = bus_irq_accept,
        .cr8_read = bus_cr8_read,
        .cr8_write = bus_cr8_write,
        .msr_read = bus_msr_read,
        .msr_write = bus_msr_write,
        .eoi = bus_eoi,
        .state_get = bus_state_get,
        .state_set = bus_state_set,
        .cpu_init = bus_cpu_init,
        .tsc_offset = bus_tsc_offset,
    };
    memset(result, 0, sizeof(*result));
    if (make_machine(m, result->state, &err))
        snprintf(m->failure, sizeof(m->failure), "%s", err.message);
    else
        run_to_the_end(m, result->state);
    collect(m, result);
    if (m->loop)
        stop_loop(m);
    drop_engine_side(m);
    micro_pc_destroy(m);
    micro_frame_destroy(m);
    if (m->loop)
        mull_loop_destroy(m->loop);
    if (m->memory)
        mull_memory_destroy(m->memory);
    if (m->clock)
        mull_clock_destroy(m->clock);
    pthread_mutex_destroy(&m->lock);
    free(m);
}
