/*
 * The constructors of all devices, for whoever puts a machine together. Each returns 0 and a
 * device for the machine's list, or a negative errno with *err; names must be unique. Back ends
 * (chardevs, netdevs, blocks) stay the caller's and must outlive the device.
 */
#ifndef MULL_DEVICE_DEVICES_H
#define MULL_DEVICE_DEVICES_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "device/chardev.h"
#include "device/net/netdev.h"
#include "image/block.h"
#include "platform/device.h"
#include "platform/irq.h"
#include "platform/pci.h"

/** A 16550A UART on eight I/O ports. */
struct mull_serial_config {
    const char *name;             /* NULL: "serial.<port in hex>" */
    uint16_t port;                /* 0x3f8 for ttyS0 */
    struct mull_irq irq;          /* line 4 for ttyS0 */
    struct mull_chardev *chardev; /* NULL: nothing is connected */
};
int mull_serial_create(const struct mull_device_env *env, const struct mull_serial_config *cfg,
                       struct mull_device **out, struct mull_error *err);

/** The debug port 402h; what is written there goes to env->log. */
int mull_debugcon_create(const struct mull_device_env *env, struct mull_device **out,
                         struct mull_error *err);

/** A flash chip. */
struct mull_pflash_config {
    uint64_t base;
    uint8_t *data; /* its content, changed as the guest programs it; stays the caller's */
    uint32_t size; /* whole blocks of 4 KiB */
    int fd;        /* the file behind it, written at the same offsets; -1: none. The caller's */
};
int mull_pflash_create(const struct mull_device_env *env, const struct mull_pflash_config *cfg,
                       struct mull_device **out, struct mull_error *err);

/* ---- virtio over PCI: @cfg->devfn is slot << 3 | function, -1: the next free slot ---- */

struct mull_virtio_blk_config {
    const char *name; /* e.g. "virtio-blk.0" */
    int devfn;
    struct mull_block *block; /* mull_block_start() was called with env->loop */
    bool readonly;            /* also where the block is */
    char serial[21];          /* what GET_ID answers, at most 20 characters */
    unsigned queues;          /* 0: one; the guest uses one for each of its vCPUs */
};
int mull_virtio_blk_create(const struct mull_device_env *env, struct mull_pci_bus *bus,
                           const struct mull_virtio_blk_config *cfg, struct mull_device **out,
                           struct mull_error *err);

#define MULL_VIRTIO_CONSOLE_CHANNELS 3

struct mull_virtio_console_config {
    const char *name;
    int devfn;
    struct mull_chardev *chardev; /* port 0, the console; NULL: nothing is connected */
    /* More ports, for agents in the guest: /dev/virtio-ports/NAME there. */
    unsigned nchannels;
    struct {
        const char *name; /* at most 31 characters */
        struct mull_chardev *chardev;
    } channels[MULL_VIRTIO_CONSOLE_CHANNELS];
};
int mull_virtio_console_create(const struct mull_device_env *env, struct mull_pci_bus *bus,
                               const struct mull_virtio_console_config *cfg,
                               struct mull_device **out, struct mull_error *err);

struct mull_virtio_balloon_config {
    const char *name;
    int devfn;
    void *opaque;
    /* The guest has told which pages are free, or never will. Loop's thread, nothing locked. NULL:
     * it is not asked. */
    void (*hinted)(void *opaque);
};
/** See device/virtio/balloon.h. */
int mull_virtio_balloon_create(const struct mull_device_env *env, struct mull_pci_bus *bus,
                               const struct mull_virtio_balloon_config *cfg,
                               struct mull_device **out, struct mull_error *err);

#define MULL_SHARE_TAG_MAX 36

enum mull_share_type { MULL_SHARE_VIRTIOFS, MULL_SHARE_9P };

struct mull_virtio_share_config {
    const char *name;
    int devfn;
    enum mull_share_type type;
    const char *tag;  /* by which the guest mounts it; 1 to MULL_SHARE_TAG_MAX bytes */
    const char *path; /* the folder; NULL: whoever is at the other end of @socket serves */
    bool readonly;
    int socket;        /* where @path is NULL: a stream socket (share/message.h), the device's */
    unsigned drain_ms; /* how long an answer may take before the folder is given up when the machine
                          is paused or reset; 0: 10 s */
};
/** Starts a process (mullion-share): before the machine's process locks itself in. */
int mull_virtio_share_create(const struct mull_device_env *env, struct mull_pci_bus *bus,
                             const struct mull_virtio_share_config *cfg, struct mull_device **out,
                             struct mull_error *err);

struct mull_vga;
struct mull_screen;

struct mull_virtio_gpu_config {
    const char *name;
    int devfn;
    struct mull_vga *vga; /* an inlaid one, which is in the same function and is shown until a driver
                           * shows a picture; the caller's; NULL: none */
    const uint8_t *rom;   /* option ROM of the two; the caller's; NULL: none */
    uint32_t rom_size;
};
int mull_virtio_gpu_create(const struct mull_device_env *env, struct mull_pci_bus *bus,
                           const struct mull_virtio_gpu_config *cfg, struct mull_device **out,
                           struct mull_error *err);
/** What it shows; valid as long as the device. */
const struct mull_screen *mull_virtio_gpu_screen(struct mull_device *device);

struct mull_virtio_rng_config {
    const char *name;
    int devfn;
    uint32_t bytes_per_second; /* 0: a megabyte a second */
};
int mull_virtio_rng_create(const struct mull_device_env *env, struct mull_pci_bus *bus,
                           const struct mull_virtio_rng_config *cfg, struct mull_device **out,
                           struct mull_error *err);

struct mull_virtio_vsock_config {
    const char *name;
    int devfn;
    uint64_t cid;     /* the guest's, 3 at least */
    const char *path; /* the host's socket; PATH_PORT is what the guest connects to */
    int socket;       /* where @path is NULL: one that listens, the device's; the guest reaches
                       * nobody */
};
/** Sockets of the host for the guest's AF_VSOCK. Before the process locks itself in: it starts a
 *  process that connects sockets. */
int mull_virtio_vsock_create(const struct mull_device_env *env, struct mull_pci_bus *bus,
                             const struct mull_virtio_vsock_config *cfg, struct mull_device **out,
                             struct mull_error *err);

/* ---- Network cards ---- */

/** What a network card of any model is made from; what a model has no use for is left out. */
struct mull_nic_config {
    const char *name;           /* e.g. "virtio-net.0" */
    int devfn;                  /* slot << 3 | function, -1: the next free slot */
    struct mull_netdev *netdev; /* NULL: link down */
    uint8_t mac[6];
    uint16_t mtu;         /* virtio: 0: not offered */
    uint16_t queue_pairs; /* virtio: at most; 0: one */
    const uint8_t *rom;   /* option ROM to boot by; the caller's; NULL: none */
    uint32_t rom_size;
};
int mull_virtio_net_create(const struct mull_device_env *env, struct mull_pci_bus *bus,
                           const struct mull_nic_config *cfg, struct mull_device **out,
                           struct mull_error *err);
/** Intel 82574L. */
int mull_e1000e_create(const struct mull_device_env *env, struct mull_pci_bus *bus,
                       const struct mull_nic_config *cfg, struct mull_device **out,
                       struct mull_error *err);
/** VMware's VMXNET3. */
int mull_vmxnet3_create(const struct mull_device_env *env, struct mull_pci_bus *bus,
                        const struct mull_nic_config *cfg, struct mull_device **out,
                        struct mull_error *err);

#endif
