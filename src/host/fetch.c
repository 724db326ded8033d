/*
 * See fetch.h.
 */
#include "host/fetch.h"

#include <errno.h>
#include <fcntl.h>
#include <gnutls/crypto.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/curl.h"
#include "base/file.h"

#define CONNECT_SECONDS 30l
#define SILENT_SECONDS 60l
#define REDIRECTIONS 5l

struct fetch {
    int fd, ret;
    uint64_t done, most;
    gnutls_hash_hd_t hash;
    struct task *task;
    const char *what;
};

static size_t take(char *data, size_t one, size_t count, void *opaque)
{
    struct fetch *f = opaque;
    size_t length = one * count;

    if (length > f->most - f->done)
        f->ret = -EFBIG;
    else if (!(f->ret = mull_write_all(f->fd, data, length)))
        gnutls_hash(f->hash, data, length);
    f->done += length;
    return f->ret ? 0 : length;
}

static int tell(void *opaque, curl_off_t total, curl_off_t done, curl_off_t up_total,
                curl_off_t up_done)
{
    struct fetch *f = opaque;

    /* Where no end is known there is always some way to go. */
    if (task_progress(f->task, f->what, (uint64_t)done, (uint64_t)(total > 0 ? total : done + 1)))
        f->ret = -ECANCELED;
    return f->ret != 0;
}

static int reason(const struct fetch *f, CURLcode code, long status)
{
    if (f->ret)
        return f->ret;
    if (code == CURLE_OPERATION_TIMEDOUT)
        return -ETIMEDOUT;
    return status == 404 || status == 410 ? -ENOENT : -EIO;
}

static int perform(struct fetch *f, struct mull_curl *curl, CURL *handle, const char *url,
                   struct mull_error *err)
{
    const char *protocols = !strncmp(url, "https:", 6) ? "https" : "http,https";
    char words[CURL_ERROR_SIZE] = "";
    long status = 0;

    curl->setopt(handle, CURLOPT_URL, url);
    curl->setopt(handle, CURLOPT_PROTOCOLS_STR, "http,https");
    curl->setopt(handle, CURLOPT_REDIR_PROTOCOLS_STR, protocols);
    curl->setopt(handle, CURLOPT_FOLLOWLOCATION, 1l);
    curl->setopt(handle, CURLOPT_MAXREDIRS, REDIRECTIONS);
    curl->setopt(handle, CURLOPT_FAILONERROR, 1l);
    curl->setopt(handle, CURLOPT_NOSIGNAL, 1l);
    curl->setopt(handle, CURLOPT_CONNECTTIMEOUT, CONNECT_SECONDS);
    curl->setopt(handle, CURLOPT_LOW_SPEED_LIMIT, 1l);
    curl->setopt(handle, CURLOPT_LOW_SPEED_TIME, SILENT_SECONDS);
    curl->setopt(handle, CURLOPT_ERRORBUFFER, words);
    curl->setopt(handle, CURLOPT_WRITEFUNCTION, take);
    curl->setopt(handle, CURLOPT_WRITEDATA, f);
    curl->setopt(handle, CURLOPT_XFERINFOFUNCTION, tell);
    curl->setopt(handle, CURLOPT_XFERINFODATA, f);
    curl->setopt(handle, CURLOPT_NOPROGRESS, 0l);
    CURLcode code = curl->perform(handle);
    if (code == CURLE_OK)
        return 0;
    curl->getinfo(handle, CURLINFO_RESPONSE_CODE, &status);
    int ret = reason(f, code, status);
    return mull_fail(err, -ret, "%.500s: %s", url,
                     f->ret   ? strerror(-f->ret)
                     : *words ? words
                              : curl->text(code));
}

/* @return 0 or -errno; the hash is gone in any case */
static int fetch_into(struct fetch *f, const char *url, struct mull_error *err)
{
    struct mull_curl curl;
    int ret = mull_curl_load(&curl, err);
    CURL *handle = ret ? NULL : curl.init();

    if (!ret && !handle)
        ret = mull_fail(err, ENOMEM, "no memory");
    if (!ret)
        ret = perform(f, &curl, handle, url, err);
    if (handle)
        curl.cleanup(handle);
    mull_curl_unload(&curl);
    return ret;
}

int host_fetch(struct task *task, const char *what, const char *url, const char *to, uint64_t most,
               char sha256[65], struct mull_error *err)
{
    struct fetch f = {.most = most, .task = task, .what = what};
    uint8_t digest[32];

    unlink(to);
    f.fd = open(to, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (f.fd < 0)
        return mull_fail(err, errno, "%s: %s", to, strerror(errno));
    int ret = gnutls_hash_init(&f.hash, GNUTLS_DIG_SHA256)
                  ? mull_fail(err, ENOMEM, "no memory for a digest")
                  : fetch_into(&f, url, err);
    if (f.hash)
        gnutls_hash_deinit(f.hash, digest);
    if (!ret)
        host_hex(digest, sizeof(digest), sha256);
    if (close(f.fd) && !ret)
        ret = mull_fail(err, errno, "%s: %s", to, strerror(errno));
    if (ret)
        unlink(to);
    return ret;
}
