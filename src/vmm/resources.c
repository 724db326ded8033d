/*
 * See resources.h.
 */
#include "vmm/resources.h"

#include <errno.h>

#include "vmm/balloon.h"
#include "vmm/control.h"

#define CPU_MAX 6400         /* percent: 64 vCPUs */
#define RATE_MAX (1ll << 50) /* bytes or requests a second: more is no limit */

const char *const vmm_disk_limits[6] = {"bytes",      "read_bytes", "write_bytes",
                                        "operations", "reads",      "writes"};
const char *const vmm_network_limits[3] = {"bytes", "in_bytes", "out_bytes"};

static int read_number(json_t *object, const char *name, json_int_t most, uint64_t *out,
                       struct mull_error *err)
{
    json_t *value = json_object_get(object, name);
    *out = 0;
    if (!value || json_is_null(value))
        return 0;
    if (!json_is_integer(value) || json_integer_value(value) < 0 ||
        json_integer_value(value) > most)
        return mull_fail(err, EINVAL, "%s: must be 0 to %lld", name, (long long)most);
    *out = (uint64_t)json_integer_value(value);
    return 0;
}

static int read_rates(json_t *object, const char *const *names, unsigned count, uint64_t *out,
                      struct mull_error *err)
{
    int ret = 0;
    for (unsigned i = 0; i < count && !ret; i++)
        ret = read_number(object, names[i], RATE_MAX, &out[i], err);
    return ret;
}

json_t *vmm_limits_set(struct mull_machine *m, json_t *params, struct mull_error *err)
{
    struct mull_machine_limits limits = {0};
    uint64_t cpu = 0;
    int ret = read_number(params, "cpu", CPU_MAX, &cpu, err);
    if (!ret)
        ret = read_rates(json_object_get(params, "disk"), vmm_disk_limits, 6, limits.disk, err);
    if (!ret)
        ret = read_rates(json_object_get(params, "network"), vmm_network_limits, 3, limits.network,
                         err);
    if (ret)
        return NULL;
    limits.cpu = (unsigned)cpu;
    mull_machine_limit(m, &limits);
    return json_object();
}

json_t *vmm_merge(struct mull_machine *m, json_t *params, struct mull_error *err)
{
    int ret = mull_machine_merge(m, json_is_true(json_object_get(params, "on")));
    if (ret) {
        mull_fail(err, -ret, "this memory, or this host's kernel, cannot merge pages (KSM)");
        return NULL;
    }
    return json_pack("{s:O}", "merging", json_object_get(params, "on"));
}

struct lists {
    json_t *disks, *networks;
};

static void add_io(void *opaque, const struct mull_machine_io *io)
{
    struct lists *l = opaque;
    if (io->kind == MULL_IO_OF_NETWORK)
        json_array_append_new(
            l->networks,
            json_pack("{s:i, s:I, s:I, s:I, s:I, s:I}", "index", (int)io->index, "in_bytes",
                      (json_int_t)io->in_bytes, "in_packets", (json_int_t)io->in_count, "out_bytes",
                      (json_int_t)io->out_bytes, "out_packets", (json_int_t)io->out_count, "waited",
                      (json_int_t)io->waited));
    else
        json_array_append_new(
            l->disks,
            json_pack("{s:i, s:s, s:I, s:I, s:I, s:I, s:I, s:I}", "index", (int)io->index, "kind",
                      io->kind == MULL_IO_OF_DISK ? "disk" : "cdrom", "read_bytes",
                      (json_int_t)io->in_bytes, "reads", (json_int_t)io->in_count, "written_bytes",
                      (json_int_t)io->out_bytes, "writes", (json_int_t)io->out_count, "flushes",
                      (json_int_t)io->flushes, "waited", (json_int_t)io->waited));
}

json_t *vmm_usage(struct mull_machine *m, json_t *params, struct mull_error *err)
{
    struct lists l = {json_array(), json_array()};
    struct mull_machine_usage usage;
    struct mull_machine_info info;
    mull_machine_usage(m, &usage);
    mull_machine_info(m, &info);
    mull_machine_io(m, add_io, &l);
    json_t *balloon = mull_machine_balloon(m) ? vmm_balloon_stats(m, params, err) : json_null();
    return json_pack("{s:s, s:s, s:{s:I, s:I}, s:b, s:I, s:o, s:o, s:o}", "state",
                     vmm_state_name(info.state), "reason", info.paused_by, "cpu", "used",
                     (json_int_t)usage.cpu_ns, "held", (json_int_t)usage.cpu_held_ns, "merging",
                     usage.merging, "memory", (json_int_t)info.memory, "disks", l.disks, "networks",
                     l.networks, "balloon", balloon ? balloon : json_null());
}
