/*
 * Fuzzes guest operations through open-vm-tools: whatever a guest answers once it has let a user
 * in. The input is answers, each behind two bytes of its length.
 */
#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "host/vix.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct guest {
    const uint8_t *data;
    size_t size;
    bool let_in;
};

static int call(void *opaque, const void *message, size_t size, int timeout_ms, void *answer,
                size_t *answer_size, struct mull_error *err)
{
    struct guest *g = opaque;
    if (!g->let_in) {
        memcpy(answer, "OK 0 0 ", 7);
        *answer_size = 7;
        g->let_in = true;
        return 0;
    }
    if (g->size < 2)
        return mull_fail(err, ECONNRESET, "no more answers");
    size_t length = g->data[0] | (size_t)g->data[1] << 8;
    g->data += 2;
    g->size -= 2;
    length = length < g->size ? length : g->size;
    memcpy(answer, g->data, length);
    *answer_size = length;
    g->data += length;
    g->size -= length;
    return 0;
}

static int take(void *opaque, const void *data, size_t length)
{
    return (*(size_t *)opaque += length) > 1u << 20 ? -EFBIG : 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct guest g = {data, size, false};
    const struct vix_channel channel = {call, &g};
    struct host_agent_result result;
    struct mull_error err = {0};
    struct vix *vix;
    size_t total = 0;
    json_t *command = json_pack("[s, s]", "echo", "a word");

    if (!command || vix_open(&channel, &(struct vix_user){"u", "p"}, &vix, &err))
        abort();
    if (!vix_exec(vix, command, size & 1 ? "input" : NULL, size & 1 ? 5 : 0, 0, &result, &err))
        host_agent_result_free(&result);
    vix_read_file(vix, "/a/file", take, &total, &err);
    vix_write_file(vix, "/a/file", "some data", 9, &err);
    vix_close(vix);
    json_decref(command);
    return 0;
}
