/*
 * The NBD client's side of the handshake (proto, "Handshake phase"): fixed newstyle, TLS where it
 * is asked for, structured replies and base:allocation where the server has them.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "image/nbd/client_private.h"

/* Replies to one option, and bytes of one, before we have had enough. */
#define REPLIES_MAX 128
#define REPLY_MAX (NBD_NAME_MAX + 64)

struct option_reply {
    uint32_t type, length;
    uint8_t data[REPLY_MAX + 1]; /* NUL at its end */
};

static int fail(const struct nbd_remote *r, int ret, const char *what, struct mull_error *err)
{
    return mull_fail(err, -ret, "%s: %s: %s", r->name, what,
                     ret == -EAGAIN ? "the server does not answer" : strerror(-ret));
}

static int bad(const struct nbd_remote *r, const char *what, struct mull_error *err)
{
    return mull_fail(err, EPROTO, "%s: not an NBD server that we understand: %s", r->name, what);
}

static int ask(struct nbd_remote *r, uint32_t option, const void *data, uint32_t length,
               struct mull_error *err)
{
    uint8_t head[16];
    struct iovec iov[2] = {{head, sizeof(head)}, {(void *)(uintptr_t)data, length}};

    mull_put_be64(head, NBD_OPTION_MAGIC);
    mull_put_be32(head + 8, option);
    mull_put_be32(head + 12, length);
    int ret = nbd_write_all(&r->channel, iov, length ? 2 : 1);
    return ret ? fail(r, ret, "cannot send an option", err) : 0;
}

static int answer(struct nbd_remote *r, uint32_t option, struct option_reply *out,
                  struct mull_error *err)
{
    uint8_t head[20];
    int ret = nbd_read_all(&r->channel, head, sizeof(head));

    if (ret)
        return fail(r, ret, "cannot read an option's reply", err);
    out->type = mull_be32(head + 12);
    out->length = mull_be32(head + 16);
    if (mull_be64(head) != NBD_OPTION_REPLY_MAGIC || mull_be32(head + 8) != option)
        return bad(r, "an option's reply has the wrong magic number", err);
    if (out->length > REPLY_MAX)
        return bad(r, "an option's reply is too long", err);
    ret = nbd_read_all(&r->channel, out->data, out->length);
    if (ret)
        return fail(r, ret, "cannot read an option's reply", err);
    out->data[out->length] = 0;
    return 0;
}

/* An option that is answered with yes or no. @return 1 yes, 0 no, or -errno */
static int agree(struct nbd_remote *r, uint32_t option, struct option_reply *reply,
                 struct mull_error *err)
{
    int ret = ask(r, option, NULL, 0, err);
    if (!ret)
        ret = answer(r, option, reply, err);
    if (ret)
        return ret;
    if (reply->type == NBD_REP_ACK)
        return 1;
    return reply->type & NBD_REP_ERROR ? 0 : bad(r, "an option's reply is neither yes nor no", err);
}

static int greet(struct nbd_remote *r, bool *no_zeroes, struct mull_error *err)
{
    uint8_t hello[18], flags[4];
    struct iovec iov = {flags, sizeof(flags)};
    int ret = nbd_read_all(&r->channel, hello, sizeof(hello));

    if (ret)
        return fail(r, ret, "cannot read the greeting", err);
    if (mull_be64(hello) != NBD_MAGIC || mull_be64(hello + 8) != NBD_OPTION_MAGIC)
        return bad(r, "no newstyle greeting", err);
    unsigned offered = mull_be16(hello + 16);
    if (!(offered & NBD_FLAG_FIXED_NEWSTYLE))
        return bad(r, "it is too old (no fixed newstyle)", err);
    *no_zeroes = offered & NBD_FLAG_NO_ZEROES;
    mull_put_be32(flags, NBD_FLAG_FIXED_NEWSTYLE | (*no_zeroes ? NBD_FLAG_NO_ZEROES : 0));
    ret = nbd_write_all(&r->channel, &iov, 1);
    return ret ? fail(r, ret, "cannot answer the greeting", err) : 0;
}

static int start_tls(struct nbd_remote *r, const char *hostname, struct option_reply *reply,
                     struct mull_error *err)
{
    int ret = agree(r, NBD_OPT_STARTTLS, reply, err);
    if (ret == 0)
        return mull_fail(err, EPROTO, "%s: the server does not do TLS%s%.200s", r->name,
                         reply->length ? ": " : "", (char *)reply->data);
    if (ret < 0)
        return ret;
    ret = mull_channel_secure(&r->channel, r->tls, hostname, err);
    if (!ret)
        ret = mull_channel_handshake(&r->channel, err);
    if (ret == -EAGAIN)
        return mull_fail(err, ETIMEDOUT, "%s: the TLS handshake takes too long", r->name);
    return ret ? mull_fail_in(err, "%s", r->name) : 0;
}

/* "NBD_OPT_SET_META_CONTEXT": base:allocation, if it is there. */
static int set_context(struct nbd_remote *r, const char *name, struct option_reply *reply,
                       struct mull_error *err)
{
    static const char context[] = "base:allocation";
    uint32_t n = (uint32_t)strlen(name), length = 4 + n + 4 + 4 + sizeof(context) - 1;
    uint8_t data[NBD_NAME_MAX + 64];

    mull_put_be32(data, n);
    memcpy(data + 4, name, n);
    mull_put_be32(data + 4 + n, 1);
    mull_put_be32(data + 8 + n, sizeof(context) - 1);
    memcpy(data + 12 + n, context, sizeof(context) - 1);
    int ret = ask(r, NBD_OPT_SET_META_CONTEXT, data, length, err);
    for (int i = 0; !ret && i < REPLIES_MAX; i++) {
        ret = answer(r, NBD_OPT_SET_META_CONTEXT, reply, err);
        if (ret || reply->type == NBD_REP_ACK)
            return ret;
        if (reply->type & NBD_REP_ERROR) {
            r->allocation = false;
            return 0;
        }
        if (reply->type != NBD_REP_META_CONTEXT || reply->length < 4)
            return bad(r, "a strange reply about metadata contexts", err);
        if (reply->length == 4 + sizeof(context) - 1 &&
            !memcmp(reply->data + 4, context, sizeof(context) - 1)) {
            r->allocation = true;
            r->allocation_id = mull_be32(reply->data);
        }
    }
    return ret ? ret : bad(r, "replies without end", err);
}

static int take_info(struct nbd_remote *r, const struct option_reply *reply, bool *sized,
                     struct mull_error *err)
{
    uint16_t what = reply->length >= 2 ? mull_be16(reply->data) : UINT16_MAX;

    if (what == NBD_INFO_EXPORT && reply->length == 12) {
        r->size = mull_be64(reply->data + 2);
        r->flags = mull_be16(reply->data + 10);
        *sized = true;
    } else if (what == NBD_INFO_BLOCK_SIZE && reply->length == 14) {
        r->minimum = mull_be32(reply->data + 2);
        r->payload = mull_be32(reply->data + 10);
        if (!r->minimum || r->minimum & (r->minimum - 1) || r->minimum > 65536 ||
            r->payload < r->minimum)
            return bad(r, "its block sizes make no sense", err);
    } else if (what == NBD_INFO_EXPORT || what == NBD_INFO_BLOCK_SIZE || what == UINT16_MAX) {
        return bad(r, "information of the wrong length", err);
    }
    return 0;
}

/* "NBD_OPT_GO". @return 1 done, 0 the server does not know it, or -errno */
static int go(struct nbd_remote *r, const char *name, struct option_reply *reply,
              struct mull_error *err)
{
    uint32_t n = (uint32_t)strlen(name);
    uint8_t data[NBD_NAME_MAX + 16];
    bool sized = false;

    mull_put_be32(data, n);
    memcpy(data + 4, name, n);
    mull_put_be16(data + 4 + n, 1);
    mull_put_be16(data + 6 + n, NBD_INFO_BLOCK_SIZE);
    int ret = ask(r, NBD_OPT_GO, data, 8 + n, err);
    for (int i = 0; !ret && i < REPLIES_MAX; i++) {
        ret = answer(r, NBD_OPT_GO, reply, err);
        if (ret)
            return ret;
        if (reply->type == NBD_REP_ACK)
            return sized ? 1 : bad(r, "it did not tell the export's size", err);
        if (reply->type == NBD_REP_ERR_UNSUP)
            return 0;
        if (reply->type == NBD_REP_ERR_TLS_REQD)
            return mull_fail(err, EACCES, "%s: the server wants TLS: use nbds:", r->name);
        if (reply->type & NBD_REP_ERROR)
            return mull_fail(err, reply->type == NBD_REP_ERR_UNKNOWN ? ENOENT : EACCES,
                             "%s: the server refuses the export '%.100s'%s%.200s", r->name, name,
                             reply->length ? ": " : "", (char *)reply->data);
        if (reply->type == NBD_REP_INFO)
            ret = take_info(r, reply, &sized, err);
    }
    return ret ? ret : bad(r, "replies without end", err);
}

/* "NBD_OPT_EXPORT_NAME", for servers without GO. */
static int export_name(struct nbd_remote *r, const char *name, bool no_zeroes,
                       struct mull_error *err)
{
    uint8_t data[10 + 124];
    int ret = ask(r, NBD_OPT_EXPORT_NAME, name, (uint32_t)strlen(name), err);

    if (!ret) {
        ret = nbd_read_all(&r->channel, data, no_zeroes ? 10 : sizeof(data));
        if (ret)
            return fail(r, ret, "the server refuses the export", err);
        r->size = mull_be64(data);
        r->flags = mull_be16(data + 8);
    }
    return ret;
}

int nbd_handshake(struct nbd_remote *r, const char *name, bool tls, const char *hostname,
                  struct mull_error *err)
{
    struct option_reply *reply;
    bool no_zeroes = false;
    int ret;

    if (strlen(name) > NBD_NAME_MAX)
        return mull_fail(err, EINVAL, "%s: the export's name is too long", r->name);
    reply = malloc(sizeof(*reply));
    if (!reply)
        return mull_fail(err, ENOMEM, "%s: out of memory", r->name);
    r->minimum = 1;
    r->payload = NBD_PAYLOAD_MAX;
    ret = greet(r, &no_zeroes, err);
    if (!ret && tls)
        ret = start_tls(r, hostname, reply, err);
    if (!ret) {
        ret = agree(r, NBD_OPT_STRUCTURED_REPLY, reply, err);
        r->structured = ret == 1;
        ret = ret < 0 ? ret : 0;
    }
    if (!ret && r->structured)
        ret = set_context(r, name, reply, err);
    if (!ret) {
        ret = go(r, name, reply, err);
        ret = ret == 1 ? 0 : ret == 0 ? export_name(r, name, no_zeroes, err) : ret;
    }
    if (!ret && r->size > MULL_IMAGE_SIZE_MAX)
        ret = mull_fail(err, EFBIG, "%s: larger than the largest disk (1 EiB)", r->name);
    if (!ret && !(r->flags & NBD_FLAG_HAS_FLAGS))
        ret = bad(r, "the export has no flags", err);
    free(reply);
    return ret;
}
