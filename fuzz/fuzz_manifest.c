/*
 * Fuzz target: an arbitrary manifest, and an arbitrary certificate file for it.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "image/ovf/manifest.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct mull_manifest m;
    struct mull_signer signer;
    struct mull_error err = {0};
    if (!mull_manifest_parse("fuzz.mf", (const char *)data, size, &m, &err)) {
        for (uint32_t i = 0; i < m.count; i++)
            if (mull_manifest_find(&m, m.entry[i].name) != &m.entry[i])
                abort();
        mull_manifest_free(&m);
    }
    mull_manifest_verify("fuzz.cert", (const char *)data, size, "fuzz.mf", "manifest", 8,
                         "/dev/null", &signer, &err);
    return 0;
}
