/*
 * Who asks, and whether they may: the local socket, tokens, session cookies with their CSRF token,
 * roles and grants.
 */
#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

#include "api/rest/rest.h"
#include "host/store/store.h"

#define COOKIE "mullion_session"

static void find_address(struct request *r)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(r->connection, MHD_CONNECTION_INFO_CLIENT_ADDRESS);
    const struct sockaddr *address = info ? info->client_addr : NULL;
    snprintf(r->who.address, sizeof(r->who.address), "local");
    if (address && address->sa_family == AF_INET)
        inet_ntop(AF_INET, &((const struct sockaddr_in *)address)->sin_addr, r->who.address,
                  sizeof(r->who.address));
    else if (address && address->sa_family == AF_INET6)
        inet_ntop(AF_INET6, &((const struct sockaddr_in6 *)address)->sin6_addr, r->who.address,
                  sizeof(r->who.address));
}

static bool same(const char *a, const char *b)
{
    size_t n = strlen(a);
    unsigned char differs = n != strlen(b);
    for (size_t i = 0; i < n && !differs; i++)
        differs |= (unsigned char)(a[i] ^ b[i]);
    return !differs;
}

static bool is_safe(const struct request *r)
{
    return !strcmp(r->method, "GET") || !strcmp(r->method, "HEAD");
}

/* Browsers name the page that asks: a WebSocket has no other protection from foreign pages. */
static bool own_origin(struct request *r)
{
    const char *origin = header(r, "Origin"), *host = header(r, "Host");
    if (!origin)
        return true;
    return host && !strncmp(origin, "https://", 8) && !strcmp(origin + 8, host);
}

bool rest_authenticate(struct request *r)
{
    struct host *host = r->host;
    const char *authorization = header(r, "Authorization");
    const char *cookie = MHD_lookup_connection_value(r->connection, MHD_COOKIE_KIND, COOKIE);
    char address[64];
    find_address(r);
    snprintf(address, sizeof(address), "%s", r->who.address);
    unsigned wait;
    if (!r->listener->local && !limits_request(r->rest->limits, address, &wait)) {
        r->retry_after = wait;
        reply_error(r, HOST_RATE_LIMITED, NULL, "too many requests from %s; wait %u s", address,
                    wait);
        return false;
    }
    if (authorization) {
        r->known = !strncasecmp(authorization, "Bearer ", 7) &&
                   !auth_token(host, authorization + 7, &r->who);
    } else if (cookie) {
        r->known = !auth_session(host, cookie, &r->who);
    } else if (r->listener->local) {
        snprintf(r->who.user, sizeof(r->who.user), "local");
        r->who.role = ROLE_ADMINISTRATOR;
        r->who.local = r->known = true;
    }
    snprintf(r->who.address, sizeof(r->who.address), "%s", address);
    if (!r->known && (!r->route || !r->route->anybody)) {
        reply_error(r, HOST_UNAUTHENTICATED, NULL,
                    authorization || cookie ? "the token or session is wrong or has expired"
                                            : "log in, or give a token");
        return false;
    }
    if (r->known && r->who.session && !own_origin(r)) {
        reply_error(r, HOST_FORBIDDEN, NULL, "the request comes from another site");
        return false;
    }
    const char *csrf = header(r, "X-CSRF-Token");
    if (r->known && r->who.session && !is_safe(r) && !(r->route && r->route->anybody) &&
        (!csrf || !same(csrf, r->who.csrf))) {
        reply_error(r, HOST_FORBIDDEN, NULL,
                    "X-CSRF-Token is missing or wrong; GET /api/v1/sessions/current has it");
        return false;
    }
    return true;
}

/* Kinds whose objects are named by `name`, others by `id`. */
static json_t *find_object(struct request *r, enum host_kind kind)
{
    return r->param[0] ? store_get(r->host->store, kind, r->param[0]) : NULL;
}

bool rest_authorize(struct request *r)
{
    const struct operation *op = r->route->op;
    enum role role = r->who.role;
    if (r->route->anybody)
        return true;
    if (op->flags & OP_OBJECT) {
        r->object = find_object(r, op->kind);
        /* Whoever may not see it learns nothing of it. */
        if (!r->object || !auth_sees(r->host, &r->who, op->kind, r->param[0])) {
            reply_error(r, HOST_NOT_FOUND, NULL, "there is no %s of that name",
                        host_kind_names[op->kind]);
            return false;
        }
        role = auth_role_on(r->host, &r->who, op->kind, r->object);
    }
    if (role >= r->route->role)
        return true;
    reply_error(r, HOST_FORBIDDEN, NULL, "this needs the role %s", role_names[r->route->role]);
    return false;
}
