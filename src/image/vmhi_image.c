/* vmhi/image.h over the internal interfaces. Structures are copied as far as the caller knows them.
 */
#include "vmhi/image.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "image/convert.h"
#include "image/image.h"
#include "image/source.h"
#include "image/vmhi_image.h"

int vmhi_give_error(struct vmhi_error *out, const struct mull_error *err, int ret)
{
    if (out && ret < 0) {
        out->code = err->code ? err->code : -ret;
        snprintf(out->message, sizeof(out->message), "%s",
                 err->code ? err->message : strerror(-ret));
    }
    return ret;
}

int vmhi_take_options(const struct vmhi_image_options *in, struct vmhi_image_options *out,
                      struct mull_error *err)
{
    memset(out, 0, sizeof(*out));
    if (!in || in->size < offsetof(struct vmhi_image_options, flags))
        return mull_fail(err, EINVAL, "vmhi_image_options: size is not set");
    memcpy(out, in, in->size < sizeof(*out) ? in->size : sizeof(*out));
    if (!out->path)
        return mull_fail(err, EINVAL, "vmhi_image_options: path is not set");
    return 0;
}

static int open_mull(const struct vmhi_image_options *o, bool bulk, struct mull_image **out,
                     struct mull_error *err)
{
    struct mull_source_options source = {
        .ca_file = o->ca_file, .key_file = o->key_file, .max_size = o->max_size};
    struct mull_image_options io = {.path = o->path,
                                    .format = o->format,
                                    .source = &source,
                                    .readonly = o->flags & VMHI_IMAGE_READONLY,
                                    .no_lock = o->flags & VMHI_IMAGE_NO_LOCK,
                                    .no_backing = o->flags & VMHI_IMAGE_NO_BACKING,
                                    .unsafe = o->flags & VMHI_IMAGE_NO_FLUSH,
                                    .bulk = bulk,
                                    .snapshot = o->snapshot};
    return mull_image_open(&io, out, err);
}

int vmhi_image_open(const struct vmhi_image_options *options, struct vmhi_image **out,
                    struct vmhi_error *error)
{
    struct mull_error err = {0};
    struct vmhi_image_options o;
    int ret = vmhi_take_options(options, &o, &err);

    if (ret)
        return vmhi_give_error(error, &err, ret);
    struct vmhi_image *image = calloc(1, sizeof(*image));
    ret = image ? open_mull(&o, false, &image->image, &err) : -ENOMEM;
    if (ret) {
        free(image);
        return vmhi_give_error(error, &err, ret);
    }
    *out = image;
    return 0;
}

int vmhi_image_close(struct vmhi_image *image)
{
    if (!image)
        return 0;
    int ret = mull_image_close(image->image);
    free(image);
    return ret;
}

static int create_mull(const struct vmhi_image_options *o, struct mull_error *err)
{
    const struct mull_format *f = mull_format_find(o->format ? o->format : "raw");
    struct mull_create_options c = {.path = o->path,
                                    .size = o->disk_size,
                                    .backing = o->backing,
                                    .backing_format = o->backing_format,
                                    .subformat = o->subformat,
                                    .unit = o->unit,
                                    .compression = o->compression,
                                    .unsafe = o->flags & VMHI_IMAGE_NO_FLUSH};
    if (!f || !f->create)
        return mull_fail(err, f ? ENOTSUP : EINVAL, "%s: images of format '%s' cannot be made",
                         o->path, o->format);
    if (o->disk_size > MULL_IMAGE_SIZE_MAX)
        return mull_fail(err, EFBIG, "%s: larger than the largest disk (1 EiB)", o->path);
    return f->create(&c, err);
}

int vmhi_image_create(const struct vmhi_image_options *options, struct vmhi_error *error)
{
    struct mull_error err = {0};
    struct vmhi_image_options o;
    int ret = vmhi_take_options(options, &o, &err);
    if (!ret)
        ret = create_mull(&o, &err);
    return vmhi_give_error(error, &err, ret);
}

int vmhi_image_get_info(struct vmhi_image *image, struct vmhi_image_info *out)
{
    struct mull_image *i = image->image;
    struct mull_image_info details = {0};
    struct vmhi_image_info info = {.format = i->format->name,
                                   .backing = i->backing_path,
                                   .disk_size = i->size,
                                   .readonly = i->readonly};
    if (i->format->info)
        i->format->info(i, &details);
    info.unit = details.unit;
    info.size = out->size < sizeof(info) ? out->size : sizeof(info);
    if (info.size < sizeof(size_t))
        return -EINVAL;
    memcpy(out, &info, info.size);
    return 0;
}

static int in_range(const struct vmhi_image *image, uint64_t offset, uint64_t length, bool write)
{
    const struct mull_image *i = image->image;
    if (offset > i->size || length > i->size - offset)
        return -EINVAL;
    return write && i->readonly ? -EROFS : 0;
}

int vmhi_image_read(struct vmhi_image *image, uint64_t offset, void *buf, uint64_t length)
{
    int ret = in_range(image, offset, length, false);
    return ret || !length ? ret : mull_image_read(image->image, buf, length, offset);
}

int vmhi_image_write(struct vmhi_image *image, uint64_t offset, const void *buf, uint64_t length)
{
    int ret = in_range(image, offset, length, true);
    return ret || !length ? ret : mull_image_write(image->image, buf, length, offset);
}

int vmhi_image_zero(struct vmhi_image *image, uint64_t offset, uint64_t length)
{
    int ret = in_range(image, offset, length, true);
    return ret || !length ? ret : mull_image_zero(image->image, offset, length, true);
}

int vmhi_image_discard(struct vmhi_image *image, uint64_t offset, uint64_t length)
{
    int ret = in_range(image, offset, length, true);
    return ret || !length ? ret : mull_image_discard(image->image, offset, length);
}

int vmhi_image_flush(struct vmhi_image *image)
{
    return mull_image_flush(image->image);
}

int vmhi_image_map(struct vmhi_image *image, uint64_t offset, uint64_t length,
                   struct vmhi_extent *out)
{
    struct mull_extent e;
    int depth = 0, ret = in_range(image, offset, length, false);

    if (ret || !length)
        return ret ? ret : -EINVAL;
    ret = mull_image_locate(image->image, offset, length, false, &e, NULL, &depth);
    if (ret)
        return ret;
    struct vmhi_extent x = {.length = e.length, .depth = depth};
    if (e.kind == MULL_EXTENT_DATA) {
        x.kind = VMHI_EXTENT_DATA;
        x.offset = e.offset;
    } else if (e.kind == MULL_EXTENT_PACKED) {
        x.kind = VMHI_EXTENT_COMPRESSED;
    }
    x.file = e.file ? e.file->path : NULL;
    x.size = out->size < sizeof(x) ? out->size : sizeof(x);
    if (x.size < sizeof(size_t))
        return -EINVAL;
    memcpy(out, &x, x.size);
    return 0;
}

int vmhi_image_resize(struct vmhi_image *image, uint64_t disk_size, struct vmhi_error *error)
{
    struct mull_error err = {0};
    int ret = disk_size % 512 ? mull_fail(&err, EINVAL, "size is not whole sectors of 512 bytes")
                              : mull_image_resize(image->image, disk_size, &err);
    return vmhi_give_error(error, &err, ret);
}

int vmhi_image_convert(struct vmhi_image *source, const struct vmhi_image_options *target,
                       int compress, vmhi_progress progress, void *opaque, struct vmhi_error *error)
{
    struct mull_error err = {0};
    struct vmhi_image_options o;
    struct mull_image *to = NULL;
    int ret = vmhi_take_options(target, &o, &err);

    if (!ret) {
        o.disk_size = source->image->size;
        o.format = o.format ? o.format : "raw";
        ret = create_mull(&o, &err);
    }
    if (!ret)
        ret = open_mull(&o, true, &to, &err);
    if (!ret) {
        struct mull_convert c = {.source = source->image,
                                 .target = to,
                                 .compress = compress,
                                 .target_zero = !to->file->fixed_size,
                                 .progress = progress,
                                 .opaque = opaque};
        ret = mull_convert(&c, &err);
        if (ret) {
            mull_image_abandon(to);
        } else {
            ret = mull_image_close(to);
        }
    }
    return vmhi_give_error(error, &err, ret);
}

int vmhi_image_compare(struct vmhi_image *a, struct vmhi_image *b, uint64_t *where,
                       vmhi_progress progress, void *opaque, struct vmhi_error *error)
{
    struct mull_error err = {0};
    uint64_t at = 0;
    int ret = mull_compare(a->image, b->image, 0, &at, progress, opaque, &err);
    if (where)
        *where = at;
    return vmhi_give_error(error, &err, ret);
}

int vmhi_image_run_check(struct vmhi_image *image, int repair, struct vmhi_image_check *out,
                         struct vmhi_error *error)
{
    struct mull_image *i = image->image;
    struct mull_error err = {0};
    struct mull_check check = {.repair = repair};
    int ret;

    if (!i->format->check)
        return vmhi_give_error(error, &err,
                               mull_fail(&err, ENOTSUP, "%s: format %s has nothing to check",
                                         i->path, i->format->name));
    if (repair && i->readonly)
        return vmhi_give_error(error, &err,
                               mull_fail(&err, EROFS, "%s: is open read-only", i->path));
    pthread_mutex_lock(&i->lock);
    ret = i->format->check(i, &check, &err);
    pthread_mutex_unlock(&i->lock);
    struct vmhi_image_check c = {
        .corruptions = check.corruptions, .leaks = check.leaks, .fixed = check.fixed};
    c.size = out->size < sizeof(c) ? out->size : sizeof(c);
    if (c.size < sizeof(size_t))
        return -EINVAL;
    memcpy(out, &c, c.size);
    return vmhi_give_error(error, &err, ret);
}
