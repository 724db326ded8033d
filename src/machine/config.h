/*
 * What a machine is made of, as data: read from JSON (docs/configuration.md), checked once here,
 * and used by machine.c to put the machine together. Knows no device and opens no file.
 */
#ifndef MULL_MACHINE_CONFIG_H
#define MULL_MACHINE_CONFIG_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

#define MULL_CONFIG_DISKS 16
#define MULL_CONFIG_NETWORKS 8
#define MULL_CONFIG_CONSOLES 4
#define MULL_CONFIG_FORWARDS 32
#define MULL_MEMORY_MIN (16ull << 20)
#define MULL_MEMORY_MAX (1ull << 40)
#define MULL_MEMORY_DEFAULT (512ull << 20)

struct mull_disk_config {
    char *path;
    char *format; /* NULL: detect */
    bool readonly;
    bool direct; /* bypass the host's page cache */
    char serial[21];
};

enum mull_network_kind { MULL_NETWORK_USER, MULL_NETWORK_TAP };

struct mull_network_config {
    enum mull_network_kind kind;
    char *interface; /* tap */
    bool has_mac;
    uint8_t mac[6];
    unsigned forward_count; /* user: as for mull_passt_parse_forward() */
    char *forward[MULL_CONFIG_FORWARDS];
};

enum mull_console_kind { MULL_CONSOLE_NONE, MULL_CONSOLE_FD, MULL_CONSOLE_UNIX };
enum mull_console_device { MULL_CONSOLE_SERIAL, MULL_CONSOLE_VIRTIO };

struct mull_console_config {
    enum mull_console_kind kind;
    enum mull_console_device device;
    int in_fd, out_fd; /* MULL_CONSOLE_FD; -1: that direction is not there */
    char *path;        /* MULL_CONSOLE_UNIX */
};

/** Owned strings; free with mull_machine_config_free(). */
struct mull_machine_config {
    char *name;
    char *kernel, *initrd, *cmdline; /* initrd, cmdline: NULL: none */
    uint64_t memory;                 /* bytes */
    unsigned cpus;
    char *engine;   /* "auto", "soft", "kvm" */
    bool no_reboot; /* a guest's reset ends the machine */
    unsigned disk_count;
    struct mull_disk_config disk[MULL_CONFIG_DISKS];
    unsigned network_count;
    struct mull_network_config network[MULL_CONFIG_NETWORKS];
    unsigned console_count;
    struct mull_console_config console[MULL_CONFIG_CONSOLES];
};

/**
 * Read and check a configuration.
 *
 * @param json  text of a JSON object; unknown members are an error
 * @param out   filled in; to be freed with mull_machine_config_free() also after an error
 * @return 0 or a negative errno
 */
int mull_machine_config_parse(const char *json, struct mull_machine_config *out,
                              struct mull_error *err);

/** Check ranges and what must be there. */
int mull_machine_config_check(const struct mull_machine_config *config, struct mull_error *err);

void mull_machine_config_free(struct mull_machine_config *config);

/** "aa:bb:cc:dd:ee:ff" of a unicast address. @return 0 or -EINVAL */
int mull_mac_parse(const char *text, uint8_t mac[6]);

#endif
