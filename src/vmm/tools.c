/* See tools.h. */
#include "vmm/tools.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "device/vmware/tools.h"

static struct mull_device *tools_of(struct mull_machine *m, struct mull_error *err)
{
    struct mull_device *tools = mull_machine_tools(m);
    if (!tools)
        mull_fail(err, ENODEV,
                  "this machine has no interface for VMware's tools; its description needs "
                  "vmware_tools");
    return tools;
}

json_t *vmm_tools(struct mull_machine *m, json_t *params, struct mull_error *err)
{
    struct mull_device *tools = tools_of(m, err);
    struct mull_tools_info info;
    char version[48] = "";

    if (!tools)
        return NULL;
    mull_tools_info(tools, &info);
    if (info.version)
        snprintf(version, sizeof(version), "%u.%u.%u", info.version >> 10, info.version >> 5 & 31,
                 info.version & 31);
    json_t *addresses = json_array();
    for (unsigned i = 0; i < info.address_count; i++)
        json_array_append_new(addresses, json_string(info.address[i]));
    return json_pack("{s:b, s:f, s:s, s:s, s:s, s:o}", "running", info.running, "heartbeat",
                     info.heartbeat, "version", version, "hostname", info.hostname, "os", info.os,
                     "addresses", addresses);
}

json_t *vmm_tools_power(struct mull_machine *m, json_t *params, struct mull_error *err)
{
    struct mull_device *tools = tools_of(m, err);
    const char *action = json_string_value(json_object_get(params, "action"));

    if (!tools)
        return NULL;
    if (!action || (strcmp(action, "halt") && strcmp(action, "reboot"))) {
        mull_fail(err, EINVAL, "action: give halt or reboot");
        return NULL;
    }
    if (mull_tools_power(tools, strcmp(action, "halt") ? MULL_TOOLS_REBOOT : MULL_TOOLS_HALT)) {
        mull_fail(err, ENOTCONN, "no open-vm-tools run in the guest");
        return NULL;
    }
    return json_object();
}
