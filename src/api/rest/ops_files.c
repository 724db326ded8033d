/*
 * What comes and goes as files: imports, uploads, downloads; images, datastores; networks.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/rest/ops.h"
#include "host/builder.h"
#include "host/events.h"
#include "host/networks.h"
#include "host/pools.h"
#include "host/store/store.h"
#include "host/stores.h"
#include "host/templates.h"
#include "host/transfers.h"

/* 201 with a new object, or the problem where it is NULL. */
static void made(struct request *r, enum host_kind kind, json_t *doc, const char *path,
                 const struct host_problem *p)
{
    if (!doc) {
        reply_problem(r, p);
        return;
    }
    snprintf(r->location, sizeof(r->location), "/api/v1/%s/%s", path, host_text(doc, "id"));
    reply_object(r, 201, kind, doc, true);
}

static void done(struct request *r, int ret, const struct host_problem *p)
{
    if (ret)
        reply_problem(r, p);
    else
        reply(r, 204, NULL);
}

static void changed(struct request *r, int ret, const struct host_problem *p)
{
    enum host_kind kind = r->route->op->kind;
    if (ret)
        reply_problem(r, p);
    else
        reply_object(r, 200, kind, store_get(r->host->store, kind, r->param[0]), true);
}

/* ---- Transfers ---- */

void op_import(struct request *r)
{
    struct host_problem p = {0};
    reply_task(r, import_start(r->host, &r->who, r->json, &p), &p);
}

void op_build_image(struct request *r)
{
    struct host_problem p = {0};
    reply_task(r, image_build(r->host, r->who.user, host_text(r->json, "name"), &p), &p);
}

void op_create_upload(struct request *r)
{
    struct host_problem p = {0};
    made(r, KIND_UPLOAD, upload_create(r->host, &r->who, r->json, &p), "uploads", &p);
}

/* The bytes are written already: server.c. */
void op_continue_upload(struct request *r)
{
    reply_object(r, 200, KIND_UPLOAD, r->object, true);
}

void op_delete_upload(struct request *r)
{
    struct host_problem p = {0};
    if (json_is_true(json_object_get(r->object, "_busy")))
        reply_error(r, HOST_CONFLICT, NULL, "it is being imported");
    else
        done(r, upload_delete(r->host, r->object, &p), &p);
}

static void send_file(struct request *r, const char *path, const char *name)
{
    r->fd = path ? open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW) : -1;
    if (r->fd < 0) {
        reply_error(r, HOST_NOT_FOUND, NULL, "there is no such file");
        return;
    }
    /* What a header's quoted string cannot hold is left out. */
    size_t n = 0;
    for (; *name && n + 1 < sizeof(r->file_name); name++)
        if ((unsigned char)*name >= ' ' && (unsigned char)*name < 0x7f && !strchr("\"\\", *name))
            r->file_name[n++] = *name;
    r->type = "application/octet-stream";
    r->status = 200;
}

void op_download(struct request *r)
{
    const char *name;
    char *path = download_path(r->host, r->object, &name);
    send_file(r, path, name);
    free(path);
}

/* ---- Images ---- */

void op_delete_image(struct request *r)
{
    struct host_problem p = {0};
    if (strcmp(host_text(r->object, "state"), "ready"))
        reply_error(r, HOST_CONFLICT, NULL, "the image is being made");
    else
        done(r, image_delete(r->host, r->object, &p), &p);
}

/* ---- Templates ---- */

void op_create_template(struct request *r)
{
    struct host_problem p = {0};
    reply_task(r, template_create(r->host, &r->who, r->json, &p), &p);
}

void op_delete_template(struct request *r)
{
    struct host_problem p = {0};
    if (!has_changed(r, r->object))
        reply_task(r, template_delete(r->host, &r->who, r->object, &p), &p);
}

/* ---- Datastores ---- */

void op_create_datastore(struct request *r)
{
    struct host_problem p = {0};
    made(r, KIND_DATASTORE,
         datastore_create(r->host, host_text(r->json, "name"), host_text(r->json, "path"), &p),
         "datastores", &p);
}

void op_change_datastore(struct request *r)
{
    struct host_problem p = {0};
    if (!has_changed(r, r->object))
        changed(r, datastore_change(r->host, r->object, r->json, &p), &p);
}

void op_delete_datastore(struct request *r)
{
    struct host_problem p = {0};
    if (!has_changed(r, r->object))
        done(r, datastore_delete(r->host, r->object, &p), &p);
}

void op_list_files(struct request *r)
{
    struct host_problem p = {0};
    const char *inside = query(r, "path");
    inside = inside ? inside : "";
    if (!query(r, "download")) {
        json_t *list = datastore_files(r->host, r->object, inside, &p);
        if (list)
            reply_list(r, list, "name");
        else
            reply_problem(r, &p);
        return;
    }
    /* A disk holds what its machine's users may not show to every viewer. */
    if (r->who.role < ROLE_OPERATOR) {
        reply_error(r, HOST_FORBIDDEN, NULL, "this needs the role operator");
        return;
    }
    char *path = datastore_file(r->host, r->object, inside, &p);
    if (path)
        send_file(r, path, strrchr(path, '/') + 1);
    else
        reply_problem(r, &p);
    free(path);
}

void op_delete_file(struct request *r)
{
    struct host_problem p = {0};
    const char *inside = query(r, "path");
    if (!inside)
        reply_error(r, HOST_BAD_REQUEST, NULL, "path: is missing");
    else
        done(r, datastore_delete_file(r->host, r->object, inside, &p), &p);
}

/* ---- Networks ---- */

/* @param id  the network's; @param name  also of one that is gone */
static void tell_network(struct request *r, const char *id, const char *name, const char *what)
{
    char object[HOST_ID_MAX + 16], type[32];
    snprintf(object, sizeof(object), "network:%s", id);
    snprintf(type, sizeof(type), "network.%s", what);
    host_event(r->host, type, object, name, r->who.user, "info", NULL, "network %s was %s", name,
               what);
}

void op_create_network(struct request *r)
{
    struct host_problem p = {0};
    json_t *doc = network_create(r->host, r->json, &p);
    if (doc)
        tell_network(r, host_text(doc, "id"), host_text(doc, "name"), "created");
    made(r, KIND_NETWORK, doc, "networks", &p);
}

void op_change_network(struct request *r)
{
    struct host_problem p = {0};
    if (has_changed(r, r->object))
        return;
    int ret = network_change(r->host, r->object, r->json, &p);
    json_t *doc = ret ? NULL : store_get(r->host->store, KIND_NETWORK, r->param[0]);
    if (doc)
        tell_network(r, r->param[0], host_text(doc, "name"), "changed");
    changed(r, ret, &p);
}

void op_delete_network(struct request *r)
{
    struct host_problem p = {0};
    char name[HOST_NAME_MAX];
    if (has_changed(r, r->object))
        return;
    snprintf(name, sizeof(name), "%s", host_text(r->object, "name"));
    int ret = network_delete(r->host, r->object, &p);
    if (!ret)
        tell_network(r, r->param[0], name, "deleted");
    done(r, ret, &p);
}

void op_list_ports(struct request *r)
{
    reply_list(r, network_ports(r->host, r->object), "name");
}

void op_list_leases(struct request *r)
{
    reply_list(r, network_leases(r->host, r->object), "address");
}

/* ---- Resource pools ---- */

void op_create_pool(struct request *r)
{
    struct host_problem p = {0};
    made(r, KIND_POOL, pool_create(r->host, r->json, &p), "pools", &p);
}

void op_change_pool(struct request *r)
{
    struct host_problem p = {0};
    if (!has_changed(r, r->object))
        changed(r, pool_change(r->host, r->object, r->json, &p), &p);
}

void op_delete_pool(struct request *r)
{
    struct host_problem p = {0};
    if (!has_changed(r, r->object))
        done(r, pool_delete(r->host, r->object, &p), &p);
}
