/*
 * Disk formats that we know by sight and do not read: an image of one is refused by its name, for
 * taken for raw it would show a guest a format's header. Knows magic numbers, nothing else.
 */
#include "image/formats.h"

#include <errno.h>
#include <string.h>

static const struct {
    const char *name, *magic;
    size_t length;
} known[] = {
    {"QED", "QED\0", 4},
    {"QCOW version 1", "QFI\xfb\0\0\0\1", 8},
    {"Bochs", "Bochs Virtual HD Image", 22},
    {"cloop", "#!/bin/sh\n#V2.0 Format\n", 23},
};

/* Apple's disk image ends with a block that begins so. */
static const char koly[] = "koly";

static const char *foreign_name(const uint8_t *head, size_t len, const uint8_t *tail)
{
    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
        if (len >= known[i].length && !memcmp(head, known[i].magic, known[i].length))
            return known[i].name;
    return tail && !memcmp(tail, koly, 4) ? "DMG" : NULL;
}

static int foreign_probe(const uint8_t *head, size_t len, const uint8_t *tail, const char *path)
{
    return foreign_name(head, len, tail) ? 90 : 0;
}

static int foreign_open(struct mull_image *image, const struct mull_image_options *o,
                        struct mull_error *err)
{
    uint8_t head[MULL_PROBE_HEAD] = {0}, tail[MULL_PROBE_TAIL] = {0};
    uint64_t size = atomic_load(&image->file->size);
    int ret = mull_file_read(image->file, head, sizeof(head), 0);

    if (!ret && size >= sizeof(tail))
        ret = mull_file_read(image->file, tail, sizeof(tail), size - sizeof(tail));
    if (ret)
        return mull_fail(err, -ret, "%s: %s", image->path, strerror(-ret));
    const char *name = foreign_name(head, sizeof(head), tail);
    return mull_fail(err, ENOTSUP,
                     "%s: is %s, a format that is not read here: convert it with qemu-img, or say "
                     "that it is raw",
                     image->path, name ? name : "of no format");
}

static void foreign_close(struct mull_image *image) {}

static int foreign_map(struct mull_image *image, uint64_t offset, uint64_t length, bool cached,
                       struct mull_extent *out)
{
    return -ENOTSUP; /* none is ever open */
}

const struct mull_format mull_format_foreign = {
    .name = "foreign",
    .probe = foreign_probe,
    .open = foreign_open,
    .close = foreign_close,
    .map = foreign_map,
};
