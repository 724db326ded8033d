/*
 * The dispatcher of the soft engine: events between instructions, the ways out of translated code,
 * single steps in C where there is no translation. Built for general registers only, because the
 * guest's vector state is in the host's registers most of the time.
 */
#include <errno.h>

#include "engine/soft/cache.h"
#include "engine/soft/cell.h"
#include "engine/soft/exec.h"
#include "engine/soft/monitor.h"
#include "engine/soft/run.h"
#include "engine/soft/wait.h"

struct decoded {
    uint64_t gpa;
    uint32_t bits; /* 0: empty */
    uint32_t same; /* times it was used and had not changed */
    struct soft_insn insn;
};

/* Instructions in C that are executed again and again: MMIO, page crossings, 16-bit code. */
#define DECODED_ENTRIES 1024

/* Where a host address is in translated code: sites that miss do it again and again. */
struct found {
    const uint8_t *host; /* NULL: empty */
    struct soft_block *block;
    uint64_t flushes; /* of the cache then */
    unsigned insn;
};

#define FOUND_BITS 10
#define FOUND_ENTRIES (1u << FOUND_BITS)

struct soft_run_state {
    struct decoded decoded[DECODED_ENTRIES];
    struct found found[FOUND_ENTRIES];
};

size_t soft_run_state_size(void)
{
    return sizeof(struct soft_run_state);
}

/* ---- Flags ---- */

void soft_flags_from_glue(struct soft_cpu *cpu)
{
    uint64_t glue = cpu->spill[3];
    cpu->s.rflags = (cpu->s.rflags & ~SOFT_ARITH_FLAGS) | ((glue >> 8) & 0xd5) | ((glue & 1) << 11);
}

void soft_flags_to_glue(struct soft_cpu *cpu)
{
    cpu->spill[3] = (cpu->s.rflags & 0xd5) << 8 | ((cpu->s.rflags >> 11) & 1);
}

/* ---- Fetching and decoding one instruction ---- */

static enum soft_result fetch(struct soft_cpu *cpu, uint64_t va, uint8_t *buf, unsigned from,
                              unsigned want, unsigned *got, uint64_t *gpa)
{
    struct soft_page page;
    enum soft_result r = soft_translate(cpu, va, SOFT_EXEC, &page);
    if (r != SOFT_NEXT)
        return r;

    unsigned n = (unsigned)(MULL_PAGE_SIZE - (va & ~MULL_PAGE_MASK));
    if (n > want - from)
        n = want - from;
    /* Nobody there: the bus floats high. */
    for (unsigned i = 0; i < n; i++)
        buf[from + i] = page.host ? page.host[i] : 0xff;
    *got = from + n;
    if (gpa)
        *gpa = page.gpa;
    return SOFT_NEXT;
}

static unsigned code_bits(const struct soft_cpu *cpu)
{
    return cpu->mode & SOFT_MODE_CODE64 ? 64 : cpu->mode & SOFT_MODE_CODE32 ? 32 : 16;
}

/* Does the whole of it lie in the code segment? */
static enum soft_result check_end(struct soft_cpu *cpu, const struct soft_insn *in)
{
    uint64_t va;

    if (!(cpu->mode & (SOFT_MODE_CODE_64K | SOFT_MODE_CODE_ODD)))
        return SOFT_NEXT;
    return soft_linear(cpu, MULL_CS, cpu->s.rip, in->length, SOFT_EXEC, &va);
}

static struct decoded *decoded_at(struct soft_cpu *cpu, uint64_t gpa)
{
    struct soft_run_state *run = cpu->private_run;

    return &run->decoded[(gpa ^ gpa >> 10) & (DECODED_ENTRIES - 1)];
}

/* MOV of an immediate to a register, where only the immediate has changed: code that is rewritten
 * again and again changes mostly so. @same: how many bytes have not. */
static bool decode_immediate(struct soft_insn *in, const uint8_t *bytes, unsigned same)
{
    uint64_t value = 0;
    unsigned tail = in->native.tail, size = in->length - tail;

    if (!in->native.constant || !tail || same < tail || size > 8)
        return false;
    for (unsigned i = 0; i < size; i++) {
        in->bytes[tail + i] = bytes[tail + i];
        value |= (uint64_t)bytes[tail + i] << (8 * i);
    }
    in->op[1].value = soft_sign_extend(value, size);
    return true;
}

/* The decoded instruction at RIP; stays valid until the next call. */
static enum soft_result decode_at_rip(struct soft_cpu *cpu, const struct soft_insn **out)
{
    uint8_t bytes[15];
    unsigned got = 0;
    uint64_t gpa = 0, va;

    enum soft_result r = soft_linear(cpu, MULL_CS, cpu->s.rip, 1, SOFT_EXEC, &va);
    if (r != SOFT_NEXT)
        return r;
    r = fetch(cpu, va, bytes, 0, 15, &got, &gpa);
    if (r != SOFT_NEXT)
        return r;

    unsigned bits = code_bits(cpu);
    struct decoded *d = decoded_at(cpu, gpa);
    if (d->gpa == gpa && d->bits == bits && d->insn.length <= got) {
        unsigned i = 0;
        while (i < d->insn.length && d->insn.bytes[i] == bytes[i])
            i++;
        d->same = i == d->insn.length ? d->same + 1 : 0;
        if (i == d->insn.length || decode_immediate(&d->insn, bytes, i)) {
            *out = &d->insn;
            return check_end(cpu, &d->insn);
        }
    }

    soft_vectors_park(cpu);
    d->bits = 0;
    int e = soft_decode(&d->insn, bytes, got, bits);
    if (e == -EAGAIN && got < 15) {
        r = fetch(cpu, soft_next_page(cpu, va), bytes, got, 15, &got, NULL);
        if (r != SOFT_NEXT)
            return r;
        e = soft_decode(&d->insn, bytes, got, bits);
    }
    if (e == -EAGAIN) /* longer than 15 bytes */
        return soft_raise_error(cpu, SOFT_GP, 0);
    if (e < 0)
        return soft_raise(cpu, SOFT_UD);
    d->gpa = gpa;
    d->bits = bits;
    d->same = 0;
    *out = &d->insn;
    return check_end(cpu, &d->insn);
}

/* ---- Going on in translated code ---- */

/* Instructions that C executes one by one: no translation for this mode, or something to look at
 * after each. */
static bool must_step(const struct soft_cpu *cpu)
{
    if ((cpu->mode & SOFT_MODE_CODE_ODD) || cpu->s.interrupt_shadow || (cpu->s.rflags & SOFT_TF))
        return true;
    return (cpu->mode & SOFT_MODE_DEBUG) &&
           soft_debug_page_executes(cpu, soft_key_linear(cpu->mode, soft_code_key(cpu)));
}

/* @bits: what DR6 says of it. */
static enum soft_result debug_exception(struct soft_cpu *cpu, uint64_t bits)
{
    cpu->debug_hits = 0;
    soft_raise(cpu, SOFT_DB);
    cpu->fault.address = bits;
    return soft_deliver_fault(cpu);
}

/* An instruction in C ended with @r: the traps of its watches come now, unless it faulted (then
 * they did not happen) or loaded SS (then they come with the next one's). */
static enum soft_result take_watches(struct soft_cpu *cpu, enum soft_result r)
{
    if (r == SOFT_FAULT) {
        cpu->debug_hits = 0;
        cpu->debug_stop = false;
        return r;
    }
    if (cpu->debug_hits && (r == SOFT_NEXT || r == SOFT_JUMP) && cpu->s.interrupt_shadow != 2)
        return debug_exception(cpu, cpu->debug_hits);
    return r;
}

static bool interrupt_due(const struct soft_cpu *cpu)
{
    return !cpu->irq_clear && (cpu->s.rflags & SOFT_IF);
}

/* A jump table entry does not say for which mode its block was made: one mode a window. */
static void match_jump_table(struct soft_cpu *cpu)
{
    uint32_t mode = cpu->mode & SOFT_BLOCK_MODE;

    if (cpu->window[cpu->window_id]->jump_mode == mode)
        return;
    /* STAC and CLAC go between the kernel's two windows without coming here. */
    for (unsigned w = 0; w < SOFT_WIN_COUNT; w++) {
        if ((w == SOFT_WIN_USER) != (cpu->window_id == SOFT_WIN_USER))
            continue;
        cpu->window[w]->jump_mode = mode;
        soft_jump_clear(cpu, cpu->window[w]);
    }
}

/* Is it too early for a translation of code that is rewritten again and again? @along: C has just
 * executed the instruction in front of it, and goes on: a translation begins where a jump leads. */
static bool too_early(struct soft_cpu *cpu, uint64_t gpa, bool along)
{
    const struct decoded *d = decoded_at(cpu, gpa);
    bool same = d->gpa == gpa && d->bits == code_bits(cpu) && d->same >= SOFT_REWRITTEN_SAME;

    return soft_code_restless(cpu->vm->cache, gpa, same && !along);
}

/* The block at RIP, or NULL with *r: SOFT_NEXT (there is none: execute one instruction in C),
 * SOFT_FAULT. */
static struct soft_block *block_at_rip(struct soft_cpu *cpu, uint32_t plain, bool along,
                                       bool *global, enum soft_result *r)
{
    struct soft_cache *cache = cpu->vm->cache;
    uint32_t mode = (cpu->mode & SOFT_BLOCK_MODE) | plain;
    uint64_t key = soft_code_key(cpu), va;
    struct soft_page page, next;
    bool straddles = false;

    *r = soft_linear(cpu, MULL_CS, cpu->s.rip, 1, SOFT_EXEC, &va);
    if (*r != SOFT_NEXT)
        return NULL;
    *r = soft_translate(cpu, va, SOFT_EXEC, &page);
    if (*r != SOFT_NEXT || !page.host)
        return NULL;
    *global = page.global;
    struct soft_block *b = soft_block_find(cache, page.gpa, key, mode);
    if (!b) {
        if (!plain && too_early(cpu, page.gpa, along))
            return NULL;
        soft_vectors_park(cpu);
        b = soft_block_translate(cpu, &page, NULL, key, mode, &straddles);
    }
    if (!straddles && !(b && b->gpa_next))
        return b;

    /* One instruction across two pages: the second may be mapped elsewhere by now. */
    *r = soft_translate(cpu, soft_next_page(cpu, va), SOFT_EXEC, &next);
    if (*r != SOFT_NEXT || !next.host)
        return NULL;
    *global = page.global && next.global;
    if (b && b->gpa_next == next.gpa)
        return b;
    if (b)
        soft_block_drop(cache, b);
    soft_vectors_park(cpu);
    return soft_block_translate(cpu, &page, &next, key, mode, &straddles);
}

/* Put a block into the jump table; if it was dropped meanwhile, take it back. */
static void enter_jump_table(struct soft_cpu *cpu, const struct soft_block *b, bool global)
{
    uint64_t *slot = soft_jump_enter(cpu, cpu->window[cpu->window_id], b->rip,
                                     (uint64_t)(uintptr_t)b->indirect, b->gpa_next != 0, global);
    if (!atomic_load(&b->valid))
        __atomic_store_n(slot, cpu->jump_miss, __ATOMIC_SEQ_CST);
}

/* Where translated code goes on at RIP, or NULL: the dispatcher has something to do first.
 * @probe: the jump table may know (not after it was just found not to). */
static void *go(struct soft_cpu *cpu, bool probe)
{
    for (enum soft_result r = SOFT_JUMP;; probe = true) {
        const struct soft_insn *in;
        bool along = r == SOFT_NEXT, global;

        if (!__atomic_load_n(&cpu->run_ok, __ATOMIC_RELAXED) ||
            __atomic_load_n(&cpu->leave, __ATOMIC_RELAXED) || must_step(cpu) ||
            interrupt_due(cpu) || cpu->debug_hits || soft_debug_due(cpu))
            return NULL;
        cpu->s.rflags &= ~(uint64_t)SOFT_RF;
        match_jump_table(cpu);
        cpu->code_changed = false;

        if (probe) {
            uint64_t key = soft_code_key(cpu);
            uint64_t host = __atomic_load_n(
                &cpu->window[cpu->window_id]->jump[soft_jump_index(key)], __ATOMIC_RELAXED);
            if (host != cpu->jump_miss) {
                cpu->spill[0] = key; /* R10: the block verifies it */
                soft_flags_to_glue(cpu);
                if (!cpu->vectors_live)
                    soft_vectors_load(cpu);
                return (void *)(uintptr_t)host;
            }
        }
        struct soft_block *b = block_at_rip(cpu, 0, along, &global, &r);
        if (b) {
            cpu->stats.jump_misses++;
            enter_jump_table(cpu, b, global);
            soft_flags_to_glue(cpu);
            if (!cpu->vectors_live)
                soft_vectors_load(cpu);
            return b->body;
        }
        if (atomic_load(&cpu->vm->cache->flush_wanted))
            return NULL;
        if (r == SOFT_NEXT)
            r = decode_at_rip(cpu, &in);
        if (r == SOFT_NEXT)
            r = take_watches(cpu, soft_exec(cpu, in));
        if (r == SOFT_FAULT)
            r = soft_deliver_fault(cpu);
        if (r == SOFT_HALT || r == SOFT_STOP)
            return NULL;
    }
}

/* After an instruction of @block was executed in C with @r: go on at @next (translated code of the
 * instruction behind it, or NULL). The instruction may serialize: what another vCPU changed before
 * must not be executed behind it (SDM volume 3, "Cross-Modifying Code"), so a block that was
 * dropped ends here. */
static void *after_exec(struct soft_cpu *cpu, enum soft_result r, const struct soft_block *block,
                        uint8_t *next)
{
    r = take_watches(cpu, r);
    switch (r) {
    case SOFT_NEXT:
        if (!next || !atomic_load_explicit(&block->valid, memory_order_acquire) ||
            cpu->code_changed || cpu->s.interrupt_shadow)
            break;
        soft_flags_to_glue(cpu);
        if (!cpu->vectors_live)
            soft_vectors_load(cpu);
        return next;
    case SOFT_JUMP:
        break;
    case SOFT_FAULT:
        if (soft_deliver_fault(cpu) != SOFT_JUMP)
            return NULL;
        break;
    case SOFT_HALT:
    case SOFT_STOP:
        return NULL;
    }
    return go(cpu, true);
}

static struct soft_block *block_at_host(struct soft_cpu *cpu, const uint8_t *host, unsigned *insn)
{
    struct soft_run_state *run = cpu->private_run;
    struct soft_cache *cache = cpu->vm->cache;
    uintptr_t key = (uintptr_t)host;
    struct found *f = &run->found[key * 0x9e3779b97f4a7c15ull >> (64 - FOUND_BITS)];

    if (f->host != host || f->flushes != cache->flushes) {
        f->block = soft_block_at(cache, host, &f->insn);
        f->host = host;
        f->flushes = cache->flushes;
    }
    *insn = f->insn;
    return f->block;
}

/* Execute in C the instruction whose translated code holds @host. @resume: go on behind it in its
 * block, where it shares nothing with the next. */
static void *exec_at_host(struct soft_cpu *cpu, const uint8_t *host, bool resume)
{
    const struct soft_insn *in;
    unsigned i;
    struct soft_block *b = block_at_host(cpu, host, &i);

    cpu->s.rip = soft_block_rip(b, i);
    soft_flags_from_glue(cpu);
    resume &= i + 1u < b->insns;
    uint8_t *next = resume ? b->start + b->map[i + 1].host : NULL;

    enum soft_result r = decode_at_rip(cpu, &in);
    if (r == SOFT_NEXT)
        r = soft_exec(cpu, in);
    if (resume && b->map[i + 1].kept != SOFT_NOT_KEPT)
        cpu->spill[1] = cpu->s.gpr[b->map[i + 1].kept]; /* R11 */
    return after_exec(cpu, r, b, next);
}

/* The plain copy of @b from its instruction @i on, if there is one: where the one may go on the
 * other may, too, because both are of the same bytes of the same page. */
static struct soft_block *plain_copy(struct soft_cpu *cpu, const struct soft_block *b, unsigned i)
{
    uint64_t offset = (uint64_t)(int64_t)b->map[i].guest;
    struct soft_block *plain = soft_block_find(cpu->vm->cache, b->gpa + offset, b->rip + offset,
                                               b->mode | SOFT_BLOCK_PLAIN);

    return plain && !plain->gpa_next ? plain : NULL;
}

/* A window of several accesses cannot be had: go on in the plain copy of the code. */
static void *leave_window(struct soft_cpu *cpu, const uint8_t *host)
{
    enum soft_result r;
    unsigned i;
    bool global;
    struct soft_block *b = block_at_host(cpu, host, &i);

    cpu->s.rip = soft_block_rip(b, i);
    struct soft_block *plain = plain_copy(cpu, b, i);
    if (!plain)
        plain = block_at_rip(cpu, SOFT_BLOCK_PLAIN, false, &global, &r);
    if (!plain) {
        soft_flags_from_glue(cpu);
        return after_exec(cpu, r == SOFT_FAULT ? r : SOFT_JUMP, NULL, NULL);
    }
    if (!cpu->vectors_live)
        soft_vectors_load(cpu);
    return plain->body;
}

/* A cell has missed often. */
static void *settle_roaming(struct soft_cpu *cpu, uint8_t *retry, unsigned cell)
{
    unsigned i;

    if (soft_cell_roams(cpu, cell)) {
        struct soft_block *b = block_at_host(cpu, retry, &i);
        soft_block_roams(cpu->vm->cache, b, i);
    }
    if (!cpu->vectors_live)
        soft_vectors_load(cpu);
    return retry;
}

void *soft_on_miss(struct soft_cpu *cpu)
{
    uint64_t va = cpu->spill[0];
    uint8_t *retry = (uint8_t *)cpu->spill[1];
    unsigned size = cpu->spill[2] & 0xff;
    bool write = cpu->spill[2] & SOFT_MISS_WRITE;

    if (cpu->spill[2] & SOFT_MISS_SEGMENT)
        return exec_at_host(cpu, retry, true);
    if (cpu->spill[2] & SOFT_MISS_ROAMS)
        return settle_roaming(cpu, retry, (unsigned)(cpu->spill[2] >> SOFT_MISS_CELL));
    cpu->stats.tlb_misses++;
    if (soft_tlb_fill(cpu, va, size, write)) {
        if (!cpu->vectors_live)
            soft_vectors_load(cpu);
        return retry;
    }
    if (cpu->spill[2] & SOFT_MISS_WINDOW)
        return leave_window(cpu, retry);
    return exec_at_host(cpu, retry, true);
}

void *soft_on_exec(struct soft_cpu *cpu)
{
    const struct soft_site *site = (const struct soft_site *)cpu->spill[0];

    cpu->s.rip = site->rip;
    soft_flags_from_glue(cpu);
    return after_exec(cpu, soft_exec(cpu, &site->insn), site->block, site->next_host);
}

void *soft_on_jump(struct soft_cpu *cpu)
{
    cpu->s.rip = soft_key_rip(cpu->mode, cpu->spill[0]);
    soft_flags_from_glue(cpu);
    return go(cpu, false);
}

void *soft_on_poll(struct soft_cpu *cpu)
{
    cpu->stats.polls++;
    return soft_on_jump(cpu);
}

void *soft_on_chain(struct soft_cpu *cpu)
{
    struct soft_cache *cache = cpu->vm->cache;
    struct soft_edge *edge = (struct soft_edge *)cpu->spill[0];
    const struct soft_block *from = edge->from;
    uint32_t mode = (from->mode & ~SOFT_BLOCK_PLAIN) | (edge->plain ? SOFT_BLOCK_PLAIN : 0);

    cpu->s.rip = soft_key_rip(cpu->mode, edge->rip);
    soft_flags_from_glue(cpu);
    if (!__atomic_load_n(&cpu->run_ok, __ATOMIC_RELAXED) || soft_debug_due(cpu))
        return NULL;

    if (from->loops && edge->rip == from->rip && atomic_load(&from->valid) &&
        !soft_loop_taken(cache, edge)) {
        if (!cpu->vectors_live)
            soft_vectors_load(cpu);
        return from->polled;
    }

    /* The target is in the same page: its physical address follows from ours. */
    uint64_t gpa = from->gpa + (edge->rip - from->rip);
    struct soft_block *to = soft_block_find(cache, gpa, edge->rip, mode);
    if (!to && !edge->plain && too_early(cpu, gpa, false))
        return go(cpu, false);
    if (!to) {
        const struct mull_ram *ram = soft_find_ram(cpu->vm, gpa);
        struct soft_page page = {.gpa = gpa, .ram = ram};
        page.host = ram ? ram->host + (gpa - ram->gpa) : NULL;
        bool straddles;
        soft_vectors_park(cpu);
        if (page.host)
            to = soft_block_translate(cpu, &page, NULL, edge->rip, mode, &straddles);
    }
    if (!to || to->gpa_next)
        return go(cpu, false);
    cpu->stats.chains++;
    soft_edge_chain(cache, edge, to);
    if (!cpu->vectors_live)
        soft_vectors_load(cpu);
    return edge->polled ? to->polled : to->body;
}

void *soft_on_fault(struct soft_cpu *cpu)
{
    const uint8_t *again = cpu->fault_again;

    if (!again)
        return after_exec(cpu, SOFT_FAULT, NULL, NULL);
    cpu->fault_again = NULL;
    return exec_at_host(cpu, again, false); /* R10 had the window of the next ones, too */
}

/* ---- Events ---- */

void soft_signal(struct soft_cpu *cpu, enum mull_signal signal, unsigned arg)
{
    if (signal == MULL_SIGNAL_SIPI)
        atomic_store(&cpu->sipi_vector, (uint8_t)arg);
    atomic_fetch_or(&cpu->signals, (uint32_t)signal);
    soft_leave_code(cpu);
    soft_wait_wake(cpu);
}

/* INIT (SDM volume 3, 10.4.4): as after reset, but MSRs, vectors and caches stay; the boot
 * processor would run, all others wait for a start-up IPI. */
static void init_cpu(struct soft_cpu *cpu)
{
    soft_vectors_park(cpu);
    soft_monitor_reset(cpu);
    mull_cpu_state_reset(&cpu->s, cpu->index, false);
    if (cpu->vm->bus->cpu_init)
        cpu->vm->bus->cpu_init(cpu->vm->bus->opaque, cpu->index);
    soft_mode_changed(cpu);
    soft_tlb_flush(cpu, SOFT_FLUSH_ALL);
    cpu->irq_clear = 1;
}

static void start_up(struct soft_cpu *cpu)
{
    uint8_t vector = atomic_load(&cpu->sipi_vector);
    struct mull_segment *cs = &cpu->s.seg[MULL_CS];

    cs->selector = (uint16_t)(vector << 8);
    cs->base = (uint64_t)vector << 12;
    cpu->s.rip = 0;
    cpu->s.mp_state = MULL_CPU_RUNNABLE;
    soft_mode_changed(cpu);
}

/* What changes the CPU's state. */
static void apply_signals(struct soft_cpu *cpu, uint32_t signals)
{
    if (signals & MULL_SIGNAL_INIT)
        init_cpu(cpu);
    if ((signals & MULL_SIGNAL_SIPI) && cpu->s.mp_state == MULL_CPU_WAIT_SIPI)
        start_up(cpu);
    if (signals & MULL_SIGNAL_NMI)
        cpu->s.nmi_pending = 1;
    if (signals & SOFT_SIGNAL_FLUSH)
        soft_tlb_flush(cpu, SOFT_FLUSH_ALL);
}

void soft_settle(struct soft_cpu *cpu)
{
    const uint32_t others = MULL_SIGNAL_IRQ | MULL_SIGNAL_STOP;

    apply_signals(cpu, atomic_fetch_and(&cpu->signals, others) & ~others);
}

/* Take the signals that came in. @return false: stop. */
static bool take_signals(struct soft_cpu *cpu)
{
    __atomic_store_n(&cpu->leave, 0, __ATOMIC_RELAXED);
    __atomic_store_n(&cpu->run_ok, 1, __ATOMIC_SEQ_CST);
    uint32_t signals = atomic_exchange(&cpu->signals, 0);

    apply_signals(cpu, signals);
    if (signals & MULL_SIGNAL_IRQ)
        cpu->irq_clear = 0;
    if (signals) /* any event may end MWAIT */
        cpu->monitor.waiting = false;
    return !(signals & MULL_SIGNAL_STOP);
}

/* Deliver what is due between two instructions. */
static void deliver_events(struct soft_cpu *cpu)
{
    struct mull_cpu_state *s = &cpu->s;

    if (s->exception_pending) { /* loaded with the state */
        s->exception_pending = 0;
        cpu->fault = (struct soft_fault){.vector = s->exception_vector,
                                         .has_error = s->exception_has_error,
                                         .error = s->exception_error,
                                         .address = s->cr2};
        soft_deliver_fault(cpu);
        return;
    }
    if (cpu->debug_hits && !s->interrupt_shadow) { /* of a task switch: nobody else leaves any */
        debug_exception(cpu, cpu->debug_hits);
        return;
    }
    if (s->interrupt_injected) {
        s->interrupt_injected = 0;
        cpu->stats.interrupts++;
        soft_deliver_interrupt(cpu, s->interrupt_vector);
        return;
    }
    if (cpu->debug_step && s->mp_state == MULL_CPU_RUNNABLE)
        return; /* a step goes to the next instruction, not into a handler */
    if (s->nmi_pending && !s->nmi_blocked && !s->interrupt_shadow) {
        s->nmi_pending = 0;
        s->nmi_blocked = 1;
        s->mp_state = MULL_CPU_RUNNABLE;
        soft_deliver_interrupt(cpu, 2);
        return;
    }
    if (!interrupt_due(cpu) || s->interrupt_shadow)
        return;

    const struct mull_engine_bus *bus = cpu->vm->bus;
    soft_vectors_park(cpu);
    if (bus->irq_pending(bus->opaque, cpu->index) < 0) {
        cpu->irq_clear = 1;
        /* One that came after the look has signalled, and will be looked at. */
        return;
    }
    int vector = bus->irq_accept(bus->opaque, cpu->index);
    if (vector < 0)
        return;
    s->mp_state = MULL_CPU_RUNNABLE;
    cpu->stats.interrupts++;
    soft_deliver_interrupt(cpu, (uint8_t)vector);
}

/* ---- Spinning ---- */

#define PAUSES_BEFORE_YIELD 64

enum soft_result soft_exec_pause(struct soft_cpu *cpu, const struct soft_insn *in)
{
    if (cpu->vm->cpus > 1 && ++cpu->pauses % PAUSES_BEFORE_YIELD == 0)
        soft_yield();
    else
        __builtin_ia32_pause();
    return soft_done(cpu, in);
}

/* ---- Single steps ---- */

static void step(struct soft_cpu *cpu)
{
    const struct soft_insn *in;
    const bool trap = cpu->s.rflags & SOFT_TF, resume = cpu->s.rflags & SOFT_RF;
    const bool held = cpu->s.interrupt_shadow == 2; /* MOV SS holds traps back */
    uint64_t hits = cpu->s.dr[7] & 0xff && !resume ? soft_debug_execute(cpu) : 0;

    if (hits && !held) { /* a fault: before the instruction */
        debug_exception(cpu, hits);
        return;
    }
    cpu->s.interrupt_shadow = 0;
    if (!held)
        cpu->debug_hits = 0;
    cpu->s.rflags &= ~(uint64_t)SOFT_RF; /* which is for one instruction */
    enum soft_result r = decode_at_rip(cpu, &in);
    if (r == SOFT_NEXT)
        r = soft_exec(cpu, in);
    if (trap && (r == SOFT_NEXT || r == SOFT_JUMP))
        cpu->debug_hits |= 1u << 14;  /* DR6.BS */
    if (cpu->s.interrupt_shadow == 2) /* what MOV SS holds back of single steps never comes */
        cpu->debug_hits &= 0xf;
    if (take_watches(cpu, r) == SOFT_FAULT)
        soft_deliver_fault(cpu);
    cpu->code_changed = false;
}

/* For a debugger outside: one instruction, then stop (unless a watch has something to say). */
static void debug_step(struct soft_cpu *cpu)
{
    step(cpu);
    if (!cpu->debug_stop)
        cpu->debug_hit = (struct mull_debug_hit){.step = true};
    cpu->debug_stop = true;
}

/* ---- The loop ---- */

/* MOV SS holds traps of its own back: no part of the state, so they have to come before a stop. */
static bool holds_traps(struct soft_cpu *cpu)
{
    return cpu->debug_hits && cpu->s.interrupt_shadow == 2 && !cpu->debug_step &&
           !cpu->error.code && cpu->s.mp_state == MULL_CPU_RUNNABLE && !soft_debug_due(cpu);
}

/* Run translated code until something must be looked at. */
static void run_translated(struct soft_cpu *cpu)
{
    struct soft_cache *cache = cpu->vm->cache;

    /* A flush waits for all to be outside: do not go in while one is wanted. */
    atomic_fetch_add(&cache->inside, 1);
    if (!atomic_load(&cache->flush_wanted)) {
        void *host = go(cpu, true);
        if (host) {
            cpu->resume = (uint64_t)(uintptr_t)host;
            cache->glue.enter(cpu);
        }
    }
    bool last = atomic_fetch_sub(&cache->inside, 1) == 1;
    if (atomic_load(&cache->flush_wanted)) {
        if (last)
            soft_futex_wake(&cache->inside, 1);
        soft_vectors_park(cpu);
        soft_cache_flush_wait(cpu);
    }
}

void soft_run(struct soft_cpu *cpu, struct mull_exit *exit)
{
    exit->error.code = 0;
    exit->error.message[0] = 0;
    if (soft_fault_enter(cpu, &exit->error) < 0) {
        exit->reason = MULL_EXIT_FAILED;
        return;
    }
    if (cpu->vm->bus->resumed)
        cpu->vm->bus->resumed(cpu->vm->bus->opaque, cpu->index);
    cpu->irq_clear = 0;
    cpu->tsc_us = mull_clock_tsc_hz(cpu->vm->config.clock) / 1000000;
    cpu->tsc_offset = (uint64_t)mull_clock_tsc_offset(cpu->vm->config.clock) + cpu->s.tsc_offset;

    for (;;) {
        if (cpu->debug_stop) {
            cpu->debug_stop = false;
            exit->reason = MULL_EXIT_DEBUG;
            exit->debug = cpu->debug_hit;
            break;
        }
        if (holds_traps(cpu))
            step(cpu);
        if (!take_signals(cpu)) {
            exit->reason = MULL_EXIT_STOPPED;
            break;
        }
        if (cpu->s.mp_state == MULL_CPU_WAIT_SIPI) {
            soft_wait_for_signal(cpu);
            continue;
        }
        if (cpu->monitor.waiting) {
            soft_monitor_sleep(cpu);
            continue;
        }
        deliver_events(cpu);
        if (cpu->s.mp_state == MULL_CPU_HALTED) {
            cpu->stats.halts++;
            soft_wait_for_signal(cpu);
            continue;
        }
        if (cpu->s.mp_state == MULL_CPU_SHUTDOWN) {
            exit->reason = MULL_EXIT_SHUTDOWN;
            break;
        }
        if (cpu->error.code) {
            exit->reason = MULL_EXIT_FAILED;
            exit->error = cpu->error;
            break;
        }
        if (soft_debug_due(cpu)) {
            cpu->debug_stop = true;
            continue;
        }
        if (cpu->debug_step) {
            debug_step(cpu);
            continue;
        }
        if (interrupt_due(cpu) && !must_step(cpu))
            continue;
        if (must_step(cpu)) {
            do {
                step(cpu);
            } while (__atomic_load_n(&cpu->run_ok, __ATOMIC_RELAXED) && must_step(cpu) &&
                     !interrupt_due(cpu) && cpu->s.mp_state == MULL_CPU_RUNNABLE &&
                     !cpu->monitor.waiting && !cpu->error.code && !soft_debug_due(cpu));
        } else {
            run_translated(cpu);
        }
    }
    soft_vectors_park(cpu);
    soft_fault_leave(cpu);
}
