/* See place.h. */
#include "cli/api/place.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct host_place {
    struct api_target target;
    char *socket, *url, *pin, *token;
};

/* ---- The file of contexts ---- */

static char *file_path(const char *suffix)
{
    const char *config = getenv("XDG_CONFIG_HOME"), *home = getenv("HOME");
    char *path = NULL;
    int n = config && *config
                ? asprintf(&path, "%s/mullion/contexts.json%s", config, suffix)
                : asprintf(&path, "%s/.config/mullion/contexts.json%s", home ? home : "", suffix);

    return n < 0 ? NULL : path;
}

json_t *host_contexts_read(struct mull_error *err)
{
    json_error_t where;
    char *path = file_path("");
    json_t *all = NULL;

    if (!path)
        mull_fail(err, ENOMEM, "no memory");
    else if (access(path, F_OK))
        all = json_pack("{s:n, s:{}}", "current", "contexts");
    else if (!(all = json_load_file(path, 0, &where)))
        mull_fail(err, EINVAL, "%s:%d: %s", path, where.line, where.text);
    free(path);
    return all;
}

static void make_folders(char *path)
{
    for (char *slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        mkdir(path, 0700);
        *slash = '/';
    }
}

int host_contexts_write(json_t *all, struct mull_error *err)
{
    char *path = file_path(""), *fresh = file_path(".new"), *text = json_dumps(all, JSON_INDENT(2));
    int ret = -ENOMEM;

    if (path && fresh && text) {
        make_folders(path);
        unlink(fresh);
        int fd = open(fresh, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
        ssize_t length = (ssize_t)strlen(text);
        ret = fd < 0 || write(fd, text, (size_t)length) != length || fsync(fd) ? -errno : 0;
        if (fd >= 0 && close(fd) && !ret)
            ret = -errno;
        if (!ret && rename(fresh, path))
            ret = -errno;
    }
    if (ret)
        mull_fail(err, -ret, "%s: %s", path ? path : "contexts", strerror(-ret));
    free(path);
    free(fresh);
    free(text);
    return ret;
}

/* ---- The host of this machine ---- */

static char *socket_in(const char *folder)
{
    char *path = NULL;

    return asprintf(&path, "%s/mulliond.sock", folder) < 0 ? NULL : path;
}

char *host_place_socket(void)
{
    const char *own = getenv("MULLION_RUNTIME_DIR"), *xdg = getenv("XDG_RUNTIME_DIR");
    char folder[256];

    if (own && *own)
        return socket_in(own);
    if (xdg && *xdg)
        snprintf(folder, sizeof(folder), "%s/mullion", xdg);
    else if (geteuid() == 0)
        snprintf(folder, sizeof(folder), "/run/mullion");
    else
        snprintf(folder, sizeof(folder), "/tmp/mullion-%u", geteuid());
    char *path = socket_in(folder);
    if (path && access(path, F_OK) && !access("/run/mullion/mulliond.sock", W_OK)) {
        free(path);
        path = strdup("/run/mullion/mulliond.sock");
    }
    return path;
}

bool host_place_here(void)
{
    const char *host = getenv("MULLION_HOST"), *context = getenv("MULLION_CONTEXT");
    char *path = host_place_socket();
    bool here = (host && *host) || (context && *context) || (path && !access(path, F_OK));

    free(path);
    return here;
}

/* ---- Which one ---- */

static char *copy_of(const json_t *context, const char *member)
{
    const char *text = json_string_value(json_object_get(context, member));

    return text ? strdup(text) : NULL;
}

static int take_context(struct host_place *p, const char *name, const json_t *all,
                        struct mull_error *err)
{
    const json_t *context = json_object_get(json_object_get(all, "contexts"), name);

    if (!context)
        return mull_fail(err, ENOENT, "context %s: there is none; see mullion context list", name);
    p->url = copy_of(context, "url");
    p->pin = copy_of(context, "pin");
    p->token = copy_of(context, "token");
    return p->url ? 0 : mull_fail(err, EINVAL, "context %s: has no url", name);
}

/* A host by its URL: what a context knows of the same URL helps to trust it. */
static int take_host(struct host_place *p, const char *host, const json_t *all,
                     struct mull_error *err)
{
    const char *name;
    json_t *context;

    if (!strncmp(host, "unix:", 5)) {
        p->socket = strdup(host + 5);
        return p->socket ? 0 : mull_fail(err, ENOMEM, "no memory");
    }
    if (strncmp(host, "https://", 8))
        return mull_fail(err, EINVAL, "--host %s: give https://NAME:PORT or unix:PATH", host);
    json_object_foreach(json_object_get(all, "contexts"), name, context)
    {
        const char *url = json_string_value(json_object_get(context, "url"));

        if (url && !strcmp(url, host) && !p->url)
            take_context(p, name, all, NULL);
    }
    if (!p->url)
        p->url = strdup(host);
    return p->url ? 0 : mull_fail(err, ENOMEM, "no memory");
}

static int choose(struct host_place *p, const char *host, const char *context, const json_t *all,
                  struct mull_error *err)
{
    const char *env_host = getenv("MULLION_HOST"), *env_context = getenv("MULLION_CONTEXT");
    const char *current = json_string_value(json_object_get(all, "current"));

    if (host && context)
        return mull_fail(err, EINVAL, "--host and --context: give one of them");
    if (host)
        return take_host(p, host, all, err);
    if (context)
        return take_context(p, context, all, err);
    if (env_host && *env_host)
        return take_host(p, env_host, all, err);
    if (env_context && *env_context)
        return take_context(p, env_context, all, err);
    if (current)
        return take_context(p, current, all, err);
    p->socket = host_place_socket();
    return p->socket ? 0 : mull_fail(err, ENOMEM, "no memory");
}

int host_place_find(const char *host, const char *context, struct host_place **out,
                    struct mull_error *err)
{
    const char *token = getenv("MULLION_TOKEN"), *pin = getenv("MULLION_PIN");
    struct host_place *p = calloc(1, sizeof(*p));
    json_t *all = host_contexts_read(err);
    int ret = p && all ? choose(p, host, context, all, err) : -EINVAL;

    json_decref(all);
    *out = NULL;
    if (ret) {
        host_place_free(p);
        return ret;
    }
    p->target = (struct api_target){.socket = p->socket,
                                    .url = p->url,
                                    .pin = pin && *pin ? pin : p->pin,
                                    .token = token && *token ? token : p->token};
    *out = p;
    return 0;
}

const struct api_target *host_place_target(const struct host_place *p)
{
    return &p->target;
}

void host_place_free(struct host_place *p)
{
    if (!p)
        return;
    free(p->socket);
    free(p->url);
    free(p->pin);
    free(p->token);
    free(p);
}
