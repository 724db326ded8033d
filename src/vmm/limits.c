/*
 * The control channel's method that sets a machine's limits: whoever is connected says numbers, of
 * which only those that are limits reach the machine. See resources.h.
 */
#include <errno.h>

#include "vmm/resources.h"

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

static int read_rates(json_t *params, const char *member, const char *const *names, unsigned count,
                      uint64_t *out, struct mull_error *err)
{
    json_t *object = json_object_get(params, member);
    int ret = 0;
    if (object && !json_is_null(object) && !json_is_object(object))
        return mull_fail(err, EINVAL, "%s: must be an object", member);
    for (unsigned i = 0; i < count && !ret; i++)
        ret = read_number(object, names[i], RATE_MAX, &out[i], err);
    return ret;
}

int vmm_limits_read(json_t *params, struct mull_machine_limits *out, struct mull_error *err)
{
    uint64_t cpu = 0;
    *out = (struct mull_machine_limits){0};
    int ret = read_number(params, "cpu", CPU_MAX, &cpu, err);
    if (!ret)
        ret = read_rates(params, "disk", vmm_disk_limits, 6, out->disk, err);
    if (!ret)
        ret = read_rates(params, "network", vmm_network_limits, 3, out->network, err);
    out->cpu = (unsigned)cpu;
    return ret;
}

json_t *vmm_limits_set(struct mull_machine *m, json_t *params, struct mull_error *err)
{
    struct mull_machine_limits limits;
    if (vmm_limits_read(params, &limits, err))
        return NULL;
    mull_machine_limit(m, &limits);
    return json_object();
}
