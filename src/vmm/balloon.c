/*
 * The control channel's methods for the memory balloon. See balloon.h.
 */
#include "vmm/balloon.h"

#include <errno.h>

#include "device/virtio/balloon.h"

static struct mull_device *balloon_of(struct mull_machine *m, struct mull_error *err)
{
    struct mull_device *balloon = mull_machine_balloon(m);
    if (!balloon)
        mull_fail(err, ENODEV, "this machine has no balloon; start it with --balloon on");
    return balloon;
}

json_t *vmm_balloon_set(struct mull_machine *m, json_t *params, struct mull_error *err)
{
    struct mull_device *balloon = balloon_of(m, err);
    json_t *memory = json_object_get(params, "memory");
    struct mull_machine_info info;

    if (!balloon)
        return NULL;
    mull_machine_info(m, &info);
    if (!json_is_integer(memory) || json_integer_value(memory) <= 0 ||
        (uint64_t)json_integer_value(memory) > info.memory) {
        mull_fail(err, ERANGE, "memory: give the bytes that the guest shall keep, at most %llu",
                  (unsigned long long)info.memory);
        return NULL;
    }
    mull_balloon_set(balloon, info.memory - (uint64_t)json_integer_value(memory));
    return json_object();
}

json_t *vmm_balloon_trim(struct mull_machine *m, struct mull_error *err)
{
    return mull_machine_trim(m, err) ? NULL : json_object();
}

json_t *vmm_balloon_stats(struct mull_machine *m, json_t *params, struct mull_error *err)
{
    struct mull_device *balloon = balloon_of(m, err);
    struct mull_balloon_info b;
    struct mull_machine_info info;

    if (!balloon)
        return NULL;
    mull_machine_info(m, &info);
    mull_balloon_info(balloon, &b);
    if (!json_is_false(json_object_get(params, "refresh")))
        mull_balloon_refresh(balloon);
    json_t *stats = json_object();
    for (unsigned i = 0; i < MULL_BALLOON_STATS; i++)
        if (b.stats[i] <= INT64_MAX)
            json_object_set_new(stats, mull_balloon_stat_names[i],
                                json_integer((json_int_t)b.stats[i]));
    uint64_t target = b.target < info.memory ? info.memory - b.target : 0;
    uint64_t actual = b.actual < info.memory ? info.memory - b.actual : 0;
    return json_pack("{s:I, s:I, s:I, s:I, s:I, s:b, s:b, s:b, s:o}", "memory",
                     (json_int_t)info.memory, "target", (json_int_t)target, "actual",
                     (json_int_t)actual, "reported", (json_int_t)b.reported, "trimmed",
                     (json_int_t)b.hinted, "trimming", b.asked, "driver", b.driver, "fresh",
                     b.fresh, "stats", stats);
}
