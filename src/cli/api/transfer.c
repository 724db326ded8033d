/* See transfer.h. The host keeps an upload by name and size for a day (docs/host.md). */
#include "cli/api/transfer.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "cli/image.h"

#define PIECE (4u << 20)
#define TRIES 5

struct upload {
    struct host_call *call;
    int fd;
    const char *name;
    uint64_t size, offset;
    char *id;
};

static bool take(struct upload *u, const json_t *upload)
{
    const char *id = json_string_value(json_object_get(upload, "id"));
    json_int_t offset = json_integer_value(json_object_get(upload, "offset"));

    if (!id || offset < 0 || (uint64_t)offset > u->size)
        return false;
    if (!u->id)
        u->id = strdup(id);
    u->offset = (uint64_t)offset;
    return u->id;
}

/* An earlier one that was stopped, of a file of that name and size. */
static bool find_earlier(struct upload *u)
{
    struct mull_error err;
    json_t *all = api_list(u->call->api, "/uploads", &err), *one;
    size_t i;

    json_array_foreach(all, i, one)
    {
        const char *name = json_string_value(json_object_get(one, "name"));
        uint64_t size = (uint64_t)json_integer_value(json_object_get(one, "size"));

        if (!u->id && name && !strcmp(name, u->name) && size == u->size)
            take(u, one);
    }
    json_decref(all);
    return u->id;
}

static int begin(struct upload *u)
{
    int status;

    if (find_earlier(u))
        return API_DONE;
    json_t *made =
        host_send(u->call, "POST", strdup("/uploads"),
                  json_pack("{s:s, s:I}", "name", u->name, "size", (json_int_t)u->size), &status);
    if (made && !take(u, made))
        status = host_fail(API_FAILED, "%s: the host's answer is no upload", u->name);
    json_decref(made);
    return status;
}

/* One piece; @return false: the connection was lost or the host says no */
static bool send_piece(struct upload *u, char *piece, size_t length, struct mull_error *err)
{
    char header[64], *path = api_path(u->call->api, "/uploads/%s", u->id);
    json_t *answer = NULL;

    snprintf(header, sizeof(header), "Upload-Offset: %llu", (unsigned long long)u->offset);
    if (path)
        answer = api_send(u->call->api, "PATCH", path, header, piece, length, err);
    bool good = answer && take(u, answer);
    json_decref(answer);
    if (!good && path) { /* how far did it come? */
        struct mull_error ignored;

        nanosleep(&(struct timespec){.tv_sec = 1}, NULL);
        answer = api_call(u->call->api, "GET", path, NULL, &ignored);
        take(u, answer);
        json_decref(answer);
    }
    free(path);
    return good;
}

static int send_all(struct upload *u, struct image_bar *bar, char *piece)
{
    struct mull_error err = {0};
    unsigned tries = 0;

    while (u->offset < u->size) {
        uint64_t left = u->size - u->offset;
        ssize_t got = pread(u->fd, piece, left < PIECE ? (size_t)left : PIECE, (off_t)u->offset);

        if (got <= 0)
            return host_fail(API_FAILED, "%s: %s", u->name,
                             got ? strerror(errno) : "has become shorter");
        if (image_bar_step(bar, u->offset, u->size))
            return host_fail(API_FAILED, "%s: interrupted; the same command goes on with it",
                             u->name);
        if (send_piece(u, piece, (size_t)got, &err))
            tries = 0;
        else if (++tries == TRIES)
            return host_failed(u->call, &err);
    }
    image_bar_step(bar, u->size, u->size);
    return API_DONE;
}

char *transfer_upload(struct host_call *call, const char *file, int *status)
{
    const char *slash = strrchr(file, '/');
    struct upload u = {.call = call, .fd = open(file, O_RDONLY | O_CLOEXEC)};
    struct image_bar bar;
    struct stat st;
    char *piece = malloc(PIECE);

    u.name = slash ? slash + 1 : file;
    *status = API_FAILED;
    if (u.fd < 0 || fstat(u.fd, &st) || !S_ISREG(st.st_mode) || !piece) {
        host_fail(API_FAILED, "%s: %s", file, u.fd < 0 ? strerror(errno) : "is not a file");
    } else {
        u.size = (uint64_t)st.st_size;
        *status = begin(&u);
        if (!*status) {
            image_bar_begin(&bar, u.name);
            *status = send_all(&u, &bar, piece);
            image_bar_end(&bar);
        }
    }
    if (u.fd >= 0)
        close(u.fd);
    free(piece);
    if (!*status)
        return u.id;
    free(u.id);
    return NULL;
}

int transfer_save(struct host_call *call, const char *path, const char *file)
{
    struct mull_error err = {0};
    FILE *out = strcmp(file, "-") ? fopen(file, "we") : stdout;

    if (!out)
        return host_fail(API_FAILED, "%s: %s", file, strerror(errno));
    int64_t got = api_download(call->api, path, out, NULL, NULL, &err);
    int status = got < 0 ? host_failed(call, &err) : API_DONE;
    if ((out == stdout ? fflush(out) : fclose(out)) && !status)
        status = host_fail(API_FAILED, "%s: %s", file, strerror(errno));
    if (status && out != stdout)
        unlink(file);
    return status;
}

int transfer_download(struct host_call *call, const char *path, const char *file)
{
    bool to_stdout = !strcmp(file, "-");
    struct mull_error err = {0};
    struct image_bar bar;
    char *part = NULL;

    if (!to_stdout && asprintf(&part, "%s.part", file) < 0)
        return host_fail(API_FAILED, "no memory");
    FILE *out = to_stdout ? stdout : fopen(part, "we");
    if (!out) {
        int status = host_fail(API_FAILED, "%s: %s", part, strerror(errno));

        free(part);
        return status;
    }
    image_bar_begin(&bar, file);
    int64_t got = api_download(call->api, path, out, image_bar_step, &bar, &err);
    image_bar_end(&bar);
    int status = got < 0 ? host_failed(call, &err) : API_DONE;
    if (to_stdout)
        return fflush(out) && !status
                   ? host_fail(API_FAILED, "standard output: %s", strerror(errno))
                   : status;
    bool written = !fflush(out) && !fsync(fileno(out));
    if (fclose(out) || !written)
        status = status ? status : host_fail(API_FAILED, "%s: %s", part, strerror(errno));
    if (!status && rename(part, file))
        status = host_fail(API_FAILED, "%s: %s", file, strerror(errno));
    if (status)
        unlink(part);
    free(part);
    return status;
}
