/*
 * What the two halves of the multiboot loader share: the kernel's side (multiboot.c) and what it is
 * told (multiboot_info.c). Nobody else includes this.
 */
#ifndef MULL_BOOT_MULTIBOOT_H
#define MULL_BOOT_MULTIBOOT_H

#include "boot/internal.h"

/* A header begins in these bytes of the file (0.6.96, 3.1; 2.0, 3.1). */
#define BOOT_MULTIBOOT1_SEARCH 8192u
#define BOOT_MULTIBOOT2_SEARCH 32768u

/** Can a multiboot2 kernel be told of this (tag types of 2.0, 3.6)? */
bool boot_multiboot2_tells(uint32_t type);

/** Write what the kernel is told, of the version it wants. @param gpa  where it is */
int boot_multiboot_info(const struct mull_boot *boot, const struct boot_target *t, uint32_t *gpa,
                        struct mull_error *err);

#endif
