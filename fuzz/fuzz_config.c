/*
 * Fuzz target: an arbitrary machine configuration.
 */
#include <jansson.h>
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
    /* What can be read is written so that it is read the same. */
    if (!mull_machine_config_read(text, &config, NULL)) {
        struct mull_machine_config again;
        json_t *one = mull_machine_config_write(&config);
        char *dump = json_dumps(one, 0);
        if (!dump || mull_machine_config_read(dump, &again, &err))
            abort();
        json_t *two = mull_machine_config_write(&again);
        if (!json_equal(one, two))
            abort();
        char missing[64];
        mull_machine_config_missing(&again, missing, sizeof(missing));
        mull_machine_config_free(&again);
        json_decref(one);
        json_decref(two);
        free(dump);
    }
    mull_machine_config_free(&config);
    free(text);
    return 0;
}
