/*
 * The portal's files, and metrics. A path that is no file is a page of the portal, which finds its
 * way itself; nothing outside the portal's folder can be named.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "api/rest/rest.h"
#include "host/stats.h"

static const struct {
    const char *end, *type;
} types[] = {{".html", "text/html; charset=utf-8"},
             {".js", "text/javascript; charset=utf-8"},
             {".css", "text/css; charset=utf-8"},
             {".svg", "image/svg+xml"},
             {".png", "image/png"},
             {".ico", "image/x-icon"},
             {".json", "application/json"},
             {".webmanifest", "application/manifest+json"},
             {".woff2", "font/woff2"},
             {".wasm", "application/wasm"},
             {".txt", "text/plain; charset=utf-8"},
             {".map", "application/json"}};

static const char none[] =
    "<!DOCTYPE html><title>Mullion</title><p>The portal is not installed here. The API is at "
    "<a href=\"/api/v1/\">/api/v1/</a>.";

static bool is_safe(const char *path)
{
    for (const char *p = path; *p; p++) {
        if (*p == '/' && (p[1] == '.' || p[1] == '/'))
            return false;
        if ((unsigned char)*p < ' ' || *p == '\\')
            return false;
    }
    return *path == '/';
}

static int open_file(struct request *r, const char *path, const char *suffix)
{
    char full[4096];
    struct stat st;
    if (snprintf(full, sizeof(full), "%s%s%s", r->host->places.portal, path, suffix) >=
        (int)sizeof(full))
        return -1;
    int fd = open(full, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return -1;
    if (fstat(fd, &st) || !S_ISREG(st.st_mode)) {
        close(fd);
        return -1;
    }
    snprintf(r->etag, sizeof(r->etag), "\"%llx-%llx%s\"", (unsigned long long)st.st_size,
             (unsigned long long)st.st_mtim.tv_sec, *suffix ? "-gz" : "");
    return fd;
}

static const char *type_of(const char *path)
{
    size_t n = strlen(path);
    for (unsigned i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
        size_t end = strlen(types[i].end);
        if (n > end && !strcmp(path + n - end, types[i].end))
            return types[i].type;
    }
    return "application/octet-stream";
}

void rest_serve_file(struct request *r)
{
    const char *path = strcmp(r->path, "/") ? r->path : "/index.html";
    const char *known = header(r, "If-None-Match"), *codings = header(r, "Accept-Encoding");
    if (strcmp(r->method, "GET") && strcmp(r->method, "HEAD")) {
        reply_error(r, HOST_BAD_METHOD, NULL, "only GET is served here");
        return;
    }
    if (!r->host->places.portal) {
        r->status = 200;
        r->type = "text/html; charset=utf-8";
        r->text = strdup(none);
        r->text_len = sizeof(none) - 1;
        return;
    }
    if (is_safe(path)) {
        if (codings && strstr(codings, "gzip") && (r->fd = open_file(r, path, ".gz")) >= 0)
            r->gzip = true;
        else
            r->fd = open_file(r, path, "");
        /* A page of the portal has no dot in its last part. */
        if (r->fd < 0 && !strchr(strrchr(path, '/'), '.'))
            r->fd = open_file(r, path = "/index.html", "");
    }
    if (r->fd < 0) {
        *r->etag = '\0';
        reply_error(r, HOST_NOT_FOUND, NULL, "there is no such file");
        return;
    }
    r->type = type_of(path);
    r->status = 200;
    r->cacheable = !strncmp(path, "/assets/", 8);
    if (known && strstr(known, r->etag)) {
        close(r->fd);
        r->fd = -1;
        r->status = 304;
    }
}

void rest_metrics(struct request *r)
{
    r->text = stats_prometheus(r->host);
    r->text_len = r->text ? strlen(r->text) : 0;
    r->type = "text/plain; version=0.0.4; charset=utf-8";
    r->status = 200;
}
