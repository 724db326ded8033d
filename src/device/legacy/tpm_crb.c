/*
 * The TPM's command response buffer. See tpm_crb.h; sections are those of the TCG's profile. One
 * locality, the operating system's; no interrupt: drivers poll. Knows how long a command is, not
 * what it says.
 */
#include "device/legacy/tpm_crb.h"

#include <endian.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "device/legacy/swtpm.h"
#include "platform/acpi.h"

/* Registers of locality 0 (table 26). */
enum {
    LOC_STATE = 0x00,
    LOC_CTRL = 0x08,
    LOC_STS = 0x0c,
    INTF_ID = 0x30,
    CTRL_REQ = 0x40,
    CTRL_STS = 0x44,
    CTRL_START = 0x4c,
    CMD_SIZE = 0x58,
    CMD_ADDR = 0x5c,
    RSP_SIZE = 0x64,
    RSP_ADDR = 0x68,
    BUFFER = 0x80,
};
#define BUFFER_SIZE (MULL_TPM_SIZE - BUFFER)
#define HEADER 10 /* of a command and of an answer: tag, size, code */

#define STATE_ESTABLISHED (1u << 0)
#define STATE_ASSIGNED (1u << 1)
#define STATE_VALID (1u << 7)
#define CTRL_REQUEST (1u << 0)
#define CTRL_RELINQUISH (1u << 1)
#define REQ_READY (1u << 0)
#define REQ_IDLE (1u << 1)
#define STS_ERROR (1u << 0)
#define STS_IDLE (1u << 1)
/* INTF_ID: CRB, its version, one locality, CRB supported and selected, and selected for good. */
#define ID_LOW (1u | 1u << 4 | 1u << 14 | 1u << 17 | 1u << 19)
#define ID_HIGH 0x10141af4u /* device and vendor */

#define DRAIN_MS 30000 /* making a key takes long */

struct tpm {
    struct mull_device device; /* must be first */
    struct mull_device_env env;
    struct mull_swtpm swtpm;
    struct mull_region *region;
    struct mull_source *source;
    pthread_mutex_t lock; /* everything below */
    bool assigned;        /* the locality */
    bool idle;
    bool started; /* a command is on its way */
    bool failed;  /* swtpm has gone: a fatal error for the guest */
    uint8_t buffer[BUFFER_SIZE];
    uint8_t answer[BUFFER_SIZE];
    uint32_t have; /* bytes of it */
    struct mull_swtpm_blob blobs[MULL_SWTPM_BLOBS];
};

/* ---- Commands ---- */

static uint32_t size_of(const uint8_t *message)
{
    uint32_t size;
    memcpy(&size, message + 2, sizeof(size));
    return be32toh(size);
}

static void fatal(struct tpm *t, const char *why)
{
    if (!t->failed)
        mull_log(t->env.log, MULL_LOG_WARN,
                 "tpm: %s; the guest's TPM fails until the machine is "
                 "started again",
                 why);
    t->failed = true;
    t->started = false;
    mull_source_modify(t->source, 0);
}

static void start(struct tpm *t)
{
    uint32_t size = size_of(t->buffer);
    if (t->started || t->failed || t->idle)
        return;
    if (size < HEADER || size > BUFFER_SIZE) {
        /* TPM_RC_COMMAND_SIZE without a session (TPM 2.0 part 2, 6.6.3). */
        static const uint8_t refusal[HEADER] = {0x80, 0x01, 0, 0, 0, HEADER, 0, 0, 0x01, 0x42};
        memcpy(t->buffer, refusal, HEADER);
        return;
    }
    t->started = true;
    t->have = 0;
    /* A socket takes far more than a buffer at once. */
    if (send(t->swtpm.data, t->buffer, size, MSG_DONTWAIT | MSG_NOSIGNAL) != (ssize_t)size)
        fatal(t, "swtpm has ended");
}

/* Take what has come of the answer. Locked. */
static void receive(struct tpm *t)
{
    uint32_t want = HEADER;
    while (t->started) {
        if (t->have >= HEADER) {
            want = size_of(t->answer);
            if (want < HEADER || want > BUFFER_SIZE) {
                fatal(t, "swtpm answers nonsense");
                return;
            }
        }
        if (t->have == want) {
            memcpy(t->buffer, t->answer, t->have);
            t->started = false;
            return;
        }
        ssize_t n = recv(t->swtpm.data, t->answer + t->have, want - t->have, MSG_DONTWAIT);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN)
            return;
        if (n <= 0) {
            fatal(t, "swtpm has ended");
            return;
        }
        t->have += (uint32_t)n;
    }
}

static void data_ready(void *opaque, uint32_t events)
{
    struct tpm *t = opaque;
    pthread_mutex_lock(&t->lock);
    if (t->started)
        receive(t);
    else if (!t->failed)
        fatal(t, "swtpm has ended, or speaks unasked");
    pthread_mutex_unlock(&t->lock);
}

/* Wait for the answer that is still to come. */
static void drain(struct tpm *t)
{
    uint64_t end = mull_now_ns() + DRAIN_MS * 1000000ull;
    pthread_mutex_lock(&t->lock);
    while (t->started) {
        struct pollfd p = {.fd = t->swtpm.data, .events = POLLIN};
        pthread_mutex_unlock(&t->lock);
        poll(&p, 1, 100);
        pthread_mutex_lock(&t->lock);
        receive(t);
        if (t->started && mull_now_ns() > end)
            fatal(t, "swtpm does not answer");
    }
    pthread_mutex_unlock(&t->lock);
}

/* ---- Registers ---- */

static uint32_t read_register(const struct tpm *t, uint64_t offset)
{
    switch (offset) {
    case LOC_STATE:
        return STATE_VALID | STATE_ESTABLISHED | (t->assigned ? STATE_ASSIGNED : 0);
    case LOC_STS:
        return t->assigned;
    case INTF_ID:
        return ID_LOW;
    case INTF_ID + 4:
        return ID_HIGH;
    case CTRL_STS:
        return (t->failed ? STS_ERROR : 0) | (t->idle ? STS_IDLE : 0);
    case CTRL_START:
        return t->started;
    case CMD_SIZE:
    case RSP_SIZE:
        return BUFFER_SIZE;
    case CMD_ADDR:
    case RSP_ADDR:
        return (uint32_t)MULL_TPM_BASE + BUFFER;
    default:
        return 0;
    }
}

static void write_register(struct tpm *t, uint64_t offset, uint32_t value)
{
    switch (offset) {
    case LOC_CTRL:
        if (value & CTRL_REQUEST)
            t->assigned = true;
        if (value & CTRL_RELINQUISH)
            t->assigned = false;
        break;
    case CTRL_REQ: /* done as soon as it is asked for */
        if (value & REQ_READY)
            t->idle = false;
        else if ((value & REQ_IDLE) && !t->started)
            t->idle = true;
        break;
    case CTRL_START:
        if (value & 1)
            start(t);
        break;
        /* CTRL_CANCEL: a TPM may finish the command instead (6.5.3.6), and this one does. */
    }
}

static uint64_t region_read(void *opaque, unsigned cpu, uint64_t offset, unsigned size)
{
    struct tpm *t = opaque;
    uint64_t value = 0;

    pthread_mutex_lock(&t->lock);
    if (offset >= BUFFER && size <= MULL_TPM_SIZE - offset)
        memcpy(&value, t->buffer + (offset - BUFFER), size);
    else if (offset < BUFFER)
        value = read_register(t, offset & ~3ull) >> 8 * (offset & 3);
    pthread_mutex_unlock(&t->lock);
    return value;
}

static void region_write(void *opaque, unsigned cpu, uint64_t offset, unsigned size, uint64_t value)
{
    struct tpm *t = opaque;

    pthread_mutex_lock(&t->lock);
    if (offset < BUFFER)
        write_register(t, offset, (uint32_t)value);
    else if (size <= MULL_TPM_SIZE - offset && !t->started) /* it is the TPM's meanwhile */
        memcpy(t->buffer + (offset - BUFFER), &value, size);
    pthread_mutex_unlock(&t->lock);
}

static const struct mull_region_ops region_ops = {
    .read = region_read, .write = region_write, .min_size = 1, .max_size = 4};

/* ---- Life ---- */

static void registers_reset(struct tpm *t)
{
    t->assigned = t->started = false;
    t->idle = true;
    memset(t->buffer, 0, sizeof(t->buffer));
}

static void tpm_reset(struct mull_device *device)
{
    struct tpm *t = (struct tpm *)device;
    struct mull_error err = {0};
    drain(t);
    pthread_mutex_lock(&t->lock);
    registers_reset(t);
    if (!t->failed && mull_swtpm_reset(&t->swtpm, BUFFER_SIZE, &err))
        fatal(t, err.message);
    pthread_mutex_unlock(&t->lock);
}

static void tpm_quiesce(struct mull_device *device)
{
    drain((struct tpm *)device);
}

static void tpm_destroy(struct mull_device *device)
{
    struct tpm *t = (struct tpm *)device;
    mull_source_remove(t->source);
    if (t->region)
        mull_region_remove(t->region);
    mull_swtpm_stop(&t->swtpm);
    pthread_mutex_destroy(&t->lock);
    free(t);
}

/* Quiet by now. A TPM that cannot be asked is saved as one that has failed. */
static void before_save(void *object)
{
    struct tpm *t = object;
    struct mull_error err = {0};
    memset(t->blobs, 0, sizeof(t->blobs));
    if (!t->failed && mull_swtpm_save(&t->swtpm, t->blobs, &err))
        fatal(t, err.message);
}

static int after_load(void *object, uint32_t version, struct mull_error *err)
{
    struct tpm *t = object;
    t->started = false;
    for (unsigned i = 0; i < MULL_SWTPM_BLOBS; i++)
        if (t->blobs[i].length > MULL_SWTPM_BLOB_MAX)
            return mull_fail(err, EINVAL, "tpm: saved state of %u bytes", t->blobs[i].length);
    return t->failed ? 0 : mull_swtpm_load(&t->swtpm, t->blobs, BUFFER_SIZE, err);
}

static const struct mull_state_desc blob_desc = {
    .name = "tpm-blob",
    .version = 1,
    .oldest = 1,
    .fields =
        (const struct mull_field[]){MULL_FIELD(struct mull_swtpm_blob, flags),
                                    MULL_FIELD(struct mull_swtpm_blob, length),
                                    MULL_FIELD_BLOB(struct mull_swtpm_blob, data), MULL_FIELDS_END},
};

static const struct mull_state_desc tpm_desc = {
    .name = "tpm-crb",
    .version = 1,
    .oldest = 1,
    .fields =
        (const struct mull_field[]){
            MULL_FIELD(struct tpm, assigned), MULL_FIELD(struct tpm, idle),
            MULL_FIELD(struct tpm, failed), MULL_FIELD_BLOB(struct tpm, buffer),
            MULL_FIELD_NESTED_ARRAY(struct tpm, blobs, &blob_desc), MULL_FIELDS_END},
    .before_save = before_save,
    .after_load = after_load,
};

static const struct mull_device_ops tpm_ops = {
    .state = &tpm_desc, .reset = tpm_reset, .quiesce = tpm_quiesce, .destroy = tpm_destroy};

int mull_tpm_crb_create(const struct mull_device_env *env, const struct mull_tpm_config *cfg,
                        struct mull_device **out, struct mull_error *err)
{
    struct tpm *t = calloc(1, sizeof(*t));
    if (!t)
        return mull_fail(err, ENOMEM, "tpm: no memory");
    t->device = (struct mull_device){.ops = &tpm_ops, .name = "tpm", .object = t};
    t->env = *env;
    pthread_mutex_init(&t->lock, NULL);
    registers_reset(t);
    int ret = cfg->folder ? mull_swtpm_start(&t->swtpm, cfg->folder, BUFFER_SIZE, err)
                          : mull_swtpm_adopt(&t->swtpm, cfg->control, cfg->data, BUFFER_SIZE, err);
    if (!ret)
        ret = mull_loop_watch(env->loop, t->swtpm.data, EPOLLIN, data_ready, t, &t->source, err);
    if (!ret)
        ret = mull_region_add(env->memory, MULL_SPACE_MMIO, MULL_TPM_BASE, MULL_TPM_SIZE,
                              &region_ops, t, "tpm", &t->region, err);
    if (ret) {
        tpm_destroy(&t->device);
        return ret;
    }
    *out = &t->device;
    return 0;
}
