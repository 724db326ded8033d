/*
 * Who may do what: users with yescrypt passwords (or PAM's), groups, roles, grants on objects, API
 * tokens, sessions. Secrets are kept as digests, never written to logs, never given out again.
 */
#ifndef MULL_HOST_AUTH_H
#define MULL_HOST_AUTH_H

#include "host/host.h"

enum role { ROLE_NONE, ROLE_VIEWER, ROLE_OPERATOR, ROLE_ADMINISTRATOR };
extern const char *const role_names[5];

/** -1: no role's name. */
int role_parse(const char *name);

/** Who asks. */
struct principal {
    char user[HOST_NAME_MAX];
    enum role role; /* everywhere; grants can give more on single objects */
    bool capped;    /* a token's: no grant gives more than its role */
    bool local;     /* by the local socket */
    bool session;   /* by the cookie: csrf must be told */
    char csrf[65];
    char session_hash[65];
    char token_id[HOST_ID_MAX]; /* by a token */
    double expires;             /* 0: never */
    char address[64];
};

/** Make the administrator with a generated password where there is no user yet. */
int auth_open(struct host *host, struct mull_error *err);

/** Lock not held: takes as long as yescrypt does.
 *  @param token  the session's cookie, 65 bytes */
int auth_login(struct host *host, const char *user, const char *password, const char *address,
               struct principal *who, char token[65], struct host_problem *p);

/* Lock held. 0, or -1: not (any more) good. */
int auth_session(struct host *host, const char *token, struct principal *who);
int auth_token(struct host *host, const char *token, struct principal *who);
/** Is what they came with still good? Takes over a role that has changed. */
bool auth_still_good(struct host *host, struct principal *who);
int auth_logout(struct host *host, const struct principal *who, struct mull_error *err);
/** End the sessions of a user but for one (NULL: all). */
int auth_end_sessions(struct host *host, const char *user, const char *but, struct mull_error *err);

/** What a principal may do to an object of a kind that has grants; its own role elsewhere. */
enum role auth_role_on(struct host *host, const struct principal *who, enum host_kind kind,
                       json_t *doc);
/** May they see it at all? */
bool auth_sees(struct host *host, const struct principal *who, enum host_kind kind, const char *id);

/** Lock not held. @return the password's hash, malloc'ed; NULL with @p */
char *auth_hash(const char *password, struct host_problem *p);
/** Lock held. */
int auth_set_hash(struct host *host, const char *user, const char *hash, struct mull_error *err);
/** Lock not held: is this the user's password? */
bool auth_check_password(struct host *host, const char *user, const char *password);

/** Lock held: a new token of a user. @param secret  65 + 4 bytes, shown once */
json_t *auth_make_token(struct host *host, const char *user, enum role role, const char *name,
                        double expires, char secret[72], struct host_problem *p);
int auth_delete_token(struct host *host, const char *id, struct mull_error *err);
/** Delete a user with everything that names them. */
int auth_delete_user(struct host *host, const char *user, struct host_problem *p);

#endif
