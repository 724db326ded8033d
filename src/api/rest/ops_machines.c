/*
 * Machines, their consoles and disks.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/rest/ops.h"
#include "host/console.h"
#include "host/disks.h"
#include "host/machines.h"
#include "host/stats.h"
#include "host/store/store.h"
#include "host/transfers.h"

#define LOG_MAX (1u << 20)

void op_create_machine(struct request *r)
{
    struct host_problem p = {0};
    reply_task(r, machine_create(r->host, &r->who, r->json, &p), &p);
}

void op_change_machine(struct request *r)
{
    struct host_problem p = {0};
    if (has_changed(r, r->object))
        return;
    if (machine_change(r->host, &r->who, r->object, r->json, &p))
        reply_problem(r, &p);
    else
        reply_object(r, 200, KIND_MACHINE, store_get(r->host->store, KIND_MACHINE, r->param[0]),
                     true);
}

void op_delete_machine(struct request *r)
{
    struct host_problem p = {0};
    if (has_changed(r, r->object))
        return;
    reply_task(r, machine_delete(r->host, &r->who, r->object, query(r, "disks"), &p), &p);
}

static void act(struct request *r, enum machine_action action)
{
    struct host_problem p = {0};
    reply_task(r, machine_act(r->host, r->who.user, r->object, action, r->json, &p), &p);
}

void op_start(struct request *r)
{
    act(r, MACHINE_START);
}

void op_stop(struct request *r)
{
    act(r, MACHINE_STOP);
}

void op_restart(struct request *r)
{
    act(r, MACHINE_RESTART);
}

void op_pause(struct request *r)
{
    act(r, MACHINE_PAUSE);
}

void op_resume(struct request *r)
{
    act(r, MACHINE_RESUME);
}

void op_reset(struct request *r)
{
    act(r, MACHINE_RESET);
}

void op_machine_stats(struct request *r)
{
    const char *range = query(r, "range");
    reply(r, 200, stats_read(r->host, r->param[0], range ? range : "hour"));
}

void op_console_log(struct request *r)
{
    r->text = console_log_read(r->host, r->param[0], LOG_MAX, &r->text_len);
    r->type = "text/plain; charset=utf-8";
    r->status = 200;
}

/* ---- Disks ---- */

void op_list_disks(struct request *r)
{
    reply_list(r, disks_list(r->host, r->object), "name");
}

/* @return false: there is none, and it is answered */
static bool find_disk(struct request *r, int *disk)
{
    *disk = disk_index(r->object, r->param[1]);
    if (*disk < 0)
        reply_error(r, HOST_NOT_FOUND, NULL, "the machine has no disk of that name");
    return *disk >= 0;
}

void op_add_disk(struct request *r)
{
    struct host_problem p = {0};
    reply_task(r, disk_add(r->host, r->who.user, r->object, r->json, &p), &p);
}

void op_grow_disk(struct request *r)
{
    struct host_problem p = {0};
    int disk;
    uint64_t capacity = (uint64_t)json_integer_value(json_object_get(r->json, "capacity"));
    if (find_disk(r, &disk))
        reply_task(r, disk_grow(r->host, r->who.user, r->object, disk, capacity, &p), &p);
}

void op_remove_disk(struct request *r)
{
    struct host_problem p = {0};
    int disk;
    if (find_disk(r, &disk))
        reply_task(r, disk_remove(r->host, r->who.user, r->object, disk, &p), &p);
}

void op_list_snapshots(struct request *r)
{
    struct host_problem p = {0};
    int disk;
    if (!find_disk(r, &disk))
        return;
    json_t *list = disk_snapshots(r->host, r->object, disk, &p);
    if (list)
        reply_list(r, list, "created");
    else
        reply_problem(r, &p);
}

static void snapshot(struct request *r, enum snapshot_action action, const char *name)
{
    struct host_problem p = {0};
    int disk;
    if (find_disk(r, &disk))
        reply_task(r, disk_snapshot(r->host, r->who.user, r->object, disk, action, name, &p), &p);
}

void op_create_snapshot(struct request *r)
{
    snapshot(r, SNAPSHOT_CREATE, host_text(r->json, "name"));
}

void op_apply_snapshot(struct request *r)
{
    snapshot(r, SNAPSHOT_APPLY, r->param[2]);
}

void op_delete_snapshot(struct request *r)
{
    snapshot(r, SNAPSHOT_DELETE, r->param[2]);
}

void op_export(struct request *r)
{
    struct host_problem p = {0};
    reply_task(r, export_start(r->host, &r->who, r->object, r->json, &p), &p);
}
