/*
 * A parallel NOR flash chip, 8 bits wide, with Intel's command set (CFI: JEDEC JESD68.01; "Common
 * Flash Memory Interface", Intel AP-646): where UEFI firmware keeps its variables. Each completed
 * command is written to the file behind the chip before the guest goes on, so that the order of the
 * writes survives the process; a little later, and at the end, the file is synced.
 */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "device/devices.h"

#define BLOCK_SIZE 4096u
#define BUFFER_SIZE 256u
#define SYNC_DELAY_NS 200000000ull

#define STATUS_READY 0x80u
#define STATUS_ERASE_ERROR 0x20u
#define STATUS_PROGRAM_ERROR 0x10u

enum { CMD_ARRAY = 0xff, CMD_ID = 0x90, CMD_STATUS = 0x70, CMD_QUERY = 0x98 };

enum step {
    IDLE,
    PROGRAM,       /* the next write is the byte */
    ERASE,         /* ... confirms it */
    BUFFER_COUNT,  /* ... is the count */
    BUFFER_DATA,   /* ... is a byte of the buffer */
    BUFFER_CONFIRM /* ... confirms it */
};

struct pflash {
    struct mull_device device;
    const struct mull_log *log;
    pthread_mutex_t lock;
    uint8_t *data; /* what the chip holds */
    uint32_t size;
    int fd; /* -1: kept in memory only */
    struct mull_timer *timer;
    unsigned complaints;
    uint8_t mode; /* what reads give: CMD_* */
    uint8_t status;
    uint8_t step; /* enum step */
    uint32_t buffer_base, buffer_left;
    uint8_t buffer[BUFFER_SIZE];
    uint8_t buffer_set[BUFFER_SIZE];
    struct mull_region *region;
};

/* ---- The file ---- */

static void store(struct pflash *p, uint32_t offset, uint32_t len)
{
    ssize_t n = len;

    if (p->fd < 0)
        return;
    while (len) {
        n = pwrite(p->fd, p->data + offset, len, offset);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            break;
        offset += (uint32_t)n;
        len -= (uint32_t)n;
    }
    if (n <= 0) {
        p->status |= STATUS_PROGRAM_ERROR; /* the firmware sees that it did not work */
        mull_log_limited(p->log, p->complaints, 4, MULL_LOG_ERROR,
                         "UEFI variables: cannot write the file: %s", strerror(errno));
    }
    mull_timer_arm(p->timer, mull_now_ns() + SYNC_DELAY_NS);
}

static void sync_file(void *opaque)
{
    struct pflash *p = opaque;

    if (fdatasync(p->fd))
        mull_log_limited(p->log, p->complaints, 4, MULL_LOG_ERROR,
                         "UEFI variables: cannot sync the file: %s", strerror(errno));
}

/* ---- Commands ---- */

/* Programming can only clear bits. */
static void program(struct pflash *p, uint32_t offset, uint8_t value)
{
    p->data[offset] &= value;
    store(p, offset, 1);
}

static void erase(struct pflash *p, uint32_t offset)
{
    uint32_t base = offset & ~(BLOCK_SIZE - 1);
    uint32_t len = p->size - base < BLOCK_SIZE ? p->size - base : BLOCK_SIZE;

    memset(p->data + base, 0xff, len);
    store(p, base, len);
}

static void write_buffer(struct pflash *p)
{
    for (uint32_t i = 0; i < BUFFER_SIZE && p->buffer_base + i < p->size; i++)
        if (p->buffer_set[i])
            p->data[p->buffer_base + i] &= p->buffer[i];
    uint32_t len = p->size - p->buffer_base;
    store(p, p->buffer_base, len < BUFFER_SIZE ? len : BUFFER_SIZE);
}

static void begin_command(struct pflash *p, uint8_t value)
{
    switch (value) {
    case 0x10:
    case 0x40:
        p->step = PROGRAM;
        p->mode = CMD_STATUS;
        break;
    case 0x20:
        p->step = ERASE;
        p->mode = CMD_STATUS;
        break;
    case 0xe8:
        p->step = BUFFER_COUNT;
        p->mode = CMD_STATUS;
        break;
    case 0x50: /* firmware takes a chip for real whose status is 0 then (OVMF, QemuFlash.c) */
        p->status = 0;
        p->mode = CMD_ARRAY;
        break;
    case CMD_STATUS:
    case CMD_ID:
    case CMD_QUERY:
        p->mode = value;
        break;
    case 0x00:
    case CMD_ARRAY:
        p->mode = CMD_ARRAY;
        break;
    default: /* not known: nothing happens */
        break;
    }
}

static void continue_command(struct pflash *p, uint32_t offset, uint8_t value)
{
    uint8_t step = p->step;

    p->step = IDLE;
    p->status |= STATUS_READY;
    switch (step) {
    case PROGRAM:
        program(p, offset, value);
        break;
    case ERASE:
        if (value == 0xd0)
            erase(p, offset);
        else
            p->status |= STATUS_ERASE_ERROR | STATUS_PROGRAM_ERROR;
        break;
    case BUFFER_COUNT:
        p->buffer_left = value + 1u;
        p->buffer_base = offset & ~(BUFFER_SIZE - 1);
        memset(p->buffer_set, 0, sizeof(p->buffer_set));
        p->step = BUFFER_DATA;
        break;
    case BUFFER_DATA:
        if (offset - p->buffer_base < BUFFER_SIZE) {
            p->buffer[offset - p->buffer_base] = value;
            p->buffer_set[offset - p->buffer_base] = 1;
        } else {
            p->status |= STATUS_PROGRAM_ERROR;
        }
        p->step = --p->buffer_left ? BUFFER_DATA : BUFFER_CONFIRM;
        break;
    case BUFFER_CONFIRM:
        if (value == 0xd0)
            write_buffer(p);
        else
            p->status |= STATUS_ERASE_ERROR | STATUS_PROGRAM_ERROR;
        break;
    default:
        break;
    }
}

/* The CFI query structure (JESD68.01, 2.6), for a chip of this size with 4 KiB blocks. */
static uint8_t query(const struct pflash *p, uint32_t offset)
{
    static const uint8_t head[] = {'Q', 'R', 'Y', 1, 0, 0x31, 0};
    uint32_t blocks = p->size / BLOCK_SIZE - 1;

    offset &= 0xff;
    if (offset >= 0x10 && offset < 0x10 + sizeof(head))
        return head[offset - 0x10];
    switch (offset) {
    case 0x27:
        return (uint8_t)(31 - __builtin_clz(p->size));
    case 0x2a:
        return 8; /* log2 of the buffer */
    case 0x2c:
        return 1; /* one region of equal blocks */
    case 0x2d:
        return (uint8_t)blocks;
    case 0x2e:
        return (uint8_t)(blocks >> 8);
    case 0x2f:
        return (uint8_t)(BLOCK_SIZE / 256);
    default:
        return 0;
    }
}

static uint8_t read_byte(const struct pflash *p, uint32_t offset)
{
    switch (p->mode) {
    case CMD_STATUS:
        return p->status;
    case CMD_ID:
        return (offset & 1) ? 0x18 : 0x89; /* Intel */
    case CMD_QUERY:
        return query(p, offset);
    default:
        return p->data[offset];
    }
}

static uint64_t flash_read(void *opaque, unsigned cpu, uint64_t offset, unsigned size)
{
    struct pflash *p = opaque;
    uint64_t value = 0;

    pthread_mutex_lock(&p->lock);
    for (unsigned i = 0; i < size; i++)
        value |= (uint64_t)read_byte(p, (uint32_t)offset + i) << 8 * i;
    pthread_mutex_unlock(&p->lock);
    return value;
}

static void flash_write(void *opaque, unsigned cpu, uint64_t offset, unsigned size, uint64_t value)
{
    struct pflash *p = opaque;

    pthread_mutex_lock(&p->lock);
    for (unsigned i = 0; i < size; i++) {
        uint8_t byte = (uint8_t)(value >> 8 * i);
        if (p->step == IDLE)
            begin_command(p, byte);
        else
            continue_command(p, (uint32_t)offset + i, byte);
    }
    pthread_mutex_unlock(&p->lock);
}

static const struct mull_region_ops flash_ops = {flash_read, flash_write, 1, 8};

/* ---- Life ---- */

static void reset(struct mull_device *device)
{
    struct pflash *p = (struct pflash *)device;

    pthread_mutex_lock(&p->lock);
    p->mode = CMD_ARRAY;
    p->status = STATUS_READY;
    p->step = IDLE;
    p->buffer_base = p->buffer_left = 0;
    pthread_mutex_unlock(&p->lock);
}

static void quiesce(struct mull_device *device)
{
    struct pflash *p = (struct pflash *)device;

    if (p->fd >= 0)
        sync_file(p);
}

static void destroy(struct mull_device *device)
{
    struct pflash *p = (struct pflash *)device;

    if (p->fd >= 0)
        sync_file(p);
    mull_region_remove(p->region);
    mull_timer_destroy(p->timer);
    pthread_mutex_destroy(&p->lock);
    free(p);
}

static int after_load(void *object, uint32_t version, struct mull_error *err)
{
    struct pflash *p = object;

    if (p->step > BUFFER_CONFIRM || p->buffer_base >= p->size ||
        (p->step == BUFFER_DATA && (!p->buffer_left || p->buffer_left > 256)))
        return mull_fail(err, EINVAL, "UEFI variables: the saved state of the chip is not valid");
    if (version >= 2) /* what the chip holds is what its file holds */
        store(p, 0, p->size);
    return 0;
}

static const struct mull_field fields[] = {
    MULL_FIELD(struct pflash, mode),
    MULL_FIELD(struct pflash, status),
    MULL_FIELD(struct pflash, step),
    MULL_FIELD(struct pflash, buffer_base),
    MULL_FIELD(struct pflash, buffer_left),
    MULL_FIELD_BLOB(struct pflash, buffer),
    MULL_FIELD_BLOB(struct pflash, buffer_set),
    MULL_FIELD_BEHIND(2, struct pflash, data, size),
    MULL_FIELDS_END,
};
static const struct mull_state_desc desc = {
    .name = "pflash", .version = 2, .oldest = 1, .fields = fields, .after_load = after_load};
static const struct mull_device_ops ops = {
    .state = &desc, .reset = reset, .quiesce = quiesce, .destroy = destroy};

int mull_pflash_create(const struct mull_device_env *env, const struct mull_pflash_config *cfg,
                       struct mull_device **out, struct mull_error *err)
{
    struct pflash *p = calloc(1, sizeof(*p));

    if (!p)
        return mull_fail(err, ENOMEM, "pflash: no memory");
    p->device = (struct mull_device){.ops = &ops, .name = "pflash", .object = p};
    p->log = env->log;
    p->data = cfg->data;
    p->size = cfg->size;
    p->fd = cfg->fd;
    pthread_mutex_init(&p->lock, NULL);
    reset(&p->device);
    p->timer = mull_timer_create(env->loop, sync_file, p);
    int code = p->timer ? 0 : mull_fail(err, ENOMEM, "pflash: no memory");
    if (!code)
        code = mull_region_add(env->memory, MULL_SPACE_MMIO, cfg->base, cfg->size, &flash_ops, p,
                               "pflash", &p->region, err);
    if (code < 0) {
        p->fd = -1;
        destroy(&p->device);
        return code;
    }
    *out = &p->device;
    return 0;
}
