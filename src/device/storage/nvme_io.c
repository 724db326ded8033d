/*
 * The NVM command set of the NVMe controller (NVM Express 1.4, chapter 6).
 */
#include <errno.h>
#include <string.h>

#include "device/storage/nvme_internal.h"

#define FUA 0x40000000u        /* in dword 12 */
#define DEALLOCATE 0x02000000u /* in dword 12 of Write Zeroes */
#define AD_DEALLOCATE 0x4u     /* in dword 11 of Dataset Management */

static uint64_t first_block(const struct nvme_command *c)
{
    return (uint64_t)c->dw11 << 32 | c->dw10;
}

static bool in_range(const struct nvme *n, uint64_t lba, uint64_t count)
{
    return lba <= n->blocks && count <= n->blocks - lba;
}

static void read_write(struct nvme_request *r)
{
    struct nvme *n = r->controller;
    const struct nvme_command *c = &r->command;
    bool to_guest = c->opcode == 2;
    uint64_t lba = first_block(c);
    uint32_t count = (c->dw12 & 0xffff) + 1;

    if (count > NVME_MAX_PAGES * (NVME_PAGE / NVME_BLOCK) || (c->dw12 & 0x3c000000u)) {
        nvme_complete(r, NVME_INVALID_FIELD, 0);
        return;
    }
    if (!in_range(n, lba, count)) {
        nvme_complete(r, NVME_OUT_OF_RANGE, 0);
        return;
    }
    if (!to_guest && n->readonly) {
        nvme_complete(r, NVME_READ_ONLY, 0);
        return;
    }
    if (to_guest) {
        n->reads++;
        n->read_blocks += count;
    } else {
        n->writes++;
        n->written_blocks += count;
        r->dma.durable = (c->dw12 & FUA) || !(n->feature[6] & 1);
    }
    nvme_expect(r, count * NVME_BLOCK);
    mull_dma_transfer(&r->dma, to_guest, lba * NVME_BLOCK, (uint64_t)count * NVME_BLOCK,
                      nvme_data_done);
}

static void write_zeroes(struct nvme_request *r)
{
    struct nvme *n = r->controller;
    const struct nvme_command *c = &r->command;
    uint64_t lba = first_block(c);
    uint32_t count = (c->dw12 & 0xffff) + 1;

    if (!in_range(n, lba, count))
        nvme_complete(r, NVME_OUT_OF_RANGE, 0);
    else if (n->readonly)
        nvme_complete(r, NVME_READ_ONLY, 0);
    else
        mull_dma_submit(&r->dma, MULL_BLOCK_ZERO, lba * NVME_BLOCK, (uint64_t)count * NVME_BLOCK,
                        c->dw12 & DEALLOCATE, nvme_data_done);
}

static void deallocate_next(struct mull_dma *d, int result)
{
    struct nvme_request *r = (struct nvme_request *)d;

    while (!result && r->range < r->ranges && !r->deallocate[r->range].blocks)
        r->range++;
    if (result || r->range == r->ranges || r->generation != r->controller->generation) {
        nvme_data_done(d, result == -EOPNOTSUPP ? 0 : result); /* it is only a hint */
        return;
    }
    unsigned i = r->range++;
    mull_dma_submit(d, MULL_BLOCK_DISCARD, r->deallocate[i].lba * NVME_BLOCK,
                    (uint64_t)r->deallocate[i].blocks * NVME_BLOCK, true, deallocate_next);
}

static void dataset_management(struct nvme_request *r)
{
    struct nvme *n = r->controller;
    uint32_t count = (r->command.dw10 & 0xff) + 1, size = count * sizeof(r->deallocate[0]);

    nvme_expect(r, size);
    if (mull_dma_copy_in(&r->dma, r->deallocate, size) != size) {
        nvme_complete(r, r->error ? r->error : NVME_TRANSFER_ERROR, 0);
        return;
    }
    if (!(r->command.dw11 & AD_DEALLOCATE)) { /* access hints only */
        nvme_complete(r, NVME_OK, 0);
        return;
    }
    if (n->readonly) {
        nvme_complete(r, NVME_READ_ONLY, 0);
        return;
    }
    for (unsigned i = 0; i < count; i++)
        if (!in_range(n, r->deallocate[i].lba, r->deallocate[i].blocks)) {
            nvme_complete(r, NVME_OUT_OF_RANGE, 0);
            return;
        }
    r->ranges = count;
    deallocate_next(&r->dma, 0);
}

void nvme_io_command(struct nvme_request *r)
{
    const struct nvme_command *c = &r->command;

    if (c->nsid != 1 && !(c->opcode == 0 && c->nsid == 0xffffffff)) {
        nvme_complete(r, NVME_INVALID_NAMESPACE, 0);
        return;
    }
    switch (c->opcode) {
    case 0x00:
        mull_dma_submit(&r->dma, MULL_BLOCK_FLUSH, 0, 0, false, nvme_data_done);
        break;
    case 0x01:
    case 0x02:
        read_write(r);
        break;
    case 0x08:
        write_zeroes(r);
        break;
    case 0x09:
        dataset_management(r);
        break;
    default:
        nvme_complete(r, NVME_INVALID_OPCODE, 0);
    }
}
