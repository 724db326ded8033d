/* Fuzzes the virtio block device over a disk in memory whose requests end when the fuzzer says. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fuzz_virtio.h"
#include "image/block.h"

#define DISK_SIZE 65536u
#define MAX_REQUESTS 512

/* The block layer is this one here: the linker takes no other. */
struct mull_block {
    uint8_t bytes[DISK_SIZE];
    struct mull_block_request *queued[MAX_REQUESTS];
    unsigned count;
    bool readonly;
};

uint64_t mull_block_size(const struct mull_block *block)
{
    return DISK_SIZE;
}

bool mull_block_readonly(const struct mull_block *block)
{
    return block->readonly;
}

void mull_block_submit(struct mull_block *block, struct mull_block_request *request)
{
    uint64_t sum = 0;
    for (int i = 0; i < request->niov; i++)
        sum += request->iov[i].iov_len;
    bool data = request->op == MULL_BLOCK_READ || request->op == MULL_BLOCK_WRITE;
    if (block->count == MAX_REQUESTS || (data && sum != request->length) ||
        request->offset > DISK_SIZE || request->length > DISK_SIZE - request->offset ||
        (block->readonly && request->op != MULL_BLOCK_READ && request->op != MULL_BLOCK_FLUSH))
        abort(); /* the device must have checked */
    block->queued[block->count++] = request;
}

static int transfer(struct mull_block *block, struct mull_block_request *request)
{
    uint64_t at = request->offset;
    for (int i = 0; i < request->niov; i++) {
        if (request->op == MULL_BLOCK_READ)
            memcpy(request->iov[i].iov_base, block->bytes + at, request->iov[i].iov_len);
        else if (request->op == MULL_BLOCK_WRITE)
            memcpy(block->bytes + at, request->iov[i].iov_base, request->iov[i].iov_len);
        at += request->iov[i].iov_len;
    }
    return 0;
}

static void complete(struct mull_block *block, unsigned which, int result)
{
    struct mull_block_request *request = block->queued[which];
    block->queued[which] = block->queued[--block->count];
    request->done(request, result ? result : transfer(block, request));
}

void mull_block_drain(struct mull_block *block)
{
    while (block->count)
        complete(block, 0, 0);
}

/* No request is held after an error here: an error ends it. */
void mull_block_cancel(struct mull_block *block) {}

static void settle(struct fuzz_guest *g)
{
    mull_block_drain(g->opaque);
}

static void event(struct fuzz_guest *g, uint32_t arg)
{
    static const int results[] = {0, 0, 0, -EIO, -EOPNOTSUPP, -ENOSPC, 0, 0};
    struct mull_block *block = g->opaque;
    if (block->count)
        complete(block, (arg >> 8) % block->count, results[arg % 8]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_guest g;
    struct mull_block *block = calloc(1, sizeof(*block));
    struct mull_virtio_blk_config cfg = {
        .name = "virtio-blk.0", .devfn = -1, .block = block, .serial = "serial"};

    fuzz_guest_init(&g);
    block->readonly = size && data[0] & 0x20;
    if (mull_virtio_blk_create(&g.env, g.bus, &cfg, &g.device, NULL))
        abort();
    g.queues = 1;
    g.event = event;
    g.settle = settle;
    g.opaque = block;
    fuzz_guest_run(&g, data, size);
    if (block->count)
        abort();
    fuzz_guest_fini(&g);
    free(block);
    return 0;
}
