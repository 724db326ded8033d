/*
 * Parts that come and go while the machine runs: disks, network cards, vCPUs, memory. Makes them
 * and takes them apart; how the guest is told is the platform's (platform/hotplug.h). All of it
 * runs in the loop's thread but machine_event_eject().
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "machine/internal.h"

#define FORCE_NS 2000000000ull   /* for a guest to let go of what is taken by force */
#define DIMM_UNIT (128ull << 20) /* what Linux and Windows can add and take away */

static struct mull_hotplug *registers(struct mull_machine *m)
{
    return mull_platform_hotplug(m->platform);
}

static int must_run(struct mull_machine *m, struct mull_error *err)
{
    if (m->state == MULL_MACHINE_RUNNING)
        return 0;
    return mull_fail(err, EINVAL, "machine %s: not running; resume it first", m->name);
}

void mull_given_files_free(struct mull_given_files *given)
{
    if (!given)
        return;
    for (unsigned i = 0; i < given->count; i++) {
        free(given->file[i].path);
        if (given->file[i].fd >= 0)
            close(given->file[i].fd);
    }
    free(given);
}

/* ---- Disks and network cards ---- */

void machine_part_add(struct mull_machine *m, enum machine_part_kind kind, unsigned index,
                      unsigned slot, struct mull_device *device)
{
    for (unsigned i = 0; i < MACHINE_PARTS; i++)
        if (!m->part[i].device) {
            m->part[i] =
                (struct machine_part){.device = device, .kind = kind, .index = index, .slot = slot};
            mull_hotplug_there(registers(m), MULL_HOTPLUG_PCI, slot);
            return;
        }
}

static struct machine_part *part_in_slot(struct mull_machine *m, unsigned slot)
{
    for (unsigned i = 0; i < MACHINE_PARTS; i++)
        if (m->part[i].device && m->part[i].slot == slot)
            return &m->part[i];
    return NULL;
}

void machine_hotplug_finish(struct mull_machine *m)
{
    uint32_t slots = 0;

    for (unsigned i = 1; i < MULL_HOTPLUG_PCI_SLOTS; i++)
        if (part_in_slot(m, i) || !mull_pci_bus_taken(mull_platform_pci(m->platform), i))
            slots |= 1u << i;
    mull_platform_set_slots(m->platform, slots);
}

static void unlink_device(struct mull_machine *m, struct mull_device *device)
{
    struct mull_device **link = &m->devices;

    while (*link && *link != device)
        link = &(*link)->next;
    if (*link)
        *link = device->next;
}

/* What a part leaves behind, until nothing that was posted to the loop can know of it any more. */
struct machine_remains {
    struct mull_machine *machine;
    struct machine_remains *next;
    struct mull_device *device;
    struct mull_block *block;
    struct mull_netdev *netdev;
    struct mull_given_files *given;
};

static void bury_back_end(void *opaque)
{
    struct machine_remains *r = opaque, **link = &r->machine->remains;

    while (*link != r)
        link = &(*link)->next;
    *link = r->next;
    mull_netdev_destroy(r->netdev);
    mull_block_close(r->block);
    mull_given_files_free(r->given);
    free(r);
}

static void bury_device(void *opaque)
{
    struct machine_remains *r = opaque;
    struct mull_machine *m = r->machine;
    bool running = m->state == MULL_MACHINE_RUNNING;

    if (running)
        machine_hold_vcpus(m);
    r->device->ops->destroy(r->device);
    if (running)
        machine_release_vcpus(m);
    r->device = NULL;
    if (mull_loop_post(m->loop, bury_back_end, r))
        bury_back_end(r);
}

/* Take a disk or network card away. Its device is quiet from now on, and goes when the loop has
 * worked off what was posted before. No vCPU runs. */
static void remove_part(struct mull_machine *m, struct machine_part *part)
{
    struct machine_remains *r = calloc(1, sizeof(*r));
    unsigned slot = part->slot;

    if (!r) { /* it stays where it is, which the guest can see */
        mull_log(m->log, MULL_LOG_ERROR, "machine %s: no memory to take a device away", m->name);
        return;
    }
    r->machine = m;
    r->next = m->remains;
    m->remains = r;
    r->device = part->device;
    if (part->kind == MACHINE_PART_DISK) {
        r->block = m->block[part->index];
        r->given = m->given[part->index];
        m->block[part->index] = NULL;
        m->given[part->index] = NULL;
    } else {
        r->netdev = m->netdev[part->index];
        m->netdev[part->index] = NULL;
    }
    mull_timer_destroy(part->limit);
    *part = (struct machine_part){0};
    unlink_device(m, r->device);
    if (r->device->ops->quiesce)
        r->device->ops->quiesce(r->device);
    mull_pci_bus_hide(mull_platform_pci(m->platform), slot);
    if (mull_loop_post(m->loop, bury_device, r))
        bury_device(r);
}

static struct mull_device_env environment(struct mull_machine *m)
{
    return (struct mull_device_env){.memory = m->memory,
                                    .loop = m->loop,
                                    .clock = m->clock,
                                    .log = m->log,
                                    .packed_rings = m->packed_rings};
}

/* The part that was added last has come: tell the guest. */
static void announce(struct mull_machine *m, enum machine_part_kind kind, unsigned index)
{
    for (unsigned i = 0; i < MACHINE_PARTS; i++)
        if (m->part[i].device && m->part[i].kind == kind && m->part[i].index == index) {
            mull_hotplug_come(registers(m), MULL_HOTPLUG_PCI, m->part[i].slot);
            mull_pci_bus_pass_slot(mull_platform_pci(m->platform), m->part[i].slot);
        }
}

int mull_machine_attach_disk(struct mull_machine *m, const struct mull_disk_config *disk,
                             struct mull_given_files *given, char id[MULL_PART_ID_MAX],
                             struct mull_error *err)
{
    struct mull_device_env env = environment(m);
    unsigned i = 0;

    while (i < MULL_CONFIG_DISKS && m->block[i])
        i++;
    int ret = must_run(m, err);
    if (!ret && i == MULL_CONFIG_DISKS)
        ret = mull_fail(err, ENOSPC, "machine %s: it has %d disks already, the most there can be",
                        m->name, MULL_CONFIG_DISKS);
    if (!ret)
        ret = machine_storage_add(m, &env, i, disk, given, err);
    if (ret) {
        mull_given_files_free(given);
        return ret;
    }
    m->given[i] = given;
    snprintf(id, MULL_PART_ID_MAX, "disk%u", i);
    announce(m, MACHINE_PART_DISK, i);
    return 0;
}

static int adopt(struct mull_machine *m, const struct mull_network_config *net, const int fds[2],
                 struct mull_netdev **out, struct mull_error *err)
{
    if (net->kind == MULL_NETWORK_TAP)
        return mull_tap_adopt(m->loop, fds[0], m->log, out, err);
    return mull_passt_adopt(m->loop, fds[0], fds[1], m->log, out, err);
}

int mull_machine_attach_network(struct mull_machine *m, const struct mull_network_config *net,
                                const int fds[2], char id[MULL_PART_ID_MAX], struct mull_error *err)
{
    struct mull_device_env env = environment(m);
    unsigned i = 0;

    while (i < MULL_CONFIG_NETWORKS && m->netdev[i])
        i++;
    int ret = must_run(m, err);
    if (!ret && i == MULL_CONFIG_NETWORKS)
        ret = mull_fail(err, ENOSPC,
                        "machine %s: it has %d network cards already, the most there can be",
                        m->name, MULL_CONFIG_NETWORKS);
    if (!ret && net->tftp)
        ret = mull_fail(err, ENOTSUP,
                        "machine %s: tftp=%s is possible only for a card that is there from the "
                        "start",
                        m->name, net->tftp);
    if (ret) {
        for (unsigned k = 0; k < 2; k++)
            if (fds[k] >= 0)
                close(fds[k]);
        return ret;
    }
    ret = adopt(m, net, fds, &m->netdev[i], err);
    if (!ret)
        ret = machine_limit_network(m, i, err);
    if (!ret)
        ret = machine_network_card(m, &env, i, net, err);
    if (ret) {
        mull_netdev_destroy(m->netdev[i]);
        m->netdev[i] = NULL;
        return ret;
    }
    snprintf(id, MULL_PART_ID_MAX, "net%u", i);
    announce(m, MACHINE_PART_NETWORK, i);
    return 0;
}

/* ---- vCPUs ---- */

static int set_fresh(struct mull_machine *m, unsigned i, struct mull_error *err)
{
    struct mull_cpu_state *s = aligned_alloc(64, (sizeof(*s) + 63) & ~63ul);
    if (!s)
        return mull_fail(err, ENOMEM, "vCPUs: no memory");
    mull_cpu_state_reset(s, i, false);
    int ret = m->engine->vcpu_set(m->vcpu[i].vcpu, s, err);
    free(s);
    return ret;
}

static void set_there(struct mull_machine *m, unsigned i, bool there)
{
    pthread_mutex_lock(&m->lock);
    m->vcpu[i].there = there;
    pthread_cond_broadcast(&m->changed);
    pthread_mutex_unlock(&m->lock);
}

int mull_machine_attach_cpus(struct mull_machine *m, unsigned count, struct mull_error *err)
{
    unsigned free_cpus = 0;
    int ret = must_run(m, err);

    for (unsigned i = 0; i < m->cpus; i++)
        free_cpus += !m->vcpu[i].there;
    if (!ret && (!count || count > free_cpus))
        ret = mull_fail(err, ENOSPC,
                        "machine %s: %u vCPUs more; it can have %u more (--cpus N,max=M when it is "
                        "started)",
                        m->name, count, free_cpus);
    for (unsigned i = 0; i < m->cpus && count && !ret; i++) {
        if (m->vcpu[i].there)
            continue;
        ret = set_fresh(m, i, err);
        if (ret)
            break;
        set_there(m, i, true);
        mull_hotplug_come(registers(m), MULL_HOTPLUG_CPU, i);
        count--;
    }
    return ret;
}

/* The vCPU is at the gate, and stays there. */
static void remove_cpu(struct mull_machine *m, unsigned i)
{
    struct mull_error err = {0};

    set_there(m, i, false);
    if (set_fresh(m, i, &err))
        mull_log(m->log, MULL_LOG_ERROR, "vCPU %u: %s", i, err.message);
}

/* ---- Memory ---- */

uint64_t mull_machine_dimms(struct mull_machine *m)
{
    uint64_t sum = 0;

    for (unsigned i = 0; i < MULL_HOTPLUG_DIMM_SLOTS; i++) {
        uint64_t base, size;
        mull_hotplug_dimm(registers(m), i, &base, &size);
        sum += size;
    }
    return sum;
}

/* The lowest place of @size bytes among the DIMMs that are there. @return false: none */
static bool find_place(struct mull_machine *m, uint64_t size, uint64_t *place)
{
    uint64_t first = mull_platform_dimm_base(m->platform), at = first;

    for (unsigned i = 0; i < MULL_HOTPLUG_DIMM_SLOTS; i++) {
        uint64_t base, length;
        mull_hotplug_dimm(registers(m), i, &base, &length);
        if (length && at < base + length && base < at + size) {
            at = base + length;
            i = ~0u; /* from the start again: the DIMMs are in no order */
        }
    }
    *place = at;
    return at - first <= m->dimms && size <= m->dimms - (at - first);
}

static void quiesce(struct mull_machine *m, bool on)
{
    for (struct mull_device *d = m->devices; d; d = d->next) {
        if (on && d->ops->quiesce)
            d->ops->quiesce(d);
        else if (!on && d->ops->resume)
            d->ops->resume(d);
    }
}

int mull_machine_attach_memory(struct mull_machine *m, uint64_t size, char id[MULL_PART_ID_MAX],
                               struct mull_error *err)
{
    unsigned slot = 0;
    uint64_t base, used;
    int ret = must_run(m, err);

    if (ret)
        return ret;
    for (; slot < MULL_HOTPLUG_DIMM_SLOTS; slot++) {
        mull_hotplug_dimm(registers(m), slot, &base, &used);
        if (!used)
            break;
    }
    if (!size || size % DIMM_UNIT)
        return mull_fail(err, EINVAL, "memory comes in whole %llu MiB", DIMM_UNIT >> 20);
    if (slot == MULL_HOTPLUG_DIMM_SLOTS)
        return mull_fail(err, ENOSPC, "machine %s: all %d slots for memory are taken; detach some",
                         m->name, MULL_HOTPLUG_DIMM_SLOTS);
    if (!find_place(m, size, &base))
        return mull_fail(err, ENOSPC,
                         "machine %s: %llu MiB more; there is room for %llu MiB, not all in one "
                         "piece perhaps (--memory SIZE,max=SIZE when it is started)",
                         m->name, (unsigned long long)size >> 20,
                         (unsigned long long)(m->dimms - mull_machine_dimms(m)) >> 20);
    machine_hold_vcpus(m);
    quiesce(m, true);
    ret = mull_memory_plug(m->memory, slot, base, size, err);
    quiesce(m, false);
    machine_release_vcpus(m);
    if (ret)
        return ret;
    mull_hotplug_set_dimm(registers(m), slot, base, size);
    mull_hotplug_come(registers(m), MULL_HOTPLUG_DIMM, slot);
    snprintf(id, MULL_PART_ID_MAX, "memory%u", slot);
    return 0;
}

/* Devices may have vectors into it: they finish first. */
static void remove_dimm(struct mull_machine *m, unsigned slot)
{
    quiesce(m, true);
    mull_memory_unplug(m->memory, slot);
    mull_hotplug_set_dimm(registers(m), slot, 0, 0);
    if (m->state == MULL_MACHINE_RUNNING)
        quiesce(m, false);
}

/* ---- Going ---- */

static void remove_thing(struct mull_machine *m, enum mull_hotplug_class class, unsigned index)
{
    struct machine_part *part = class == MULL_HOTPLUG_PCI ? part_in_slot(m, index) : NULL;

    if (part)
        remove_part(m, part);
    else if (class == MULL_HOTPLUG_CPU && index && index < m->cpus)
        remove_cpu(m, index);
    else if (class == MULL_HOTPLUG_DIMM)
        remove_dimm(m, index);
}

/* No vCPU runs. */
static void remove_ejected(struct mull_machine *m)
{
    for (unsigned class = 0; class < MULL_HOTPLUG_CLASSES; class ++)
        for (uint64_t bits = atomic_exchange(&m->ejected[class], 0); bits; bits &= bits - 1)
            remove_thing(m, (enum mull_hotplug_class) class, (unsigned)__builtin_ctzll(bits));
}

static void ejected(void *opaque)
{
    struct mull_machine *m = opaque;
    bool running = m->state == MULL_MACHINE_RUNNING;

    if (m->state == MULL_MACHINE_ENDED)
        return;
    if (running)
        machine_hold_vcpus(m);
    remove_ejected(m);
    if (running)
        machine_release_vcpus(m);
}

void machine_event_eject(void *opaque, enum mull_hotplug_class class, unsigned index)
{
    struct mull_machine *m = opaque;

    atomic_fetch_or(&m->ejected[class], 1ull << (index & 63));
    if (mull_loop_post(m->loop, ejected, m))
        mull_log(m->log, MULL_LOG_ERROR, "machine %s: no memory to take a part away", m->name);
}

void machine_hotplug_reset(struct mull_machine *m)
{
    struct mull_hotplug *h = registers(m);
    uint16_t cpus = 0;

    remove_ejected(m);
    for (unsigned class = 0; class < MULL_HOTPLUG_CLASSES; class ++)
        for (unsigned i = 0; i < 64; i++) {
            if (mull_hotplug_asked(h, (enum mull_hotplug_class) class, i, NULL) ==
                MULL_HOTPLUG_IDLE)
                continue;
            mull_hotplug_gone(h, (enum mull_hotplug_class) class, i);
            remove_thing(m, (enum mull_hotplug_class) class, i);
        }
    for (unsigned i = 0; i < m->cpus; i++)
        cpus += m->vcpu[i].there;
    if (m->fw_cfg)
        mull_fw_cfg_set(m->fw_cfg, MULL_FW_CFG_CPUS, &cpus, sizeof(cpus));
}

void machine_hotplug_fini(struct mull_machine *m)
{
    while (m->remains) {
        if (m->remains->device)
            m->remains->device->ops->destroy(m->remains->device);
        bury_back_end(m->remains);
    }
    for (unsigned i = 0; i < MULL_CONFIG_DISKS; i++) {
        mull_given_files_free(m->given[i]);
        m->given[i] = NULL;
    }
}

/* ---- By name ---- */

static const char *const prefix[2] = {[MACHINE_PART_DISK] = "disk", [MACHINE_PART_NETWORK] = "net"};

static void describe(struct mull_machine *m, enum mull_hotplug_class class, unsigned index,
                     struct mull_machine_part *part)
{
    enum mull_hotplug_asked asked = mull_hotplug_asked(registers(m), class, index, &part->status);

    part->asked = asked != MULL_HOTPLUG_IDLE;
    part->refused = asked == MULL_HOTPLUG_REFUSED;
}

void mull_machine_parts(struct mull_machine *m,
                        void (*fn)(void *opaque, const struct mull_machine_part *part),
                        void *opaque)
{
    for (unsigned i = 0; i < MACHINE_PARTS; i++) {
        const struct machine_part *p = &m->part[i];
        if (!p->device)
            continue;
        struct mull_machine_part part = {.kind = prefix[p->kind], .slot = p->slot};
        snprintf(part.id, sizeof(part.id), "%s%u", prefix[p->kind], p->index);
        describe(m, MULL_HOTPLUG_PCI, p->slot, &part);
        fn(opaque, &part);
    }
    for (unsigned i = 0; i < MULL_HOTPLUG_DIMM_SLOTS; i++) {
        struct mull_machine_part part = {.kind = "memory"};
        uint64_t base;
        mull_hotplug_dimm(registers(m), i, &base, &part.size);
        if (!part.size)
            continue;
        snprintf(part.id, sizeof(part.id), "memory%u", i);
        describe(m, MULL_HOTPLUG_DIMM, i, &part);
        fn(opaque, &part);
    }
    for (unsigned i = 0; i < m->cpus; i++) {
        struct mull_machine_part part = {.kind = "cpu"};
        if (!m->vcpu[i].there)
            continue;
        snprintf(part.id, sizeof(part.id), "cpu%u", i);
        describe(m, MULL_HOTPLUG_CPU, i, &part);
        fn(opaque, &part);
    }
}

struct search {
    const char *id;
    struct mull_machine_part part;
    bool found;
};

static void compare(void *opaque, const struct mull_machine_part *part)
{
    struct search *s = opaque;

    if (!strcmp(part->id, s->id)) {
        s->part = *part;
        s->found = true;
    }
}

/* The guest's time to let go of what is taken by force is over. */
static void overdue(void *opaque)
{
    struct machine_part *part = opaque;
    struct mull_machine *m = part->machine;
    bool running = m->state == MULL_MACHINE_RUNNING;

    if (running)
        machine_hold_vcpus(m);
    mull_hotplug_gone(registers(m), MULL_HOTPLUG_PCI, part->slot);
    remove_part(m, part);
    if (running)
        machine_release_vcpus(m);
}

/* Its slot looks empty from now on, which tells drivers not to wait for it; but its registers still
 * answer for a while: Linux's virtio driver waits forever for a device to reset that does not. */
static int start_limit(struct mull_machine *m, struct machine_part *part, struct mull_error *err)
{
    if (part->limit)
        return 0;
    part->limit = mull_timer_create(m->loop, overdue, part);
    if (!part->limit)
        return mull_fail(err, ENOMEM, "detach: no memory");
    part->machine = m;
    mull_timer_arm(part->limit, mull_now_ns() + FORCE_NS);
    mull_pci_bus_hide(mull_platform_pci(m->platform), part->slot);
    return 0;
}

int mull_machine_detach(struct mull_machine *m, const char *id, bool force, struct mull_error *err)
{
    struct search s = {.id = id};
    int ret = must_run(m, err);

    if (ret)
        return ret;
    mull_machine_parts(m, compare, &s);
    if (!s.found)
        return mull_fail(err, ENOENT,
                         "machine %s: it has no part %s that can be detached; see "
                         "mullion parts",
                         m->name, id);
    bool pci = !strcmp(s.part.kind, "disk") || !strcmp(s.part.kind, "net");
    enum mull_hotplug_class class = pci                              ? MULL_HOTPLUG_PCI
                                    : !strcmp(s.part.kind, "memory") ? MULL_HOTPLUG_DIMM
                                                                     : MULL_HOTPLUG_CPU;
    unsigned index = pci ? s.part.slot : (unsigned)atoi(id + strlen(s.part.kind));
    if (class == MULL_HOTPLUG_CPU && !index)
        return mull_fail(err, EINVAL, "cpu0 starts all others and cannot go");
    if (class == MULL_HOTPLUG_CPU && !m->cpus_hot)
        return mull_fail(err, EINVAL,
                         "machine %s: vCPUs come and go where it is started with "
                         "--cpus N,max=M",
                         m->name);
    if (force && !pci)
        return mull_fail(err, EINVAL,
                         "%s: only disks and network cards can go without the guest's "
                         "consent",
                         id);
    if (force && (ret = start_limit(m, part_in_slot(m, index), err)))
        return ret;
    mull_hotplug_ask(registers(m), class, index);
    return 0;
}
