/*
 * Attaching and detaching over the control channel: see parts.h. The process is locked in, so a
 * disk's files and a network's back end come as descriptors with the request, opened by the peer.
 */
#include "vmm/parts.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "image/file.h"
#include "machine/config.h"

void vmm_descriptors_close(struct vmm_descriptors *d)
{
    for (unsigned i = 0; i < d->count; i++)
        if (d->fd[i] >= 0)
            close(d->fd[i]);
    d->count = 0;
}

/* Read one member of a configuration's list @key as if it were all of a configuration. */
static int read_one(const char *key, json_t *value, struct mull_machine_config *config,
                    struct mull_error *err)
{
    json_t *whole = json_pack("{s:[O]}", key, value);
    char *text = whole ? json_dumps(whole, JSON_COMPACT) : NULL;
    int ret = text ? mull_machine_config_read(text, config, err)
                   : mull_fail(err, ENOMEM, "attach: no memory");

    json_decref(whole);
    free(text);
    return ret;
}

/* The names in @files with the descriptors, which are taken. */
static struct mull_given_files *take_files(json_t *files, struct vmm_descriptors *d,
                                           struct mull_error *err)
{
    size_t count = json_array_size(files);
    struct mull_given_files *given = calloc(1, sizeof(*given));

    if (!given || !count || count != d->count || count > MULL_GIVEN_MAX) {
        mull_fail(
            err, given ? EINVAL : ENOMEM,
            "attach: %zu files and %u descriptors: give 1 to %d of both, as many of one as of "
            "the other",
            count, d->count, MULL_GIVEN_MAX);
        free(given);
        return NULL;
    }
    for (unsigned i = 0; i < count; i++) {
        const char *path = json_string_value(json_array_get(files, i));
        given->file[i].path = path ? strdup(path) : NULL;
        given->file[i].fd = d->fd[i];
        d->fd[i] = -1;
        given->count = i + 1;
        if (!given->file[i].path) {
            mull_fail(err, path ? ENOMEM : EINVAL, "attach: files must be strings");
            mull_given_files_free(given);
            return NULL;
        }
    }
    return given;
}

static int attach_disk(struct mull_machine *m, json_t *disk, struct vmm_descriptors *d, char *id,
                       struct mull_error *err)
{
    struct mull_machine_config config = {0};
    json_t *bare = json_deep_copy(disk);
    struct mull_given_files *given = take_files(json_object_get(disk, "files"), d, err);
    int ret = given ? 0 : err->code ? -err->code : -EINVAL;

    json_object_del(bare, "files");
    if (!ret)
        ret = read_one("disks", bare, &config, err);
    json_decref(bare);
    if (!ret && (config.disk_count != 1 || !config.disk[0].path))
        ret = mull_fail(err, EINVAL, "attach: a disk needs a path");
    if (ret)
        mull_given_files_free(given);
    else
        ret = mull_machine_attach_disk(m, &config.disk[0], given, id, err);
    mull_machine_config_free(&config);
    return ret;
}

static int attach_network(struct mull_machine *m, json_t *network, struct vmm_descriptors *d,
                          char *id, struct mull_error *err)
{
    struct mull_machine_config config = {0};
    int fds[2] = {-1, -1};
    int ret = read_one("networks", network, &config, err);

    if (!ret && (config.network_count != 1 || config.network[0].kind == MULL_NETWORK_NONE ||
                 config.network[0].kind == MULL_NETWORK_HOST))
        ret = mull_fail(err, EINVAL, "attach: give a network of type user or tap");
    if (!ret && (d->count < 1 || d->count > 2))
        ret = mull_fail(err, EINVAL, "attach: %u descriptors: a tap has one, passt two", d->count);
    for (unsigned i = 0; !ret && i < d->count; i++) {
        fds[i] = d->fd[i];
        d->fd[i] = -1;
    }
    if (!ret)
        ret = mull_machine_attach_network(m, &config.network[0], fds, id, err);
    mull_machine_config_free(&config);
    return ret;
}

json_t *vmm_parts_attach(struct mull_machine *m, json_t *params,
                         struct vmm_descriptors *descriptors, struct mull_error *err)
{
    json_t *disk = json_object_get(params, "disk"), *network = json_object_get(params, "network"),
           *cpus = json_object_get(params, "cpus"), *memory = json_object_get(params, "memory");
    char id[MULL_PART_ID_MAX] = "";
    int ret;

    if (json_object_size(params) != 1)
        ret = mull_fail(err, EINVAL, "attach: give one of disk, network, cpus, memory");
    else if (json_is_object(disk))
        ret = attach_disk(m, disk, descriptors, id, err);
    else if (json_is_object(network))
        ret = attach_network(m, network, descriptors, id, err);
    else if (json_is_integer(cpus) && json_integer_value(cpus) > 0)
        ret = mull_machine_attach_cpus(m, (unsigned)(json_integer_value(cpus) & 0xffff), err);
    else if (json_is_integer(memory) && json_integer_value(memory) > 0)
        ret = mull_machine_attach_memory(m, (uint64_t)json_integer_value(memory), id, err);
    else
        ret = mull_fail(err, EINVAL, "attach: give one of disk, network, cpus, memory");
    return ret ? NULL : json_pack("{s:s}", "id", id);
}

json_t *vmm_parts_detach(struct mull_machine *m, json_t *params, struct mull_error *err)
{
    const char *id = json_string_value(json_object_get(params, "id"));

    if (!id) {
        mull_fail(err, EINVAL, "detach: give the id of a part");
        return NULL;
    }
    return mull_machine_detach(m, id, json_is_true(json_object_get(params, "force")), err)
               ? NULL
               : json_object();
}

static void add_part(void *opaque, const struct mull_machine_part *part)
{
    json_array_append_new(opaque, json_pack("{s:s, s:s, s:i, s:I, s:b, s:b, s:i}", "id", part->id,
                                            "kind", part->kind, "slot", (int)part->slot, "size",
                                            (json_int_t)part->size, "asked", part->asked, "refused",
                                            part->refused, "status", (int)part->status));
}

json_t *vmm_parts_list(struct mull_machine *m, json_t *params, struct mull_error *err)
{
    json_t *list = json_array();

    mull_machine_parts(m, add_part, list);
    return json_pack("{s:o}", "parts", list);
}
