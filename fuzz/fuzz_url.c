/* URLs, from command lines and from images. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "image/source.h"
#include "image/url.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct mull_error err = {0};
    struct mull_url url;
    char *text = malloc(size + 1);

    if (!text)
        return 0;
    memcpy(text, data, size);
    text[size] = 0;
    mull_source_is_url(text);
    mull_source_is_disk(text);
    if (!mull_url_parse(text, &url, &err)) {
        mull_url_parameter(&url, "socket");
        mull_url_free(&url);
    }
    free(text);
    return 0;
}
