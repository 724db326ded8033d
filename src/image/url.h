/*
 * Taking URLs apart: scheme, user, host, port, path and query, percent-decoded where they are
 * handed to something that is not a URL itself. Bounded, for names from anywhere.
 */
#ifndef MULL_IMAGE_URL_H
#define MULL_IMAGE_URL_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

/** The longest URL, and the most query parameters. */
#define MULL_URL_MAX 4096
#define MULL_URL_PARAMETERS 16

struct mull_url {
    char scheme[16];
    char *user;    /* or NULL */
    char *host;    /* without the brackets of an IPv6 address; "" if there is none */
    uint16_t port; /* 0: not said */
    char *path;    /* decoded, without its first '/'; may be "" */
    int nparameters;
    struct {
        char *name, *value;
    } parameters[MULL_URL_PARAMETERS];
    char *room; /* holds all strings */
};

/** Take a URL apart. @return 0 or -EINVAL, -ENOMEM. */
int mull_url_parse(const char *text, struct mull_url *out, struct mull_error *err);

/** Value of a query parameter, or NULL. */
const char *mull_url_parameter(const struct mull_url *url, const char *name);

/** Free its strings. */
void mull_url_free(struct mull_url *url);

/** A name inside an image at a URL, as a URL beside it: relative names only, below http and https.
 *  @return malloc'ed, or NULL */
char *mull_url_beside(const char *base, const char *name);

/** Length of a scheme at the start of a text that is followed by "://", 0: there is none. */
size_t mull_url_scheme(const char *text);

#endif
