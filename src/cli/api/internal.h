/* What the files of the API's client share. */
#ifndef MULL_CLI_API_INTERNAL_H
#define MULL_CLI_API_INTERNAL_H

#include "base/curl.h"
#include "cli/api/api.h"

struct api {
    struct mull_curl curl;
    CURL *handle; /* keeps its connection from request to request */
    struct api_target target;
    int status;
    long http;
    char etag[128];
    char *guest_user; /* a whole header, or NULL */
};

/** Tell a handle where the host is and whom to trust. */
void api_aim(struct api *api, CURL *handle);

/** The whole URL of a path. @return malloc'ed */
char *api_url(const struct api *api, const char *path);

/** A problem document (RFC 9457) as an error. @return -errno */
int api_problem(const json_t *problem, long http, struct mull_error *err);

#endif
