/* See vix_relay.h. */
#include "host/vix_relay.h"

#include <errno.h>
#include <gnutls/gnutls.h>
#include <string.h>
#include <time.h>

#define RPC_SECONDS 10
#define POLL_FIRST_MS 1
#define POLL_MOST_MS 20 /* the guest looks for messages every few of these */

static long long now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (long long)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static void sleep_ms(long ms)
{
    nanosleep(&(struct timespec){.tv_nsec = ms * 1000000}, NULL);
}

static int send_message(struct vix_relay *r, const void *message, size_t size, json_int_t *id,
                        struct mull_error *err)
{
    gnutls_datum_t in = {(unsigned char *)message, (unsigned)size}, out;
    json_t *result = NULL;
    if (gnutls_base64_encode2(&in, &out))
        return mull_fail(err, ENOMEM, "no memory");
    json_t *params = json_pack("{s:s#}", "message", (const char *)out.data, (size_t)out.size);
    explicit_bzero(out.data, out.size);
    gnutls_free(out.data);
    int ret = params ? mull_rpc_call(&r->rpc, "tools.send", params, &result, err)
                     : mull_fail(err, ENOMEM, "no memory");
    *id = json_integer_value(json_object_get(result, "id"));
    json_decref(result);
    return ret;
}

static int take_answer(const json_t *text, void *answer, size_t *size, struct mull_error *err)
{
    gnutls_datum_t in = {(unsigned char *)json_string_value(text),
                         (unsigned)json_string_length(text)};
    gnutls_datum_t out = {0};
    *size = 0;
    if (in.size && gnutls_base64_decode2(&in, &out))
        return mull_fail(err, EPROTO, "the machine's process answers no base64");
    int ret =
        out.size > VIX_MESSAGE_MAX ? mull_fail(err, EPROTO, "the guest's answer is too large") : 0;
    if (!ret && out.size) {
        memcpy(answer, out.data, out.size);
        *size = out.size;
    }
    gnutls_free(out.data);
    return ret;
}

static int call(void *opaque, const void *message, size_t size, int timeout_ms, void *answer,
                size_t *answer_size, struct mull_error *err)
{
    struct vix_relay *r = opaque;
    long long deadline = now_ms() + timeout_ms;
    json_int_t id = 0;
    int ret = send_message(r, message, size, &id, err);
    for (long pause = POLL_FIRST_MS; !ret;) {
        json_t *result = NULL;
        ret = mull_rpc_call(&r->rpc, "tools.receive", json_pack("{s:I}", "id", id), &result, err);
        const json_t *text = json_object_get(result, "answer");
        bool there = text != NULL;
        if (there)
            ret = take_answer(text, answer, answer_size, err);
        json_decref(result);
        if (ret || there)
            return ret;
        if (now_ms() >= deadline) {
            struct mull_error ignored;
            mull_rpc_call(&r->rpc, "tools.drop", json_pack("{s:I}", "id", id), NULL, &ignored);
            return mull_fail(err, ETIMEDOUT, "open-vm-tools in the guest do not answer");
        }
        sleep_ms(pause);
        pause = pause * 2 < POLL_MOST_MS ? pause * 2 : POLL_MOST_MS;
    }
    return ret;
}

int vix_relay_open(struct vix_relay *r, const char *path, struct vix_channel *channel,
                   struct mull_error *err)
{
    *channel = (struct vix_channel){.call = call, .opaque = r};
    return mull_rpc_open(&r->rpc, path, RPC_SECONDS, err);
}

void vix_relay_close(struct vix_relay *r)
{
    mull_rpc_close(&r->rpc);
}
