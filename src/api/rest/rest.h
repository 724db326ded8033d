/*
 * The HTTP API of the host (docs/host.md): what its parts share. Paths, roles, query parameters and
 * the shapes of bodies come from openapi.json, which is built in: a request that does not fit it
 * never reaches a handler. Handlers know the host, not HTTP.
 */
#ifndef MULL_API_REST_REST_H
#define MULL_API_REST_REST_H

#include <microhttpd.h>

#include "host/auth.h"
#include "host/host.h"

#define REST_PARAMS 3
#define REST_BODY_MAX (1u << 20) /* of JSON */
#define REST_CONNECTIONS 2000
#define REST_CONNECTIONS_PER_IP 1200
#define REST_CONNECTION_BYTES 32768 /* of one request's head */
#define REST_IDLE_SECONDS 60

struct rest;
struct request;

/** What serves one operation. */
struct operation {
    const char *id; /* operationId */
    void (*fn)(struct request *r);
    enum host_kind kind; /* of generic handlers, and of the object of the first parameter */
    unsigned flags;      /* enum operation_flags */
};
enum operation_flags {
    OP_SLOW = 1,     /* runs in a worker without the lock */
    OP_OBJECT = 2,   /* r->object is what the first parameter names */
    OP_SECRET = 4,   /* its answer is not kept for repeats */
    OP_UPLOAD = 8,   /* takes its body itself */
    OP_UPGRADE = 16, /* becomes a WebSocket */
    OP_SPOOL = 32    /* its body is put into a file first: upload_fd */
};
extern const struct operation rest_operations[];

/** One path and method of openapi.json. */
struct route {
    const struct operation *op;
    const char *method;
    unsigned parts;
    const char *part[8]; /* NULL: a parameter */
    bool anybody;
    enum role role;
    json_t *query;  /* names of query parameters -> their schema */
    json_t *schema; /* of the body; NULL: none */
    bool body_optional;
};

struct listener {
    struct rest *rest;
    struct MHD_Daemon *daemon;
    bool local;
    int fd;
};

/** One request, and what is answered. */
struct request {
    struct rest *rest;
    struct host *host;
    struct listener *listener;
    struct MHD_Connection *connection;
    const struct route *route;
    char method[8];
    char *path; /* decoded, with the prefix */
    char *param[REST_PARAMS];
    char *parts; /* what param points into */
    struct principal who;
    bool known;     /* who is somebody */
    json_t *object; /* OP_OBJECT: its document, borrowed, valid while the lock is held */
    char *body;
    size_t body_len, body_room;
    json_t *json; /* the body; NULL: none */
    int upload_fd;
    /* the answer */
    int status; /* 0: none yet */
    json_t *out;
    char *text;
    size_t text_len;
    const char *type;
    int fd; /* of a file to send; -1: none */
    char file_name[128];
    uint64_t version; /* of the ETag; 0: none */
    char etag[64];    /* or the ETag itself */
    char location[160];
    char cookie[256];
    unsigned retry_after;
    bool cacheable; /* a file of the portal, named by its content */
    bool gzip;
    bool done; /* a worker has run it */
    void (*upgraded)(struct request *r, int fd, const char *extra, size_t extra_len,
                     struct MHD_UpgradeResponseHandle *handle);
    void *upgrade;        /* what upgraded() needs */
    struct request *next; /* in the workers' queue */
};

struct limits;
struct sockets;

struct rest {
    struct host *host;
    json_t *document; /* openapi.json */
    const char *document_text;
    size_t document_size;
    struct route *routes;
    unsigned route_count;
    struct listener tls, local;
    struct limits *limits;
    struct sockets *sockets;
    char *cert, *key; /* PEM */
    /* workers */
    struct request *queue, **queue_end;
    unsigned queued;
    pthread_mutex_t queue_lock;
    pthread_cond_t queue_changed;
    pthread_t worker[4];
    unsigned workers;
    bool closing;
};

/** Serve. Opens the listeners that the host's options name and the local socket. */
int rest_open(struct host *host, struct rest **out, struct mull_error *err);
/** No new requests; those under way end. Lock not held; the loop still runs. */
void rest_stop(struct rest *rest);
/** The loop does not run any more. */
void rest_close(struct rest *rest);

/* ---- For handlers ---- */

/** Answer with JSON; takes @out. */
void reply(struct request *r, int status, json_t *out);
/** Answer with a problem. */
void reply_problem(struct request *r, const struct host_problem *p);
void reply_error(struct request *r, enum host_problem_kind kind, const char *field, const char *fmt,
                 ...) __attribute__((format(printf, 4, 5)));
/** 202 with a task (borrowed), or the problem where it is NULL. */
void reply_task(struct request *r, json_t *task, const struct host_problem *p);
/** An object as callers see it, with its ETag. */
void reply_object(struct request *r, int status, enum host_kind kind, json_t *doc, bool full);
/** A page of @all (taken: an array of what callers see), by limit, cursor, sort, q, fields and the
 *  route's filters. @param sort  the member that lists are sorted by without `sort` */
void reply_list(struct request *r, json_t *all, const char *sort);
/** A page of what comes from the database, newest or oldest first: @got has one more than asked
 *  for where there is a next page. */
void reply_page(struct request *r, json_t *got, unsigned limit, uint64_t total);

/** A query parameter, or NULL. Borrowed. */
const char *query(struct request *r, const char *name);
/** A query parameter that is a number, or @otherwise; the route's schema has bounded it. */
uint64_t query_number(struct request *r, const char *name, uint64_t otherwise);
const char *header(struct request *r, const char *name);
/** If-Match does not fit @doc: the request is answered. */
bool has_changed(struct request *r, json_t *doc);

/* ---- Parts ---- */

/** routes.c */
int rest_routes_open(struct rest *rest, struct mull_error *err);
void rest_routes_close(struct rest *rest);
/** Find the route of r->method and r->path; else answer 404 or 405. */
bool rest_find_route(struct request *r);
/** Check query parameters; else answer 400. */
bool rest_check_query(struct request *r);

/** schema.c: does a value fit a schema of the document? -1 with @p. */
int schema_check(json_t *document, json_t *schema, json_t *value, struct host_problem *p);

/** limits.c */
struct limits *limits_open(const struct host_options *options);
void limits_close(struct limits *limits);
/** One more request from there? false: too many; @wait is how many seconds to wait. */
bool limits_request(struct limits *limits, const char *address, unsigned *wait);
bool limits_login(struct limits *limits, const char *address, unsigned *wait);

/** access.c: who asks. Lock held. false: answered. */
bool rest_authenticate(struct request *r);
/** May they? Finds r->object, too. Lock held. false: answered. */
bool rest_authorize(struct request *r);

/** answers.c: idempotency. Lock held. */
bool answers_replay(struct request *r); /* true: answered */
void answers_keep(struct request *r);

/** static.c: the portal's files. */
void rest_serve_file(struct request *r);
void rest_metrics(struct request *r);

/** tls.c: read or make the certificate. */
int tls_open(struct rest *rest, struct mull_error *err);

/** sockets.c: WebSockets. */
int sockets_open(struct rest *rest, struct mull_error *err);
void sockets_close(struct rest *rest);
void op_event_stream(struct request *r);
void op_open_console(struct request *r);
void op_console_socket(struct request *r);

#endif
