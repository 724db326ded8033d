/* Fuzzes the serial port: any register access, input and output at any time. */
#include <stdlib.h>

#include "device/devices.h"

#define PORT 0x3f8

static void set_line(void *opaque, unsigned line, bool level)
{
    *(bool *)opaque = level;
}

static void step(struct mull_memory *memory, struct mull_chardev *chardev,
                 struct mull_device *device, uint8_t op, uint8_t value)
{
    uint8_t buf[64] = {value};
    unsigned reg = op & 7;

    switch (op >> 4) {
    case 0:
        mull_chardev_memory_give(chardev, buf, value % sizeof(buf));
        break;
    case 1:
        mull_chardev_memory_take(chardev, buf, value % sizeof(buf));
        break;
    case 2:
        device->ops->reset(device);
        break;
    case 3:
        mull_space_write(memory, MULL_SPACE_PORT, 0, PORT + reg, 2, value * 0x0101u);
        break;
    default:
        if (op & 8)
            mull_space_write(memory, MULL_SPACE_PORT, 0, PORT + reg, 1, value);
        else
            mull_space_read(memory, MULL_SPACE_PORT, 0, PORT + reg, 1);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct mull_memory *memory;
    struct mull_chardev *chardev;
    struct mull_device *device;
    bool line = false;

    if (mull_memory_create(NULL, &memory, NULL) || mull_chardev_memory_create(32, &chardev, NULL))
        abort();
    const struct mull_device_env env = {.memory = memory};
    const struct mull_serial_config cfg = {
        .port = PORT, .irq = {set_line, &line, 4}, .chardev = chardev};
    if (mull_serial_create(&env, &cfg, &device, NULL))
        abort();
    for (size_t i = 0; i + 1 < size && i < 4096; i += 2)
        step(memory, chardev, device, data[i], data[i + 1]);
    device->ops->reset(device);
    if (line || mull_space_read(memory, MULL_SPACE_PORT, 0, PORT + 5, 1) != 0x60)
        abort();
    device->ops->destroy(device);
    mull_chardev_destroy(chardev);
    mull_memory_destroy(memory);
    return 0;
}
