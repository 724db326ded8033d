/*
 * The firmware configuration device: selector and data port, and the DMA interface (fw_cfg.rst,
 * "Guest-side DMA Interface"). Items are fixed once the machine runs; the guest can only read. What
 * is state is which item is selected and how far it has been read.
 */
#include "device/legacy/fw_cfg.h"

#include <endian.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define PORT 0x510u
#define KEY_SIGNATURE 0x00u
#define KEY_ID 0x01u
#define KEY_DIRECTORY 0x19u
#define KEY_FILE_FIRST 0x20u
#define KEY_MASK 0xbfffu /* without the write bit */
#define FILES_MAX 32u
#define ITEMS_MAX 64u
#define NAME_SIZE 56u

#define DMA_ERROR 1u
#define DMA_READ 2u
#define DMA_SKIP 4u
#define DMA_SELECT 8u
#define DMA_WRITE 16u
#define DMA_SIGNATURE 0x51454d5520434647ull /* "QEMU CFG" */
#define DMA_CHUNK 4096u

struct item {
    uint16_t key;
    uint32_t size;
    uint8_t *data;
    void (*select)(void *opaque, uint8_t *data, uint32_t size);
    void *opaque;
};

/* The directory: all big-endian. */
struct file_entry {
    uint32_t size;
    uint16_t select, reserved;
    char name[NAME_SIZE];
};

struct directory {
    uint32_t count;
    struct file_entry file[FILES_MAX];
};

struct mull_fw_cfg {
    struct mull_device device;
    struct mull_memory *memory;
    pthread_mutex_t lock;
    struct item item[ITEMS_MAX];
    unsigned items, files;
    struct directory directory;
    uint16_t selected;
    uint32_t offset;
    uint32_t dma_high;
    struct mull_region *region;
};

static struct item *find(struct mull_fw_cfg *f, uint16_t key)
{
    for (unsigned i = 0; i < f->items; i++)
        if (f->item[i].key == key)
            return &f->item[i];
    return NULL;
}

static void select_item(struct mull_fw_cfg *f, uint16_t key)
{
    f->selected = key & KEY_MASK;
    f->offset = 0;
    struct item *item = find(f, f->selected);
    if (item && item->select)
        item->select(item->opaque, item->data, item->size);
}

/* Take up to @len bytes of the selected item; beyond its end there are zeroes. */
static void take(struct mull_fw_cfg *f, uint8_t *to, uint32_t len)
{
    const struct item *item = find(f, f->selected);
    uint32_t have = item && f->offset < item->size ? item->size - f->offset : 0;

    if (have > len)
        have = len;
    if (have)
        memcpy(to, item->data + f->offset, have);
    memset(to + have, 0, len - have);
    f->offset += have;
}

/* ---- DMA ---- */

/* @return false: some of it is not RAM */
static bool dma_read(struct mull_fw_cfg *f, uint64_t gpa, uint32_t len)
{
    uint8_t chunk[DMA_CHUNK];

    while (len) {
        uint32_t n = len < sizeof(chunk) ? len : (uint32_t)sizeof(chunk);
        take(f, chunk, n);
        if (mull_mem_write(f->memory, gpa, chunk, n))
            return false;
        gpa += n;
        len -= n;
    }
    return true;
}

static void skip(struct mull_fw_cfg *f, uint32_t len)
{
    const struct item *item = find(f, f->selected);
    uint32_t left = item && f->offset < item->size ? item->size - f->offset : 0;

    f->offset += len < left ? len : left;
}

static void dma(struct mull_fw_cfg *f, uint64_t gpa)
{
    struct {
        uint32_t control, length;
        uint64_t address;
    } access;

    if (mull_mem_read(f->memory, gpa, &access, sizeof(access)))
        return;
    uint32_t control = be32toh(access.control), result = 0;
    if (control & DMA_SELECT)
        select_item(f, (uint16_t)(control >> 16));
    if (control & DMA_READ) {
        if (!dma_read(f, be64toh(access.address), be32toh(access.length)))
            result = DMA_ERROR;
    } else if (control & DMA_WRITE) {
        result = DMA_ERROR; /* nothing is writable */
    } else if (control & DMA_SKIP) {
        skip(f, be32toh(access.length));
    }
    result = htobe32(result);
    mull_mem_write(f->memory, gpa, &result, sizeof(result));
}

/* ---- Ports: 0 selector, 1 data, 4 DMA address (64 bits, big-endian) ---- */

static uint64_t port_read(void *opaque, unsigned cpu, uint64_t offset, unsigned size)
{
    struct mull_fw_cfg *f = opaque;
    uint8_t byte = 0;

    if (offset >= 4 && offset + size <= 12) {
        uint64_t value = 0;
        for (unsigned i = 0; i < size; i++)
            value |= (DMA_SIGNATURE >> (56 - 8 * (offset - 4 + i)) & 0xff) << 8 * i;
        return value;
    }
    if (offset != 1)
        return 0;
    pthread_mutex_lock(&f->lock);
    take(f, &byte, 1);
    pthread_mutex_unlock(&f->lock);
    return byte;
}

static void port_write(void *opaque, unsigned cpu, uint64_t offset, unsigned size, uint64_t value)
{
    struct mull_fw_cfg *f = opaque;

    pthread_mutex_lock(&f->lock);
    if (offset == 0 && size == 2) {
        select_item(f, (uint16_t)value);
    } else if (offset == 4 && size == 4) {
        f->dma_high = be32toh((uint32_t)value);
    } else if (offset == 8 && size == 4) {
        uint64_t gpa = (uint64_t)f->dma_high << 32 | be32toh((uint32_t)value);
        f->dma_high = 0;
        dma(f, gpa);
    }
    pthread_mutex_unlock(&f->lock);
}

static const struct mull_region_ops port_ops = {port_read, port_write, 1, 4};

/* ---- Items ---- */

static int add(struct mull_fw_cfg *f, uint16_t key, const void *data, uint32_t size,
               struct mull_error *err)
{
    if (find(f, key))
        return mull_fail(err, EINVAL, "fw_cfg: item %#x is there already", key);
    if (f->items == ITEMS_MAX)
        return mull_fail(err, ENOSPC, "fw_cfg: more than %u items", ITEMS_MAX);
    uint8_t *copy = malloc(size ? size : 1);
    if (!copy)
        return mull_fail(err, ENOMEM, "fw_cfg: no memory for %u bytes", size);
    memcpy(copy, data, size);
    f->item[f->items++] = (struct item){.key = key, .size = size, .data = copy};
    return 0;
}

int mull_fw_cfg_add(struct mull_fw_cfg *f, uint16_t key, const void *data, uint32_t size,
                    struct mull_error *err)
{
    return add(f, key, data, size, err);
}

void mull_fw_cfg_set(struct mull_fw_cfg *f, uint16_t key, const void *data, uint32_t size)
{
    pthread_mutex_lock(&f->lock);
    struct item *item = find(f, key);
    if (item && item->size == size)
        memcpy(item->data, data, size);
    pthread_mutex_unlock(&f->lock);
}

int mull_fw_cfg_add_file(struct mull_fw_cfg *f, const char *name, const void *data, uint32_t size,
                         void (*select)(void *opaque, uint8_t *data, uint32_t size), void *opaque,
                         struct mull_error *err)
{
    uint16_t key = (uint16_t)(KEY_FILE_FIRST + f->files);

    if (f->files == FILES_MAX || strlen(name) >= NAME_SIZE)
        return mull_fail(err, ENOSPC, "fw_cfg: file %s: too many files, or too long a name", name);
    int code = add(f, key, data, size, err);
    if (code < 0)
        return code;
    f->item[f->items - 1].select = select;
    f->item[f->items - 1].opaque = opaque;
    struct file_entry *entry = &f->directory.file[f->files++];
    entry->size = htobe32(size);
    entry->select = htobe16(key);
    strcpy(entry->name, name);
    f->directory.count = htobe32(f->files);
    memcpy(find(f, KEY_DIRECTORY)->data, &f->directory, sizeof(f->directory));
    return 0;
}

/* ---- Life ---- */

static void reset(struct mull_device *device)
{
    struct mull_fw_cfg *f = (struct mull_fw_cfg *)device;

    pthread_mutex_lock(&f->lock);
    f->selected = 0;
    f->offset = 0;
    f->dma_high = 0;
    pthread_mutex_unlock(&f->lock);
}

static void destroy(struct mull_device *device)
{
    struct mull_fw_cfg *f = (struct mull_fw_cfg *)device;

    mull_region_remove(f->region);
    for (unsigned i = 0; i < f->items; i++)
        free(f->item[i].data);
    pthread_mutex_destroy(&f->lock);
    free(f);
}

static const struct mull_field fields[] = {
    MULL_FIELD(struct mull_fw_cfg, selected),
    MULL_FIELD(struct mull_fw_cfg, offset),
    MULL_FIELD(struct mull_fw_cfg, dma_high),
    MULL_FIELDS_END,
};
static const struct mull_state_desc desc = {
    .name = "fw-cfg", .version = 1, .oldest = 1, .fields = fields};
static const struct mull_device_ops ops = {.state = &desc, .reset = reset, .destroy = destroy};

struct mull_device *mull_fw_cfg_device(struct mull_fw_cfg *f)
{
    return &f->device;
}

int mull_fw_cfg_create(const struct mull_device_env *env, struct mull_fw_cfg **out,
                       struct mull_error *err)
{
    static const uint32_t id = 3; /* the traditional interface and DMA */
    struct mull_fw_cfg *f = calloc(1, sizeof(*f));
    int code;

    *out = NULL;
    if (!f)
        return mull_fail(err, ENOMEM, "fw_cfg: no memory");
    f->device = (struct mull_device){.ops = &ops, .name = "fw-cfg", .object = f};
    f->memory = env->memory;
    pthread_mutex_init(&f->lock, NULL);
    if ((code = add(f, KEY_SIGNATURE, "QEMU", 4, err)) < 0 ||
        (code = add(f, KEY_ID, &id, sizeof(id), err)) < 0 ||
        (code = add(f, KEY_DIRECTORY, &f->directory, sizeof(f->directory), err)) < 0 ||
        (code = mull_region_add(env->memory, MULL_SPACE_PORT, PORT, 12, &port_ops, f, "fw_cfg",
                                &f->region, err)) < 0) {
        destroy(&f->device);
        return code;
    }
    *out = f;
    return 0;
}
