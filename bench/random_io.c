/*
 * Small requests on a disk image through the block device's asynchronous way, as a guest's would
 * come: so many at a time, each a fixed step behind the one before, round and round. Says how long
 * they took. Used by bench/image-random, beside qemu-img bench, which goes the same way.
 *
 * usage: random-io FORMAT FILE read|write COUNT DEPTH SIZE STEP
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/loop.h"
#include "image/block.h"

struct bench;

struct slot {
    struct mull_block_request request;
    struct bench *bench;
};

struct bench {
    struct mull_block *block;
    struct mull_loop *loop;
    enum mull_block_op op;
    uint64_t left, running, offset, size, step;
    int result;
};

static void next(struct slot *slot)
{
    struct bench *b = slot->bench;
    struct mull_block_request *r = &slot->request;

    r->offset = b->offset;
    b->offset = (b->offset + b->step) % mull_block_size(b->block);
    b->left--;
    b->running++;
    mull_block_submit(b->block, r);
}

static void done(struct mull_block_request *r, int result)
{
    struct bench *b = r->opaque;

    b->running--;
    if (result && !b->result) {
        b->result = result;
        b->left = 0;
    }
    if (b->left)
        next((struct slot *)r);
    else if (!b->running)
        mull_loop_stop(b->loop);
}

static int prepare(struct slot *slots, uint64_t depth, struct bench *b)
{
    for (uint64_t i = 0; i < depth; i++) {
        struct mull_block_request *r = &slots[i].request;
        slots[i].bench = b;
        r->op = b->op;
        r->length = b->size;
        r->niov = 1;
        r->iov[0].iov_len = b->size;
        if (posix_memalign(&r->iov[0].iov_base, 4096, b->size))
            return -1;
        memset(r->iov[0].iov_base, 0x5a, b->size);
        r->done = done;
        r->opaque = b;
    }
    return 0;
}

int main(int argc, char **argv)
{
    struct mull_error err = {0};
    struct bench b = {0};

    if (argc != 8)
        return 2;
    bool writing = !strcmp(argv[3], "write");
    uint64_t depth = strtoull(argv[5], NULL, 0);
    struct mull_block_options o = {.path = argv[2], .format = argv[1], .readonly = !writing};
    b.op = writing ? MULL_BLOCK_WRITE : MULL_BLOCK_READ;
    b.left = strtoull(argv[4], NULL, 0);
    b.size = strtoull(argv[6], NULL, 0);
    b.step = strtoull(argv[7], NULL, 0);
    if (mull_loop_create(&b.loop, &err) || mull_block_open(&o, &b.block, &err) ||
        mull_block_start(b.block, b.loop, &err)) {
        fprintf(stderr, "%s\n", err.message);
        return 1;
    }
    struct slot *slots = calloc(depth ? depth : 1, sizeof(*slots));
    if (!slots || !b.left || !b.size || prepare(slots, depth, &b))
        return 1;
    uint64_t start = mull_now_ns();
    for (uint64_t i = 0; i < depth && b.left; i++)
        next(&slots[i]);
    mull_loop_run(b.loop);
    printf("%.6f\n", (double)(mull_now_ns() - start) / 1e9);
    mull_block_close(b.block);
    mull_loop_destroy(b.loop);
    for (uint64_t i = 0; i < depth; i++)
        free(slots[i].request.iov[0].iov_base);
    free(slots);
    return b.result ? 1 : 0;
}
