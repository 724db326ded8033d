/*
 * Machines, their consoles, screens and disks.
 */
#include <png.h>
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

/* ---- The screen, without the lock ---- */

struct picture {
    unsigned width, height, rows;
    unsigned char *rgb;
};

static int digit(char c)
{
    return c >= 'A' && c <= 'Z'   ? c - 'A'
           : c >= 'a' && c <= 'z' ? c - 'a' + 26
           : c >= '0' && c <= '9' ? c - '0' + 52
           : c == '+'             ? 62
           : c == '/'             ? 63
                                  : -1;
}

static size_t decode(const char *text, unsigned char *out, size_t room)
{
    size_t n = 0;
    uint32_t bits = 0;
    unsigned have = 0;
    for (; *text && digit(*text) >= 0; text++) {
        bits = bits << 6 | (uint32_t)digit(*text);
        have += 6;
        if (have >= 8 && n < room) {
            have -= 8;
            out[n++] = (unsigned char)(bits >> have);
        }
    }
    return n;
}

/* The machine's process may be under attack by its guest: its numbers are checked. */
static int fetch(struct request *r, struct picture *p, struct host_problem *why)
{
    while (!p->rgb || p->rows < p->height) {
        json_t *answer = NULL;
        if (vm_call(r->host, r->param[0], "screenshot",
                    json_pack("{s:i, s:i}", "row", (int)p->rows, "rows", 4096), &answer, why))
            return -1;
        json_int_t width = json_integer_value(json_object_get(answer, "width"));
        json_int_t height = json_integer_value(json_object_get(answer, "height"));
        json_int_t rows = json_integer_value(json_object_get(answer, "rows"));
        bool good = width > 0 && height > 0 && width <= 8192 && height <= 8192 && rows > 0;
        if (good && (!p->rgb || width != p->width || height != p->height)) {
            p->rows = p->rgb ? 0 : p->rows; /* another mode meanwhile: from the beginning */
            free(p->rgb);
            p->width = (unsigned)width;
            p->height = (unsigned)height;
            p->rgb = calloc((size_t)width * (size_t)height, 3);
            if (p->rows == 0 && p->rgb) {
                decode(host_text(answer, "data"), p->rgb, 3u * (size_t)width * (size_t)height);
                p->rows = (unsigned)rows;
            }
        } else if (good) {
            size_t at = (size_t)p->rows * p->width * 3, all = (size_t)p->height * p->width * 3;
            decode(host_text(answer, "data"), p->rgb + at, all - at);
            p->rows += (unsigned)rows;
        }
        json_decref(answer);
        if (!good || !p->rgb)
            return host_problem(why, HOST_CONFLICT, NULL, "the screen cannot be read now");
    }
    return 0;
}

void op_screenshot(struct request *r)
{
    struct picture p = {0};
    struct host_problem why = {0};
    if (fetch(r, &p, &why)) {
        reply_problem(r, &why);
    } else {
        png_image image = {.version = PNG_IMAGE_VERSION,
                           .width = p.width,
                           .height = p.height,
                           .format = PNG_FORMAT_RGB};
        png_alloc_size_t size = PNG_IMAGE_PNG_SIZE_MAX(image);
        r->text = malloc(size);
        if (r->text && png_image_write_to_memory(&image, r->text, &size, 0, p.rgb, 0, NULL)) {
            r->text_len = size;
            r->type = "image/png";
            r->status = 200;
        } else {
            free(r->text);
            r->text = NULL;
            reply_error(r, HOST_INTERNAL, NULL, "the picture cannot be made");
        }
    }
    free(p.rgb);
}

/* ---- The keyboard ---- */

/* What types a character on a US keyboard, as mullion-vmm names keys; NULL: nothing does. */
static const char *key_of(char c, char out[32])
{
    static const char plain[] = "`-=[]\\;',./", shifted[] = "~_+{}|:\"<>?";
    static const char numbers[] = ")!@#$%^&*(";
    const char *at;
    if (c == '\n')
        return "enter";
    if (c == '\t')
        return "tab";
    if (c == ' ')
        return "space";
    if (c >= 'A' && c <= 'Z')
        snprintf(out, 32, "shift-%c", c - 'A' + 'a');
    else if ((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || (c && strchr(plain, c)))
        snprintf(out, 32, "%c", c);
    else if (c && (at = strchr(shifted, c)))
        snprintf(out, 32, "shift-%c", plain[at - shifted]);
    else if (c && (at = strchr(numbers, c)))
        snprintf(out, 32, "shift-%c", (char)('0' + (at - numbers)));
    else
        return NULL;
    return out;
}

void op_keys(struct request *r)
{
    json_t *keys = json_object_get(r->json, "keys");
    const char *text = host_text(r->json, "text");
    struct host_problem p = {0};
    char key[32];
    if (!keys == !*text) {
        reply_error(r, HOST_INVALID, NULL, "give either keys or text");
        return;
    }
    json_t *list = keys ? json_incref(keys) : json_array();
    int ret = 0;
    for (; *text && !ret; text++) {
        const char *name = key_of(*text, key);
        if (!name)
            ret = host_problem(&p, HOST_INVALID, "/text",
                               "holds a character that a US keyboard cannot type");
        else
            json_array_append_new(list, json_string(name));
        /* The keyboard's own buffer is small: a few at a time. */
        if (!ret && json_array_size(list) == 4) {
            ret = vm_call(r->host, r->param[0], "sendkey", json_pack("{s:o}", "keys", list), NULL,
                          &p);
            list = json_array();
            nanosleep(&(struct timespec){0, 20000000}, NULL);
        }
    }
    if (!ret && json_array_size(list))
        ret = vm_call(r->host, r->param[0], "sendkey", json_pack("{s:O}", "keys", list), NULL, &p);
    json_decref(list);
    if (ret)
        reply_problem(r, &p);
    else
        reply(r, 204, NULL);
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
