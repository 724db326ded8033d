/*
 * The SMBIOS tables that firmware hands on to the guest: who made the machine, its UUID and serial
 * number, its processors and memory (DMTF DSP0134 2.8).
 */
#ifndef MULL_PLATFORM_SMBIOS_H
#define MULL_PLATFORM_SMBIOS_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

#define MULL_SMBIOS_ANCHOR_SIZE 31u
#define MULL_SMBIOS_MAX 8192u

struct mull_smbios_config {
    const char *name;   /* the machine's; becomes the product's version */
    const char *serial; /* "": none */
    uint8_t uuid[16];   /* as it is printed, first byte first */
    unsigned cpus;
    uint64_t memory; /* bytes */
};

struct mull_smbios {
    uint8_t tables[MULL_SMBIOS_MAX];
    size_t size;
    uint8_t
        anchor[MULL_SMBIOS_ANCHOR_SIZE]; /* its address and checksums are the firmware's to fill */
};

/** @return 0 or -ENOSPC */
int mull_smbios_build(const struct mull_smbios_config *config, struct mull_smbios *out,
                      struct mull_error *err);

#endif
