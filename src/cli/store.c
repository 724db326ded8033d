/* Finding and reading machines' descriptions. See store.h. */
#include "cli/store.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "machine/config.h"

#define DESCRIPTION_MAX (1u << 20) /* as mullion-vmm reads */

char *machine_store_folder(struct mull_error *err)
{
    const char *data = getenv("XDG_DATA_HOME"), *home = getenv("HOME");
    char *path = NULL;
    int n = -1;
    /* XDG Base Directory Specification: a relative one is to be ignored. */
    if (data && *data == '/')
        n = asprintf(&path, "%s/mullion/machines", data);
    else if (home && *home)
        n = asprintf(&path, "%s/.local/share/mullion/machines", home);
    if (n >= 0)
        return path;
    mull_fail(err, ENOENT, "machines: neither XDG_DATA_HOME nor HOME says where they are");
    return NULL;
}

int machine_store_find(const char *name, char **path, struct mull_error *err)
{
    *path = NULL;
    if (!*name || *name == '.' || strchr(name, '/'))
        return mull_fail(err, EINVAL, "%s: not a machine's name; a file is given with --config",
                         name);
    char *folder = machine_store_folder(err);
    if (!folder)
        return -ENOENT;
    int n = asprintf(path, "%s/%s/machine.json", folder, name);
    int ret = n < 0 ? mull_fail(err, ENOMEM, "no memory") : 0;
    if (!ret && access(*path, R_OK)) {
        ret = mull_fail(err, errno, "%s: no such machine in %s: %s", name, folder, strerror(errno));
        free(*path);
        *path = NULL;
    }
    free(folder);
    return ret;
}

int machine_file_read(const char *path, json_t **out, struct mull_error *err)
{
    FILE *f = fopen(path, "re");
    char *text = malloc(DESCRIPTION_MAX);
    if (!f || !text) {
        int code = f ? ENOMEM : errno;
        if (f)
            fclose(f);
        free(text);
        return mull_fail(err, code, "%s: %s", path, strerror(code));
    }
    size_t n = fread(text, 1, DESCRIPTION_MAX, f);
    int ret = ferror(f) ? mull_fail(err, EIO, "%s: %s", path, strerror(errno)) : 0;
    fclose(f);
    json_error_t where;
    *out = NULL;
    if (!ret && n == DESCRIPTION_MAX)
        ret = mull_fail(err, E2BIG, "%s: more than 1 MiB; is this a machine's description?", path);
    if (!ret && !(*out = json_loadb(text, n, JSON_REJECT_DUPLICATES, &where)))
        ret = mull_fail(err, EINVAL, "%s: line %d, column %d: %s", path, where.line, where.column,
                        where.text);
    if (!ret && !json_is_object(*out))
        ret = mull_fail(err, EINVAL, "%s: must be a JSON object", path);
    const char *slash = strrchr(path, '/');
    char *in = slash ? strndup(path, (size_t)(slash - path)) : NULL;
    if (!ret && in && (ret = mull_machine_config_resolve(*out, in)))
        mull_fail(err, -ret, "%s: %s", path, strerror(-ret));
    free(in);
    free(text);
    if (ret) {
        json_decref(*out);
        *out = NULL;
    }
    return ret;
}
