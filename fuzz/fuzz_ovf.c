/*
 * Fuzz target: an arbitrary OVF descriptor, made into a machine and written again.
 */
#include <stdint.h>
#include <stdlib.h>

#include "fuzz_appliance.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct mull_ovf ovf;
    struct mull_error err = {0};
    if (mull_ovf_parse("fuzz.ovf", data, size, NULL, &ovf, &err))
        return 0;
    for (uint32_t i = 0; i < ovf.system_count; i++) {
        struct mull_appliance a;
        if (mull_appliance_from_ovf(&ovf, i, &a, &err))
            mull_appliance_free(&a);
        else
            fuzz_appliance(&a);
    }
    mull_ovf_free(&ovf);
    return 0;
}
