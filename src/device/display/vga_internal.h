/*
 * What vga.c (registers and memory) and vga_render.c (what they show) share.
 */
#ifndef MULL_DEVICE_DISPLAY_VGA_INTERNAL_H
#define MULL_DEVICE_DISPLAY_VGA_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>

#include "device/display/vga.h"

#define VGA_MEMORY (16u << 20)

/* The extension's registers (Bochs VBE display interface). */
enum {
    DISPI_ID,
    DISPI_XRES,
    DISPI_YRES,
    DISPI_BPP,
    DISPI_ENABLE,
    DISPI_BANK,
    DISPI_VIRT_WIDTH,
    DISPI_VIRT_HEIGHT,
    DISPI_X_OFFSET,
    DISPI_Y_OFFSET,
    DISPI_MEMORY,
    DISPI_COUNT
};
#define DISPI_ENABLED 0x01u
#define DISPI_GETCAPS 0x02u
#define DISPI_8BIT_DAC 0x20u
#define DISPI_NOCLEAR 0x80u

struct mull_vga {
    struct mull_device device;
    struct mull_pci_function pci;
    struct mull_memory *mem;
    struct mull_screen screen;
    pthread_mutex_t lock; /* the registers; memory is read and written without */
    _Atomic uint64_t changes;
    uint8_t misc, feature;
    uint8_t seq_index, seq[8];
    uint8_t gr_index, gr[16];
    uint8_t cr_index, cr[32];
    uint8_t ar_index, ar[32];
    uint8_t ar_data; /* the next write to 3C0h is data */
    uint8_t latch[4];
    uint8_t dac_mask, dac_state, dac_read, dac_write, dac_component;
    uint8_t palette[768];
    uint16_t dispi_index, dispi[DISPI_COUNT];
    uint8_t retrace;
    struct mull_region *region[4];
    struct mull_device_ram ram; /* memory, for engines */
    _Atomic uint8_t page_flags[VGA_MEMORY >> MULL_PAGE_SHIFT];
    /* Planes interleaved, or linear. */
    uint8_t memory[VGA_MEMORY] __attribute__((aligned(4096)));
};

static inline bool vga_linear(const struct mull_vga *v)
{
    return v->dispi[DISPI_ENABLE] & DISPI_ENABLED;
}

#endif
