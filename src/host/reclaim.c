/*
 * Memory of the host among its machines: while there is room each has what it wants, up to its
 * limit; when memory runs low, balloons take from those that have more than their shares entitle
 * them to, never below a reservation, and give it back step by step when there is room. See
 * balance.h.
 */
#include <string.h>

#include "host/balance.h"
#include "host/resources.h"
#include "host/stats.h"
#include "host/store/store.h"

#define SLACK (4ull << 20)  /* too little to bother a guest for */
#define FLOOR (32ull << 20) /* a guest's kernel needs this much to live */

static uint64_t smaller(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static uint64_t larger(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

/* What it may have when there is enough. */
static uint64_t most_of(const struct vm *vm, const struct share *s)
{
    return smaller(vm->resources.memory, s->limit);
}

static bool is_ballooned(const struct vm *vm, uint64_t most)
{
    const struct vm_resources *r = &vm->resources;
    return r->balloon && (r->actual + SLACK < most || (r->target && r->target + SLACK < most));
}

/* What it has now; of a machine whose balloon holds some: a step more. */
static uint64_t demand_of(const struct vm *vm, const struct share *s)
{
    uint64_t most = most_of(vm, s);
    if (is_ballooned(vm, most))
        return smaller(most, larger(vm->resources.actual, FLOOR) + most / 8 + SLACK);
    return smaller(most, vm->memory);
}

/* All that machines can have together: what they have, and what is free above the host's own. */
static uint64_t room_for(struct host *host, uint64_t resident)
{
    uint64_t total, used, keep;
    stats_memory(&total, &used);
    keep = total / 16;
    uint64_t available = total - used > keep ? total - used - keep : 0;
    return smaller(resources_capacity(host, DIM_MEMORY), resident + available);
}

/* @return whether it has less than it wants */
static bool set_target(struct vm *vm, const struct share *s)
{
    struct vm_resources *r = &vm->resources;
    uint64_t most = most_of(vm, s), target = most;
    bool less = s->granted + SLACK < s->demand;
    if (less || is_ballooned(vm, most))
        target = smaller(most, larger(larger(s->granted, s->reservation), FLOOR));
    r->granted[DIM_MEMORY] = target;
    if (r->balloon &&
        (!r->target || target == most || target + SLACK < r->target || r->target + SLACK < target))
        r->target = target & ~4095ull;
    return less;
}

bool reclaim_divide(struct host *host)
{
    struct resources_tree t;
    uint64_t resident = 0;
    bool any = false;
    if (resources_tree(host, DIM_MEMORY, false, NULL, &t))
        return false;
    for (unsigned i = 0; i < t.count; i++) {
        struct vm *vm = t.share[i].pool ? NULL : vm_of(host, host_text(t.doc[i], "id"));
        if (!vm)
            continue;
        t.share[i].demand = vm->resources.usage ? demand_of(vm, &t.share[i]) : vm->memory;
        if (!vm->resources.balloon) /* what it has it keeps */
            t.share[i].reservation = larger(t.share[i].reservation, t.share[i].demand);
        resident += vm->memory;
    }
    shares_divide(t.share, t.count, room_for(host, resident), false);
    for (unsigned i = 0; i < t.count; i++) {
        struct vm *vm = t.share[i].pool ? NULL : vm_of(host, host_text(t.doc[i], "id"));
        if (!vm || !vm->resources.usage)
            continue;
        bool less = set_target(vm, &t.share[i]);
        any |= less;
        /* The first to lose memory are the first whose pages are worth looking at. */
        vm->resources.merge |= less && host->options.memory_merging;
    }
    resources_tree_free(&t);
    return any;
}
