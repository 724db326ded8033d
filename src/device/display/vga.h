/*
 * A VGA with the Bochs extensions ("stdvga") on PCI: what guests have drivers and firmware has an
 * option ROM for. Readers of the screen (a display server, a screenshot) use the functions below;
 * nothing here knows who they are.
 */
#ifndef MULL_DEVICE_DISPLAY_VGA_H
#define MULL_DEVICE_DISPLAY_VGA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "device/display/screen.h"
#include "platform/device.h"
#include "platform/pci.h"

#define MULL_VGA_MAX_WIDTH MULL_SCREEN_MAX_WIDTH
#define MULL_VGA_MAX_HEIGHT MULL_SCREEN_MAX_HEIGHT

struct mull_vga;

struct mull_vga_config {
    const uint8_t *rom; /* option ROM; stays the caller's; NULL: none */
    uint32_t rom_size;
    bool inlaid; /* it lies in another device's PCI function, by the functions below */
};

/** Create it. The device is owned by the caller. */
int mull_vga_create(const struct mull_device_env *env, struct mull_pci_bus *bus,
                    const struct mull_vga_config *cfg, struct mull_vga **out,
                    struct mull_error *err);
struct mull_device *mull_vga_device(struct mull_vga *vga);

/** What it shows, by the functions below; valid as long as the device. */
const struct mull_screen *mull_vga_screen(struct mull_vga *vga);

/** For a device that takes it into its own function: its memory as BAR 0, and its registers, with the
 *  VGA as their opaque pointer, at the start of BAR 2 (4 KiB). */
int mull_vga_add_memory(struct mull_vga *vga, struct mull_pci_function *f, struct mull_error *err);
const struct mull_region_ops *mull_vga_registers(void);

/** A number that grows with everything that may have changed what is seen. Any thread. */
uint64_t mull_vga_changes(struct mull_vga *vga);

/** The size of what is seen, in pixels: at most the maxima above. Any thread. */
void mull_vga_size(struct mull_vga *vga, unsigned *width, unsigned *height);

/**
 * Draw what is seen: 0x00RRGGBB, row after row without gaps.
 *
 * @param pixels  room for @max pixels
 * @return false: @max is too small; *width and *height are right all the same
 * Any thread.
 */
bool mull_vga_render(struct mull_vga *vga, uint32_t *pixels, size_t max, unsigned *width,
                     unsigned *height);

/**
 * The screen as text (UTF-8), lines without trailing spaces.
 *
 * @return the bytes written, without the NUL that follows; -1: not in a text mode
 */
int mull_vga_text(struct mull_vga *vga, char *out, size_t room);

#endif
