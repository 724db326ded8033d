/*
 * Fuzz target: an arbitrary libvirt domain's XML, made into a machine and written again.
 */
#include <stdint.h>
#include <stdlib.h>

#include "fuzz_appliance.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct mull_appliance a;
    struct mull_error err = {0};
    if (mull_appliance_from_libvirt("fuzz.xml", data, size, &a, &err))
        mull_appliance_free(&a);
    else
        fuzz_appliance(&a);
    return 0;
}
