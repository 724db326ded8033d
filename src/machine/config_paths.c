/*
 * Names of files in a description are relative to the description's folder; here they are made
 * whole before a machine runs elsewhere.
 */
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "machine/config.h"

static int resolve(json_t *object, const char *key, const char *folder)
{
    const char *name = json_string_value(json_object_get(object, key));
    if (!name || !*name || *name == '/' || strstr(name, "://"))
        return 0;
    char *full = NULL;
    if (asprintf(&full, "%s/%s", folder, name) < 0)
        return -ENOMEM;
    int ret = json_object_set_new(object, key, json_string(full)) ? -EILSEQ : 0;
    free(full);
    return ret;
}

static int resolve_list(json_t *list, const char *folder)
{
    json_t *item;
    size_t i;
    int ret = 0;
    json_array_foreach(list, i, item)
    {
        const char *type = json_string_value(json_object_get(item, "type"));
        if (!ret && (!type || strcmp(type, "tcp")))
            ret = resolve(item, "path", folder);
    }
    return ret;
}

int mull_machine_config_resolve(json_t *root, const char *folder)
{
    static const char *const files[] = {"kernel", "initrd", "nvram", "firmware", "tpm_state"};
    static const char *const lists[] = {"disks", "cdroms", "consoles", "modules", "shares"};
    int ret = 0;
    for (unsigned i = 0; i < sizeof(files) / sizeof(files[0]) && !ret; i++) {
        const char *value = json_string_value(json_object_get(root, files[i]));
        if (value && strcmp(value, "bios") && strcmp(value, "uefi"))
            ret = resolve(root, files[i], folder);
    }
    for (unsigned i = 0; i < sizeof(lists) / sizeof(lists[0]) && !ret; i++)
        ret = resolve_list(json_object_get(root, lists[i]), folder);
    if (!ret)
        ret = resolve(json_object_get(root, "vsock"), "path", folder);
    return ret;
}
