/* The example of docs/images.md: any image to QCOW2, compressed. usage: example SOURCE TARGET */
#include <stdio.h>

#include <vmhi/image.h>

static int show(void *opaque, uint64_t done, uint64_t total)
{
    fprintf(stderr, "\r%3d %%", (int)(done * 100 / total));
    return 0;
}

int main(int argc, char **argv)
{
    struct vmhi_error err = {0};
    struct vmhi_image *source;
    if (argc != 3)
        return 2;
    struct vmhi_image_options from = {
        .size = sizeof(from), .path = argv[1], .flags = VMHI_IMAGE_READONLY};
    struct vmhi_image_options to = {
        .size = sizeof(to), .path = argv[2], .format = "qcow2", .compression = "zstd"};
    int ret = vmhi_image_open(&from, &source, &err);
    if (!ret) {
        ret = vmhi_image_convert(source, &to, 1, show, NULL, &err);
        vmhi_image_close(source);
    }
    if (ret)
        fprintf(stderr, "%s\n", err.message);
    return ret ? 1 : 0;
}
