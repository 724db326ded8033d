/*
 * Web servers through libcurl, which is loaded when the first URL is opened: a machine's process
 * has no use for it. See http.h.
 */
#include "image/http.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include "base/curl.h"
#include "base/loop.h"
#include "image/pieces.h"
#include "image/url.h"

#define PIECE (256u << 10)
#define CACHE_PIECES 256
#define AHEAD_MOST 16 /* pieces in one request */
#define HANDLES 4
#define REDIRECTS_MAX 5L
#define CONNECT_SECONDS 20L
#define STALL_SECONDS 60L
#define TRIES 4
#define VALIDATOR_MAX 256

struct http {
    struct mull_curl curl;
    char *url; /* where redirections led */
    char *ca_file;
    bool secure;
    uint64_t size;
    char etag[VALIDATOR_MAX], modified[VALIDATOR_MAX];
    struct mull_pieces *pieces;

    pthread_mutex_t lock;
    pthread_cond_t freed;
    CURL *handles[HANDLES];
    bool busy[HANDLES];
    uint64_t next; /* a read of this piece goes on where the last one ended */
    uint32_t ahead;
};

/* One request for a range, and what came of it. */
struct fetch {
    struct http *http;
    uint8_t *buf;
    uint64_t offset, length, got;
    int status;
    bool ranged; /* Content-Range fits what was asked for */
    bool encoded;
    uint64_t total;
    char etag[VALIDATOR_MAX], modified[VALIDATOR_MAX];
};

/* The value of a header if it is the one. */
static bool header(const char *line, size_t length, const char *name, char *out, size_t room)
{
    size_t n = strlen(name);

    if (length <= n || strncasecmp(line, name, n) || line[n] != ':')
        return false;
    for (n++; n < length && (line[n] == ' ' || line[n] == '\t'); n++)
        ;
    while (length > n && strchr("\r\n \t", line[length - 1]))
        length--;
    size_t take = length - n < room - 1 ? length - n : room - 1;
    memcpy(out, line + n, take);
    out[take] = 0;
    return true;
}

static size_t on_header(char *line, size_t one, size_t length, void *opaque)
{
    struct fetch *f = opaque;
    unsigned long long first, last, total;
    char value[VALIDATOR_MAX];

    if (length > 5 && !strncasecmp(line, "HTTP/", 5)) {
        /* A response of its own: what redirections said before is forgotten. */
        const char *blank = memchr(line, ' ', length);
        f->status = 0;
        for (const char *p = blank ? blank + 1 : line; p < line + length && *p >= '0' && *p <= '9';
             p++)
            f->status = f->status < 1000 ? f->status * 10 + (*p - '0') : 1000;
        f->ranged = f->encoded = false;
        f->etag[0] = f->modified[0] = 0;
    } else if (header(line, length, "Content-Range", value, sizeof(value))) {
        f->ranged = sscanf(value, "bytes %llu-%llu/%llu", &first, &last, &total) == 3 &&
                    first == f->offset && last >= first && last - first < f->length && last < total;
        f->total = f->ranged ? total : 0;
    } else if (header(line, length, "Content-Encoding", value, sizeof(value))) {
        f->encoded = strcasecmp(value, "identity") != 0;
    } else if (!header(line, length, "ETag", f->etag, sizeof(f->etag))) {
        header(line, length, "Last-Modified", f->modified, sizeof(f->modified));
    }
    return length;
}

static size_t on_body(char *data, size_t one, size_t length, void *opaque)
{
    struct fetch *f = opaque;

    /* Anything but the range: no byte of it is wanted. */
    if (f->status != 206 || !f->ranged || f->encoded || length > f->length - f->got)
        return 0;
    memcpy(f->buf + f->got, data, length);
    f->got += length;
    return length;
}

static CURL *take_handle(struct http *h, int *index)
{
    pthread_mutex_lock(&h->lock);
    for (;;) {
        for (int i = 0; i < HANDLES; i++)
            if (!h->busy[i]) {
                if (!h->handles[i])
                    h->handles[i] = h->curl.init();
                h->busy[i] = h->handles[i];
                *index = i;
                pthread_mutex_unlock(&h->lock);
                return h->handles[i];
            }
        pthread_cond_wait(&h->freed, &h->lock);
    }
}

static void give_handle(struct http *h, int index)
{
    pthread_mutex_lock(&h->lock);
    h->busy[index] = false;
    pthread_cond_signal(&h->freed);
    pthread_mutex_unlock(&h->lock);
}

/* If-Range (RFC 9110, section 13.1.5) takes a strong validator only. */
static const char *validator(const struct http *h)
{
    return h->etag[0] && strncmp(h->etag, "W/", 2) ? h->etag : h->modified[0] ? h->modified : NULL;
}

static CURLcode request(struct http *h, CURL *handle, struct fetch *f)
{
    char range[64], condition[VALIDATOR_MAX + 16];
    struct curl_slist *headers = NULL;
    const struct mull_curl *c = &h->curl;

    snprintf(range, sizeof(range), "%llu-%llu", (unsigned long long)f->offset,
             (unsigned long long)(f->offset + f->length - 1));
    if (validator(h)) {
        snprintf(condition, sizeof(condition), "If-Range: %s", validator(h));
        headers = c->append(NULL, condition);
    }
    c->setopt(handle, CURLOPT_URL, h->url);
    c->setopt(handle, CURLOPT_NOSIGNAL, 1L);
    c->setopt(handle, CURLOPT_PROTOCOLS_STR, h->secure ? "https" : "http,https");
    /* Never from a protected connection to one that is not. */
    c->setopt(handle, CURLOPT_REDIR_PROTOCOLS_STR, h->secure ? "https" : "http,https");
    c->setopt(handle, CURLOPT_FOLLOWLOCATION, 1L);
    c->setopt(handle, CURLOPT_MAXREDIRS, REDIRECTS_MAX);
    c->setopt(handle, CURLOPT_CONNECTTIMEOUT, CONNECT_SECONDS);
    c->setopt(handle, CURLOPT_LOW_SPEED_LIMIT, 1L);
    c->setopt(handle, CURLOPT_LOW_SPEED_TIME, STALL_SECONDS);
    c->setopt(handle, CURLOPT_USERAGENT, "mullion/" MULLION_VERSION);
    c->setopt(handle, CURLOPT_RANGE, range);
    c->setopt(handle, CURLOPT_HTTPHEADER, headers);
    c->setopt(handle, CURLOPT_HEADERFUNCTION, on_header);
    c->setopt(handle, CURLOPT_HEADERDATA, f);
    c->setopt(handle, CURLOPT_WRITEFUNCTION, on_body);
    c->setopt(handle, CURLOPT_WRITEDATA, f);
    if (h->ca_file)
        c->setopt(handle, CURLOPT_CAINFO, h->ca_file);
    CURLcode code = c->perform(handle);
    c->setopt(handle, CURLOPT_HTTPHEADER, NULL);
    c->free_list(headers);
    return code;
}

/* Whether the same again may do better. */
static bool transient(CURLcode code, int status)
{
    switch (code) {
    case CURLE_COULDNT_CONNECT:
    case CURLE_GOT_NOTHING:
    case CURLE_RECV_ERROR:
    case CURLE_SEND_ERROR:
    case CURLE_PARTIAL_FILE:
    case CURLE_OPERATION_TIMEDOUT:
    case CURLE_HTTP2:
    case CURLE_HTTP2_STREAM:
        return true;
    default:
        return status >= 500 && status < 600;
    }
}

/* What a finished request means. */
static int judge(const struct http *h, const struct fetch *f, CURLcode code, struct mull_error *err)
{
    if (f->status == 200)
        return h->size ? mull_fail(err, ESTALE, "%s: changed while it was read", h->url)
                       : mull_fail(err, ENOTSUP,
                                   "%s: the server does not serve ranges; download the file first",
                                   h->url);
    if (f->status == 416 || (f->status == 206 && h->size && f->total != h->size))
        return mull_fail(err, h->size ? ESTALE : EINVAL, "%s: %s", h->url,
                         h->size ? "changed while it was read" : "is empty");
    if (f->status == 404 || f->status == 410)
        return mull_fail(err, ENOENT, "%s: there is no such file (HTTP %d)", h->url, f->status);
    if (f->status >= 400)
        return mull_fail(err, f->status < 500 ? EACCES : EIO, "%s: the server says HTTP %d", h->url,
                         f->status);
    if (f->status == 206 && f->encoded)
        return mull_fail(err, EPROTO, "%s: the server sends it encoded", h->url);
    if (f->status == 206 && !f->ranged)
        return mull_fail(err, EPROTO, "%s: the server sends another range than was asked for",
                         h->url);
    if (code != CURLE_OK)
        return mull_fail(err, EIO, "%s: %s", h->url, h->curl.text(code));
    if (f->status != 206)
        return mull_fail(err, EPROTO, "%s: the server says HTTP %d", h->url, f->status);
    if (h->size && (strcmp(f->etag, h->etag) || strcmp(f->modified, h->modified)))
        return mull_fail(err, ESTALE, "%s: changed while it was read", h->url);
    return 0;
}

/* Fetch a range; shorter only at the end of the file. */
static int fetch_range(struct http *h, struct fetch *f, struct mull_error *err)
{
    int index, ret = -EIO;
    CURL *handle = take_handle(h, &index);

    if (!handle)
        return mull_fail(err, ENOMEM, "%s: out of memory", h->url);
    for (int i = 0; i < TRIES; i++) {
        f->status = 0;
        f->got = f->total = 0;
        f->ranged = f->encoded = false;
        f->etag[0] = f->modified[0] = 0;
        CURLcode code = request(h, handle, f);
        memset(err, 0, sizeof(*err));
        ret = judge(h, f, code, err);
        if (!ret || !transient(code, f->status) || i == TRIES - 1)
            break;
        struct timespec pause = {.tv_nsec = 250000000L << i % 2};
        nanosleep(&pause, NULL);
    }
    if (!ret && !h->size) { /* the first one: from here on it is that file, there */
        char *url = NULL;
        h->curl.getinfo(handle, CURLINFO_EFFECTIVE_URL, &url);
        char *copy = url ? strdup(url) : NULL;
        if (copy) {
            free(h->url);
            h->url = copy;
        }
    }
    give_handle(h, index);
    return ret;
}

/* How many pieces to ask for: more and more, as long as the reads follow each other. */
static uint32_t look_ahead(struct http *h, uint64_t index)
{
    pthread_mutex_lock(&h->lock);
    if (index < h->next || index > h->next + 2 * AHEAD_MOST)
        h->ahead = 1;
    else if (h->ahead < AHEAD_MOST)
        h->ahead *= 2;
    uint32_t n = h->ahead;
    h->next = index + n;
    pthread_mutex_unlock(&h->lock);
    return n;
}

static int load(struct http *h, uint64_t index)
{
    struct mull_error err = {0};
    uint64_t last = (h->size - 1) / PIECE;
    uint32_t n = mull_pieces_begin(h->pieces, index, 1);

    if (!n)
        return 0;
    mull_pieces_end(h->pieces, index, n);
    uint32_t most = look_ahead(h, index);
    if (most > last - index + 1)
        most = (uint32_t)(last - index + 1);
    n = mull_pieces_begin(h->pieces, index, most);
    if (!n)
        return 0;
    struct fetch f = {.http = h, .offset = index * PIECE, .length = (uint64_t)n * PIECE};
    if (f.length > h->size - f.offset)
        f.length = h->size - f.offset;
    f.buf = malloc(f.length);
    int ret = f.buf ? fetch_range(h, &f, &err) : -ENOMEM;
    if (!ret && f.got != f.length)
        ret = -EPROTO;
    for (uint32_t i = 0; i < n && !ret; i++) {
        uint64_t at = (uint64_t)i * PIECE;
        ret = mull_pieces_put(h->pieces, index + i, f.buf + at,
                              (uint32_t)(f.length - at < PIECE ? f.length - at : PIECE));
    }
    mull_pieces_end(h->pieces, index, n);
    free(f.buf);
    return ret;
}

static int http_readv(struct mull_file *file, const struct iovec *iov, int niov, uint64_t offset,
                      uint64_t length)
{
    struct http *h = file->opaque;

    for (uint64_t at = 0; at < length;) {
        uint64_t n = mull_pieces_get(h->pieces, offset + at, iov, niov, at, length - at);
        if (!n) {
            int ret = load(h, (offset + at) / PIECE);
            if (ret)
                return ret;
        }
        at += n;
    }
    return 0;
}

static int http_identity(struct mull_file *file, char *out, size_t room)
{
    const struct http *h = file->opaque;
    const char *v = validator(h);

    if (!v || (size_t)snprintf(out, room, "%llu:%s", (unsigned long long)h->size, v) >= room)
        return -EOPNOTSUPP;
    for (char *p = out; *p; p++)
        if (*p <= ' ')
            *p = '_';
    return 0;
}

static void http_free(struct http *h)
{
    for (int i = 0; i < HANDLES; i++)
        if (h->handles[i])
            h->curl.cleanup(h->handles[i]);
    mull_pieces_destroy(h->pieces);
    mull_curl_unload(&h->curl);
    pthread_mutex_destroy(&h->lock);
    pthread_cond_destroy(&h->freed);
    free(h->url);
    free(h->ca_file);
    free(h);
}

static void http_close(struct mull_file *file)
{
    http_free(file->opaque);
}

static const struct mull_file_ops http_ops = {
    .readv = http_readv,
    .identity = http_identity,
    .close = http_close,
};

/* The first range tells the size and what to know the file by. */
static int first_range(struct http *h, struct mull_error *err)
{
    struct fetch f = {.http = h, .length = PIECE, .buf = malloc(PIECE)};
    int ret = f.buf ? fetch_range(h, &f, err) : mull_fail(err, ENOMEM, "%s: out of memory", h->url);

    if (!ret && f.got != (f.total < PIECE ? f.total : PIECE))
        ret = mull_fail(err, EPROTO, "%s: the server's first range is too short", h->url);
    if (!ret && f.total > INT64_MAX)
        ret = mull_fail(err, EFBIG, "%s: its size makes no sense", h->url);
    if (!ret) {
        h->size = f.total;
        memcpy(h->etag, f.etag, sizeof(h->etag));
        memcpy(h->modified, f.modified, sizeof(h->modified));
        ret = mull_pieces_put(h->pieces, 0, f.buf, (uint32_t)f.got);
        h->next = 1;
        h->ahead = 1;
    }
    free(f.buf);
    return ret;
}

int mull_http_open(const struct mull_file_options *o, struct mull_file **out,
                   struct mull_error *err)
{
    struct mull_url url;
    struct http *h;
    int ret = o->readonly ? 0 : mull_fail(err, EROFS, "%s: is only read", o->path);

    /* Only to be sure that it is one, and of a length we show. */
    if (!ret && !(ret = mull_url_parse(o->path, &url, err)))
        mull_url_free(&url);
    if (ret)
        return ret;
    h = calloc(1, sizeof(*h));
    if (!h)
        return mull_fail(err, ENOMEM, "%s: out of memory", o->path);
    pthread_mutex_init(&h->lock, NULL);
    pthread_cond_init(&h->freed, NULL);
    h->secure = !strncmp(o->path, "https:", 6);
    h->url = strdup(o->path);
    h->ca_file = o->source && o->source->ca_file ? strdup(o->source->ca_file) : NULL;
    h->pieces = mull_pieces_create(PIECE, CACHE_PIECES);
    if (!h->url || !h->pieces || (o->source && o->source->ca_file && !h->ca_file))
        ret = mull_fail(err, ENOMEM, "%s: out of memory", o->path);
    if (!ret)
        ret = mull_curl_load(&h->curl, err);
    if (!ret)
        ret = first_range(h, err);
    if (ret) {
        http_free(h);
        return ret;
    }
    return mull_file_stand_in(o, &http_ops, h, h->size, out, err);
}
