/*
 * See resources.h.
 */
#include "vmm/resources.h"

#include <errno.h>

#include "vmm/balloon.h"
#include "vmm/control.h"

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
