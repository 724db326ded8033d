/*
 * The NBD server's transmission phase: requests become requests of the block device, completions
 * become replies (proto, "Transmission phase").
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "image/convert.h"
#include "image/nbd/server_private.h"

/* Runs of zeroes this long are worth a chunk of their own. */
#define HOLE_GRAIN 65536u
#define CACHE_CHUNK (1u << 20)

static uint32_t error_code(int result)
{
    switch (-result) {
    case 0:
        return 0;
    case EPERM:
    case EROFS:
        return NBD_EPERM;
    case ENOMEM:
        return NBD_ENOMEM;
    case EINVAL:
        return NBD_EINVAL;
    case ENOSPC:
    case EFBIG:
    case EDQUOT:
        return NBD_ENOSPC;
    case EOVERFLOW:
        return NBD_EOVERFLOW;
    case EOPNOTSUPP:
        return NBD_ENOTSUP;
    default:
        return NBD_EIO;
    }
}

void nbd_request_release(struct nbd_request *r)
{
    if (--r->references)
        return;
    struct nbd_client *c = r->client;
    c->charged -= r->charged;
    c->server->charged -= r->charged;
    for (unsigned i = 0; i < NBD_CONTEXTS_MAX; i++)
        free(r->extents[i].list);
    free(r->data);
    free(r);
}

static void chunk_head(uint8_t *head, const struct nbd_request *r, bool done, uint16_t type,
                       uint32_t length)
{
    mull_put_be32(head, NBD_CHUNK_MAGIC);
    mull_put_be16(head + 4, done ? NBD_CHUNK_DONE : 0);
    mull_put_be16(head + 6, type);
    memcpy(head + 8, r->handle, 8);
    mull_put_be32(head + 16, length);
}

/* A reply without data. */
static void send_plain(struct nbd_request *r, int result)
{
    struct nbd_client *c = r->client;
    uint8_t head[NBD_CHUNK_SIZE + 6];
    uint32_t code = error_code(result);
    bool content = r->type == NBD_CMD_READ || r->type == NBD_CMD_BLOCK_STATUS;

    if (c->structured && content) {
        chunk_head(head, r, true, NBD_CHUNK_ERROR, 6);
        mull_put_be32(head + NBD_CHUNK_SIZE, code);
        mull_put_be16(head + NBD_CHUNK_SIZE + 4, 0);
        nbd_send(c, head, sizeof(head), NULL, 0, NULL, NULL);
        return;
    }
    mull_put_be32(head, NBD_SIMPLE_REPLY_MAGIC);
    mull_put_be32(head + 4, code);
    memcpy(head + 8, r->handle, 8);
    nbd_send(c, head, NBD_SIMPLE_REPLY_SIZE, NULL, 0, NULL, NULL);
}

static int send_data(struct nbd_request *r, uint32_t at, uint32_t length, bool zero)
{
    uint8_t head[NBD_CHUNK_SIZE + 12];
    bool done = at + length == r->length;

    mull_put_be64(head + NBD_CHUNK_SIZE, r->offset + at);
    if (zero) {
        chunk_head(head, r, done, NBD_CHUNK_OFFSET_HOLE, 12);
        mull_put_be32(head + NBD_CHUNK_SIZE + 8, length);
        return nbd_send(r->client, head, sizeof(head), NULL, 0, NULL, NULL);
    }
    chunk_head(head, r, done, NBD_CHUNK_OFFSET_DATA, 8 + length);
    return nbd_send(r->client, head, NBD_CHUNK_SIZE + 8, r->data + at, length, NULL, r);
}

/* What was read, with its longer runs of zeroes as holes. */
static void send_read(struct nbd_request *r)
{
    struct nbd_client *c = r->client;
    uint8_t head[NBD_SIMPLE_REPLY_SIZE];
    bool whole = r->flags & NBD_CMD_FLAG_DF || r->length < HOLE_GRAIN;

    if (!c->structured) {
        mull_put_be32(head, NBD_SIMPLE_REPLY_MAGIC);
        mull_put_be32(head + 4, 0);
        memcpy(head + 8, r->handle, 8);
        nbd_send(c, head, sizeof(head), r->data, r->length, NULL, r);
        return;
    }
    for (uint32_t at = 0, run; at < r->length; at += run) {
        bool zero = false;
        for (run = 0; at + run < r->length;) {
            uint32_t n = HOLE_GRAIN - (uint32_t)((r->offset + at + run) % HOLE_GRAIN);
            n = whole || n > r->length - at - run ? r->length - at - run : n;
            bool z = mull_is_zero(r->data + at + run, n);
            if (!run)
                zero = z;
            else if (z != zero)
                break;
            run += n;
        }
        if (send_data(r, at, run, zero))
            return;
    }
}

static void send_status(struct nbd_request *r)
{
    struct nbd_client *c = r->client;

    for (unsigned i = 0; i < c->ncontexts; i++) {
        struct nbd_extents *e = &r->extents[i];
        uint32_t size = 4 + 8 * e->count;
        uint8_t head[NBD_CHUNK_SIZE], *data = malloc(size);
        if (!data) {
            nbd_drop(c, "out of memory");
            return;
        }
        mull_put_be32(data, i + 1);
        for (uint32_t j = 0; j < e->count; j++) {
            mull_put_be32(data + 4 + 8 * (size_t)j, e->list[j][0]);
            mull_put_be32(data + 8 + 8 * (size_t)j, e->list[j][1]);
        }
        chunk_head(head, r, i + 1 == c->ncontexts, NBD_CHUNK_BLOCK_STATUS, size);
        if (nbd_send(c, head, sizeof(head), data, size, data, NULL))
            return;
    }
}

static void finish(struct nbd_request *r, int result)
{
    struct nbd_client *c = r->client;

    if (!c->dead) {
        if (result || (r->type != NBD_CMD_READ && r->type != NBD_CMD_BLOCK_STATUS))
            send_plain(r, result);
        else if (r->type == NBD_CMD_READ)
            send_read(r);
        else
            send_status(r);
    }
    nbd_request_release(r);
}

static void on_done(struct mull_block_request *block, int result)
{
    struct nbd_request *r = (struct nbd_request *)block;
    struct nbd_client *c = r->client;
    struct mull_nbd_server *server = c->server;
    bool writing =
        r->type == NBD_CMD_WRITE || r->type == NBD_CMD_TRIM || r->type == NBD_CMD_WRITE_ZEROES;

    if (!result && writing && r->flags & NBD_CMD_FLAG_FUA && !r->flushing) {
        r->flushing = true;
        r->block.op = MULL_BLOCK_FLUSH;
        mull_block_submit(c->export->block, &r->block);
        return;
    }
    c->in_flight--;
    finish(r, result);
    if (c->dead)
        nbd_reap(c);
    else
        nbd_serve(c);
    if (!server->closing)
        nbd_go_on(server);
}

static int call_status(struct mull_block_request *block, struct mull_image *image)
{
    struct nbd_request *r = (struct nbd_request *)block;
    int ret = 0;
    for (unsigned i = 0; i < r->client->ncontexts && !ret; i++)
        ret = nbd_status_fill(image, &r->client->contexts[i], r->offset, r->length,
                              r->flags & NBD_CMD_FLAG_REQ_ONE, &r->extents[i]);
    return ret;
}

/* NBD_CMD_CACHE: the host's page cache is ours. */
static int call_cache(struct mull_block_request *block, struct mull_image *image)
{
    struct nbd_request *r = (struct nbd_request *)block;
    uint8_t *buf = malloc(CACHE_CHUNK);
    int ret = buf ? 0 : -ENOMEM;
    /* A hint: what is more than a payload's worth is not waited for. */
    uint32_t length = r->length < NBD_PAYLOAD_MAX ? r->length : NBD_PAYLOAD_MAX;

    for (uint32_t at = 0; at < length && !ret; at += CACHE_CHUNK) {
        uint32_t n = length - at < CACHE_CHUNK ? length - at : CACHE_CHUNK;
        ret = mull_image_read(image, buf, n, r->offset + at);
    }
    free(buf);
    return ret;
}

static void submit(struct nbd_request *r)
{
    struct nbd_client *c = r->client;
    struct mull_block_request *b = &r->block;

    b->offset = r->offset;
    b->length = r->length;
    b->done = on_done;
    b->iov[0] = (struct iovec){r->data, r->length};
    b->niov = 1;
    b->call = NULL;
    switch (r->type) {
    case NBD_CMD_READ:
        b->op = MULL_BLOCK_READ;
        break;
    case NBD_CMD_WRITE:
        b->op = MULL_BLOCK_WRITE;
        break;
    case NBD_CMD_TRIM:
        b->op = MULL_BLOCK_DISCARD;
        break;
    case NBD_CMD_WRITE_ZEROES:
        b->op = MULL_BLOCK_ZERO;
        b->may_unmap = !(r->flags & NBD_CMD_FLAG_NO_HOLE);
        b->fast = r->flags & NBD_CMD_FLAG_FAST_ZERO;
        break;
    case NBD_CMD_FLUSH:
        b->op = MULL_BLOCK_FLUSH;
        break;
    default:
        b->op = MULL_BLOCK_CALL;
        b->call = r->type == NBD_CMD_CACHE ? call_cache : call_status;
        break;
    }
    c->in_flight++;
    mull_block_submit(c->export->block, b);
}

static void next_request(struct nbd_client *c)
{
    nbd_expect(c, NBD_PHASE_REQUEST, c->header, NBD_REQUEST_SIZE);
}

/* Memory for the data and a place among those under way; else it waits and nothing is read. */
void nbd_try_waiting(struct nbd_client *c)
{
    struct mull_nbd_server *s = c->server;
    struct nbd_request *r = c->waiting;
    bool data = r->type == NBD_CMD_READ || r->type == NBD_CMD_WRITE;
    uint32_t need = data ? r->length : 0;

    /* Half the memory for one client at most, or its one request. */
    if (c->in_flight >= NBD_IN_FLIGHT || s->charged + need > s->o.memory ||
        (c->charged && c->charged + need > s->o.memory / 2))
        return;
    c->waiting = NULL;
    if (need && posix_memalign((void **)&r->data, 4096, need)) {
        r->data = NULL;
        nbd_request_release(r);
        nbd_drop(c, "out of memory");
        return;
    }
    r->charged = need;
    c->charged += need;
    s->charged += need;
    if (r->type == NBD_CMD_WRITE && need) {
        c->writing = r;
        nbd_expect(c, NBD_PHASE_PAYLOAD, r->data, need);
        return;
    }
    submit(r);
    next_request(c);
}

void nbd_got_payload(struct nbd_client *c)
{
    submit(c->writing);
    c->writing = NULL;
    next_request(c);
}

/* Flags a command may have. */
static unsigned flags_of(uint16_t type)
{
    switch (type) {
    case NBD_CMD_READ:
        return NBD_CMD_FLAG_FUA | NBD_CMD_FLAG_DF;
    case NBD_CMD_WRITE_ZEROES:
        return NBD_CMD_FLAG_FUA | NBD_CMD_FLAG_NO_HOLE | NBD_CMD_FLAG_FAST_ZERO;
    case NBD_CMD_BLOCK_STATUS:
        return NBD_CMD_FLAG_FUA | NBD_CMD_FLAG_REQ_ONE;
    default:
        return NBD_CMD_FLAG_FUA;
    }
}

/* What is wrong with a request before anything is done: 0 or -errno. */
static int validate(const struct nbd_client *c, const struct nbd_request *r)
{
    uint64_t size = mull_block_size(c->export->block);
    bool writing =
        r->type == NBD_CMD_WRITE || r->type == NBD_CMD_TRIM || r->type == NBD_CMD_WRITE_ZEROES;

    if (r->type > NBD_CMD_BLOCK_STATUS || r->flags & ~flags_of(r->type))
        return -EINVAL;
    if (r->flags & NBD_CMD_FLAG_DF && !c->structured)
        return -EINVAL;
    if (r->type == NBD_CMD_FLUSH)
        return 0;
    if (writing && c->export->readonly)
        return -EPERM;
    if (r->offset > size || r->length > size - r->offset)
        return writing ? -ENOSPC : -EINVAL;
    if (!r->length && r->type != NBD_CMD_WRITE)
        return -EINVAL;
    if (r->length > NBD_PAYLOAD_MAX && (r->type == NBD_CMD_READ || r->type == NBD_CMD_WRITE))
        return -EINVAL;
    if (r->type == NBD_CMD_BLOCK_STATUS && !c->ncontexts)
        return -EINVAL;
    return 0;
}

void nbd_got_request(struct nbd_client *c)
{
    const uint8_t *h = c->header;

    if (mull_be32(h) != NBD_REQUEST_MAGIC) {
        nbd_drop(c, "wrong magic number in a request");
        return;
    }
    struct nbd_request *r = calloc(1, sizeof(*r));
    if (!r) {
        nbd_drop(c, "out of memory");
        return;
    }
    r->client = c;
    r->references = 1;
    r->flags = mull_be16(h + 4);
    r->type = mull_be16(h + 6);
    memcpy(r->handle, h + 8, 8);
    r->offset = mull_be64(h + 16);
    r->length = mull_be32(h + 24);
    if (r->type == NBD_CMD_DISC) {
        nbd_request_release(r);
        c->phase = NBD_PHASE_CLOSING; /* once what is under way has been answered */
        c->in_deadline = 0;
        return;
    }
    int ret = validate(c, r);
    if (ret) {
        uint64_t payload = r->type == NBD_CMD_WRITE ? r->length : 0;
        /* "Size constraints": what is far too long is not even thrown away. */
        if (payload > NBD_PAYLOAD_MAX) {
            nbd_request_release(r);
            nbd_drop(c, "a write of more than 32 MiB");
            return;
        }
        send_plain(r, ret);
        nbd_request_release(r);
        if (c->dead)
            return;
        next_request(c);
        c->skip = payload;
        if (payload)
            nbd_slow(c, payload);
        return;
    }
    c->waiting = r;
    c->in_deadline = 0;
    nbd_try_waiting(c);
}
