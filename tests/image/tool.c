/*
 * `mullion image` as a program of its own, for the tests, with one command more: `io FILE` carries
 * out "write|zero|discard|read OFFSET LENGTH PATTERN" and "flush" lines from standard input.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/image.h"

static int one_line(struct mull_image *image, const char *verb, uint64_t offset, uint64_t length,
                    int pattern)
{
    uint8_t *buf = malloc(length + 1);
    int ret = buf ? 0 : -1;

    if (!ret && !strcmp(verb, "write")) {
        memset(buf, pattern, length);
        ret = mull_image_write(image, buf, length, offset);
    } else if (!ret && !strcmp(verb, "read")) {
        ret = mull_image_read(image, buf, length, offset);
        for (uint64_t i = 0; i < length && !ret; i++)
            ret = buf[i] == (uint8_t)pattern ? 0 : -1000;
    } else if (!strcmp(verb, "zero")) {
        ret = mull_image_zero(image, offset, length, pattern != 0);
    } else if (!strcmp(verb, "discard")) {
        ret = mull_image_discard(image, offset, length);
    } else if (!strcmp(verb, "flush")) {
        ret = mull_image_flush(image);
    }
    free(buf);
    return ret;
}

static int io(const char *path, const char *format)
{
    struct mull_error err = {0};
    struct mull_image_options o = {.path = path, .format = format, .log = &image_log};
    struct mull_image *image;
    char line[256], verb[16];
    int ret = mull_image_open(&o, &image, &err);

    if (ret)
        return image_fail(1, "%s", err.message);
    while (!ret && fgets(line, sizeof(line), stdin)) {
        unsigned long long offset = 0, length = 0;
        int pattern = 0;
        if (sscanf(line, "%15s %llu %llu %d", verb, &offset, &length, &pattern) < 1)
            continue;
        ret = one_line(image, verb, offset, length, pattern);
        if (ret)
            image_fail(1, "%d at: %s", ret, line);
    }
    int closed = mull_image_close(image);
    return ret || closed;
}

int main(int argc, char **argv)
{
    if (argc >= 3 && !strcmp(argv[1], "io"))
        return io(argv[2], argc == 5 ? argv[4] : NULL);
    return mull_cli_image(argc, argv);
}
