/*
 * The machine's clock: guest TSC = host TSC + offset, and guest nanoseconds from the guest TSC by
 * the multiplier and shift that guests also get through pvclock, so that every way of telling time
 * gives the same answer. Knows the host's CPUID, TSC and clocks; nothing of devices.
 */
#include "engine/clock.h"

#include <cpuid.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>
#include <x86intrin.h>

#include "base/loop.h"

#define NS 1000000000ull
#define CALIBRATION_NS 10000000ull
/* The guest's wall clock follows the host's once they differ by more than this: below it, readings
 * stay exactly consistent with the TSC. */
#define WALL_SLACK_NS 10000000ll

/* A restored clock shows at most this, 146 years, so that adding a timer's period to the time never
 * overflows. */
#define GUEST_NS_MAX (1ull << 62)

struct mull_clock {
    uint64_t tsc_hz;
    uint32_t mul;
    int8_t shift;

    /* Writers hold the mutex and make the sequence odd meanwhile; readers retry. */
    pthread_mutex_t lock;
    _Atomic uint32_t sequence;
    _Atomic bool paused;
    _Atomic int64_t offset;       /* guest TSC - host TSC, while running */
    _Atomic uint64_t paused_tsc;  /* the guest TSC while paused */
    _Atomic uint64_t anchor_tsc;  /* this guest TSC ... */
    _Atomic uint64_t anchor_ns;   /* ... is this guest time */
    _Atomic int64_t boot_wall_ns; /* CLOCK_REALTIME at guest time 0 */
};

static uint64_t read_ns(clockid_t id)
{
    struct timespec t;

    clock_gettime(id, &t);
    return (uint64_t)t.tv_sec * NS + (uint64_t)t.tv_nsec;
}

static uint64_t host_tsc(void)
{
    _mm_lfence(); /* not before what came before it */
    return __rdtsc();
}

/* ---- The TSC's frequency ---- */

/* The host's TSC and raw clock at one moment: of several tries, that with the least time between
 * the two TSC readings around the clock's. */
static void read_pair(uint64_t *tsc, uint64_t *ns)
{
    uint64_t best = UINT64_MAX;

    for (int i = 0; i < 16; i++) {
        uint64_t before = host_tsc();
        uint64_t t = read_ns(CLOCK_MONOTONIC_RAW);
        uint64_t after = host_tsc();
        if (after - before < best) {
            best = after - before;
            *tsc = before + best / 2;
            *ns = t;
        }
    }
}

static uint64_t measured_hz(void)
{
    uint64_t tsc0, ns0, tsc1, ns1;
    struct timespec nap = {.tv_nsec = (long)CALIBRATION_NS};

    read_pair(&tsc0, &ns0);
    clock_nanosleep(CLOCK_MONOTONIC, 0, &nap, NULL);
    do
        read_pair(&tsc1, &ns1);
    while (ns1 - ns0 < CALIBRATION_NS / 2); /* a signal cut the nap short */
    return (uint64_t)((unsigned __int128)(tsc1 - tsc0) * NS / (ns1 - ns0));
}

/* What the host says of its TSC: CPUID 15h (SDM volume 2, CPUID), else the hypervisor's timing leaf
 * 40000010h (in kHz). 0: nothing. */
static uint64_t told_hz(void)
{
    unsigned a, b, c, d;

    if (__get_cpuid_count(0x15, 0, &a, &b, &c, &d) && a && b && c)
        return (uint64_t)c * b / a;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & (1u << 31)))
        return 0;
    __cpuid(0x40000000, a, b, c, d);
    if (a < 0x40000010 || a > 0x400000ff)
        return 0;
    __cpuid(0x40000010, a, b, c, d);
    return (uint64_t)a * 1000;
}

static uint64_t tsc_hz(void)
{
    uint64_t measured = measured_hz();
    uint64_t told = told_hz();
    uint64_t difference = told > measured ? told - measured : measured - told;

    /* Nested hypervisors pass leaves through that are not true of their own guests: believe only
     * what agrees with the measurement to 1/2000, worse than any measurement here. */
    return told && difference < measured / 2000 ? told : measured;
}

/* pvclock's scale: shift the TSC so that its rate falls into (1, 2] GHz, then multiply by a 32-bit
 * fraction (Linux, Documentation/virt/kvm/x86/msr.rst, MSR_KVM_SYSTEM_TIME_NEW). */
static void set_scale(struct mull_clock *clock)
{
    uint64_t rate = clock->tsc_hz;
    int shift = 0;

    while (rate > 2 * NS) {
        rate >>= 1;
        shift--;
    }
    while (rate <= NS) {
        rate <<= 1;
        shift++;
    }
    /* From the unshifted frequency, so that no bit of it is lost. */
    unsigned __int128 mul = (unsigned __int128)NS << 32;
    mul = shift < 0 ? mul << -shift : mul >> shift;
    clock->mul = (uint32_t)(mul / clock->tsc_hz);
    clock->shift = (int8_t)shift;
}

static uint64_t ticks_to_ns(const struct mull_clock *clock, uint64_t ticks)
{
    unsigned __int128 wide = ticks;

    wide = clock->shift < 0 ? wide >> -clock->shift : wide << clock->shift;
    wide = (wide * clock->mul) >> 32;
    return wide > UINT64_MAX ? UINT64_MAX : (uint64_t)wide;
}

/* The least number of ticks that is at least @ns. */
static uint64_t ns_to_ticks(const struct mull_clock *clock, uint64_t ns)
{
    unsigned __int128 wide = ((unsigned __int128)ns << 32) + clock->mul - 1;

    wide /= clock->mul;
    if (clock->shift < 0)
        wide <<= -clock->shift;
    else
        wide = (wide + (1u << clock->shift) - 1) >> clock->shift;
    return wide > UINT64_MAX ? UINT64_MAX : (uint64_t)wide;
}

/* ---- Readers ---- */

struct snapshot {
    bool paused;
    int64_t offset;
    uint64_t paused_tsc, anchor_tsc, anchor_ns;
};

static struct snapshot look(const struct mull_clock *clock)
{
    struct snapshot s;
    uint32_t sequence;

    do {
        sequence = atomic_load_explicit(&clock->sequence, memory_order_acquire);
        s.paused = atomic_load_explicit(&clock->paused, memory_order_relaxed);
        s.offset = atomic_load_explicit(&clock->offset, memory_order_relaxed);
        s.paused_tsc = atomic_load_explicit(&clock->paused_tsc, memory_order_relaxed);
        s.anchor_tsc = atomic_load_explicit(&clock->anchor_tsc, memory_order_relaxed);
        s.anchor_ns = atomic_load_explicit(&clock->anchor_ns, memory_order_relaxed);
        atomic_thread_fence(memory_order_acquire);
    } while ((sequence & 1) ||
             sequence != atomic_load_explicit(&clock->sequence, memory_order_relaxed));
    return s;
}

static uint64_t tsc_of(const struct snapshot *s)
{
    return s->paused ? s->paused_tsc : host_tsc() + (uint64_t)s->offset;
}

static uint64_t ns_of(const struct mull_clock *clock, const struct snapshot *s, uint64_t tsc)
{
    if ((int64_t)(tsc - s->anchor_tsc) < 0) {
        uint64_t back = ticks_to_ns(clock, s->anchor_tsc - tsc);
        return back > s->anchor_ns ? 0 : s->anchor_ns - back;
    }
    uint64_t ns = s->anchor_ns + ticks_to_ns(clock, tsc - s->anchor_tsc);
    return ns < s->anchor_ns ? UINT64_MAX : ns;
}

uint64_t mull_clock_tsc_hz(const struct mull_clock *clock)
{
    return clock->tsc_hz;
}

uint64_t mull_clock_tsc(const struct mull_clock *clock)
{
    struct snapshot s = look(clock);
    return tsc_of(&s);
}

int64_t mull_clock_tsc_offset(const struct mull_clock *clock)
{
    return look(clock).offset;
}

uint64_t mull_clock_now(const struct mull_clock *clock)
{
    struct snapshot s = look(clock);
    return ns_of(clock, &s, tsc_of(&s));
}

uint64_t mull_clock_deadline(const struct mull_clock *clock, uint64_t guest_ns)
{
    struct snapshot s = look(clock);
    uint64_t now = ns_of(clock, &s, tsc_of(&s));
    uint64_t host = mull_now_ns();

    if (guest_ns <= now)
        return now - guest_ns > host ? 0 : host - (now - guest_ns);
    if (s.paused || guest_ns - now > UINT64_MAX - host)
        return UINT64_MAX;
    return host + (guest_ns - now);
}

uint64_t mull_clock_tsc_to_ns(const struct mull_clock *clock, uint64_t tsc)
{
    struct snapshot s = look(clock);
    return ns_of(clock, &s, tsc);
}

uint64_t mull_clock_ns_to_tsc(const struct mull_clock *clock, uint64_t ns)
{
    struct snapshot s = look(clock);

    if (ns < s.anchor_ns)
        return s.anchor_tsc - ns_to_ticks(clock, s.anchor_ns - ns);
    uint64_t ticks = ns_to_ticks(clock, ns - s.anchor_ns);
    return ticks > UINT64_MAX - s.anchor_tsc ? UINT64_MAX : s.anchor_tsc + ticks;
}

void mull_clock_pvclock(const struct mull_clock *clock, uint32_t *mul, int8_t *shift)
{
    *mul = clock->mul;
    *shift = clock->shift;
}

void mull_clock_anchor(const struct mull_clock *clock, uint64_t *tsc, uint64_t *ns)
{
    struct snapshot s = look(clock);

    *tsc = s.anchor_tsc;
    *ns = s.anchor_ns;
}

uint64_t mull_clock_boot_wall_ns(const struct mull_clock *clock)
{
    int64_t stored = atomic_load(&clock->boot_wall_ns);
    int64_t now = (int64_t)(read_ns(CLOCK_REALTIME) - mull_clock_now(clock));

    /* While paused the guest's wall clock stands still too; it catches up when it runs again. */
    if (!atomic_load(&clock->paused) &&
        (now - stored > WALL_SLACK_NS || stored - now > WALL_SLACK_NS)) {
        atomic_store(&((struct mull_clock *)clock)->boot_wall_ns, now);
        stored = now;
    }
    return stored < 0 ? 0 : (uint64_t)stored;
}

/* ---- Writers ---- */

static void begin(struct mull_clock *clock)
{
    pthread_mutex_lock(&clock->lock);
    atomic_fetch_add_explicit(&clock->sequence, 1, memory_order_relaxed);
    atomic_thread_fence(memory_order_release);
}

static void end(struct mull_clock *clock)
{
    atomic_fetch_add_explicit(&clock->sequence, 1, memory_order_release);
    pthread_mutex_unlock(&clock->lock);
}

void mull_clock_pause(struct mull_clock *clock)
{
    begin(clock);
    if (!clock->paused) {
        clock->paused_tsc = host_tsc() + (uint64_t)clock->offset;
        clock->paused = true;
    }
    end(clock);
}

void mull_clock_resume(struct mull_clock *clock)
{
    begin(clock);
    if (clock->paused) {
        clock->offset = (int64_t)(clock->paused_tsc - host_tsc());
        clock->paused = false;
    }
    end(clock);
}

void mull_clock_set(struct mull_clock *clock, uint64_t guest_ns, uint64_t guest_tsc)
{
    if (guest_ns > GUEST_NS_MAX)
        guest_ns = GUEST_NS_MAX;
    begin(clock);
    if (clock->paused) {
        clock->paused_tsc = guest_tsc;
        clock->anchor_tsc = guest_tsc;
        clock->anchor_ns = guest_ns;
    }
    end(clock);
}

int mull_clock_create(struct mull_clock **out, struct mull_error *err)
{
    unsigned a, b, c, d;

    *out = NULL;
    if (!__get_cpuid(0x80000007, &a, &b, &c, &d) || !(d & (1u << 8)))
        return mull_fail(err, ENOTSUP,
                         "clock: this host's time-stamp counter changes its rate "
                         "(CPUID 80000007h EDX bit 8 is clear); guests cannot be "
                         "given a reliable time here");

    struct mull_clock *clock = calloc(1, sizeof(*clock));
    if (!clock)
        return mull_fail(err, ENOMEM, "clock: no memory");
    clock->tsc_hz = tsc_hz();
    if (clock->tsc_hz < 1000000) {
        free(clock);
        return mull_fail(err, ENOTSUP, "clock: this host's time-stamp counter does not count");
    }
    set_scale(clock);
    pthread_mutex_init(&clock->lock, NULL);
    clock->boot_wall_ns = (int64_t)read_ns(CLOCK_REALTIME);
    clock->offset = -(int64_t)host_tsc();
    *out = clock;
    return 0;
}

void mull_clock_destroy(struct mull_clock *clock)
{
    if (!clock)
        return;
    pthread_mutex_destroy(&clock->lock);
    free(clock);
}
