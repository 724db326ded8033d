/*
 * See balance.h. A machine's process is told limits, not shares: what its pool's limit, or a busy
 * host, leaves it is worked out here and holds until the next time, which needs no privilege.
 * Without competition there is no limit but its own. Where the host lets us have control groups,
 * the kernel divides its processors and disks by weights instead.
 */
#include "host/balance.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "host/events.h"
#include "host/resources.h"
#include "host/store/store.h"

#define ROUND_SECONDS 2
#define RPC_SECONDS 2
#define CPU_MOST 6400 /* percent: more is no limit */
#define CPU_LEAST 5   /* percent: less would make a guest's own clocks suspicious */

struct balance {
    pthread_t thread;
    pthread_cond_t wake;
    bool started, now;
    _Atomic bool closing;
    bool short_of_memory;
    struct cgroups groups;
};

/* ---- Running machines ---- */

static void take_id(void *opaque, struct vm *vm)
{
    if (vm->state == VM_RUNNING || vm->state == VM_PAUSED)
        vm_ids_add(opaque, vm);
}

static int call(struct host *host, const char *id, const char *method, json_t *params,
                json_t **result)
{
    struct mull_error err = {0};
    return vm_ask(host, id, RPC_SECONDS, method, params, result, &err);
}

/* ---- What they take ---- */

/* The process may be under attack by its guest: whatever it says makes only its own numbers wrong.
 */
static uint64_t number(const json_t *object, const char *name)
{
    json_int_t n = json_integer_value(json_object_get(object, name));
    return n > 0 ? (uint64_t)n : 0;
}

static void sum_counts(const json_t *list, const char *const names[4], uint64_t out[4],
                       uint64_t *waited)
{
    size_t i;
    json_t *one;
    json_array_foreach((json_t *)list, i, one)
    {
        for (unsigned k = 0; k < 4; k++)
            out[k] += number(one, names[k]);
        *waited += number(one, "waited");
    }
}

static void take_counts(struct vm_resources *r, json_t *usage, double seconds)
{
    static const char *const disk[] = {"read_bytes", "reads", "written_bytes", "writes"};
    static const char *const network[] = {"in_bytes", "in_packets", "out_bytes", "out_packets"};
    uint64_t count[COUNTERS] = {0}, waited[2] = {0};
    sum_counts(json_object_get(usage, "disks"), disk, count, &waited[0]);
    sum_counts(json_object_get(usage, "networks"), network, count + COUNT_IN_BYTES, &waited[1]);
    for (unsigned i = 0; i < COUNTERS; i++) /* less: a disk or card has gone */
        r->rate[i] =
            seconds > 0 && count[i] >= r->count[i] ? (double)(count[i] - r->count[i]) / seconds : 0;
    for (unsigned i = 0; i < 2; i++) {
        r->waits[i] = waited[i] > r->waited[i];
        r->waited[i] = waited[i];
    }
    memcpy(r->count, count, sizeof(count));
}

/* Lock held. */
static void take_usage(struct vm *vm, json_t *usage)
{
    struct vm_resources *r = &vm->resources;
    uint64_t now = mull_now_ns();
    double seconds = r->usage ? (double)(now - r->usage_ns) / 1e9 : 0;
    const json_t *cpu = json_object_get(usage, "cpu"), *b = json_object_get(usage, "balloon");
    uint64_t used = number(cpu, "used"), held = number(cpu, "held");
    if (seconds > 0 && used >= r->cpu_used)
        r->cpu = (double)(used - r->cpu_used) / seconds / 1e7;
    r->held = seconds > 0 && (double)(held - r->cpu_held) > seconds * 5e7; /* a twentieth */
    r->cpu_used = used;
    r->cpu_held = held;
    take_counts(r, usage, seconds);
    vm_sample_memory(vm);
    r->memory = number(usage, "memory");
    r->balloon = json_is_true(json_object_get(b, "driver"));
    r->actual = r->balloon ? number(b, "actual") : r->memory;
    json_decref(r->usage);
    r->usage = json_incref(usage);
    r->usage_ns = now;
}

static void ask(struct host *host, const char *id)
{
    json_t *usage = NULL;
    host_lock(host);
    struct vm *vm = vm_of(host, id);
    unsigned changes = vm ? vm->changes : 0;
    host_unlock(host);
    int ret = call(host, id, "usage", json_pack("{s:b}", "refresh", 1), &usage);
    host_lock(host);
    vm = vm_of(host, id);
    if (!ret && vm && vm->pidfd >= 0) {
        take_usage(vm, usage);
        vm_take_state(vm, usage, changes);
    }
    host_unlock(host);
    json_decref(usage);
}

/* ---- Dividing ---- */

static uint64_t some_more(double rate, uint64_t least)
{
    return (uint64_t)(rate * 1.25) + least;
}

/* What a machine would take if nothing held it back: somewhat more than it does, so that it can
 * grow; or all it can get. */
static uint64_t demand_of(const struct vm *vm, const json_t *config, enum dimension dim)
{
    const struct vm_resources *r = &vm->resources;
    const double *rate = r->rate;
    json_t *cpus = json_object_get(config, "cpus");
    uint64_t all =
        dim == DIM_CPU ? 100 * (uint64_t)(cpus ? json_integer_value(cpus) : 1) : SHARES_MOST;
    uint64_t more = all;
    bool waits = dim == DIM_CPU ? r->held : r->waits[dim >= DIM_NETWORK];
    if (vm->state != VM_RUNNING)
        return 0;
    if (!r->usage || waits)
        return all;
    switch (dim) {
    case DIM_CPU:
        more = some_more(r->cpu, 10);
        break;
    case DIM_DISK:
        more = some_more(rate[COUNT_READ_BYTES] + rate[COUNT_WRITTEN_BYTES], 1 << 20);
        break;
    case DIM_DISK_READ:
        more = some_more(rate[COUNT_READ_BYTES], 1 << 20);
        break;
    case DIM_DISK_WRITE:
        more = some_more(rate[COUNT_WRITTEN_BYTES], 1 << 20);
        break;
    case DIM_IOPS:
        more = some_more(rate[COUNT_READS] + rate[COUNT_WRITES], 50);
        break;
    case DIM_IOPS_READ:
        more = some_more(rate[COUNT_READS], 50);
        break;
    case DIM_IOPS_WRITE:
        more = some_more(rate[COUNT_WRITES], 50);
        break;
    case DIM_NETWORK:
        more = some_more(rate[COUNT_IN_BYTES] + rate[COUNT_OUT_BYTES], 1 << 17);
        break;
    case DIM_NETWORK_IN:
        more = some_more(rate[COUNT_IN_BYTES], 1 << 17);
        break;
    case DIM_NETWORK_OUT:
        more = some_more(rate[COUNT_OUT_BYTES], 1 << 17);
        break;
    case DIM_MEMORY:
    case DIMENSIONS:
        break;
    }
    return more < all ? more : all;
}

/* Are all machines equals, by the vCPU, with nothing promised? Then the host's own scheduler
 * divides its processors as well as anybody could, and nobody needs a limit. */
static bool equals(const struct resources_tree *t)
{
    double each = 0;
    for (unsigned i = 0; i < t->count; i++) {
        json_t *cpus = json_object_get(json_object_get(t->doc[i], "config"), "cpus");
        double own = t->share[i].weight / (double)(cpus ? json_integer_value(cpus) : 1);
        if (t->share[i].reservation || (t->share[i].parent >= 0 && !t->share[i].pool))
            return false;
        if (t->share[i].pool)
            continue;
        if (each > 0 && own != each)
            return false;
        each = own;
    }
    return true;
}

/* Do machines want more of the host's processors than there are? */
static bool competing(const struct resources_tree *t, uint64_t capacity)
{
    uint64_t wanted = 0;
    for (unsigned i = 0; i < t->count; i++)
        if (!t->share[i].pool) {
            const struct share *s = &t->share[i];
            wanted += s->demand < s->limit ? s->demand : s->limit;
        }
    return wanted > capacity;
}

static void divide(struct host *host, enum dimension dim)
{
    struct resources_tree t;
    uint64_t capacity = SHARES_NONE;
    if (resources_tree(host, dim, false, NULL, &t))
        return;
    for (unsigned i = 0; i < t.count; i++)
        if (!t.share[i].pool)
            t.share[i].demand = demand_of(vm_of(host, host_text(t.doc[i], "id")),
                                          json_object_get(t.doc[i], "config"), dim);
    bool by_weight = host->balance->groups.cpu;
    if (dim == DIM_CPU && !by_weight && !equals(&t) && competing(&t, resources_capacity(host, dim)))
        capacity = resources_capacity(host, dim);
    shares_divide(t.share, t.count, capacity, true);
    for (unsigned i = 0; i < t.count; i++)
        if (!t.share[i].pool) {
            struct vm *vm = vm_of(host, host_text(t.doc[i], "id"));
            uint64_t granted = t.share[i].granted;
            if (dim == DIM_CPU && granted < CPU_LEAST)
                granted = CPU_LEAST;
            vm->resources.granted[dim] = granted ? granted : 1;
        }
    resources_tree_free(&t);
}

/* ---- Control groups ---- */

static uint32_t weight(uint64_t n)
{
    return n < 1 ? 1 : n > 10000 ? 10000 : (uint32_t)n;
}

/* What each would have if all wanted all they can have: for weights, which count only then. A whole
 * CPU weighs 100, as the kernel's groups do that nobody has told anything: whatever the manager of
 * our unit starts beside machines is not starved by them. */
static void weigh(struct host *host, enum dimension dim)
{
    const uint64_t whole = 1u << 20;
    struct resources_tree t;
    if (resources_tree(host, dim, false, NULL, &t))
        return;
    for (unsigned i = 0; i < t.count; i++) {
        json_t *cpus = json_object_get(json_object_get(t.doc[i], "config"), "cpus");
        t.share[i].demand =
            dim == DIM_CPU ? 100 * (uint64_t)(cpus ? json_integer_value(cpus) : 1) : whole;
        if (dim != DIM_CPU) { /* limits are kept elsewhere, and nobody knows how much there is */
            t.share[i].limit = SHARES_NONE;
            t.share[i].reservation = 0;
        }
    }
    shares_divide(t.share, t.count, dim == DIM_CPU ? resources_capacity(host, dim) : whole, false);
    for (unsigned i = 0; i < t.count; i++) {
        struct vm *vm = t.share[i].pool ? NULL : vm_of(host, host_text(t.doc[i], "id"));
        if (vm && dim == DIM_CPU)
            vm->resources.group.cpu_weight = weight(t.share[i].granted);
        else if (vm)
            vm->resources.group.io_weight = weight(10000 * t.share[i].granted / whole);
    }
    resources_tree_free(&t);
}

static void keep_memory(struct host *host)
{
    struct resources_tree t;
    uint64_t all = 0;
    if (resources_tree(host, DIM_MEMORY, false, NULL, &t))
        return;
    for (unsigned i = 0; i < t.count; i++)
        if (!t.share[i].pool) {
            struct vm *vm = vm_of(host, host_text(t.doc[i], "id"));
            all += vm->resources.group.memory_min = t.share[i].reservation;
        }
    /* May be for somebody above us to say: what is set below counts up to that. */
    cgroups_set_all(&host->balance->groups, all);
    resources_tree_free(&t);
}

/* Lock held. */
static void place(struct vm *vm)
{
    struct vm_resources *r = &vm->resources;
    if (r->placed)
        return;
    int ret = cgroups_place(&vm->host->balance->groups, vm->id, vm->pid);
    if (ret)
        mull_log(&vm->host->log, MULL_LOG_WARN, "machine %s: its control group: %s", vm->id,
                 strerror(-ret));
    r->placed = true;
    r->group_applied = (struct cgroup_amounts){0};
}

void balance_started(struct vm *vm)
{
    if (vm->host->balance && cgroups_any(&vm->host->balance->groups))
        place(vm);
}

/* Lock held. */
static void tell_group(struct vm *vm)
{
    struct vm_resources *r = &vm->resources;
    struct cgroups *groups = &vm->host->balance->groups;
    struct cgroup_amounts wanted = r->group;
    if (r->granted[DIM_CPU] < CPU_MOST)
        wanted.cpu_max = (uint32_t)r->granted[DIM_CPU];
    place(vm);
    if (!memcmp(&wanted, &r->group_applied, sizeof(wanted)))
        return;
    cgroups_set(groups, vm->id, &wanted);
    r->group_applied = wanted;
}

/* By one of the functions that look for a group in what the kernel says of us. */
static char *find_group(char *(*find)(const char *cgroup, const char *mountinfo))
{
    char *cgroup = host_read_file("/proc/self/cgroup", 65536, NULL, NULL);
    char *mounts = host_read_file("/proc/self/mountinfo", 1u << 20, NULL, NULL);
    char *found = cgroup && mounts ? find(cgroup, mounts) : NULL;
    free(cgroup);
    free(mounts);
    return found;
}

static char *own_groups(struct mull_error *err)
{
    char *own = find_group(cgroups_find);
    if (!own && (own = find_group(cgroups_delegated)) && cgroups_settle(own, err)) {
        free(own);
        own = NULL;
    }
    return own;
}

int balance_release(struct mull_error *err)
{
    char *unit = find_group(cgroups_delegated);
    int ret = unit ? cgroups_release(unit, err) : 0;
    free(unit);
    return ret;
}

static void use_groups(struct host *host)
{
    struct mull_error err = {0};
    char *own = host->options.cgroup ? NULL : own_groups(&err);
    if (*err.message)
        mull_log(&host->log, MULL_LOG_WARN, "control groups: %s", err.message);
    const char *base = host->options.cgroup ? host->options.cgroup : own;
    if (base && cgroups_open(&host->balance->groups, base, &err))
        mull_log(&host->log, MULL_LOG_WARN, "control groups: %s; machines' own limits do it",
                 err.message);
    free(own);
}

void balance_ended(struct vm *vm)
{
    if (vm->resources.placed && vm->host->balance)
        cgroups_remove(&vm->host->balance->groups, vm->id);
    json_decref(vm->resources.usage);
    vm->resources = (struct vm_resources){0};
}

/* ---- Telling ---- */

static json_t *limits_of(const uint64_t granted[DIMENSIONS])
{
    static const char *const disk[] = {"bytes",      "read_bytes", "write_bytes",
                                       "operations", "reads",      "writes"};
    static const char *const network[] = {"bytes", "in_bytes", "out_bytes"};
    json_t *o = json_pack("{s:{}, s:{}}", "disk", "network");
    for (unsigned d = 0; d < DIMENSIONS; d++) {
        uint64_t most = d == DIM_CPU ? CPU_MOST : SHARES_MOST;
        if (granted[d] >= most || d == DIM_MEMORY)
            continue;
        json_t *n = json_integer((json_int_t)granted[d]);
        if (d == DIM_CPU)
            json_object_set_new(o, "cpu", n);
        else if (d >= DIM_NETWORK)
            json_object_set_new(json_object_get(o, "network"), network[d - DIM_NETWORK], n);
        else
            json_object_set_new(json_object_get(o, "disk"), disk[d - DIM_DISK], n);
    }
    return o;
}

static bool same_limits(const struct vm_resources *r)
{
    for (unsigned d = 0; d < DIMENSIONS; d++)
        if (d != DIM_MEMORY && r->granted[d] != r->applied[d])
            return false;
    return r->known;
}

/* What there is to tell one machine; the answers are noted. */
static void tell(struct host *host, const char *id)
{
    host_lock(host);
    struct vm *vm = vm_of(host, id);
    struct vm_resources r = vm->resources; /* usage is not looked at */
    bool runs = vm->pidfd >= 0 && r.usage;
    if (runs && cgroups_any(&host->balance->groups))
        tell_group(vm);
    bool balloon = r.balloon && r.target && r.target != r.target_applied && vm->state == VM_RUNNING;
    host_unlock(host);
    if (!runs)
        return;
    bool limits = !same_limits(&r);
    int ret = limits ? call(host, id, "limits.set", limits_of(r.granted), NULL) : 0;
    if (balloon &&
        call(host, id, "balloon.set", json_pack("{s:I}", "memory", (json_int_t)r.target), NULL))
        balloon = false;
    bool merge = r.merge && !r.merging;
    if (merge) /* what cannot be merged is not tried again */
        call(host, id, "merge", json_pack("{s:b}", "on", 1), NULL);
    host_lock(host);
    vm = vm_of(host, id);
    if (vm->pidfd >= 0 && vm->resources.usage) {
        vm->resources.merging |= merge;
        if (balloon)
            vm->resources.target_applied = r.target;
        if (limits && (!ret || ret == -EPROTO)) { /* an older process has no limits */
            memcpy(vm->resources.applied, r.granted, sizeof(r.granted));
            vm->resources.known = true;
        }
    }
    host_unlock(host);
}

json_t *balance_granted(const struct vm *vm)
{
    static const struct {
        const char *name;
        enum dimension dim;
    } shown[] = {{"cpu", DIM_CPU}, {"disk", DIM_DISK}, {"network", DIM_NETWORK}};
    const struct vm_resources *r = &vm->resources;
    if (vm->pidfd < 0 || !r->known)
        return json_null();
    json_t *o = json_object();
    for (unsigned i = 0; i < 3; i++) {
        uint64_t n = r->applied[shown[i].dim];
        json_object_set_new(o, shown[i].name,
                            n < SHARES_MOST ? json_integer((json_int_t)n) : json_null());
    }
    json_object_set_new(o, "memory",
                        r->target_applied && r->target_applied < r->memory
                            ? json_integer((json_int_t)r->target_applied)
                            : json_null());
    return o;
}

/* ---- The thread ---- */

static void note_memory(struct host *host, bool is_short)
{
    struct balance *b = host->balance;
    if (is_short && !b->short_of_memory)
        host_event(host, "host.memory-short", NULL, NULL, NULL, "warning", NULL,
                   "memory is short: it is reclaimed from machines, by their shares");
    else if (!is_short && b->short_of_memory)
        host_event(host, "host.memory-enough", NULL, NULL, NULL, "info", NULL,
                   "there is memory for all machines again");
    b->short_of_memory = is_short;
}

static void once(struct host *host)
{
    struct vm_ids l = {0};
    host_lock(host);
    vm_each(host, take_id, &l);
    host_unlock(host);
    for (size_t i = 0; i < l.count && !host->balance->closing; i++)
        ask(host, l.id[i]);
    host_lock(host);
    for (unsigned dim = 0; dim < DIMENSIONS; dim++)
        if (dim != DIM_MEMORY)
            divide(host, dim);
    if (cgroups_any(&host->balance->groups)) {
        weigh(host, DIM_CPU);
        weigh(host, DIM_DISK);
        keep_memory(host);
    }
    note_memory(host, reclaim_divide(host));
    host_unlock(host);
    for (size_t i = 0; i < l.count && !host->balance->closing; i++)
        tell(host, l.id[i]);
    free(l.id);
}

static void *keep_balance(void *opaque)
{
    struct host *host = opaque;
    struct balance *b = host->balance;
    host_lock(host);
    while (!b->closing) {
        struct timespec until;
        b->now = false;
        host_unlock(host);
        once(host);
        host_lock(host);
        clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_sec += ROUND_SECONDS;
        while (!b->closing && !b->now &&
               pthread_cond_timedwait(&b->wake, &host->lock, &until) != ETIMEDOUT)
            ;
    }
    host_unlock(host);
    return NULL;
}

void balance_now(struct host *host)
{
    if (!host->balance)
        return;
    host->balance->now = true;
    pthread_cond_signal(&host->balance->wake);
}

int balance_open(struct host *host, struct mull_error *err)
{
    struct balance *b = host->balance = calloc(1, sizeof(*b));
    pthread_condattr_t attr;
    if (!b)
        return mull_fail(err, ENOMEM, "resources: no memory");
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&b->wake, &attr);
    pthread_condattr_destroy(&attr);
    host_lock(host); /* machines that start with the host are starting already */
    use_groups(host);
    host_unlock(host);
    int code = pthread_create(&b->thread, NULL, keep_balance, host);
    b->started = !code;
    return code ? mull_fail(err, code, "resources: %s", strerror(code)) : 0;
}

void balance_close(struct host *host)
{
    struct balance *b = host->balance;
    if (!b)
        return;
    host_lock(host);
    b->closing = true;
    pthread_cond_signal(&b->wake);
    host_unlock(host);
    if (b->started)
        pthread_join(b->thread, NULL);
    pthread_cond_destroy(&b->wake);
    cgroups_close(&b->groups);
    free(b);
    host->balance = NULL;
}
