/* Fuzzes VMware's backdoor: any registers, most of them of a channel that is open. */
#include <stdlib.h>
#include <string.h>

#include "device/vmware/tools.h"
#include "engine/cpu_state.h"
#include "fuzz_virtio.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct mull_clock *clock; /* made once: it measures the host's */
    struct mull_device_env env = {0};
    struct mull_device *device;
    struct mull_tools_info info;
    const struct mull_tools_config cfg = {.memory = 1u << 30, .lapic_hz = 1};
    char addresses[MULL_TOOLS_ADDRESSES][46];
    uint64_t channel[2][3] = {{0}}, gpr[16] = {0};

    if (!clock && mull_clock_create(&clock, NULL))
        abort();
    env.clock = clock;
    if (mull_tools_create(&env, &cfg, &device, NULL))
        abort();
    for (unsigned i = 0; i < 2; i++) {
        gpr[MULL_RBX] = i ? 0xcf4c4354 : 0xc9435052;
        gpr[MULL_RCX] = 30;
        mull_tools_call(device, gpr);
        channel[i][0] = gpr[MULL_RDX];
        channel[i][1] = gpr[MULL_RSI];
        channel[i][2] = gpr[MULL_RDI];
    }
    mull_tools_addresses(data, size, addresses);
    for (size_t i = 0; i + 5 < size && i < 1u << 16; i += 6) {
        const uint64_t *c = channel[data[i] >> 7];
        uint32_t value;
        memcpy(&value, data + i + 1, 4);
        gpr[MULL_RBX] = value;
        gpr[MULL_RCX] = (data[i] & 0x40 ? data[i + 5] : 30) | (uint32_t)(data[i] & 7) << 16;
        gpr[MULL_RDX] = c[0];
        gpr[MULL_RSI] = c[1];
        gpr[MULL_RDI] = c[2] ^ (data[i] & 0x20 ? value : 0);
        mull_tools_call(device, gpr);
        if (data[i] & 8)
            mull_tools_power(device, MULL_TOOLS_HALT);
        if (data[i] & 16) { /* the host's own messages, in any order */
            uint8_t *answer = NULL;
            size_t length = 0;
            uint32_t id;
            mull_tools_send(device, data, i + 1, &id);
            if (!mull_tools_receive(device, data[i + 5], &answer, &length))
                mull_tools_wipe(answer, length);
            if (data[i + 5] & 1)
                mull_tools_drop(device, data[i + 5] >> 1);
        }
    }
    mull_tools_info(device, &info);
    device->ops->destroy(device);
    return 0;
}
