/*
 * Firmware images: finds them, checks them, puts them into guest memory, and keeps the UEFI
 * variable store's file. Knows guest memory; knows no engine, no device and no machine.
 */
#ifndef MULL_BOOT_FIRMWARE_H
#define MULL_BOOT_FIRMWARE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "memory/memory.h"

struct mull_firmware {
    uint8_t *rom; /* ends at 4 GiB */
    uint32_t rom_size;
    uint8_t *vars; /* the variable store, below the ROM; NULL: none */
    uint32_t vars_size;
    int vars_fd; /* locked; -1: the variables are lost at the machine's end */
};

/** Where the variable store is in guest memory. */
static inline uint64_t mull_firmware_vars_base(const struct mull_firmware *f)
{
    return (1ull << 32) - f->rom_size - f->vars_size;
}

/**
 * Read the firmware.
 *
 * @param which  "bios", "uefi", or the path of an image of 64 KiB to 16 MiB
 * @param vars   path of the variable store, made from the template where there is none; NULL: in
 *               memory only. Only with "uefi", or a file like OVMF_CODE.fd that has a template
 *               (OVMF_VARS.fd) beside it
 * @param out    owned by the caller
 * @return 0 or a negative errno
 */
int mull_firmware_open(const char *which, const char *vars, struct mull_firmware **out,
                       struct mull_error *err);

void mull_firmware_close(struct mull_firmware *f);

/** Read an option ROM by its name in the folders where the packages put them. @return 0 and bytes
 *  to free(), or -ENOENT and so on */
int mull_firmware_rom(const char *name, uint8_t **data, uint32_t *size, struct mull_error *err);

/** Make every image in an option ROM one for the PCI device @vendor:@device (PCI Firmware 3.2, 5.1):
 *  firmware looks at that. */
void mull_firmware_rom_for(uint8_t *data, uint32_t size, uint16_t vendor, uint16_t device);

/** Fill the ROM below 4 GiB and the shadow RAM below 1 MiB, as at power-on. */
int mull_firmware_load(const struct mull_firmware *f, struct mull_memory *memory,
                       struct mull_error *err);

#endif
