/*
 * Fuzz the devices of a machine with firmware: bridges, fw_cfg, flash, VGA, keyboard controller and
 * AHCI, by ports, registers and guest memory. The input is a list of accesses.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "device/devices.h"
#include "device/display/vga.h"
#include "device/legacy/fw_cfg.h"
#include "device/legacy/i8042.h"
#include "device/storage/ahci.h"
#include "platform/lpc.h"

#define ECAM 0xb0000000ull
#define FLASH 0xffc00000ull
#define MMIO 0xc0000000ull

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct pc {
    struct mull_device_env env;
    struct mull_pci_bus *bus;
    struct mull_lpc *lpc;
    struct mull_fw_cfg *fw_cfg;
    struct mull_vga *vga;
    struct mull_i8042 *i8042;
    struct mull_device *flash, *ahci;
    struct mull_block *block[2];
    uint8_t flash_data[0x4000];
};

static void stop(void *opaque)
{
    mull_loop_stop(opaque);
}

/* Let the loop do what was posted. */
static void run(struct pc *p)
{
    mull_loop_post(p->env.loop, stop, p->env.loop);
    mull_loop_run(p->env.loop);
    p->ahci->ops->quiesce(p->ahci);
}

static struct mull_block *open_block(struct pc *p)
{
    char path[64];
    int fd = memfd_create("disk", 0);
    struct mull_block_options options = {
        .path = path, .format = "raw", .no_lock = true, .aio = "threads"};
    struct mull_block *block;

    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    if (fd < 0 || ftruncate(fd, 1 << 20) || mull_block_open(&options, &block, NULL) ||
        mull_block_start(block, p->env.loop, NULL))
        abort();
    close(fd);
    return block;
}

static void make(struct pc *p)
{
    static struct mull_clock *clock; /* made once: it measures the host's */
    struct mull_pci_config pci = {
        .mmio_base = MMIO, .mmio_size = 0x30000000, .io_base = 0xc000, .io_size = 0x1000};
    struct mull_ahci_config ahci = {.name = "ahci.0"};
    struct mull_vga_config vga = {.rom = p->flash_data, .rom_size = sizeof(p->flash_data)};
    const struct mull_i8042_config keys = {.opaque = NULL};
    struct mull_lpc_config lpc;
    struct mull_pflash_config flash = {.base = FLASH, .fd = -1};

    memset(p, 0, sizeof(*p));
    if (mull_memory_create(NULL, &p->env.memory, NULL) ||
        mull_memory_add_ram(p->env.memory, 0, 0xa0000, false, NULL) ||
        mull_memory_add_ram(p->env.memory, 0xc0000, 0x100000, false, NULL) ||
        mull_loop_create(&p->env.loop, NULL) || (!clock && mull_clock_create(&clock, NULL)))
        abort();
    p->env.clock = clock;
    lpc = (struct mull_lpc_config){.memory = p->env.memory};
    pci.memory = p->env.memory;
    pci.firmware = true;
    pci.ecam_base = 0xe0000000;
    flash.data = p->flash_data;
    flash.size = sizeof(p->flash_data);
    p->block[0] = open_block(p);
    p->block[1] = open_block(p);
    ahci.drive[0] = (struct mull_drive){.present = true, .block = p->block[0]};
    ahci.drive[1] =
        (struct mull_drive){.present = true, .cdrom = true, .readonly = true, .block = p->block[1]};
    if (mull_pci_bus_create(&pci, &p->bus, NULL) || mull_lpc_create(&lpc, p->bus, &p->lpc, NULL) ||
        mull_vga_create(&p->env, p->bus, &vga, &p->vga, NULL) ||
        mull_ahci_create(&p->env, p->bus, &ahci, &p->ahci, NULL) ||
        mull_i8042_create(&p->env, &keys, &p->i8042, NULL) ||
        mull_pflash_create(&p->env, &flash, &p->flash, NULL) ||
        mull_fw_cfg_create(&p->env, &p->fw_cfg, NULL) ||
        mull_fw_cfg_add_file(p->fw_cfg, "etc/a", "abc", 3, NULL, NULL, NULL) ||
        mull_pci_bus_assign(p->bus, NULL))
        abort();
    /* A command list with a read in slot 0. */
    static const uint32_t header[4] = {5 | 1 << 16, 0, 0x12000, 0}, prd[4] = {0x20000, 0, 0, 511};
    static const uint8_t fis[16] = {0x27, 0x80, 0x25, 0, 1, 0, 0, 0x40, 0, 0, 0, 0, 1};
    mull_mem_write(p->env.memory, 0x10000, header, sizeof(header));
    mull_mem_write(p->env.memory, 0x12000, fis, sizeof(fis));
    mull_mem_write(p->env.memory, 0x12080, prd, sizeof(prd));
}

static void destroy(struct pc *p)
{
    struct mull_device *const list[] = {p->ahci,
                                        p->flash,
                                        mull_i8042_device(p->i8042),
                                        mull_fw_cfg_device(p->fw_cfg),
                                        mull_vga_device(p->vga),
                                        mull_lpc_device(p->lpc)};

    for (unsigned i = 0; i < sizeof(list) / sizeof(list[0]); i++)
        list[i]->ops->destroy(list[i]);
    mull_pci_bus_destroy(p->bus);
    mull_block_close(p->block[0]);
    mull_block_close(p->block[1]);
    mull_loop_destroy(p->env.loop);
    mull_memory_destroy(p->env.memory);
}

static void look(struct pc *p)
{
    static uint32_t pixels[MULL_VGA_MAX_WIDTH * MULL_VGA_MAX_HEIGHT];
    char text[4096];
    unsigned width, height;

    mull_vga_render(p->vga, pixels, sizeof(pixels) / sizeof(pixels[0]), &width, &height);
    if (!width || !height || width > MULL_VGA_MAX_WIDTH || height > MULL_VGA_MAX_HEIGHT)
        abort();
    if (mull_vga_text(p->vga, text, sizeof(text)) >= (int)sizeof(text))
        abort();
}

/* One access: kind and size, address, value: eight bytes. */
static void step(struct pc *p, const uint8_t *b)
{
    static const uint16_t ports[] = {0x60,  0x64,  0x1ce, 0x1cf, 0x3b0, 0x3c0, 0x3d0, 0x510,
                                     0x511, 0x514, 0x518, 0xcf8, 0xcfc, 0xb2,  0x630, 0x402};
    struct mull_memory *m = p->env.memory;
    unsigned size = 1u << (b[0] >> 4 & 3);
    uint32_t at = b[1] | (uint32_t)b[2] << 8,
             value = b[4] | (uint32_t)b[5] << 8 | (uint32_t)b[6] << 16 | (uint32_t)b[7] << 24;
    uint64_t bars[] = {0xa0000 + at * 2ull, MMIO + at, MMIO + 0x1000000 + at, FLASH + (at & 0x3fff),
                       MMIO + 0x1001000 + at};

    switch (b[0] & 7) {
    case 0:
        mull_space_write(m, MULL_SPACE_PORT, 0, ports[b[1] & 15] + (b[2] & 15u),
                         size > 4 ? 4 : size, value);
        break;
    case 1:
        mull_space_read(m, MULL_SPACE_PORT, 0, ports[b[1] & 15] + (b[2] & 15u),
                        size > 4 ? 4 : size);
        break;
    case 2:
        mull_space_write(m, MULL_SPACE_MMIO, 0, bars[b[3] % 5], size, value * 0x100000001ull);
        break;
    case 3:
        mull_space_read(m, MULL_SPACE_MMIO, 0, bars[b[3] % 5], size);
        break;
    case 4:
        mull_mem_write(m, 0x10000 + (at & 0x3fff), &value, 4);
        break;
    case 5:
        run(p);
        break;
    case 6:
        mull_i8042_key(p->i8042, at & 0x1ff, b[3] & 1);
        mull_i8042_mouse(p->i8042, (int8_t)b[4], (int8_t)b[5], (int8_t)b[6], b[7]);
        mull_lpc_set(p->lpc, b[3] & 3, b[4] & 1);
        break;
    default:
        look(p);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct pc *p = malloc(sizeof(*p));

    if (!p || size > 2048) {
        free(p);
        return 0;
    }
    make(p);
    for (; size >= 8; data += 8, size -= 8)
        step(p, data);
    run(p);
    look(p);
    destroy(p);
    free(p);
    return 0;
}
