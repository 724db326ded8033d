/*
 * What callers do inside guests, by their agents. All of it blocks: workers run it without the
 * lock.
 */
#include <gnutls/gnutls.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "api/rest/ops.h"
#include "host/guests.h"

/* "Guest-Authorization: Basic ...": a user of the guest and the password (as RFC 7617, section 2).
 * It is in a header so that no log, no address and no stored request holds it. */
struct guest_user {
    struct vix_user user;
    char text[2 * VIX_NAME_MAX + 2];
};

static void forget_user(struct guest_user *u)
{
    explicit_bzero(u, sizeof(*u));
}

static bool decode_user(const char *given, struct guest_user *u)
{
    gnutls_datum_t out = {0};
    if (strncasecmp(given, "Basic ", 6) != 0)
        return false;
    gnutls_datum_t in = {(unsigned char *)given + 6, (unsigned)strlen(given + 6)};
    if (!in.size || gnutls_base64_decode2(&in, &out))
        return false;
    if (out.size < sizeof(u->text))
        memcpy(u->text, out.data, out.size);
    char *colon = strchr(u->text, ':');
    bool good = colon && strlen(u->text) == out.size;
    if (good) {
        *colon = '\0';
        u->user = (struct vix_user){u->text, colon + 1};
    }
    explicit_bzero(out.data, out.size);
    gnutls_free(out.data);
    return good;
}

/* @return false: it has been refused. @param user  NULL: none was given */
static bool find_user(struct request *r, struct guest_user *u, const struct vix_user **user)
{
    const char *given = header(r, "Guest-Authorization");
    *u = (struct guest_user){0};
    *user = NULL;
    if (!given)
        return true;
    if (!decode_user(given, u)) {
        forget_user(u);
        reply_error(r, HOST_BAD_REQUEST, NULL,
                    "Guest-Authorization: must be Basic and the base64 of USER:PASSWORD");
        return false;
    }
    *user = &u->user;
    return true;
}

void op_guest_exec(struct request *r)
{
    struct host_problem p = {0};
    const struct vix_user *user;
    struct guest_user given;
    json_t *out = NULL;
    if (!find_user(r, &given, &user))
        return;
    if (guest_exec(r->host, r->param[0], user, r->json, &out, &p))
        reply_problem(r, &p);
    else
        reply(r, 200, out);
    forget_user(&given);
}

void op_read_guest_file(struct request *r)
{
    struct host_problem p = {0};
    const struct vix_user *user;
    struct guest_user given;
    if (!find_user(r, &given, &user))
        return;
    if (guest_read_file(r->host, r->param[0], user, query(r, "path"), &r->fd, &p)) {
        reply_problem(r, &p);
    } else {
        r->status = 200;
        r->type = "application/octet-stream";
    }
    forget_user(&given);
}

void op_write_guest_file(struct request *r)
{
    struct host_problem p = {0};
    const char *path = query(r, "path");
    const struct vix_user *user;
    struct guest_user given;
    struct stat st;
    void *data = NULL;
    if (!find_user(r, &given, &user))
        return;
    /* The bytes lie in a file: they may be more than a request keeps in memory. */
    if (fstat(r->upload_fd, &st) ||
        (st.st_size && (data = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, r->upload_fd,
                                    0)) == MAP_FAILED)) {
        forget_user(&given);
        reply_error(r, HOST_UNAVAILABLE, NULL, "no memory");
        return;
    }
    int ret = guest_write_file(r->host, r->param[0], user, path, data ? data : "",
                               (size_t)st.st_size, &p);
    forget_user(&given);
    if (data)
        munmap(data, (size_t)st.st_size);
    if (ret)
        reply_problem(r, &p);
    else
        reply(r, 204, NULL);
}
