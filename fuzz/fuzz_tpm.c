/* Fuzzes the TPM's command response buffer: any register access, a swtpm that answers as it likes.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "device/legacy/tpm_crb.h"
#include "fuzz_virtio.h"
#include "platform/acpi.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    /* What the control channel answers to the start: sizes, results. */
    const uint8_t ready[20] = {0};
    struct fuzz_guest g;
    int control[2], stream[2];
    uint8_t buf[4096];

    fuzz_guest_init(&g);
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, control) ||
        socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, stream) ||
        fcntl(stream[1], F_SETFL, O_NONBLOCK) ||
        write(control[1], ready, sizeof(ready)) != sizeof(ready))
        abort();
    const struct mull_tpm_config cfg = {.control = control[0], .data = stream[0]};
    if (mull_tpm_crb_create(&g.env, &cfg, &g.device, NULL))
        abort();
    for (size_t i = 0; i + 3 < size && i < 2048; i += 4) {
        uint64_t at = MULL_TPM_BASE + data[i + 1];
        uint32_t value = data[i + 2] | (uint32_t)data[i + 3] << 8;
        unsigned width = 1u << (data[i] >> 4) % 3;
        size_t n = size - i - 4 < 64 ? size - i - 4 : 64;
        switch (data[i] & 7) {
        case 0:
            mull_space_read(g.memory, MULL_SPACE_MMIO, 0, at, width);
            break;
        case 1:
        case 2:
            mull_space_write(g.memory, MULL_SPACE_MMIO, 0, at, width, value);
            break;
        case 3: /* where a command says how long it is */
            mull_space_write(g.memory, MULL_SPACE_MMIO, 0, MULL_TPM_BASE + 0x84, 2,
                             __builtin_bswap16((uint16_t)(value & 0xfff)));
            break;
        case 4:
            mull_space_write(g.memory, MULL_SPACE_MMIO, 0, MULL_TPM_BASE + 0x40, 4, 1);
            mull_space_write(g.memory, MULL_SPACE_MMIO, 0, MULL_TPM_BASE + 0x4c, 4, 1);
            break;
        case 5:
            if (send(stream[1], data + i + 4, n, MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
                break;
            fuzz_guest_turn(&g);
            break;
        default:
            while (read(stream[1], buf, sizeof(buf)) > 0)
                ;
            fuzz_guest_turn(&g);
        }
    }
    /* swtpm ends: whatever waited is over. */
    close(stream[1]);
    close(control[1]);
    fuzz_guest_turn(&g);
    g.device->ops->reset(g.device);
    g.device->ops->destroy(g.device);
    g.device = NULL;
    fuzz_guest_fini(&g);
    return 0;
}
