/*
 * See client.h.
 */
#include "cli/client.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"
#include "cli/runtime.h"

bool client_open(struct client *c, const char *path)
{
    struct mull_error err = {0};
    int ret = mull_rpc_open(&c->rpc, path, 10, &err);
    errno = -ret;
    return !ret;
}

void client_close(struct client *c)
{
    mull_rpc_close(&c->rpc);
}

struct search {
    const char *machine;
    unsigned found;
    char path[RUNTIME_PATH_MAX];
};

static bool compare(void *opaque, const char *name, int pid, const char *path)
{
    struct search *s = opaque;
    char number[16];

    snprintf(number, sizeof(number), "%d", pid);
    if (strcmp(name, s->machine) && strcmp(number, s->machine))
        return true;
    s->found++;
    snprintf(s->path, sizeof(s->path), "%s", path);
    return true;
}

bool client_knows(const char *machine)
{
    struct search s = {.machine = machine};

    if (!strchr(machine, '/'))
        runtime_list(compare, &s);
    return s.found || strchr(machine, '/');
}

int client_connect(struct client *c, const char *machine)
{
    struct search s = {.machine = machine};

    if (strchr(machine, '/'))
        snprintf(s.path, sizeof(s.path), "%s", machine);
    else
        runtime_list(compare, &s);
    if (!*s.path)
        return cli_fail(VMM_STATUS_HOST_ERROR,
                        "%s: no such machine runs; see mullion top, or give the path of a control "
                        "socket",
                        machine);
    if (s.found > 1)
        return cli_fail(VMM_STATUS_HOST_ERROR,
                        "%s: %u machines have this name; give the process number that mullion top "
                        "shows",
                        machine, s.found);
    if (!client_open(c, s.path))
        return cli_fail(VMM_STATUS_HOST_ERROR, "%s: %s", s.path, strerror(errno));
    return -1;
}

json_t *client_call(struct client *c, const char *method)
{
    return client_call_with(c, method, NULL);
}

json_t *client_call_with(struct client *c, const char *method, json_t *params)
{
    return client_call_handing(c, method, params, NULL, 0);
}

json_t *client_call_handing(struct client *c, const char *method, json_t *params, const int *fds,
                            unsigned count)
{
    struct mull_error err = {0};
    json_t *result = NULL;
    if (mull_rpc_call_handing(&c->rpc, method, params, fds, count, &result, &err))
        cli_fail(0, "%s", err.message);
    return result;
}
