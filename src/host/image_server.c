/*
 * See image_server.h.
 */
#include "host/image_server.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "host/fetch.h"
#include "host/sums.h"

#define SUMS_MAX (1u << 20)
#define IMAGE_MAX (1ull << 40)

/* "https://SERVER/FOLDER/" and a file's name. @return malloc'ed */
static char *url_of(const char *server, const char *file)
{
    size_t n = strlen(server);
    char *url = NULL;

    if (asprintf(&url, "%s%s%s", server, n && server[n - 1] == '/' ? "" : "/", file) < 0)
        return NULL;
    return url;
}

char *image_server_fetch(struct task *task, const char *name, const char *folder, bool *known,
                         struct host_problem *p)
{
    const char *server = task->host->options.image_server;
    struct mull_error err = {0};
    char file[128], promised[65], have[65];
    char *url = url_of(server, "SHA256SUMS"), *to = host_path(folder, "SHA256SUMS");
    int ret = url && to ? host_fetch(task, "asking the image server", url, to, SUMS_MAX, have, &err)
                        : mull_fail(&err, ENOMEM, "no memory");
    char *sums = ret ? NULL : host_read_file(to, SUMS_MAX, NULL, &err);

    *known = !sums || sums_find(sums, name, file, promised);
    free(sums);
    free(url);
    free(to);
    if (!*known)
        return NULL;
    url = sums ? url_of(server, file) : NULL;
    to = sums ? host_path(folder, "fetched") : NULL;
    ret = !sums         ? -1
          : !url || !to ? mull_fail(&err, ENOMEM, "no memory")
                        : host_fetch(task, "fetching the image", url, to, IMAGE_MAX, have, &err);
    if (ret && err.code == ECANCELED)
        host_problem(p, HOST_CONFLICT, NULL, "cancelled");
    else if (ret)
        host_problem(p, HOST_UNAVAILABLE, NULL, "the image server: %.500s", err.message);
    if (!ret && strcasecmp(have, promised))
        ret = host_problem(
            p, HOST_CONFLICT, NULL,
            "%s: its SHA-256 is %s, but SHA256SUMS says %s: nothing of it is kept; tell "
            "the image server's administrator",
            url, have, promised);
    free(url);
    if (ret) {
        free(to);
        return NULL;
    }
    return to;
}
