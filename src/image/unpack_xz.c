/*
 * xz ("The .xz File Format", version 1.1.0): its index tells the size, and decoding starts at any
 * block. xz makes one block of all unless it runs with -T or --block-size: such a file is read fast
 * from start to end only.
 */
#include "image/unpack.h"

#include <errno.h>
#include <lzma.h>
#include <stdlib.h>
#include <string.h>

#define INDEX_MEMORY (UINT64_C(64) << 20)

struct xz {
    lzma_stream z;
    lzma_block block;
    lzma_filter filters[LZMA_FILTERS_MAX + 1];
    lzma_index_iter iter;
    bool inside; /* a block is being decoded */
};

static int code_error(lzma_ret code)
{
    return code == LZMA_MEM_ERROR        ? -ENOMEM
           : code == LZMA_MEMLIMIT_ERROR ? -E2BIG
           : code == LZMA_OPTIONS_ERROR  ? -ENOTSUP
                                         : -EIO;
}

/* Read all streams' indexes, from the end of the file. */
static int xz_index(struct unpack_source *s, struct mull_error *err)
{
    lzma_stream z = LZMA_STREAM_INIT;
    lzma_index *index = NULL;
    uint8_t buf[8192];
    uint64_t size = atomic_load(&s->below->size), at = 0;
    lzma_ret code = lzma_file_info_decoder(&z, &index, INDEX_MEMORY, size);
    int ret = 0;

    while (code == LZMA_OK && !ret) {
        if (!z.avail_in && at < size) {
            uint64_t n = size - at < sizeof(buf) ? size - at : sizeof(buf);
            ret = mull_file_read(s->below, buf, n, at);
            z.next_in = buf;
            z.avail_in = n;
            at += n;
        }
        code = ret ? LZMA_OK : lzma_code(&z, at == size ? LZMA_FINISH : LZMA_RUN);
        if (code == LZMA_SEEK_NEEDED) {
            at = z.seek_pos;
            z.avail_in = 0;
            code = LZMA_OK;
        }
    }
    lzma_end(&z);
    if (!ret && code != LZMA_STREAM_END)
        ret = code_error(code);
    if (ret) {
        lzma_index_end(index, NULL);
        return mull_fail(err, -ret, "%s: its xz index cannot be read: %s", s->below->path,
                         ret == -EIO ? "it is damaged, or cut off" : strerror(-ret));
    }
    s->state = index;
    s->size = lzma_index_uncompressed_size(index);
    return 0;
}

static void xz_close(struct unpack_source *s)
{
    lzma_index_end(s->state, NULL);
}

static bool locate(struct unpack_source *s, lzma_index_iter *iter, uint64_t offset)
{
    lzma_index_iter_init(iter, s->state);
    return !lzma_index_iter_locate(iter, offset);
}

static uint64_t xz_nearest(struct unpack_source *s, uint64_t offset)
{
    lzma_index_iter iter;
    return locate(s, &iter, offset) ? iter.block.uncompressed_file_offset : 0;
}

static void end_block(struct xz *x)
{
    if (x->inside)
        lzma_filters_free(x->filters, NULL);
    x->inside = false;
}

/* Begin the block the iterator is at: its header says how it was packed (section 3.1). */
static int begin_block(struct unpack_source *s, struct unpack_decoder *d, struct xz *x)
{
    uint8_t header[LZMA_BLOCK_HEADER_SIZE_MAX];
    uint64_t at = x->iter.block.compressed_file_offset;
    int ret = mull_file_read(s->below, header, 1, at);

    memset(&x->block, 0, sizeof(x->block));
    x->block.version = 1;
    x->block.filters = x->filters;
    x->block.check = x->iter.stream.flags->check;
    x->block.header_size = lzma_block_header_size_decode(header[0]);
    if (!ret && !header[0])
        ret = -EIO;
    if (!ret)
        ret = mull_file_read(s->below, header, x->block.header_size, at);
    if (ret)
        return ret;
    lzma_ret code = lzma_block_header_decode(&x->block, NULL, header);
    if (code != LZMA_OK)
        return code_error(code);
    x->inside = true;
    code = lzma_block_compressed_size(&x->block, x->iter.block.unpadded_size);
    uint64_t memory = lzma_raw_decoder_memusage(x->filters);
    if (code == LZMA_OK && memory > UNPACK_MEMORY)
        return memory == UINT64_MAX ? -ENOTSUP : -E2BIG;
    if (code == LZMA_OK)
        code = lzma_block_decoder(&x->z, &x->block);
    d->in = at + x->block.header_size;
    d->input_at = d->input_end = 0;
    return code == LZMA_OK ? 0 : code_error(code);
}

static int xz_start(struct unpack_source *s, struct unpack_decoder *d, uint64_t offset)
{
    static const lzma_stream none = LZMA_STREAM_INIT;
    struct xz *x = calloc(1, sizeof(*x));

    if (!x)
        return -ENOMEM;
    x->z = none;
    d->state = x;
    d->started = true;
    d->end = !locate(s, &x->iter, offset);
    d->out = d->end ? s->size : x->iter.block.uncompressed_file_offset;
    return d->end ? 0 : begin_block(s, d, x);
}

static void xz_stop(struct unpack_decoder *d)
{
    struct xz *x = d->state;
    end_block(x);
    lzma_end(&x->z);
    free(x);
    d->state = NULL;
}

static int xz_produce(struct unpack_source *s, struct unpack_decoder *d, uint8_t *buf, size_t room,
                      size_t *got)
{
    struct xz *x = d->state;
    int ret = 0;

    *got = 0;
    while (*got < room && !d->end && !ret) {
        if (!x->inside) {
            if (lzma_index_iter_next(&x->iter, LZMA_INDEX_ITER_NONEMPTY_BLOCK))
                d->end = true;
            else
                ret = begin_block(s, d, x);
            continue;
        }
        ret = unpack_fill(s, d);
        if (ret)
            break;
        x->z.next_in = d->input + d->input_at;
        x->z.avail_in = d->input_end - d->input_at;
        x->z.next_out = buf + *got;
        x->z.avail_out = room - *got;
        bool dry = !x->z.avail_in;
        lzma_ret code = lzma_code(&x->z, LZMA_RUN);
        size_t made = room - *got - x->z.avail_out;
        d->input_at = d->input_end - (uint32_t)x->z.avail_in;
        *got += made;
        d->out += made;
        if (code == LZMA_STREAM_END)
            end_block(x);
        else if (code != LZMA_OK)
            ret = code_error(code);
        else if (dry && !made)
            ret = -EIO;
    }
    return ret;
}

const struct unpack_codec unpack_xz = {
    .name = "xz",
    .magic = "\xfd"
             "7zXZ\0",
    .magic_length = 6,
    .index = xz_index,
    .nearest = xz_nearest,
    .start = xz_start,
    .produce = xz_produce,
    .stop = xz_stop,
    .close = xz_close,
};
