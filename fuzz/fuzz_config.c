/*
 * Fuzz target: an arbitrary machine configuration.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "machine/config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = malloc(size + 1);
    if (!text)
        abort();
    memcpy(text, data, size);
    text[size] = '\0';
    struct mull_machine_config config;
    struct mull_error err = {0};
    if (!mull_machine_config_parse(text, &config, &err) && err.code)
        abort();
    mull_machine_config_free(&config);
    free(text);
    return 0;
}
