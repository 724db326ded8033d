/* See tools.h. */
#include "vmm/tools.h"

#include <errno.h>
#include <gnutls/gnutls.h>
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

/* ---- Messages of the host's own ---- */

static const char *why_not_sent(int ret)
{
    switch (ret) {
    case -ENOTCONN:
        return "no open-vm-tools run in the guest";
    case -EEXIST:
        return "several programs in the guest say that they are open-vm-tools: none is told "
               "anything";
    case -EBUSY:
        return "open-vm-tools in the guest are asked too much at once; try again";
    case -EMSGSIZE:
        return "message: empty, or longer than 64 KiB";
    }
    return "no memory";
}

json_t *vmm_tools_send(struct mull_machine *m, json_t *params, struct mull_error *err)
{
    struct mull_device *tools = tools_of(m, err);
    const json_t *message = json_object_get(params, "message");
    gnutls_datum_t in = {(unsigned char *)json_string_value(message),
                         (unsigned)json_string_length(message)};
    gnutls_datum_t out = {0};
    uint32_t id = 0;

    if (!tools)
        return NULL;
    if (!in.size || gnutls_base64_decode2(&in, &out)) {
        mull_fail(err, EINVAL, "message: must be base64");
        return NULL;
    }
    int ret = mull_tools_send(tools, out.data, out.size, &id);
    explicit_bzero(out.data, out.size); /* it may hold a password */
    gnutls_free(out.data);
    if (ret) {
        mull_fail(err, -ret, "%s", why_not_sent(ret));
        return NULL;
    }
    return json_pack("{s:I}", "id", (json_int_t)id);
}

json_t *vmm_tools_receive(struct mull_machine *m, json_t *params, struct mull_error *err)
{
    struct mull_device *tools = tools_of(m, err);
    json_int_t id = json_integer_value(json_object_get(params, "id"));
    uint8_t *answer;
    size_t size;

    if (!tools)
        return NULL;
    int ret = id > 0 && id <= UINT32_MAX ? mull_tools_receive(tools, (uint32_t)id, &answer, &size)
                                         : -ENOENT;
    if (ret == -EAGAIN)
        return json_object();
    if (ret) {
        mull_fail(err, -ret, "%s",
                  ret == -ENOENT ? "id: no such message"
                                 : "open-vm-tools in the guest ended without an answer");
        return NULL;
    }
    gnutls_datum_t in = {answer, (unsigned)size}, out = {0};
    json_t *result = NULL;
    if (!size)
        result = json_pack("{s:s}", "answer", "");
    else if (!gnutls_base64_encode2(&in, &out))
        result = json_pack("{s:s#}", "answer", (const char *)out.data, (size_t)out.size);
    gnutls_free(out.data);
    mull_tools_wipe(answer, size);
    if (!result)
        mull_fail(err, ENOMEM, "no memory");
    return result;
}

json_t *vmm_tools_drop(struct mull_machine *m, json_t *params, struct mull_error *err)
{
    struct mull_device *tools = tools_of(m, err);
    json_int_t id = json_integer_value(json_object_get(params, "id"));

    if (!tools)
        return NULL;
    if (id > 0 && id <= UINT32_MAX)
        mull_tools_drop(tools, (uint32_t)id);
    return json_object();
}
