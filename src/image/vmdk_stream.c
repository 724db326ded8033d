/*
 * Writing streamOptimized VMDK (Spec, "Stream-Optimized Compressed Sparse Extents"): grains in
 * ascending order, each with its marker, each grain table behind its grains, then the directory and
 * the footer.
 */
#include "image/vmdk.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define GD_MAX (UINT64_C(1) << 24)

struct vmdk_stream {
    uint64_t at;    /* bytes written */
    uint64_t table; /* grain table being filled, UINT64_MAX: none */
    uint64_t next;  /* grains must not be below */
    uint32_t *gd;   /* sectors */
    uint8_t *gt;
};

int vmdk_stream_begin(struct mull_image *image, struct vmdk_extent *e)
{
    if (e->gd_entries > GD_MAX)
        return -EFBIG;
    struct vmdk_stream *s = calloc(1, sizeof(*s));
    if (!s)
        return -ENOMEM;
    e->stream = s;
    s->gd = calloc(e->gd_entries, 4);
    s->gt = calloc(e->gt_entries, 4);
    s->at = atomic_load(&e->file->size);
    s->table = UINT64_MAX;
    image->stream = true;
    return s->gd && s->gt ? 0 : -ENOMEM;
}

void vmdk_stream_free(struct vmdk_extent *e)
{
    if (!e->stream)
        return;
    free(e->stream->gd);
    free(e->stream->gt);
    free(e->stream);
    e->stream = NULL;
}

static int append(struct vmdk_extent *e, const void *data, uint64_t length)
{
    struct vmdk_stream *s = e->stream;
    int ret = mull_file_write(e->file, data, length, s->at);
    s->at += length;
    return ret;
}

static int append_marker(struct vmdk_extent *e, uint64_t sectors, uint32_t type)
{
    uint8_t marker[512] = {0};
    mull_put_le64(marker, sectors);
    mull_put_le32(marker + 12, type);
    return append(e, marker, sizeof(marker));
}

static uint64_t sectors_of(uint64_t bytes)
{
    return (bytes + VMDK_SECTOR - 1) / VMDK_SECTOR;
}

/* A table, padded to sectors, behind its marker. */
static int append_table(struct vmdk_extent *e, const void *table, uint64_t bytes, uint32_t type,
                        uint64_t *at)
{
    uint64_t sectors = sectors_of(bytes);
    uint8_t *padded = calloc(sectors, VMDK_SECTOR);
    if (!padded)
        return -ENOMEM;
    memcpy(padded, table, bytes);
    int ret = append_marker(e, sectors, type);
    *at = e->stream->at;
    if (!ret)
        ret = append(e, padded, sectors * VMDK_SECTOR);
    free(padded);
    return ret;
}

static int end_table(struct vmdk_extent *e)
{
    struct vmdk_stream *s = e->stream;
    uint64_t at;
    if (s->table == UINT64_MAX)
        return 0;
    int ret = append_table(e, s->gt, e->gt_entries * UINT64_C(4), VMDK_MARKER_GT, &at);
    mull_put_le32(&s->gd[s->table], (uint32_t)(at / VMDK_SECTOR));
    memset(s->gt, 0, e->gt_entries * UINT64_C(4));
    s->table = UINT64_MAX;
    return ret;
}

int vmdk_stream_write(struct vmdk_extent *e, uint64_t offset, const void *packed, uint32_t length)
{
    struct vmdk_stream *s = e->stream;
    uint64_t grain = offset / e->grain, room = sectors_of(12 + (uint64_t)length) * VMDK_SECTOR;
    int ret = 0;

    if (offset % e->grain || grain < s->next || offset >= e->length)
        return -EINVAL;
    if (s->at + room > (uint64_t)UINT32_MAX * VMDK_SECTOR)
        return -EFBIG;
    if (grain / e->gt_entries != s->table)
        ret = end_table(e);
    s->table = grain / e->gt_entries;
    s->next = grain + 1;
    uint8_t *buf = calloc(1, room);
    if (ret || !buf) {
        free(buf);
        return ret ? ret : -ENOMEM;
    }
    mull_put_le64(buf, offset / VMDK_SECTOR);
    mull_put_le32(buf + 8, length);
    memcpy(buf + 12, packed, length);
    mull_put_le32(s->gt + grain % e->gt_entries * 4, (uint32_t)(s->at / VMDK_SECTOR));
    ret = append(e, buf, room);
    free(buf);
    return ret;
}

int vmdk_stream_end(struct vmdk_extent *e)
{
    struct vmdk_stream *s = e->stream;
    uint8_t foot[512];
    uint64_t gd;
    int ret = end_table(e);

    if (!ret)
        ret = append_table(e, s->gd, e->gd_entries * 4, VMDK_MARKER_GD, &gd);
    if (!ret)
        ret = append_marker(e, 1, VMDK_MARKER_FOOTER);
    if (!ret)
        ret = mull_file_read(e->file, foot, sizeof(foot), 0);
    if (!ret) {
        mull_put_le64(foot + 56, gd / VMDK_SECTOR);
        ret = append(e, foot, sizeof(foot));
    }
    return ret ? ret : append_marker(e, 0, VMDK_MARKER_EOS);
}
