/* What a peer of the control channel says as limits: nothing else than a limit reaches the machine.
 */
#include <jansson.h>
#include <stdint.h>
#include <stdlib.h>

#include "vmm/resources.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(uint64_t value, uint64_t most)
{
    if (value > most)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct mull_machine_limits limits;
    struct mull_error err = {0};
    json_t *params = json_loadb((const char *)data, size, JSON_DECODE_ANY, NULL);
    int ret = params ? vmm_limits_read(params, &limits, &err) : -1;

    if (params && ret && !*err.message)
        abort();
    if (!ret) {
        check(limits.cpu, 6400);
        for (unsigned i = 0; i < 6; i++)
            check(limits.disk[i], 1ull << 50);
        for (unsigned i = 0; i < 3; i++)
            check(limits.network[i], 1ull << 50);
    }
    json_decref(params);
    return 0;
}
