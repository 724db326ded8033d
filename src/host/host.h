/*
 * What the parts of mulliond share: the host with its places, its inventory and its threads, and
 * how they tell what is wrong. One lock (host->lock) guards everything but the loop's own objects;
 * "lock held" below means that one. Knows nothing of HTTP: src/api/rest speaks it.
 */
#ifndef MULL_HOST_HOST_H
#define MULL_HOST_HOST_H

#include <jansson.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "base/log.h"
#include "base/loop.h"

#define HOST_ID_MAX 37 /* a UUID's text and its end */
#define HOST_NAME_MAX 64

/* ---- What is wrong, as a caller is told ---- */

enum host_problem_kind {
    HOST_OK,
    HOST_BAD_REQUEST,
    HOST_NOT_FOUND,
    HOST_INVALID,
    HOST_CONFLICT,
    HOST_FORBIDDEN,
    HOST_UNAUTHENTICATED,
    HOST_PRECONDITION_FAILED,
    HOST_TOO_LARGE,
    HOST_RATE_LIMITED,
    HOST_NO_SPACE,
    HOST_UNAVAILABLE,
    HOST_NOT_IMPLEMENTED,
    HOST_BAD_METHOD,
    HOST_BAD_TYPE,
    HOST_BAD_RANGE,
    HOST_INTERNAL,
};

/** One problem. `field` is a JSON pointer, or empty. */
struct host_problem {
    enum host_problem_kind kind;
    char detail[512];
    char field[128];
};

/** Fill in @p (which may be NULL). @param field  a JSON pointer, or NULL. @return -1 */
int host_problem(struct host_problem *p, enum host_problem_kind kind, const char *field,
                 const char *fmt, ...) __attribute__((format(printf, 4, 5)));

/** The problem that an error of a lower floor is. @return -1 */
int host_problem_from(struct host_problem *p, const struct mull_error *err);

int host_problem_status(enum host_problem_kind kind);
/** As JSON (RFC 9457): a new reference. */
json_t *host_problem_json(const struct host_problem *p);

/* ---- The host ---- */

enum host_kind {
    KIND_SETTING,
    KIND_USER,
    KIND_GROUP,
    KIND_GRANT,
    KIND_TOKEN,
    KIND_MACHINE,
    KIND_UPLOAD,
    KIND_DOWNLOAD,
    KIND_IMAGE,
    KIND_TEMPLATE,
    KIND_DATASTORE,
    KIND_NETWORK,
    KIND_POOL,
    KIND_TASK,
    HOST_KINDS,
};
extern const char *const host_kind_names[HOST_KINDS + 1];

struct store;
struct supervisor;
struct tasks;
struct events;
struct stats;
struct guests;
struct netkeeper;
struct balance;

struct host_places {
    char *data, *runtime, *config; /* folders, and the configuration's file */
    char *portal;                  /* NULL: none */
    bool system;                   /* run as a service */
};

/** The configuration file's members, checked. */
struct host_options {
    char *listen;          /* "ADDRESS:PORT" or "none" */
    char *vmm;             /* NULL: mullion-vmm beside us or in libexec */
    char *pam_service;     /* NULL: passwords of our own only */
    char *cgroup;          /* a subtree of control groups for us; NULL: find one */
    char *image_server;    /* the URL of a folder with images and SHA256SUMS, or NULL */
    unsigned sessions_max; /* of one user */
    unsigned session_minutes;
    unsigned requests_per_second; /* of one address */
    unsigned logins_per_minute;
    unsigned machines_memory; /* MiB for all machines; 0: what the host has, but a sixteenth */
    unsigned machines_cpu;    /* percent of one CPU for all machines; 0: all */
    unsigned memory_merging;  /* 1: merge equal pages when memory runs low */
};

struct host {
    struct host_places places;
    struct host_options options;
    struct mull_log log;
    struct mull_loop *loop;
    pthread_mutex_t lock;
    pthread_cond_t changed; /* a machine's state, or a task's */
    struct store *store;
    struct tasks *tasks;
    struct events *events;
    struct supervisor *supervisor;
    struct stats *stats;
    struct guests *guests;
    struct netkeeper *netkeeper;
    struct balance *balance;
    int lock_fd; /* of the data folder */
    uint64_t started_ns;
    char *url; /* where HTTPS listens; NULL: nowhere */
    bool ending;
    bool stop_machines; /* when it ends */
};

void host_lock(struct host *host);
void host_unlock(struct host *host);

/* ---- Small things ---- */

/** A random UUID (RFC 9562, section 5.4). */
void host_uuid(char out[HOST_ID_MAX]);

/** A time as RFC 3339 in UTC with milliseconds, and back (0: not one). */
void host_time(double seconds, char out[32]);
double host_time_parse(const char *text);
double host_now(void);
/** host_time() of now as a JSON string. */
json_t *host_now_json(void);

/** Bytes as hexadecimal digits: @out has 2 * @len + 1. */
void host_hex(const void *data, size_t len, char *out);
/** Random bytes as hexadecimal digits: @out has 2 * @bytes + 1. */
void host_random_hex(char *out, size_t bytes);
/** The SHA-256 of a text, in hexadecimal digits. */
void host_sha256_hex(const void *data, size_t len, char out[65]);

/** "A/B", malloc'ed; NULL: no memory. */
char *host_path(const char *folder, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/** Is this a name for users, machines, images, ...: 1 to 63 of [A-Za-z0-9_.-], no dot first. */
bool host_name_valid(const char *name);

/** A string member, or "" where there is none. Borrowed. */
const char *host_text(const json_t *object, const char *key);

/** RFC 7396: @patch over @target, in place of what is there; what is null goes away. */
int host_merge_patch(json_t *target, const json_t *patch);

/** Remove a folder with what is in it; what is not there is removed. @return 0 or -errno */
int host_remove_tree(const char *path);
/** Make a folder with those above it. */
int host_make_folder(const char *path, unsigned mode);
/** Write a whole file so that a crash leaves the old or the new one. */
int host_write_file(const char *path, const void *data, size_t len, unsigned mode,
                    struct mull_error *err);
/** Read a whole file of at most @max bytes. @return malloc'ed with a zero byte behind, or NULL */
char *host_read_file(const char *path, size_t max, size_t *len, struct mull_error *err);

#endif
