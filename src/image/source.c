/* Which source a URL names. See source.h. */
#include "image/source.h"

#include <errno.h>
#include <string.h>

#include "image/http.h"
#include "image/nbd/client.h"
#include "image/url.h"

static const struct {
    const char *scheme;
    int (*open)(const struct mull_file_options *options, struct mull_file **out,
                struct mull_error *err);
    bool disk;
} schemes[] = {
    {"http", mull_http_open, false},   {"https", mull_http_open, false},
    {"nbd", mull_nbd_open, true},      {"nbds", mull_nbd_open, true},
    {"nbd+unix", mull_nbd_open, true}, {"nbds+unix", mull_nbd_open, true},
};

#define SCHEMES ((int)(sizeof(schemes) / sizeof(schemes[0])))

static int find(const char *path)
{
    size_t n = mull_url_scheme(path);
    for (int i = 0; n && i < SCHEMES; i++)
        if (strlen(schemes[i].scheme) == n && !strncmp(schemes[i].scheme, path, n))
            return i;
    return -1;
}

bool mull_source_is_url(const char *path)
{
    return find(path) >= 0;
}

bool mull_source_is_disk(const char *path)
{
    int i = find(path);
    return i >= 0 && schemes[i].disk;
}

int mull_source_open(const struct mull_file_options *options, struct mull_file **out,
                     struct mull_error *err)
{
    int i = find(options->path);
    if (i < 0)
        return mull_fail(err, EINVAL, "%s: not a URL that we know", options->path);
    if (options->direct)
        return mull_fail(err, EINVAL, "%s: a URL is not opened with direct I/O; leave direct off",
                         options->path);
    return schemes[i].open(options, out, err);
}
