/*
 * VGA registers and memory (IBM VGA reference; FreeVGA; the Bochs VBE extension 0xB0C5). The planes
 * are interleaved in memory, byte 4 * address + plane, so that the linear modes and the planar ones
 * see the same bytes as in the hardware this is modelled on. No timing: retrace is faked by a bit
 * that changes whenever it is looked at.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "device/display/vga_internal.h"

#define WINDOW_BASE 0xa0000ull
#define WINDOW_SIZE 0x20000ull
#define DISPI_VERSION 0xb0c5u

static void changed(struct mull_vga *v)
{
    atomic_fetch_add_explicit(&v->changes, 1, memory_order_relaxed);
}

/* ---- The window at A0000h ---- */

/* Where a window address is within the mapped part, or -1 (graphics register 6). */
static int64_t window_offset(const struct mull_vga *v, uint64_t offset)
{
    static const struct {
        uint32_t base, size;
    } map[4] = {{0, 0x20000}, {0, 0x10000}, {0x10000, 0x8000}, {0x18000, 0x8000}};
    unsigned m = v->gr[6] >> 2 & 3;

    if (offset < map[m].base || offset - map[m].base >= map[m].size)
        return -1;
    return (int64_t)(offset - map[m].base);
}

static uint32_t plane_byte(uint64_t address, unsigned plane)
{
    return (uint32_t)(address * 4 + plane) & (VGA_MEMORY - 1);
}

static uint8_t window_read_byte(struct mull_vga *v, uint64_t offset)
{
    int64_t at = window_offset(v, offset);

    if (at < 0)
        return 0xff;
    if (vga_linear(v))
        return v->memory[((uint32_t)v->dispi[DISPI_BANK] << 16 | (uint32_t)(at & 0xffff)) &
                         (VGA_MEMORY - 1)];
    if (v->seq[4] & 8) /* chain 4 */
        return v->memory[at & (VGA_MEMORY - 1)];
    if (v->gr[5] & 0x10) { /* odd/even */
        unsigned plane = (v->gr[4] & 2) | (at & 1);
        return v->memory[plane_byte((uint64_t)at & ~1ull, plane)];
    }
    for (unsigned i = 0; i < 4; i++)
        v->latch[i] = v->memory[plane_byte((uint64_t)at, i)];
    if (!(v->gr[5] & 8))
        return v->latch[v->gr[4] & 3];
    uint8_t result = 0xff; /* read mode 1: compare colours */
    for (unsigned i = 0; i < 4; i++)
        if (v->gr[7] >> i & 1)
            result &= (uint8_t) ~(v->latch[i] ^ (v->gr[2] >> i & 1 ? 0xff : 0));
    return result;
}

static uint8_t rotate(uint8_t value, unsigned by)
{
    return (uint8_t)(value >> by | value << ((8 - by) & 7));
}

/* One plane's new byte (write modes 0 to 3). */
static uint8_t planar_value(const struct mull_vga *v, unsigned plane, uint8_t value)
{
    uint8_t mask = v->gr[8], set = v->gr[0] >> plane & 1 ? 0xff : 0;
    uint8_t latch = v->latch[plane], rotated = rotate(value, v->gr[3] & 7), result;

    switch (v->gr[5] & 3) {
    case 0:
        result = v->gr[1] >> plane & 1 ? set : rotated;
        break;
    case 1:
        return latch;
    case 2:
        result = value >> plane & 1 ? 0xff : 0;
        break;
    default:
        result = set;
        mask &= rotated;
    }
    switch (v->gr[3] >> 3 & 3) {
    case 1:
        result &= latch;
        break;
    case 2:
        result |= latch;
        break;
    case 3:
        result ^= latch;
        break;
    default:
        break;
    }
    return (uint8_t)((result & mask) | (latch & ~mask));
}

static void window_write_byte(struct mull_vga *v, uint64_t offset, uint8_t value)
{
    int64_t at = window_offset(v, offset);
    uint8_t planes = v->seq[2] & 15;

    if (at < 0)
        return;
    if (vga_linear(v)) {
        v->memory[((uint32_t)v->dispi[DISPI_BANK] << 16 | (uint32_t)(at & 0xffff)) &
                  (VGA_MEMORY - 1)] = value;
    } else if (v->seq[4] & 8) {
        if (planes >> (at & 3) & 1)
            v->memory[at & (VGA_MEMORY - 1)] = value;
    } else if (v->gr[5] & 0x10) {
        unsigned plane = (v->gr[4] & 2) | (at & 1);
        if (planes >> plane & 1)
            v->memory[plane_byte((uint64_t)at & ~1ull, plane)] = value;
    } else {
        for (unsigned i = 0; i < 4; i++)
            if (planes >> i & 1)
                v->memory[plane_byte((uint64_t)at, i)] = planar_value(v, i, value);
    }
}

static uint64_t window_read(void *opaque, unsigned cpu, uint64_t offset, unsigned size)
{
    struct mull_vga *v = opaque;
    uint64_t value = 0;

    pthread_mutex_lock(&v->lock);
    for (unsigned i = 0; i < size; i++)
        value |= (uint64_t)window_read_byte(v, offset + i) << 8 * i;
    pthread_mutex_unlock(&v->lock);
    return value;
}

static void window_write(void *opaque, unsigned cpu, uint64_t offset, unsigned size, uint64_t value)
{
    struct mull_vga *v = opaque;

    pthread_mutex_lock(&v->lock);
    for (unsigned i = 0; i < size; i++)
        window_write_byte(v, offset + i, (uint8_t)(value >> 8 * i));
    pthread_mutex_unlock(&v->lock);
    changed(v);
}

/* ---- The linear frame buffer ---- */

static uint64_t linear_read(void *opaque, unsigned cpu, uint64_t offset, unsigned size)
{
    const struct mull_vga *v = opaque;
    uint64_t value = 0;

    memcpy(&value, v->memory + offset, size);
    return value;
}

static void linear_write(void *opaque, unsigned cpu, uint64_t offset, unsigned size, uint64_t value)
{
    struct mull_vga *v = opaque;

    memcpy(v->memory + offset, &value, size);
    changed(v);
}

/* ---- The extension's registers ---- */

static uint16_t dispi_get(const struct mull_vga *v, unsigned index)
{
    if (index >= DISPI_COUNT)
        return 0;
    if (index == DISPI_MEMORY)
        return VGA_MEMORY >> 16;
    if (v->dispi[DISPI_ENABLE] & DISPI_GETCAPS) {
        if (index == DISPI_XRES)
            return MULL_VGA_MAX_WIDTH;
        if (index == DISPI_YRES)
            return MULL_VGA_MAX_HEIGHT;
        if (index == DISPI_BPP)
            return 32;
    }
    return v->dispi[index];
}

static unsigned bytes_per_line(const struct mull_vga *v)
{
    return v->dispi[DISPI_VIRT_WIDTH] * ((v->dispi[DISPI_BPP] + 7u) / 8);
}

/* Make what is seen lie in memory, whatever was written. */
static void dispi_bound(struct mull_vga *v)
{
    if (v->dispi[DISPI_XRES] > MULL_VGA_MAX_WIDTH)
        v->dispi[DISPI_XRES] = MULL_VGA_MAX_WIDTH;
    if (v->dispi[DISPI_YRES] > MULL_VGA_MAX_HEIGHT)
        v->dispi[DISPI_YRES] = MULL_VGA_MAX_HEIGHT;
    if (v->dispi[DISPI_VIRT_WIDTH] < v->dispi[DISPI_XRES])
        v->dispi[DISPI_VIRT_WIDTH] = v->dispi[DISPI_XRES];
    unsigned line = bytes_per_line(v);
    v->dispi[DISPI_VIRT_HEIGHT] =
        line ? (uint16_t)(VGA_MEMORY / line > 0xffff ? 0xffff : VGA_MEMORY / line) : 0;
}

static void dispi_enable(struct mull_vga *v, uint16_t value)
{
    bool was = vga_linear(v);

    v->dispi[DISPI_ENABLE] = value;
    if (!(value & DISPI_ENABLED) || was)
        return;
    v->dispi[DISPI_VIRT_WIDTH] = v->dispi[DISPI_XRES];
    v->dispi[DISPI_X_OFFSET] = v->dispi[DISPI_Y_OFFSET] = v->dispi[DISPI_BANK] = 0;
    dispi_bound(v);
    if (!(value & DISPI_NOCLEAR))
        memset(v->memory, 0,
               (size_t)bytes_per_line(v) * v->dispi[DISPI_YRES] < VGA_MEMORY
                   ? (size_t)bytes_per_line(v) * v->dispi[DISPI_YRES]
                   : VGA_MEMORY);
}

static void dispi_set(struct mull_vga *v, unsigned index, uint16_t value)
{
    switch (index) {
    case DISPI_ID:
        if (value >= 0xb0c0 && value <= DISPI_VERSION)
            v->dispi[DISPI_ID] = value;
        break;
    case DISPI_XRES:
    case DISPI_YRES:
        if (!vga_linear(v))
            v->dispi[index] = value;
        break;
    case DISPI_BPP:
        if (!vga_linear(v) &&
            (value == 8 || value == 15 || value == 16 || value == 24 || value == 32))
            v->dispi[index] = value;
        break;
    case DISPI_ENABLE:
        dispi_enable(v, value);
        break;
    case DISPI_BANK:
        v->dispi[index] = value & ((VGA_MEMORY >> 16) - 1);
        break;
    case DISPI_VIRT_WIDTH:
    case DISPI_X_OFFSET:
    case DISPI_Y_OFFSET:
        v->dispi[index] = value;
        dispi_bound(v);
        break;
    default:
        break;
    }
    changed(v);
}

/* A word at 1CEh arrives as two bytes, because 1CFh is a register of its own. */
static uint64_t dispi_index_read(void *opaque, unsigned cpu, uint64_t offset, unsigned size)
{
    return ((struct mull_vga *)opaque)->dispi_index;
}

static void dispi_index_write(void *opaque, unsigned cpu, uint64_t offset, unsigned size,
                              uint64_t value)
{
    struct mull_vga *v = opaque;

    pthread_mutex_lock(&v->lock);
    v->dispi_index = value & 0xff;
    pthread_mutex_unlock(&v->lock);
}

static uint64_t dispi_data_read(void *opaque, unsigned cpu, uint64_t offset, unsigned size)
{
    struct mull_vga *v = opaque;

    if (size != 2)
        return 0;
    pthread_mutex_lock(&v->lock);
    uint16_t value = dispi_get(v, v->dispi_index);
    pthread_mutex_unlock(&v->lock);
    return value;
}

static void dispi_data_write(void *opaque, unsigned cpu, uint64_t offset, unsigned size,
                             uint64_t value)
{
    struct mull_vga *v = opaque;

    if (size != 2)
        return;
    pthread_mutex_lock(&v->lock);
    dispi_set(v, v->dispi_index, (uint16_t)value);
    pthread_mutex_unlock(&v->lock);
}

/* ---- The VGA's ports, 3B0h to 3DFh ---- */

static void dac_write(struct mull_vga *v, uint8_t value)
{
    v->palette[v->dac_write * 3 + v->dac_component] =
        v->dispi[DISPI_ENABLE] & DISPI_8BIT_DAC ? value : value & 63;
    if (++v->dac_component == 3) {
        v->dac_component = 0;
        v->dac_write++;
    }
}

static uint8_t dac_read(struct mull_vga *v)
{
    uint8_t value = v->palette[v->dac_read * 3 + v->dac_component];

    if (++v->dac_component == 3) {
        v->dac_component = 0;
        v->dac_read++;
    }
    return value;
}

static void attribute_write(struct mull_vga *v, uint8_t value)
{
    if (!v->ar_data)
        v->ar_index = value & 0x3f;
    else if ((v->ar_index & 31) < 21)
        v->ar[v->ar_index & 31] = value;
    v->ar_data = !v->ar_data;
}

static void crtc_write(struct mull_vga *v, uint8_t value)
{
    unsigned i = v->cr_index & 31;

    if ((v->cr[0x11] & 0x80) && i < 8) { /* protected, but for one bit of the overflow register */
        if (i == 7)
            v->cr[7] = (uint8_t)((v->cr[7] & ~0x10) | (value & 0x10));
        return;
    }
    v->cr[i] = value;
}

/* Monochrome and colour put the CRTC at different ports: bit 0 of the miscellaneous register. */
static bool port_there(const struct mull_vga *v, unsigned port)
{
    bool colour = v->misc & 1;

    if (port >= 0x3b0 && port < 0x3c0)
        return !colour;
    return port < 0x3d0 || colour;
}

static uint8_t port_read_byte(struct mull_vga *v, unsigned port)
{
    if (!port_there(v, port))
        return 0xff;
    switch (port) {
    case 0x3c0:
        return v->ar_data ? 0 : v->ar_index;
    case 0x3c1:
        return (v->ar_index & 31) < 21 ? v->ar[v->ar_index & 31] : 0;
    case 0x3c4:
        return v->seq_index;
    case 0x3c5:
        return v->seq[v->seq_index & 7];
    case 0x3c6:
        return v->dac_mask;
    case 0x3c7:
        return v->dac_state;
    case 0x3c8:
        return v->dac_write;
    case 0x3c9:
        return dac_read(v);
    case 0x3ca:
        return v->feature;
    case 0x3cc:
        return v->misc;
    case 0x3ce:
        return v->gr_index;
    case 0x3cf:
        return v->gr[v->gr_index & 15];
    case 0x3b4:
    case 0x3d4:
        return v->cr_index;
    case 0x3b5:
    case 0x3d5:
        return v->cr[v->cr_index & 31];
    case 0x3ba:
    case 0x3da:
        v->ar_data = 0;
        v->retrace ^= 9; /* display disabled, vertical retrace */
        return v->retrace;
    default:
        return 0xff;
    }
}

static void port_write_byte(struct mull_vga *v, unsigned port, uint8_t value)
{
    if (!port_there(v, port))
        return;
    switch (port) {
    case 0x3c0:
        attribute_write(v, value);
        break;
    case 0x3c2:
        v->misc = value;
        break;
    case 0x3c4:
        v->seq_index = value & 7;
        break;
    case 0x3c5:
        v->seq[v->seq_index & 7] = value;
        break;
    case 0x3c6:
        v->dac_mask = value;
        break;
    case 0x3c7:
        v->dac_read = value;
        v->dac_component = 0;
        v->dac_state = 3;
        break;
    case 0x3c8:
        v->dac_write = value;
        v->dac_component = 0;
        v->dac_state = 0;
        break;
    case 0x3c9:
        dac_write(v, value);
        break;
    case 0x3ce:
        v->gr_index = value & 15;
        break;
    case 0x3cf:
        v->gr[v->gr_index & 15] = value;
        break;
    case 0x3b4:
    case 0x3d4:
        v->cr_index = value & 31;
        break;
    case 0x3b5:
    case 0x3d5:
        crtc_write(v, value);
        break;
    case 0x3ba:
    case 0x3da:
        v->feature = value & 0x10;
        break;
    default:
        break;
    }
}

static uint64_t ports_read(struct mull_vga *v, unsigned port, unsigned size)
{
    uint64_t value = 0;

    pthread_mutex_lock(&v->lock);
    for (unsigned i = 0; i < size; i++)
        value |= (uint64_t)port_read_byte(v, port + i) << 8 * i;
    pthread_mutex_unlock(&v->lock);
    return value;
}

static void ports_write(struct mull_vga *v, unsigned port, unsigned size, uint64_t value)
{
    pthread_mutex_lock(&v->lock);
    for (unsigned i = 0; i < size; i++)
        port_write_byte(v, port + i, (uint8_t)(value >> 8 * i));
    pthread_mutex_unlock(&v->lock);
    changed(v);
}

static uint64_t port_read(void *opaque, unsigned cpu, uint64_t offset, unsigned size)
{
    return ports_read(opaque, 0x3b0 + (unsigned)offset, size);
}

static void port_write(void *opaque, unsigned cpu, uint64_t offset, unsigned size, uint64_t value)
{
    ports_write(opaque, 0x3b0 + (unsigned)offset, size, value);
}

/* ---- BAR 2: the same registers in memory: ports from 400h, the extension from 500h ---- */

static uint64_t mmio_read(void *opaque, unsigned cpu, uint64_t offset, unsigned size)
{
    struct mull_vga *v = opaque;

    if (offset >= 0x400 && offset + size <= 0x420)
        return ports_read(v, 0x3c0 + (unsigned)offset - 0x400, size);
    if (offset >= 0x500 && offset < 0x500 + 2 * DISPI_COUNT && size == 2) {
        pthread_mutex_lock(&v->lock);
        uint16_t value = dispi_get(v, (unsigned)(offset - 0x500) / 2);
        pthread_mutex_unlock(&v->lock);
        return value;
    }
    if (offset == 0x600 && size == 4)
        return 8; /* size of the block that tells the byte order */
    if (offset == 0x604 && size == 4)
        return 0x1e1e1e1e; /* little-endian */
    return 0;
}

static void mmio_write(void *opaque, unsigned cpu, uint64_t offset, unsigned size, uint64_t value)
{
    struct mull_vga *v = opaque;

    if (offset >= 0x400 && offset + size <= 0x420) {
        ports_write(v, 0x3c0 + (unsigned)offset - 0x400, size, value);
    } else if (offset >= 0x500 && offset < 0x500 + 2 * DISPI_COUNT && size == 2) {
        pthread_mutex_lock(&v->lock);
        dispi_set(v, (unsigned)(offset - 0x500) / 2, (uint16_t)value);
        pthread_mutex_unlock(&v->lock);
    }
}

static const struct mull_region_ops window_ops = {window_read, window_write, 1, 8};
static const struct mull_region_ops linear_ops = {linear_read, linear_write, 1, 8};
static const struct mull_region_ops port_ops = {port_read, port_write, 1, 4};
static const struct mull_region_ops mmio_ops = {mmio_read, mmio_write, 1, 4};
static const struct mull_region_ops index_ops = {dispi_index_read, dispi_index_write, 1, 1};
static const struct mull_region_ops data_ops = {dispi_data_read, dispi_data_write, 1, 2};

/* ---- Life ---- */

static void set_power_on(struct mull_vga *v)
{
    v->misc = 1;
    v->feature = v->seq_index = v->gr_index = v->cr_index = v->ar_index = v->ar_data = 0;
    memset(v->seq, 0, sizeof(v->seq));
    memset(v->gr, 0, sizeof(v->gr));
    memset(v->cr, 0, sizeof(v->cr));
    memset(v->ar, 0, sizeof(v->ar));
    memset(v->latch, 0, sizeof(v->latch));
    memset(v->palette, 0, sizeof(v->palette));
    memset(v->dispi, 0, sizeof(v->dispi));
    v->dispi[DISPI_ID] = DISPI_VERSION;
    v->dispi[DISPI_BPP] = 32;
    v->dispi_index = 0;
    v->dac_mask = 0xff;
    v->dac_state = v->dac_read = v->dac_write = v->dac_component = 0;
    v->retrace = 0;
}

static void reset(struct mull_device *device)
{
    struct mull_vga *v = (struct mull_vga *)device;

    mull_pci_function_reset(&v->pci);
    pthread_mutex_lock(&v->lock);
    set_power_on(v);
    memset(v->memory, 0, 1 << 20);
    pthread_mutex_unlock(&v->lock);
    changed(v);
}

static void destroy(struct mull_device *device)
{
    struct mull_vga *v = (struct mull_vga *)device;

    for (unsigned i = 0; i < sizeof(v->region) / sizeof(v->region[0]); i++)
        mull_region_remove(v->region[i]);
    mull_pci_function_fini(&v->pci);
    mull_device_ram_remove(v->mem, &v->ram); /* the BAR may be another device's */
    pthread_mutex_destroy(&v->lock);
    munmap(v, sizeof(*v));
}

static int after_load(void *object, uint32_t version, struct mull_error *err)
{
    struct mull_vga *v = object;

    if (v->dac_component > 2)
        v->dac_component = 0;
    v->dispi[DISPI_BANK] &= (VGA_MEMORY >> 16) - 1;
    if (!v->dispi[DISPI_BPP] || v->dispi[DISPI_BPP] > 32)
        v->dispi[DISPI_BPP] = 32;
    dispi_bound(v);
    changed(v);
    return 0;
}

static const struct mull_field fields[] = {
    MULL_FIELD_NESTED(struct mull_vga, pci, &mull_pci_function_desc),
    MULL_FIELD(struct mull_vga, misc),
    MULL_FIELD(struct mull_vga, feature),
    MULL_FIELD(struct mull_vga, seq_index),
    MULL_FIELD_BLOB(struct mull_vga, seq),
    MULL_FIELD(struct mull_vga, gr_index),
    MULL_FIELD_BLOB(struct mull_vga, gr),
    MULL_FIELD(struct mull_vga, cr_index),
    MULL_FIELD_BLOB(struct mull_vga, cr),
    MULL_FIELD(struct mull_vga, ar_index),
    MULL_FIELD_BLOB(struct mull_vga, ar),
    MULL_FIELD(struct mull_vga, ar_data),
    MULL_FIELD_BLOB(struct mull_vga, latch),
    MULL_FIELD(struct mull_vga, dac_mask),
    MULL_FIELD(struct mull_vga, dac_state),
    MULL_FIELD(struct mull_vga, dac_read),
    MULL_FIELD(struct mull_vga, dac_write),
    MULL_FIELD(struct mull_vga, dac_component),
    MULL_FIELD_BLOB(struct mull_vga, palette),
    MULL_FIELD(struct mull_vga, dispi_index),
    MULL_FIELD_ARRAY(struct mull_vga, dispi),
    MULL_FIELD_BLOB(struct mull_vga, memory),
    MULL_FIELDS_END,
};
static const struct mull_state_desc desc = {
    .name = "vga", .version = 1, .oldest = 1, .fields = fields, .after_load = after_load};
static const struct mull_device_ops ops = {.state = &desc, .reset = reset, .destroy = destroy};

/* An inlaid one has no PCI function of its own: all but the first field. */
static const struct mull_state_desc inlaid_desc = {.name = "vga-inlaid",
                                                   .version = 1,
                                                   .oldest = 1,
                                                   .fields = fields + 1,
                                                   .after_load = after_load};
static const struct mull_device_ops inlaid_ops = {
    .state = &inlaid_desc, .reset = reset, .destroy = destroy};

struct mull_device *mull_vga_device(struct mull_vga *vga)
{
    return &vga->device;
}

uint64_t mull_vga_changes(struct mull_vga *vga)
{
    if (mull_device_ram_written(vga->mem, &vga->ram))
        changed(vga);
    return atomic_load_explicit(&vga->changes, memory_order_relaxed);
}

static uint64_t screen_changes(void *opaque)
{
    return mull_vga_changes(opaque);
}

static void screen_size(void *opaque, unsigned *width, unsigned *height)
{
    mull_vga_size(opaque, width, height);
}

static bool screen_render(void *opaque, uint32_t *pixels, size_t max, unsigned *width,
                          unsigned *height)
{
    return mull_vga_render(opaque, pixels, max, width, height);
}

static int screen_text(void *opaque, char *out, size_t room)
{
    return mull_vga_text(opaque, out, room);
}

static const struct mull_screen_ops screen_ops = {
    .changes = screen_changes, .size = screen_size, .render = screen_render, .text = screen_text};

const struct mull_screen *mull_vga_screen(struct mull_vga *vga)
{
    return &vga->screen;
}

static int add_regions(struct mull_vga *v, struct mull_error *err)
{
    const struct {
        enum mull_space space;
        uint64_t base, size;
        const struct mull_region_ops *ops;
        const char *name;
    } map[] = {
        {MULL_SPACE_MMIO, WINDOW_BASE, WINDOW_SIZE, &window_ops, "VGA window"},
        {MULL_SPACE_PORT, 0x3b0, 0x30, &port_ops, "VGA"},
        {MULL_SPACE_PORT, 0x1ce, 1, &index_ops, "VBE index"},
        {MULL_SPACE_PORT, 0x1cf, 2, &data_ops, "VBE data"},
    };
    int code = 0;

    for (unsigned i = 0; i < sizeof(map) / sizeof(map[0]) && code == 0; i++)
        code = mull_region_add(v->mem, map[i].space, map[i].base, map[i].size, map[i].ops, v,
                               map[i].name, &v->region[i], err);
    return code;
}

int mull_vga_add_memory(struct mull_vga *v, struct mull_pci_function *f, struct mull_error *err)
{
    int code = mull_pci_add_bar(f, 0, VGA_MEMORY, false, false, true, &linear_ops, v, "VGA memory",
                                v->mem, err);

    if (!code)
        mull_region_set_ram(f->bar[0].region, &v->ram); /* without it, it is slow */
    return code;
}

const struct mull_region_ops *mull_vga_registers(void)
{
    return &mmio_ops;
}

static int attach(struct mull_vga *v, struct mull_pci_bus *bus, const struct mull_vga_config *cfg,
                  struct mull_error *err)
{
    int code = mull_vga_add_memory(v, &v->pci, err);

    if (!code)
        code = mull_pci_add_bar(&v->pci, 2, 4096, false, false, false, &mmio_ops, v,
                                "VGA registers", v->mem, err);
    if (!code && cfg->rom)
        code = mull_pci_add_rom(&v->pci, cfg->rom, cfg->rom_size, v->mem, err);
    return code ? code : mull_pci_bus_attach(bus, &v->pci, -1, err);
}

int mull_vga_create(const struct mull_device_env *env, struct mull_pci_bus *bus,
                    const struct mull_vga_config *cfg, struct mull_vga **out,
                    struct mull_error *err)
{
    /* Zeroes that take no memory until they are touched, and whole pages for engines. */
    struct mull_vga *v = mmap(NULL, sizeof(*v), PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    int code;

    *out = NULL;
    if (v == MAP_FAILED)
        return mull_fail(err, ENOMEM, "VGA: no memory");
    v->ram = (struct mull_device_ram){
        .ram = {.host = v->memory, .size = VGA_MEMORY, .flags = v->page_flags},
        .gpa = MULL_NOWHERE};
    v->device = (struct mull_device){
        .ops = cfg->inlaid ? &inlaid_ops : &ops, .name = "vga", .object = v};
    v->mem = env->memory;
    v->screen = (struct mull_screen){.ops = &screen_ops, .opaque = v};
    pthread_mutex_init(&v->lock, NULL);
    set_power_on(v);
    mull_pci_function_init(&v->pci, NULL, 0x1234, 0x1111, 0x1af4, 0x1100, 0x030000, 2);
    code = add_regions(v, err);
    if (!code && !cfg->inlaid)
        code = attach(v, bus, cfg, err);
    if (code < 0) {
        destroy(&v->device);
        return code;
    }
    *out = v;
    return 0;
}
