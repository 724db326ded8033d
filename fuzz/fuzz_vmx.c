/*
 * Fuzz target: an arbitrary VMX file, made into a machine and written again.
 */
#include <stdint.h>
#include <stdlib.h>

#include "fuzz_appliance.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct mull_vmx vmx;
    struct mull_appliance a;
    struct mull_error err = {0};
    if (mull_vmx_parse("fuzz.vmx", (const char *)data, size, &vmx, &err))
        return 0;
    if (mull_appliance_from_vmx(&vmx, "fuzz.vmx", &a, &err))
        mull_appliance_free(&a);
    else
        fuzz_appliance(&a);
    mull_vmx_free(&vmx);
    return 0;
}
