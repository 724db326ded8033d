/* See hostile.h. */
#include "hostile.h"

#include <errno.h>
#include <liburing.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define ARGUMENTS 6

/* The linker puts this in the place of liburing's, by which we know where the last ring is. */
static struct io_uring *last_ring;
int __real_io_uring_queue_init(unsigned entries, struct io_uring *ring, unsigned flags);
int __wrap_io_uring_queue_init(unsigned entries, struct io_uring *ring, unsigned flags);

int __wrap_io_uring_queue_init(unsigned entries, struct io_uring *ring, unsigned flags)
{
    int ret = __real_io_uring_queue_init(entries, ring, flags);
    last_ring = ret < 0 ? NULL : ring;
    return ret;
}

static void *bytes_of(const char *hex)
{
    size_t n = strlen(hex) / 2;
    unsigned char *bytes = calloc(1, n + 1);
    for (size_t i = 0; bytes && i < n; i++)
        sscanf(hex + 2 * i, "%2hhx", &bytes[i]);
    return bytes;
}

/* @param made  gets what is to be freed */
static long argument(json_t *value, void **made)
{
    const char *hex = json_string_value(json_object_get(value, "bytes"));
    *made = hex ? bytes_of(hex) : NULL;
    if (*made)
        return (long)*made;
    return json_is_string(value) ? (long)json_string_value(value) : (long)json_integer_value(value);
}

static json_t *try_call(json_t *call, json_t *args)
{
    long a[ARGUMENTS] = {0};
    void *made[ARGUMENTS] = {0};
    for (unsigned i = 0; i < ARGUMENTS; i++)
        a[i] = argument(json_array_get(args, i), &made[i]);
    long ret = syscall(json_integer_value(call), a[0], a[1], a[2], a[3], a[4], a[5]);
    if (ret == -1)
        ret = -errno;
    for (unsigned i = 0; i < ARGUMENTS; i++)
        free(made[i]);
    return json_pack("{s:I}", "result", (json_int_t)ret);
}

static json_t *try_ring(json_t *params, struct mull_error *err)
{
    void *made;
    struct io_uring_cqe *cqe;
    struct io_uring_sqe *sqe = last_ring ? io_uring_get_sqe(last_ring) : NULL;
    if (!sqe) {
        mull_fail(err, ENODEV, "there is no ring");
        return NULL;
    }
    memset(sqe, 0, sizeof(*sqe));
    sqe->opcode = (uint8_t)json_integer_value(json_object_get(params, "ring"));
    sqe->fd = (int)json_integer_value(json_object_get(params, "fd"));
    sqe->addr = (uint64_t)argument(json_object_get(params, "addr"), &made);
    sqe->len = (unsigned)json_integer_value(json_object_get(params, "len"));
    sqe->off = (uint64_t)json_integer_value(json_object_get(params, "off"));
    int ret = io_uring_submit(last_ring);
    if (ret >= 0)
        ret = io_uring_wait_cqe(last_ring, &cqe);
    if (!ret) {
        ret = cqe->res;
        io_uring_cqe_seen(last_ring, cqe);
    }
    free(made);
    return json_pack("{s:I}", "result", (json_int_t)ret);
}

json_t *vmm_hostile_try(struct mull_machine *m, json_t *params, struct mull_error *err)
{
    json_t *call = json_object_get(params, "call");
    return call ? try_call(call, json_object_get(params, "args")) : try_ring(params, err);
}
