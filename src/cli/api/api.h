/*
 * A client of a host's API (docs/host.md), over its local socket or HTTPS. Knows HTTP, JSON and the
 * API's habits (problems, tasks, pages), not what its objects mean.
 */
#ifndef MULL_CLI_API_API_H
#define MULL_CLI_API_API_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "base/error.h"

/** The exit statuses of all commands that ask a host. Part of the interface (mullion(1)). */
enum {
    API_DONE = 0,
    API_FAILED = 1,      /* the host says no, or a task failed */
    API_USAGE = 2,       /* the command line makes no sense */
    API_NOT_FOUND = 3,   /* there is no such object */
    API_CONFLICT = 4,    /* its state forbids it, or the name is taken */
    API_DENIED = 5,      /* who asks may not, or is not known */
    API_UNREACHABLE = 6, /* no host answers */
    API_TIMEOUT = 7,     /* --timeout has passed; the task goes on */
};

/** Where a host is. Strings are borrowed until api_close(). */
struct api_target {
    const char *socket; /* the path of a local socket, or NULL */
    const char *url;    /* else "https://HOST:PORT" */
    const char *pin;    /* "sha256//BASE64" of the server's public key (RFC 7469, section 2.4), or
                           NULL: the certificate must be one that the system trusts */
    const char *token;  /* NULL: none */
};

struct api;

/** Load what is needed; nothing is sent yet. @return 0 or -errno */
int api_open(const struct api_target *target, struct api **out, struct mull_error *err);
void api_close(struct api *api);

/** What the last request was answered: the exit status it means. */
int api_status(const struct api *api);
/** Its HTTP status; 0: there was no answer. */
long api_http_status(const struct api *api);
/** Its ETag, "" where there was none; until the next request. */
const char *api_etag(const struct api *api);

/**
 * One request.
 *
 * @param method  "GET", "POST", ...
 * @param path    below /api/v1, with its query: "/machines?limit=5"
 * @param body    taken, or NULL
 * @return the answer, a new reference (json_null() where there is no body); NULL: @err says why and
 *         api_status() what to end with
 */
json_t *api_call(struct api *api, const char *method, const char *path, json_t *body,
                 struct mull_error *err);

/** The same for a PATCH or PUT that must not overwrite what somebody else has changed. */
json_t *api_call_if(struct api *api, const char *method, const char *path, const char *etag,
                    json_t *body, struct mull_error *err);

/** All pages of a list. @return an array, a new reference */
json_t *api_list(struct api *api, const char *path, struct mull_error *err);

/** Receive a file. @return bytes, or -errno */
int64_t api_download(struct api *api, const char *path, FILE *out,
                     int (*progress)(void *opaque, uint64_t done, uint64_t total), void *opaque,
                     struct mull_error *err);

/** POST in the session that a POST to /sessions has begun on this connection. @param csrf  what it
 *  answered. @param body  JSON, as text */
json_t *api_call_session(struct api *api, const char *csrf, const char *path, const char *body,
                         struct mull_error *err);

/** Send bytes as the body of @method. @param header  one more, or NULL */
json_t *api_send(struct api *api, const char *method, const char *path, const char *header,
                 const void *data, size_t length, struct mull_error *err);

/** Say with every request from now on as which user of a guest it is meant. @return 0 or -errno */
int api_set_guest_user(struct api *api, const char *user, const char *password,
                       struct mull_error *err);

/** Percent-encode a path segment or a query's value (RFC 3986, section 2.1). @return malloc'ed;
 * NULL: no memory */
char *api_escape(struct api *api, const char *text);

/** "/machines/%s/start" with its arguments escaped; the format has only %s. @return malloc'ed */
char *api_path(struct api *api, const char *format, ...);

/** The pin of a certificate's key: SHA-256 of its SubjectPublicKeyInfo, in base64. @param pem  text */
int api_certificate_pin(const char *pem, char pin[64], struct mull_error *err);

/** The key that a server shows at @url, whoever it is. @param pin  room for 64 */
int api_server_pin(const char *url, char pin[64], struct mull_error *err);

/* ---- WebSockets (RFC 6455) ---- */

struct api_stream;

/** @param path  as for api_call(), or a whole path that a ticket came with ("/api/v1/...") */
int api_stream_open(struct api *api, const char *path, struct api_stream **out,
                    struct mull_error *err);
/** To poll for reading. */
int api_stream_fd(const struct api_stream *stream);
/** Queue a binary message and send what can be sent now. @return 0 or -errno */
int api_stream_send(struct api_stream *stream, const void *data, size_t length);
/** Receive what is there. @param message  gets each whole message. @return 0, -EPIPE: it is closed,
 *  or another -errno */
int api_stream_receive(struct api_stream *stream,
                       void (*message)(void *opaque, const void *data, size_t length),
                       void *opaque);
void api_stream_close(struct api_stream *stream);

#endif
