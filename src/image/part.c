/*
 * A part of a file that stands in for a file of its own: a disk inside an archive. Read only; what
 * lies before and behind it is not reached.
 */
#include "image/part.h"

#include <errno.h>
#include <stdlib.h>

struct part {
    struct mull_file *below;
    uint64_t base;
};

static int part_readv(struct mull_file *file, const struct iovec *iov, int niov, uint64_t offset,
                      uint64_t length)
{
    const struct part *part = file->opaque;
    return mull_file_readv(part->below, iov, niov, part->base + offset, length);
}

static int part_identity(struct mull_file *file, char *out, size_t room)
{
    const struct part *part = file->opaque;
    return mull_file_identity(part->below, out, room);
}

static void part_close(struct mull_file *file)
{
    struct part *part = file->opaque;
    mull_file_close(part->below);
    free(part);
}

static const struct mull_file_ops part_ops = {
    .readv = part_readv, .identity = part_identity, .close = part_close};

int mull_file_part(const struct mull_file_options *options, uint64_t offset, uint64_t length,
                   struct mull_file *below, struct mull_file **out, struct mull_error *err)
{
    uint64_t size = atomic_load(&below->size);
    int ret = 0;
    if (!options->readonly || offset > size || length > size - offset)
        ret = mull_fail(err, EINVAL, "%s: has no %llu bytes at %llu to be read", options->path,
                        (unsigned long long)length, (unsigned long long)offset);
    struct part *part = ret ? NULL : malloc(sizeof(*part));
    if (!ret && !part)
        ret = mull_fail(err, ENOMEM, "%s: out of memory", options->path);
    if (ret) {
        mull_file_close(below);
        return ret;
    }
    *part = (struct part){below, offset};
    return mull_file_stand_in(options, &part_ops, part, length, out, err);
}
