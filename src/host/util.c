/*
 * The small things of host.h: problems, times, names, random numbers, whole files.
 */
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <gnutls/crypto.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/file.h"
#include "host/host.h"

const char *const host_kind_names[HOST_KINDS + 1] = {
    "setting", "user",     "group",     "grant",   "token", "machine", "upload", "download",
    "image",   "template", "datastore", "network", "pool",  "task",    NULL};

static const struct {
    int status;
    const char *name, *title;
} problems[] = {
    [HOST_OK] = {200, "none", "Nothing is wrong"},
    [HOST_BAD_REQUEST] = {400, "invalid", "The request is malformed"},
    [HOST_NOT_FOUND] = {404, "not-found", "Not found"},
    [HOST_INVALID] = {422, "invalid", "A member is wrong"},
    [HOST_CONFLICT] = {409, "conflict", "The state of things does not allow it"},
    [HOST_FORBIDDEN] = {403, "forbidden", "Not allowed"},
    [HOST_UNAUTHENTICATED] = {401, "unauthenticated", "Log in first"},
    [HOST_PRECONDITION_FAILED] = {412, "precondition-failed", "It has changed"},
    [HOST_TOO_LARGE] = {413, "too-large", "Too large"},
    [HOST_RATE_LIMITED] = {429, "rate-limited", "Too many requests"},
    [HOST_NO_SPACE] = {507, "no-space", "No room"},
    [HOST_UNAVAILABLE] = {503, "unavailable", "Not now"},
    [HOST_NOT_IMPLEMENTED] = {501, "not-implemented", "Not there yet"},
    [HOST_BAD_METHOD] = {405, "invalid", "Another method"},
    [HOST_BAD_TYPE] = {415, "invalid", "Another media type"},
    [HOST_BAD_RANGE] = {416, "invalid", "No such range"},
    [HOST_INTERNAL] = {500, "internal", "The host failed"},
};

int host_problem(struct host_problem *p, enum host_problem_kind kind, const char *field,
                 const char *fmt, ...)
{
    if (!p)
        return -1;
    va_list args;
    va_start(args, fmt);
    vsnprintf(p->detail, sizeof(p->detail), fmt, args);
    va_end(args);
    p->kind = kind;
    snprintf(p->field, sizeof(p->field), "%s", field ? field : "");
    return -1;
}

int host_problem_from(struct host_problem *p, const struct mull_error *err)
{
    enum host_problem_kind kind;
    switch (err->code) {
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
        kind = HOST_NO_SPACE;
        break;
    case ENOENT:
        kind = HOST_NOT_FOUND;
        break;
    case EEXIST:
    case EBUSY:
    case EAGAIN:
    case EACCES:
        kind = HOST_CONFLICT;
        break;
    case EINVAL:
    case ERANGE:
    case E2BIG:
        kind = HOST_INVALID;
        break;
    case ENOTSUP:
    case ENOSYS:
        kind = HOST_NOT_IMPLEMENTED;
        break;
    case ECANCELED:
        kind = HOST_CONFLICT;
        break;
    default:
        kind = HOST_INTERNAL;
    }
    return host_problem(p, kind, NULL, "%s", *err->message ? err->message : strerror(err->code));
}

int host_problem_status(enum host_problem_kind kind)
{
    return problems[kind].status;
}

/* Messages of lower floors can hold a file's name in any encoding. */
static json_t *safe_text(const char *text)
{
    json_t *value = json_string(text);
    if (value)
        return value;
    char copy[512];
    snprintf(copy, sizeof(copy), "%s", text);
    for (char *c = copy; *c; c++)
        if ((unsigned char)*c >= 0x80)
            *c = '?';
    return json_string(copy);
}

json_t *host_problem_json(const struct host_problem *p)
{
    char type[96];
    snprintf(type, sizeof(type), "https://mullion.example/problems/%s", problems[p->kind].name);
    json_t *o = json_pack("{s:s, s:s, s:i, s:o}", "type", type, "title", problems[p->kind].title,
                          "status", problems[p->kind].status, "detail", safe_text(p->detail));
    if (*p->field)
        json_object_set_new(o, "field", safe_text(p->field));
    return o;
}

void host_lock(struct host *host)
{
    pthread_mutex_lock(&host->lock);
}

void host_unlock(struct host *host)
{
    pthread_mutex_unlock(&host->lock);
}

static void random_bytes(void *out, size_t n)
{
    uint8_t *p = out;
    while (n) {
        ssize_t got = getrandom(p, n, 0);
        if (got > 0) {
            p += got;
            n -= (size_t)got;
        }
    }
}

void host_hex(const void *data, size_t len, char *out)
{
    const uint8_t *bytes = data;
    for (size_t i = 0; i < len; i++)
        sprintf(out + 2 * i, "%02x", bytes[i]);
}

void host_random_hex(char *out, size_t bytes)
{
    uint8_t raw[64];
    if (bytes > sizeof(raw))
        bytes = sizeof(raw);
    random_bytes(raw, bytes);
    host_hex(raw, bytes, out);
}

void host_sha256_hex(const void *data, size_t len, char out[65])
{
    uint8_t digest[32];
    gnutls_hash_fast(GNUTLS_DIG_SHA256, data, len, digest);
    host_hex(digest, sizeof(digest), out);
}

void host_uuid(char out[HOST_ID_MAX])
{
    uint8_t b[16];
    random_bytes(b, sizeof(b));
    b[6] = (uint8_t)((b[6] & 0x0f) | 0x40);
    b[8] = (uint8_t)((b[8] & 0x3f) | 0x80);
    snprintf(out, HOST_ID_MAX,
             "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", b[0], b[1],
             b[2], b[3], b[4], b[5], b[6], b[7], b[8], b[9], b[10], b[11], b[12], b[13], b[14],
             b[15]);
}

double host_now(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_REALTIME, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

void host_time(double seconds, char out[32])
{
    time_t whole = (time_t)seconds;
    struct tm tm;
    gmtime_r(&whole, &tm);
    unsigned ms = (unsigned)((seconds - (double)whole) * 1000);
    snprintf(out, 32, "%04u-%02u-%02uT%02u:%02u:%02u.%03uZ", (unsigned)(tm.tm_year + 1900) % 10000,
             (unsigned)(tm.tm_mon + 1) % 100, (unsigned)tm.tm_mday % 100,
             (unsigned)tm.tm_hour % 100, (unsigned)tm.tm_min % 100, (unsigned)tm.tm_sec % 100,
             ms % 1000);
}

double host_time_parse(const char *text)
{
    struct tm tm = {0};
    char *rest = text ? strptime(text, "%Y-%m-%dT%H:%M:%S", &tm) : NULL;
    if (!rest)
        return 0;
    double fraction = *rest == '.' ? strtod(rest, &rest) : 0;
    int sign = *rest == '+' ? -1 : *rest == '-' ? 1 : 0, hours = 0, minutes = 0;
    if (sign && sscanf(rest + 1, "%2d:%2d", &hours, &minutes) != 2)
        return 0;
    if (!sign && strcmp(rest, "Z") && strcmp(rest, "z"))
        return 0;
    return (double)timegm(&tm) + fraction + sign * (hours * 3600 + minutes * 60);
}

json_t *host_now_json(void)
{
    char text[32];
    host_time(host_now(), text);
    return json_string(text);
}

char *host_path(const char *folder, const char *fmt, ...)
{
    va_list args;
    char *name = NULL, *path = NULL;
    va_start(args, fmt);
    int n = vasprintf(&name, fmt, args);
    va_end(args);
    if (n < 0)
        return NULL;
    if (asprintf(&path, "%s/%s", folder, name) < 0)
        path = NULL;
    free(name);
    return path;
}

bool host_name_valid(const char *name)
{
    size_t n = strlen(name);
    if (!n || n >= HOST_NAME_MAX || *name == '.')
        return false;
    for (; *name; name++)
        if (!isalnum((unsigned char)*name) && !strchr("_.-", *name))
            return false;
    return true;
}

const char *host_text(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    return text ? text : "";
}

static int merge(json_t *target, const json_t *patch, unsigned depth)
{
    const char *key;
    json_t *value;
    if (depth > 16)
        return -E2BIG;
    json_object_foreach((json_t *)patch, key, value)
    {
        if (json_is_null(value)) {
            json_object_del(target, key);
            continue;
        }
        json_t *old = json_object_get(target, key);
        if (!json_is_object(value)) {
            json_object_set_new(target, key, json_deep_copy(value));
            continue;
        }
        if (!json_is_object(old)) {
            json_object_set_new(target, key, json_object());
            old = json_object_get(target, key);
        }
        int ret = old ? merge(old, value, depth + 1) : -ENOMEM;
        if (ret)
            return ret;
    }
    return 0;
}

int host_merge_patch(json_t *target, const json_t *patch)
{
    return merge(target, patch, 0);
}

/* ---- Files ---- */

static int remove_at(int parent, const char *name, unsigned depth)
{
    if (!unlinkat(parent, name, 0) || errno == ENOENT)
        return 0;
    if (errno != EISDIR && errno != EPERM)
        return -errno;
    int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    DIR *dir = fd >= 0 && depth < 64 ? fdopendir(fd) : NULL;
    if (!dir) {
        int saved = errno;
        if (fd >= 0)
            close(fd);
        return -saved;
    }
    int ret = 0;
    struct dirent *e;
    while (!ret && (e = readdir(dir)))
        if (strcmp(e->d_name, ".") && strcmp(e->d_name, ".."))
            ret = remove_at(dirfd(dir), e->d_name, depth + 1);
    closedir(dir);
    if (!ret && unlinkat(parent, name, AT_REMOVEDIR) && errno != ENOENT)
        ret = -errno;
    return ret;
}

int host_remove_tree(const char *path)
{
    return remove_at(AT_FDCWD, path, 0);
}

int host_make_folder(const char *path, unsigned mode)
{
    char copy[4096];
    if (snprintf(copy, sizeof(copy), "%s", path) >= (int)sizeof(copy))
        return -ENAMETOOLONG;
    for (char *p = copy + 1; *p; p++) {
        if (*p != '/')
            continue;
        *p = '\0';
        if (mkdir(copy, 0755) && errno != EEXIST)
            return -errno;
        *p = '/';
    }
    return mkdir(copy, (mode_t)mode) && errno != EEXIST ? -errno : 0;
}

int host_write_file(const char *path, const void *data, size_t len, unsigned mode,
                    struct mull_error *err)
{
    char temporary[4096];
    if (snprintf(temporary, sizeof(temporary), "%s.new", path) >= (int)sizeof(temporary))
        return mull_fail(err, ENAMETOOLONG, "%s: too long", path);
    int fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, (mode_t)mode);
    int ret = fd < 0 ? -errno : mull_write_all(fd, data, len);
    if (!ret && fsync(fd))
        ret = -errno;
    if (fd >= 0)
        close(fd);
    if (!ret && rename(temporary, path))
        ret = -errno;
    if (ret) {
        unlink(temporary);
        return mull_fail(err, -ret, "%s: %s", path, strerror(-ret));
    }
    return 0;
}

char *host_read_file(const char *path, size_t max, size_t *len, struct mull_error *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat st;
    if (fd < 0 || fstat(fd, &st)) {
        mull_fail(err, errno, "%s: %s", path, strerror(errno));
        if (fd >= 0)
            close(fd);
        return NULL;
    }
    size_t have = 0, room = st.st_size > 0 && (size_t)st.st_size < max ? (size_t)st.st_size : max;
    char *text = malloc(room + 1);
    while (text && have < room) {
        ssize_t n = read(fd, text + have, room - have);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            break;
        have += (size_t)n;
    }
    close(fd);
    if (!text) {
        mull_fail(err, ENOMEM, "%s: no memory", path);
        return NULL;
    }
    text[have] = '\0';
    if (len)
        *len = have;
    return text;
}
