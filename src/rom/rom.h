/*
 * Option ROMs that come with Mullion: drivers of devices for firmware that has none. Their code
 * runs in the guest; here they are just bytes.
 */
#ifndef MULL_ROM_ROM_H
#define MULL_ROM_ROM_H

#include <stdint.h>

/** UEFI's driver of the PVSCSI adapter (rom/pvscsi.c). */
extern const uint8_t mull_rom_pvscsi[];
extern const uint32_t mull_rom_pvscsi_size;

#endif
